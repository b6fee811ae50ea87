//! The path of a request in the one form that is matched, priced and forwarded.
//!
//! Percent-encoded unreserved octets are decoded (RFC 3986 §6.2.2.2), everything else stays byte for byte. A path that
//! an upstream could read as another one than Keytoll did (dot segments, `//`, `\`, `%00`, `%5C`, `%2F`) is refused, not
//! repaired: a repaired path would still be read differently by whoever repairs differently.
//!
//! Whether `%2F` may stand depends on the API, and the API is found by the path. So there are two steps: [`normalize`]
//! reports an encoded slash, and [`Normalized::settle`] decides when the API is known.

use std::borrow::Cow;

use super::percent::octet;
use crate::config::EncodedSlash;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadPath {
    /// It does not begin with `/`.
    NotAbsolute,
    /// A `%` without two hexadecimal digits.
    InvalidEncoding,
    /// A `.` or `..` segment, in any spelling, with path parameters or without.
    DotSegment,
    /// Two slashes with nothing (or only path parameters) between them.
    EmptySegment,
    /// `\` or `%5C`.
    Backslash,
    /// `%2F`, for an API that does not take it.
    EncodedSlash,
    /// `%00`.
    Nul,
    /// A control character, a space, `?`, `#`, or a byte outside of ASCII that is not percent-encoded.
    ForbiddenByte,
}

impl BadPath {
    /// A sentence for the client's developer.
    pub(super) fn reason(self) -> &'static str {
        match self {
            BadPath::NotAbsolute => "The path must begin with \"/\".",
            BadPath::InvalidEncoding => {
                "The path has a \"%\" that two hexadecimal digits do not follow; write \"%25\" for the character itself."
            }
            BadPath::DotSegment => "The path has a \".\" or \"..\" segment; resolve it before sending.",
            BadPath::EmptySegment => "The path has an empty segment (\"//\"); leave one of the slashes out.",
            BadPath::Backslash => "The path has a backslash, plain or as \"%5C\".",
            BadPath::EncodedSlash => "The path has an encoded slash (\"%2F\"), which this API does not take.",
            BadPath::Nul => "The path has a NUL byte (\"%00\").",
            BadPath::ForbiddenByte => "The path has a character that must be percent-encoded.",
        }
    }
}

/// A path in normal form; whether an encoded slash in it is welcome is not decided yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Normalized<'a> {
    path: Cow<'a, str>,
    has_encoded_slash: bool,
}

impl<'a> Normalized<'a> {
    /// The path, for finding the API. `%2F` is part of its segment here, never a segment's end.
    pub(super) fn as_str(&self) -> &str {
        &self.path
    }

    /// The path, if the API takes it.
    ///
    /// # Errors
    /// [`BadPath::EncodedSlash`], where the API refuses one and the path has one.
    pub(super) fn settle(self, encoded_slash: EncodedSlash) -> Result<Cow<'a, str>, BadPath> {
        match (self.has_encoded_slash, encoded_slash) {
            (true, EncodedSlash::Refuse) => Err(BadPath::EncodedSlash),
            (true, EncodedSlash::Pass) | (false, EncodedSlash::Refuse | EncodedSlash::Pass) => Ok(self.path),
        }
    }
}

/// Brings a path (no query, no fragment) into normal form, in one pass; borrowed unless something had to be decoded.
///
/// # Errors
/// Every [`BadPath`] but [`BadPath::EncodedSlash`]. A dot segment next to an encoded slash (`..%2F`) is refused for
/// every API: an upstream that decodes first would resolve it.
pub(super) fn normalize(path: &str) -> Result<Normalized<'_>, BadPath> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(BadPath::NotAbsolute);
    }
    let mut decoded = String::new();
    let mut copied = 0; // everything before this place of `path` is in `decoded`
    let mut segment = Segment::Start;
    let mut has_encoded_slash = false;
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'/' => segment = segment.slash()?,
            b'%' => {
                let octet = octet(bytes, at).ok_or(BadPath::InvalidEncoding)?;
                match octet {
                    0 => return Err(BadPath::Nul),
                    b'\\' => return Err(BadPath::Backslash),
                    b'/' => {
                        segment = segment.encoded_slash()?;
                        has_encoded_slash = true;
                    }
                    b';' => segment = segment.semicolon()?,
                    octet if is_unreserved(octet) => {
                        if decoded.is_empty() {
                            decoded.reserve_exact(path.len());
                        }
                        decoded.push_str(&path[copied..at]);
                        decoded.push(char::from(octet));
                        copied = at + 3;
                        segment = if octet == b'.' { segment.dot() } else { segment.other() };
                    }
                    _ => segment = segment.other(),
                }
                at += 2;
            }
            b'.' => segment = segment.dot(),
            b';' => segment = segment.semicolon()?,
            b'\\' => return Err(BadPath::Backslash),
            b'?' | b'#' => return Err(BadPath::ForbiddenByte),
            b'!'..=b'~' => segment = segment.other(),
            0..=b' ' | 0x7f..=0xff => return Err(BadPath::ForbiddenByte),
        }
        at += 1;
    }
    segment.end()?;
    if copied == 0 {
        return Ok(Normalized { path: Cow::Borrowed(path), has_encoded_slash });
    }
    decoded.push_str(&path[copied..]);
    Ok(Normalized { path: Cow::Owned(decoded), has_encoded_slash })
}

/// What has been seen of the segment that is being read.
#[derive(Clone, Copy)]
enum Segment {
    /// Nothing, after a slash.
    Start,
    /// Nothing, after an encoded slash: an upstream may see a segment begin here, or not.
    MaybeStart,
    /// Only path parameters (`;x`): empty for an upstream that takes them off.
    OnlyParameters,
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// Something that no reader takes for empty or for dots.
    Other,
}

impl Segment {
    fn slash(self) -> Result<Segment, BadPath> {
        match self {
            Segment::Start | Segment::OnlyParameters => Err(BadPath::EmptySegment),
            Segment::Dot | Segment::DotDot => Err(BadPath::DotSegment),
            Segment::MaybeStart | Segment::Other => Ok(Segment::Start),
        }
    }

    fn encoded_slash(self) -> Result<Segment, BadPath> {
        self.end().map(|()| Segment::MaybeStart)
    }

    fn semicolon(self) -> Result<Segment, BadPath> {
        match self {
            Segment::Dot | Segment::DotDot => Err(BadPath::DotSegment),
            Segment::Start | Segment::OnlyParameters => Ok(Segment::OnlyParameters),
            Segment::MaybeStart | Segment::Other => Ok(Segment::Other),
        }
    }

    fn dot(self) -> Segment {
        match self {
            Segment::Start | Segment::MaybeStart => Segment::Dot,
            Segment::Dot => Segment::DotDot,
            Segment::OnlyParameters => Segment::OnlyParameters,
            Segment::DotDot | Segment::Other => Segment::Other,
        }
    }

    fn other(self) -> Segment {
        match self {
            Segment::OnlyParameters => Segment::OnlyParameters,
            Segment::Start | Segment::MaybeStart | Segment::Dot | Segment::DotDot | Segment::Other => Segment::Other,
        }
    }

    fn end(self) -> Result<(), BadPath> {
        match self {
            Segment::Dot | Segment::DotDot => Err(BadPath::DotSegment),
            Segment::Start | Segment::MaybeStart | Segment::OnlyParameters | Segment::Other => Ok(()),
        }
    }
}

/// RFC 3986 §2.3.
fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests;
