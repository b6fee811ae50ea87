//! Paths of APIs, routes and upstreams in the one form that requests are matched in: percent-encoded unreserved octets
//! decoded (RFC 3986 §6.2.2.2), no slash at the end, and nothing in them that makes a request be refused.

use super::fault::{Fault, PathFault};

/// The path of an API: `/`, or `/a/b`.
pub(super) fn api(text: &str) -> Result<Box<str>, Fault> {
    let path = normal(text)?;
    if path.contains(['{', '}']) {
        return Err(Fault::Path(PathFault::Braces));
    }
    if is_reserved(&path) {
        return Err(Fault::Path(PathFault::Reserved));
    }
    Ok(path)
}

/// The path of a route, relative to its API: as above, and a whole segment may be `{x}`.
pub(super) fn route(text: &str) -> Result<Box<str>, Fault> {
    let path = normal(text)?;
    let is_whole = |segment: &str| match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'),
        None => !segment.contains(['{', '}']),
    };
    if path.split('/').all(is_whole) { Ok(path) } else { Err(Fault::Path(PathFault::PartOfSegment)) }
}

/// What stands before the path at an upstream: empty, or `/a/b`.
pub(super) fn base(text: &str) -> Result<Box<str>, PathFault> {
    let path = if text.is_empty() { "/".into() } else { normal(text).map_err(|Refusal(fault)| fault)? };
    if path.contains(['{', '}']) {
        return Err(PathFault::BadCharacter);
    }
    Ok(if &*path == "/" { "".into() } else { path })
}

/// Whether a path in normal form is the gateway's own.
pub(super) fn is_reserved(path: &str) -> bool {
    path.strip_prefix("/.keytoll").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

struct Refusal(PathFault);

impl From<Refusal> for Fault {
    fn from(Refusal(fault): Refusal) -> Fault {
        Fault::Path(fault)
    }
}

fn normal(text: &str) -> Result<Box<str>, Refusal> {
    if !text.starts_with('/') {
        return Err(Refusal(PathFault::NoSlashFirst));
    }
    let decoded = decode(text).map_err(Refusal)?;
    if decoded.contains("//") {
        return Err(Refusal(PathFault::EmptySegment));
    }
    if decoded.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Refusal(PathFault::DotSegment));
    }
    let trimmed = decoded.strip_suffix('/').unwrap_or(&decoded);
    Ok(if trimmed.is_empty() { "/".into() } else { trimmed.into() })
}

/// Checks every character and decodes what needs no encoding.
fn decode(text: &str) -> Result<String, PathFault> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        rest = &rest[next.len_utf8()..];
        match next {
            '%' => {
                let digits = rest.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
                let digits = digits.ok_or(PathFault::BadEncoding)?;
                let octet = u8::from_str_radix(digits, 16).map_err(|_| PathFault::BadEncoding)?;
                match octet {
                    b'/' | b'\\' | 0 => return Err(PathFault::EncodedSeparator),
                    _ if is_unreserved(octet) => decoded.push(char::from(octet)),
                    _ => decoded.extend(['%'].into_iter().chain(digits.chars())),
                }
                rest = &rest[2..];
            }
            '\\' => return Err(PathFault::Backslash),
            '?' | '#' => return Err(PathFault::QueryOrFragment),
            '/' | '{' | '}' | ':' | '@' | '!' | '$' | '&' | '\'' | '(' | ')' | '*' | '+' | ',' | ';' | '=' => {
                decoded.push(next);
            }
            _ if u8::try_from(next).is_ok_and(is_unreserved) => decoded.push(next),
            _ => return Err(PathFault::BadCharacter),
        }
    }
    Ok(decoded)
}

/// RFC 3986 §2.3.
fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_gets_the_form_that_requests_are_matched_in() {
        for (written, normal) in [
            ("/", "/"),
            ("/weather", "/weather"),
            ("/weather/", "/weather"),
            ("/%77eather/%7euser", "/weather/~user"),
            ("/a%20b", "/a%20b"),
            ("/a:b@c;d=e", "/a:b@c;d=e"),
            ("/...", "/..."),
            ("/.keytollish", "/.keytollish"),
        ] {
            assert_eq!(&*api(written).unwrap(), normal, "{written}");
        }
    }

    #[test]
    fn what_no_request_can_have_is_refused() {
        for (written, fault) in [
            ("", PathFault::NoSlashFirst),
            ("weather", PathFault::NoSlashFirst),
            ("/a//b", PathFault::EmptySegment),
            ("//", PathFault::EmptySegment),
            ("/a/../b", PathFault::DotSegment),
            ("/a/%2e%2E", PathFault::DotSegment),
            ("/./a", PathFault::DotSegment),
            ("/a%2Fb", PathFault::EncodedSeparator),
            ("/a%5cb", PathFault::EncodedSeparator),
            ("/a%00", PathFault::EncodedSeparator),
            ("/a\\b", PathFault::Backslash),
            ("/a?b", PathFault::QueryOrFragment),
            ("/a#b", PathFault::QueryOrFragment),
            ("/a%", PathFault::BadEncoding),
            ("/a%2", PathFault::BadEncoding),
            ("/a%zz", PathFault::BadEncoding),
            ("/a%+1", PathFault::BadEncoding),
            ("/a%é", PathFault::BadEncoding),
            ("/a b", PathFault::BadCharacter),
            ("/caf\u{e9}", PathFault::BadCharacter),
            ("/a\n", PathFault::BadCharacter),
            ("/{x}", PathFault::Braces),
            ("/.keytoll", PathFault::Reserved),
            ("/.keytoll/", PathFault::Reserved),
            ("/%2Ekeytoll/x", PathFault::Reserved),
        ] {
            assert_eq!(api(written), Err(Fault::Path(fault)), "{written}");
        }
    }

    #[test]
    fn a_pattern_is_a_whole_segment() {
        for good in ["/", "/{x}", "/orders/{order_id}/lines", "/{a}/b/"] {
            assert!(route(good).is_ok(), "{good}");
        }
        for bad in ["/a{x}", "/{x}b", "/{}", "/{x", "/x}", "/{a}{b}", "/{a-b}"] {
            assert_eq!(route(bad), Err(Fault::Path(PathFault::PartOfSegment)), "{bad}");
        }
    }
}
