use proptest::prelude::*;

use super::*;

fn settled(path: &str, encoded_slash: EncodedSlash) -> Result<String, BadPath> {
    normalize(path)?.settle(encoded_slash).map(Cow::into_owned)
}

#[test]
fn every_spelling_of_an_unreserved_octet_is_the_same_path() {
    for (path, normal) in [
        ("/%72eports", "/reports"),
        ("/reports", "/reports"),
        ("/%7Euser/%41%2d%5F", "/~user/A-_"),
        ("/a%2Eb", "/a.b"),
        ("/%2E%2E%2E", "/..."),
        ("/x%61", "/xa"),
    ] {
        assert_eq!(settled(path, EncodedSlash::Refuse).as_deref(), Ok(normal), "{path}");
    }
}

#[test]
fn everything_else_stays_byte_for_byte_and_is_not_copied() {
    for path in [
        "/",
        "/a/",
        "/a%20b",
        "/caf%c3%A9",
        "/%252e%252e/",
        "/a;v=1/b",
        "/a/;v=1",
        "/.well-known/x",
        "/..a/a..",
        "/a:b@c!$&'()*+,=",
    ] {
        let normal = normalize(path).unwrap().settle(EncodedSlash::Refuse).unwrap();
        assert!(matches!(normal, Cow::Borrowed(_)), "{path}");
        assert_eq!(normal, path);
    }
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_refused() {
    for (path, reason) in [
        ("", BadPath::NotAbsolute),
        ("*", BadPath::NotAbsolute),
        ("a/b", BadPath::NotAbsolute),
        ("%2Fa", BadPath::NotAbsolute),
        ("/%zz", BadPath::InvalidEncoding),
        ("/%+1", BadPath::InvalidEncoding),
        ("/a%", BadPath::InvalidEncoding),
        ("/a%4", BadPath::InvalidEncoding),
        ("/.", BadPath::DotSegment),
        ("/./a", BadPath::DotSegment),
        ("/a/..", BadPath::DotSegment),
        ("/a/../b", BadPath::DotSegment),
        ("/a/%2e%2E/b", BadPath::DotSegment),
        ("/a/.%2e", BadPath::DotSegment),
        ("/a/..;/b", BadPath::DotSegment),
        ("/a/..;x=1/b", BadPath::DotSegment),
        ("/a/.;x", BadPath::DotSegment),
        ("/a/..%3Bx/b", BadPath::DotSegment),
        ("/a/..%2Fb", BadPath::DotSegment),
        ("/a/b%2f../c", BadPath::DotSegment),
        ("/a/b%2f..", BadPath::DotSegment),
        ("//", BadPath::EmptySegment),
        ("//a", BadPath::EmptySegment),
        ("/a//b", BadPath::EmptySegment),
        ("/a//", BadPath::EmptySegment),
        ("/;x/a", BadPath::EmptySegment),
        ("/a\\b", BadPath::Backslash),
        ("/a%5cb", BadPath::Backslash),
        ("/a%00", BadPath::Nul),
        ("/a b", BadPath::ForbiddenByte),
        ("/a\tb", BadPath::ForbiddenByte),
        ("/a\u{7f}", BadPath::ForbiddenByte),
        ("/café", BadPath::ForbiddenByte),
        ("/a?b", BadPath::ForbiddenByte),
        ("/a#b", BadPath::ForbiddenByte),
    ] {
        for encoded_slash in [EncodedSlash::Refuse, EncodedSlash::Pass] {
            assert_eq!(settled(path, encoded_slash), Err(reason), "{path}");
        }
    }
}

#[test]
fn an_encoded_slash_passes_only_where_the_api_takes_it() {
    for path in ["/a%2Fb", "/a%2fb", "/%2F", "/a%2F/b"] {
        assert_eq!(settled(path, EncodedSlash::Refuse), Err(BadPath::EncodedSlash), "{path}");
        assert_eq!(settled(path, EncodedSlash::Pass).as_deref(), Ok(path));
    }
}

/// What an upstream sees that decodes everything, takes `\` for `/` and takes path parameters off.
fn as_a_lax_upstream_reads(path: &str) -> Vec<Vec<u8>> {
    let (bytes, mut plain, mut at) = (path.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let decoded = (bytes[at] == b'%').then(|| octet(bytes, at).unwrap());
        plain.push(decoded.unwrap_or(bytes[at]));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    let segments = plain.split(|byte| matches!(byte, b'/' | b'\\'));
    segments.map(|segment| segment.split(|byte| *byte == b';').next().unwrap().to_vec()).collect()
}

fn paths() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[a-z]{1,3}",
        6 => Just("/".to_owned()),
        3 => Just(".".to_owned()),
        1 => prop::sample::select(vec![";", "\\", "%", "%2", "%2e", "%2E", "%2f", "%5C", "%00", "%3b", "%25", "%61", "%7E", "%20", "é", " ", "?"])
            .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn normal_form_is_final(path in paths()) {
        if let Ok(once) = normalize(&path) {
            let twice = normalize(once.as_str()).unwrap();
            prop_assert!(matches!(twice.path, Cow::Borrowed(_)));
            prop_assert_eq!(&twice, &once);
        }
    }

    #[test]
    fn no_upstream_reads_dots_or_an_empty_segment_into_an_accepted_path(path in paths()) {
        if let Ok(path) = settled(&path, EncodedSlash::Refuse) {
            let segments = as_a_lax_upstream_reads(&path);
            let (last, inner) = segments[1..].split_last().unwrap();
            prop_assert!(inner.iter().all(|segment| !segment.is_empty()), "{path}");
            prop_assert!(segments[1..].iter().all(|segment| segment != b"." && segment != b".."), "{path}");
            prop_assert!(!last.contains(&0));
        }
        if let Ok(path) = settled(&path, EncodedSlash::Pass) {
            prop_assert!(as_a_lax_upstream_reads(&path).iter().all(|segment| segment != b"." && segment != b".."), "{path}");
        }
    }

    #[test]
    fn any_text_is_answered(path in ".*") {
        let _ = normalize(&path);
    }
}
