//! What upstreams send: the framings of the table.

/// A reply on the wire, but for its status.
pub(super) struct Wire {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// The fields of the head that frame the reply.
    pub(super) fields: &'static [(&'static str, &'static str)],
    /// The bytes after the head that come with it.
    pub(super) begin: &'static str,
    /// The bytes after those.
    pub(super) rest: &'static str,
    /// The octets of the body that a recipient decodes from both.
    pub(super) content: &'static str,
    /// Whether the upstream closes the connection afterwards.
    pub(super) closes: bool,
}

const LENGTH: &str = "Content-Length";
const CODING: &str = "Transfer-Encoding";
const CHUNKS: &str = "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
const TRAILERS: &str = "5\r\nhello\r\n0\r\nExpires: never\r\n\r\n";

/// An HTTP/1.1 reply whose body is `hello` as it is.
const fn plain(name: &'static str, fields: &'static [(&'static str, &'static str)]) -> Wire {
    Wire { name, version: "HTTP/1.1", fields, begin: "hello", rest: "", content: "hello", closes: false }
}

/// An HTTP/1.1 reply whose body is `hello` in chunks.
const fn chunked(name: &'static str, fields: &'static [(&'static str, &'static str)]) -> Wire {
    Wire { begin: CHUNKS, ..plain(name, fields) }
}

/// An HTTP/1.1 reply whose body comes in these two parts.
const fn parts(
    name: &'static str,
    fields: &'static [(&'static str, &'static str)],
    begin: &'static str,
    rest: &'static str,
    content: &'static str,
) -> Wire {
    Wire { begin, rest, content, ..plain(name, fields) }
}

/// Framings of replies that an upstream sends to their end.
pub(super) static WHOLE: [Wire; 34] = [
    plain("length", &[(LENGTH, "5")]),
    parts("length of nothing", &[(LENGTH, "0")], "", "", ""),
    plain("equal lengths", &[(LENGTH, "5"), (LENGTH, "5")]),
    plain("unequal lengths", &[(LENGTH, "5"), (LENGTH, "6")]),
    plain("unequal lengths, the longer first", &[(LENGTH, "6"), (LENGTH, "5")]),
    plain("a length and none", &[(LENGTH, "5"), (LENGTH, "")]),
    plain("list", &[(LENGTH, "5, 5")]),
    plain("list of unequal lengths", &[(LENGTH, "5, 6")]),
    plain("negative", &[(LENGTH, "-5")]),
    plain("plus sign", &[(LENGTH, "+5")]),
    plain("letters", &[(LENGTH, "five")]),
    plain("hexadecimal", &[(LENGTH, "0x5")]),
    plain("leading zeros", &[(LENGTH, "005")]),
    plain("equal lengths, one with leading zeros", &[(LENGTH, "5"), (LENGTH, "05")]),
    plain("white space around a length", &[(LENGTH, " \t5\t ")]),
    plain("white space within a length", &[(LENGTH, "5 5")]),
    plain("empty length", &[(LENGTH, "")]),
    plain("overflow", &[(LENGTH, "18446744073709551621")]),
    chunked("chunked", &[(CODING, "chunked")]),
    chunked("Chunked", &[(CODING, "Chunked")]),
    parts("chunked, no data", &[(CODING, "chunked")], "0\r\n\r\n", "", ""),
    parts("chunked, with trailers", &[(CODING, "chunked")], TRAILERS, "", "hello"),
    chunked("chunked, then a length", &[(CODING, "chunked"), (LENGTH, "5")]),
    chunked("another length, then chunked", &[(LENGTH, "3"), (CODING, "chunked")]),
    Wire { closes: true, ..plain("neither", &[]) },
    Wire { closes: true, ..parts("neither, no data", &[], "", "", "") },
    plain("gzip", &[(CODING, "gzip")]),
    chunked("gzip, chunked", &[(CODING, "gzip, chunked")]),
    chunked("chunked, chunked", &[(CODING, "chunked, chunked")]),
    chunked("chunked in two fields", &[(CODING, "chunked"), (CODING, "chunked")]),
    plain("identity", &[(CODING, "identity")]),
    plain("identity and a length", &[(CODING, "identity"), (LENGTH, "5")]),
    Wire { version: "HTTP/1.0", closes: true, ..plain("HTTP/1.0, length", &[(LENGTH, "5")]) },
    Wire { version: "HTTP/1.0", closes: true, ..chunked("HTTP/1.0, chunked", &[(CODING, "chunked")]) },
];

/// Replies whose body breaks off, or cannot be read to its end.
pub(super) static BROKEN: [Wire; 8] = [
    parts("less than the length", &[(LENGTH, "10")], "hel", "lo", "hello"),
    parts("one octet less than the length", &[(LENGTH, "6")], "hello", "", "hello"),
    parts("nothing of the length", &[(LENGTH, "5")], "", "", ""),
    parts("no last chunk", &[(CODING, "chunked")], "2\r\nhe\r\n", "3\r\nllo\r\n", "hello"),
    parts("the end within a chunk", &[(CODING, "chunked")], "2\r\nhe\r\n", "a\r\nllo", "hello"),
    parts("no chunk at all", &[(CODING, "chunked")], "", "", ""),
    parts("a chunk size that is no number", &[(CODING, "chunked")], "2\r\nhe\r\n", "x\r\nllo\r\n0\r\n\r\n", "he"),
    parts("a chunk longer than its size", &[(CODING, "chunked")], "2\r\nhe\r\n", "2\r\nllo\r\n0\r\n\r\n", "hell"),
];

/// Replies that something follows.
pub(super) static SURPLUS: [Wire; 6] = [
    plain("length", &[(LENGTH, "5")]),
    parts("length of nothing", &[(LENGTH, "0")], "", "", ""),
    plain("equal lengths", &[(LENGTH, "5"), (LENGTH, "5")]),
    chunked("chunked", &[(CODING, "chunked")]),
    parts("chunked, no data", &[(CODING, "chunked")], "0\r\n\r\n", "", ""),
    chunked("chunked and a length", &[(LENGTH, "3"), (CODING, "chunked")]),
];
