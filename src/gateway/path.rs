//! The path of a request in the one form that is matched, priced and forwarded.
//!
//! Percent-encoded unreserved octets are decoded (RFC 3986 §6.2.2.2), everything else stays byte for byte. A path that
//! an upstream could read as another one than Keytoll did (dot segments, `//`, `\`, `%00`, `%5C`, `%2F`) is refused, not
//! repaired: a repaired path would still be read differently by whoever repairs differently.
//!
//! An API's settings may pass `%2F` and `//`, and the API is found by the path. So there are two steps: [`normalize`]
//! notes such slashes, and when the API is known, [`Normalized::check`] applies its settings. What an API passes must
//! then have the same route in all [`readings()`].

mod readings;

use std::borrow::Cow;

use super::percent::octet;
use crate::config::{EncodedSlash, RepeatedSlash};

pub(super) use readings::readings;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadPath {
    /// It does not begin with `/`.
    NotAbsolute,
    /// A `%` without two hexadecimal digits.
    InvalidEncoding,
    /// A `.` or `..` segment, in any spelling, with path parameters or without.
    DotSegment,
    /// Two slashes with nothing (or only path parameters) between them, for an API that does not take them.
    EmptySegment,
    /// `\` or `%5C`.
    Backslash,
    /// `%2F`, for an API that does not take it.
    EncodedSlash,
    /// `%2F` next to another slash, for an API that takes `%2F` but not `//`.
    EncodedSlashBesideSlash,
    /// With its slashes decoded or merged, or without its path parameters, the path has another route.
    OtherRoute,
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
            BadPath::EncodedSlashBesideSlash => {
                "The path has an encoded slash (\"%2F\") next to another slash, which this API does not take."
            }
            BadPath::OtherRoute => {
                "The path would have another route, and perhaps another price, if its slashes were decoded or merged or \
                 its path parameters (\";\") left out; send it without them."
            }
            BadPath::Nul => "The path has a NUL byte (\"%00\").",
            BadPath::ForbiddenByte => "The path has a character that must be percent-encoded.",
        }
    }
}

/// A path in normal form; whether its API takes the slashes in it is not decided yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Normalized<'a> {
    path: Cow<'a, str>,
    slashes: Slashes,
}

impl<'a> Normalized<'a> {
    /// The path, for finding the API. `%2F` is part of its segment here, never a segment's end.
    pub(super) fn as_str(&self) -> &str {
        &self.path
    }

    /// The path.
    pub(super) fn into_path(self) -> Cow<'a, str> {
        self.path
    }

    /// Whether upstreams may disagree about the segments of this path. Such a path needs [`Normalized::check`], and the
    /// same route for all of its [`readings()`].
    pub(super) fn is_ambiguous(&self) -> bool {
        self.slashes.has_encoded || self.slashes.empty_segment.is_some() || self.slashes.ends_in_parameters
    }

    /// How the first empty segment came about, if there is one: why the path is refused by default.
    pub(super) fn empty_segment(&self) -> Option<BadPath> {
        self.slashes.empty_segment
    }

    /// Applies the settings of the API that the path was found to belong to.
    ///
    /// # Errors
    /// [`BadPath::EncodedSlash`], [`BadPath::EmptySegment`] or [`BadPath::EncodedSlashBesideSlash`], for what the API
    /// refuses.
    pub(super) fn check(&self, encoded: EncodedSlash, repeated: RepeatedSlash) -> Result<(), BadPath> {
        if self.slashes.has_encoded && encoded == EncodedSlash::Refuse {
            return Err(BadPath::EncodedSlash);
        }
        match (self.slashes.empty_segment, repeated) {
            (Some(reason), RepeatedSlash::Refuse) => Err(reason),
            (Some(_), RepeatedSlash::Pass) | (None, RepeatedSlash::Refuse | RepeatedSlash::Pass) => Ok(()),
        }
    }
}

/// Brings a path (no query, no fragment) into normal form, in one pass; borrowed unless something had to be decoded.
///
/// # Errors
/// What no API takes. A dot segment next to an encoded slash (`..%2F`) is refused for every API: an upstream that decodes
/// first would resolve it.
pub(super) fn normalize(path: &str) -> Result<Normalized<'_>, BadPath> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(BadPath::NotAbsolute);
    }
    let mut decoded = String::new();
    let mut copied = 0; // everything before this place of `path` is in `decoded`
    let mut segment = Segment::Empty;
    let mut slashes = Slashes::default();
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'/' => segment = slashes.add(segment, false)?,
            b'%' => {
                let octet = octet(bytes, at).ok_or(BadPath::InvalidEncoding)?;
                match octet {
                    0 => return Err(BadPath::Nul),
                    b'\\' => return Err(BadPath::Backslash),
                    b'/' => segment = slashes.add(segment, true)?,
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
    slashes.ends_in_parameters = matches!(segment, Segment::OnlyParameters);
    if copied == 0 {
        return Ok(Normalized { path: Cow::Borrowed(path), slashes });
    }
    decoded.push_str(&path[copied..]);
    Ok(Normalized { path: Cow::Owned(decoded), slashes })
}

/// What is to be decided about a path's slashes when its API is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slashes {
    has_encoded: bool,
    /// Why the first empty segment is refused by default. The last segment of a path may be empty.
    empty_segment: Option<BadPath>,
    /// The last segment has nothing but path parameters: it is empty for an upstream that takes them off.
    ends_in_parameters: bool,
    /// The slash before the segment that is being read was encoded.
    last_is_encoded: bool,
}

impl Slashes {
    /// Ends a segment with a slash, plain or encoded. An upstream may see the next segment begin after either.
    fn add(&mut self, segment: Segment, is_encoded: bool) -> Result<Segment, BadPath> {
        segment.end()?;
        if matches!(segment, Segment::Empty | Segment::OnlyParameters) {
            let is_plain = !is_encoded && !self.last_is_encoded;
            let reason = if is_plain { BadPath::EmptySegment } else { BadPath::EncodedSlashBesideSlash };
            self.empty_segment.get_or_insert(reason);
        }
        self.has_encoded |= is_encoded;
        self.last_is_encoded = is_encoded;
        Ok(Segment::Empty)
    }
}

/// What has been seen of the segment that is being read.
#[derive(Clone, Copy)]
enum Segment {
    /// Nothing.
    Empty,
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
    fn semicolon(self) -> Result<Segment, BadPath> {
        match self {
            Segment::Dot | Segment::DotDot => Err(BadPath::DotSegment),
            Segment::Empty | Segment::OnlyParameters => Ok(Segment::OnlyParameters),
            Segment::Other => Ok(Segment::Other),
        }
    }

    fn dot(self) -> Segment {
        match self {
            Segment::Empty => Segment::Dot,
            Segment::Dot => Segment::DotDot,
            Segment::OnlyParameters => Segment::OnlyParameters,
            Segment::DotDot | Segment::Other => Segment::Other,
        }
    }

    fn other(self) -> Segment {
        match self {
            Segment::OnlyParameters => Segment::OnlyParameters,
            Segment::Empty | Segment::Dot | Segment::DotDot | Segment::Other => Segment::Other,
        }
    }

    fn end(self) -> Result<(), BadPath> {
        match self {
            Segment::Dot | Segment::DotDot => Err(BadPath::DotSegment),
            Segment::Empty | Segment::OnlyParameters | Segment::Other => Ok(()),
        }
    }
}

/// RFC 3986 §2.3.
fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests;
