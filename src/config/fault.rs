//! What can be wrong with a configuration, each with the words that say what to write instead. No fault carries a
//! value that may be a secret.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::files::FileKind;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of each stand in `Display`")]
pub enum Fault {
    Unreadable(io::ErrorKind),
    TooLarge { most: u64 },
    NotUtf8,
    Syntax(String),
    UnknownSection { suggestion: Option<String> },
    UnknownKey { suggestion: Option<String> },
    Missing { remedy: &'static str },
    NoApi,
    ApiGivenTwice,
    WrongType { found: &'static str, expected: Expected },
    IsSection,
    OutOfRange { found: i64, least: i64, most: i64 },
    NotOneOf { found: String, allowed: &'static [&'static str] },
    Empty { remedy: &'static str },
    Twice { found: String },
    BadAddress { found: String },
    SameListener { other: &'static str },
    BadNetwork { found: String },
    BadFilter,
    BadPrefix { found: String },
    TokenTooShort,
    TokenCharacters,
    BadName,
    BadHost { found: String },
    BadChargeOn { found: String },
    BadMethod { found: String },
    LowerCaseMethod { found: String },
    NameTaken { first: String },
    PathTaken { first: String },
    RouteTie { first: String },
    PublicWithPrice,
    File(FileFault),
    Path(PathFault),
    Url(UrlFault),
    Source(SourceFault),
}

/// What a value should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of each stand in `Display`")]
pub enum Expected {
    Text,
    Integer,
    Cents,
    Boolean,
    List,
    Section,
    Sections,
}

/// What is wrong with a file, or with the permissions of one that is to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of each stand in `Display`")]
pub enum FileFault {
    WrongKind(FileKind),
    WritableByOthers { path: PathBuf, mode: u32 },
    ReplaceableByOthers { directory: PathBuf },
    BadMode { found: String },
    OwnerLockedOut { found: String },
    WritableByAll { found: String },
}

/// Why a path is none that requests can be matched with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of each stand in `Display`")]
pub enum PathFault {
    NoSlashFirst,
    EmptySegment,
    DotSegment,
    EncodedSeparator,
    Backslash,
    QueryOrFragment,
    BadEncoding,
    BadCharacter,
    Braces,
    PartOfSegment,
    Reserved,
}

/// Why a URL is none of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of each stand in `Display`")]
pub enum UrlFault {
    Tls,
    NoScheme,
    UserInfo,
    Query,
    Fragment,
    BadAuthority,
    BadPort,
    OwnListener,
    Path(PathFault),
}

/// Why a text is no source of credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of each stand in `Display`")]
pub enum SourceFault {
    Unknown { found: String },
    BadHeader,
    Authorization,
    ReservedHeader { name: String },
    BadQuery,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unreadable(io::ErrorKind::NotFound) => f.write_str("there is no such file; make it, or name another"),
            Fault::Unreadable(kind) => write!(f, "cannot be read: {kind}"),
            Fault::TooLarge { most } => write!(f, "is larger than {most} bytes; is it the right file?"),
            Fault::NotUtf8 => f.write_str("is not UTF-8 text; write it in UTF-8"),
            Fault::Syntax(message) => write!(f, "is not TOML: {message}"),
            Fault::UnknownSection { suggestion } => unknown(f, "section", suggestion.as_deref()),
            Fault::UnknownKey { suggestion } => unknown(f, "key", suggestion.as_deref()),
            Fault::Missing { remedy } => write!(f, "missing; {remedy}"),
            Fault::NoApi => f.write_str(
                "no API to serve; write an [[api]] section, or give --upstream URL and --price CENTS on the command line",
            ),
            Fault::ApiGivenTwice => f.write_str(
                "the file has [[api]] sections too; write the API there, or use a file without them",
            ),
            Fault::WrongType { found, expected } => write!(f, "is {}; write {expected}", with_article(found)),
            Fault::IsSection => f.write_str("is a section here; write it as a key with a value: name = …"),
            Fault::OutOfRange { found, least, most } => {
                write!(f, "{found} is out of range; write a number from {least} to {most}")
            }
            Fault::NotOneOf { found, allowed } => {
                write!(f, "{found:?} is not known here; write one of ")?;
                for (index, word) in allowed.iter().enumerate() {
                    write!(f, "{}{word:?}", if index > 0 { ", " } else { "" })?;
                }
                Ok(())
            }
            Fault::Empty { remedy } => write!(f, "is empty; {remedy}"),
            Fault::Twice { found } => write!(f, "{found:?} stands here twice; take one out"),
            Fault::BadAddress { found } => {
                write!(f, "{found:?} is no address to listen on; write IP:PORT, such as \"127.0.0.1:8080\" or \"0.0.0.0:8080\"")
            }
            Fault::SameListener { other } => {
                write!(f, "is the address of {other} too; give each listener a port of its own")
            }
            Fault::BadNetwork { found } => {
                write!(f, "{found:?} is no address or network; write \"10.0.0.7\" or \"10.0.0.0/8\"")
            }
            Fault::BadFilter => f.write_str("is no log filter; write a level, \"info\", or \"warn,keytoll=debug\""),
            Fault::BadPrefix { found } => {
                write!(f, "{found:?} is no prefix; write 1 to 16 letters and digits, such as \"kt\"")
            }
            Fault::TokenTooShort => f.write_str("the admin token is shorter than 16 characters; use a longer one"),
            Fault::TokenCharacters => f.write_str(
                "the admin token has spaces, line breaks or non-ASCII characters; use letters, digits and punctuation",
            ),
            Fault::BadName => f.write_str(
                "is no name of an API; write 1 to 128 printable ASCII characters, without spaces at the ends",
            ),
            Fault::BadHost { found } => {
                write!(f, "{found:?} is no host name; write it without scheme, port, path or wildcard: \"api.example.com\"")
            }
            Fault::BadChargeOn { found } => {
                write!(f, "{found:?} is no outcome; write a class \"2xx\" to \"5xx\", a status \"404\", or either with \"!\" before it")
            }
            Fault::BadMethod { found } => write!(f, "{found:?} is no method; write one such as \"GET\" or \"POST\""),
            Fault::LowerCaseMethod { found } => {
                write!(f, "{found:?}: methods are case-sensitive; write {:?}", found.to_ascii_uppercase())
            }
            Fault::NameTaken { first } => write!(f, "the API at {first} has this name; choose another"),
            Fault::PathTaken { first } => {
                write!(f, "the API at {first} has this path on the same host; choose another path or host")
            }
            Fault::RouteTie { first } => {
                write!(f, "the route at {first} matches the same requests; change the path or the methods of one")
            }
            Fault::PublicWithPrice => {
                f.write_str("a public route is free; take out price_cents, or take out public = true")
            }
            Fault::File(fault) => fault.fmt(f),
            Fault::Path(fault) => fault.fmt(f),
            Fault::Url(fault) => fault.fmt(f),
            Fault::Source(fault) => fault.fmt(f),
        }
    }
}

fn unknown(f: &mut fmt::Formatter<'_>, what: &str, suggestion: Option<&str>) -> fmt::Result {
    match suggestion {
        Some(name) => write!(f, "unknown {what}; did you mean {name:?}?"),
        None => write!(f, "unknown {what}; take it out"),
    }
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Expected::Text => "a text in quotes",
            Expected::Integer => "a whole number, without quotes or a unit",
            Expected::Cents => "a whole number of cents, without quotes",
            Expected::Boolean => "true or false, without quotes",
            Expected::List => "a list of texts: [\"…\", \"…\"]",
            Expected::Section => "a section: the name in brackets, its keys below",
            Expected::Sections => "the name in double brackets, [[api]] or [[api.route]], its keys below",
        })
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileFault::WrongKind(kind) => write!(f, "is {kind}; name a regular file"),
            FileFault::WritableByOthers { path, mode } => write!(
                f,
                "the file can be written by others (mode {mode:04o}), who could replace the token; run chmod 600 {}",
                path.display()
            ),
            FileFault::ReplaceableByOthers { directory } => write!(
                f,
                "anyone can replace files in the directory {}; run chmod o-w on it, or keep the file elsewhere",
                directory.display()
            ),
            FileFault::BadMode { found } => {
                write!(
                    f,
                    "{found:?} is not a file mode; write permissions to read and write in octal, such as \"0600\" or \"0660\""
                )
            }
            FileFault::OwnerLockedOut { found } => {
                write!(
                    f,
                    "{found:?} keeps the owner from reading or writing the file; write \"0600\", \"0640\" or \"0660\""
                )
            }
            FileFault::WritableByAll { found } => {
                write!(f, "{found:?} lets every user write the file; write \"0600\", or \"0660\" for a group")
            }
        }
    }
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathFault::NoSlashFirst => "a path begins with \"/\"; write \"/weather\", or \"/\" for everything",
            PathFault::EmptySegment => "has \"//\"; requests with it are refused, so write single slashes",
            PathFault::DotSegment => "has a segment \".\" or \"..\"; requests with it are refused, so write the path without",
            PathFault::EncodedSeparator => "has %2F, %5C or %00; write the path without, it is matched segment by segment",
            PathFault::Backslash => "has a backslash; write \"/\"",
            PathFault::QueryOrFragment => "has \"?\" or \"#\"; write the path alone",
            PathFault::BadEncoding => "has a \"%\" without two hexadecimal digits; write %25 for the character itself",
            PathFault::BadCharacter => "has a character that cannot stand in a path; write it percent-encoded (a space is %20)",
            PathFault::Braces => "has braces; patterns such as {id} are for the path of an [[api.route]]",
            PathFault::PartOfSegment => "has braces inside a segment; write a whole segment with a name of letters, digits and \"_\": \"/orders/{id}\"",
            PathFault::Reserved => "is under /.keytoll, which is reserved; choose another path",
        })
    }
}

impl fmt::Display for UrlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UrlFault::Tls => "TLS to an upstream is not supported yet; use http://",
            UrlFault::NoScheme => {
                "is no URL of an upstream; write \"http://HOST:PORT\", such as \"http://127.0.0.1:3000\""
            }
            UrlFault::UserInfo => "has a user name or password; take out what stands before \"@\"",
            UrlFault::Query => "has a query; take out \"?\" and what follows",
            UrlFault::Fragment => "has a fragment; take out \"#\" and what follows",
            UrlFault::BadAuthority => {
                "has no valid host; write \"http://HOST:PORT\", such as \"http://127.0.0.1:3000\""
            }
            UrlFault::BadPort => {
                "has no valid port; write a number from 1 to 65535 after \":\", or neither for port 80"
            }
            UrlFault::OwnListener => {
                "is this gateway's own address, so that requests would go round; write where the API is served"
            }
            UrlFault::Path(fault) => {
                f.write_str("the URL's path ")?;
                return fault.fmt(f);
            }
        })
    }
}

impl fmt::Display for SourceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceFault::Unknown { found } => write!(
                f,
                "{found:?} is no source of keys; write \"header:NAME\", \"authorization:bearer\" or \"query:NAME\""
            ),
            SourceFault::BadHeader => f.write_str("\"header:\" needs the name of a header; write \"header:x-api-key\""),
            SourceFault::Authorization => {
                f.write_str("Authorization has a scheme before its key; write \"authorization:bearer\"")
            }
            SourceFault::ReservedHeader { name } => {
                write!(f, "the header {name} has another meaning on the way; write another, such as \"header:x-api-key\"")
            }
            SourceFault::BadQuery => f.write_str(
                "\"query:\" needs the name of a parameter, of letters, digits, \"-\", \".\", \"_\" and \"~\"; write \"query:api_key\"",
            ),
        }
    }
}
