//! The fields that frame a message, as it may be handed on with them (RFC 9110 §8.6, RFC 9112 §6).
//!
//! Recipients differ in how they read `005`, `+5`, `5, 5` or a field that is given twice, and one that reads another length
//! than Keytoll takes a part of the body for the next message. So what is handed on is one field of plain digits.

use std::{error, fmt};

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue};

/// A Content-Length that is no number, or two that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentLengthError;

impl fmt::Display for ContentLengthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the Content-Length is not one decimal number")
    }
}

impl error::Error for ContentLengthError {}

/// The length that the head of a message gives, if any. Afterwards it is there once, in decimal digits without leading zeros.
///
/// # Errors
/// A value that is not a number of octets below 2⁶⁴, a list, or fields that differ. The header section is unchanged then.
pub(crate) fn normalize_content_length(headers: &mut HeaderMap) -> Result<Option<u64>, ContentLengthError> {
    let mut fields = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = fields.next() else { return Ok(None) };
    let length = parse(first.as_bytes()).ok_or(ContentLengthError)?;
    let mut is_plain = is_plain_content_length(first);
    for other in fields {
        if parse(other.as_bytes()) != Some(length) {
            return Err(ContentLengthError);
        }
        is_plain = false;
    }
    if !is_plain {
        let digits = HeaderValue::from_str(itoa::Buffer::new().format(length)).expect("digits are visible ASCII");
        headers.insert(CONTENT_LENGTH, digits);
    }
    Ok(Some(length))
}

/// Whether a value is what [`normalize_content_length`] would write, of a length below 10¹⁹: a quick check for most messages.
pub(crate) fn is_plain_content_length(value: &HeaderValue) -> bool {
    match value.as_bytes() {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() < 19 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Whether a Transfer-Encoding is `chunked` and nothing else, the only coding that hyper decodes (RFC 9112 §7.1).
pub(crate) fn is_chunked(value: &HeaderValue) -> bool {
    value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// Digits only, and white space around them. `str::parse` would take a sign.
fn parse(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(values: &[&str]) -> Result<(Option<u64>, Vec<String>), ContentLengthError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_LENGTH, HeaderValue::from_str(value).unwrap());
        }
        let length = normalize_content_length(&mut headers)?;
        let left = headers.get_all(CONTENT_LENGTH).iter();
        Ok((length, left.map(|value| value.to_str().unwrap().to_owned()).collect()))
    }

    #[test]
    fn a_length_is_handed_on_once_and_in_plain_digits() {
        for (values, length, left) in [
            (&[][..], None, &[][..]),
            (&["5"], Some(5), &["5"]),
            (&["0"], Some(0), &["0"]),
            (&["005"], Some(5), &["5"]),
            (&["00"], Some(0), &["0"]),
            (&["5", "5"], Some(5), &["5"]),
            (&["5", "05"], Some(5), &["5"]),
            (&[" 5"], Some(5), &["5"]),
            (&["18446744073709551615"], Some(u64::MAX), &["18446744073709551615"]),
        ] {
            let left = left.iter().map(ToString::to_string).collect();
            assert_eq!(normalized(values), Ok((length, left)), "{values:?}");
        }
    }

    #[test]
    fn what_is_not_one_number_is_an_error() {
        for values in [
            &["5, 5"][..],
            &["5,5"],
            &["+5"],
            &["-1"],
            &[""],
            &[" "],
            &["x"],
            &["5x"],
            &["0x5"],
            &["5 5"],
            &["5.0"],
            &["5", "6"],
            &["5", ""],
            &["5", "x"],
            &["18446744073709551616"],
            &["99999999999999999999"],
            &["100000000000000000000000000000"],
        ] {
            assert_eq!(normalized(values), Err(ContentLengthError), "{values:?}");
        }
    }
}
