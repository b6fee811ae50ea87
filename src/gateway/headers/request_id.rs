//! The name of a request in logs, answers and at the upstream.

use std::fmt;

use http::{HeaderMap, HeaderValue};

use super::X_REQUEST_ID;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The id of one request: the client's own, if it is 1 to 128 of `[A-Za-z0-9._-]`, else 32 random hex digits.
/// Not a secret, and unique only as far as clients make their own so.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RequestId {
    value: HeaderValue,
    /// The digits of a generated id; as random for a client's.
    bits: u128,
}

impl RequestId {
    /// The id of a request with these headers.
    pub(crate) fn of(headers: &HeaderMap) -> RequestId {
        let bits = fastrand::u128(1..);
        let mut lines = headers.get_all(X_REQUEST_ID).iter();
        let value = match (lines.next(), lines.next()) {
            (Some(line), None) if is_acceptable(line.as_bytes()) => line.clone(),
            (Some(_) | None, Some(_) | None) => {
                let mut digits = [0; 32];
                write_hex(bits, &mut digits);
                HeaderValue::from_bytes(&digits).expect("hex digits are visible ASCII")
            }
        };
        RequestId { value, bits }
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        self.value.to_str().expect("an id is visible ASCII")
    }

    /// The id as the value of `X-Request-Id`.
    pub(crate) fn header(&self) -> &HeaderValue {
        &self.value
    }

    /// 128 bits, never all zero, that name the request: the number that a generated id writes out.
    pub(super) fn bits(&self) -> u128 {
        self.bits
    }
}

/// Writes the last `digits.len()` hex digits of a number, in lower case.
pub(super) fn write_hex(mut number: u128, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = HEX[(number & 15) as usize];
        number >>= 4;
    }
}

fn is_acceptable(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
