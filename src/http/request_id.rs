//! The id of a request in logs, replies and at the upstream.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// `X-Request-Id`, in requests, replies and towards the upstream.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of one request: the client's own, if it is 1 to 128 of `[A-Za-z0-9._-]`, else 32 random hex digits.
/// It is not a secret, and it is unique only as far as clients make their own ids unique.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId {
    value: HeaderValue,
    /// The number behind a generated id; an unrelated random number for a client's own id.
    bits: u128,
}

impl RequestId {
    /// The id of a request with these headers.
    pub fn of(headers: &HeaderMap) -> RequestId {
        let mut lines = headers.get_all(X_REQUEST_ID).iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) if is_acceptable(line.as_bytes()) => {
                RequestId { value: line.clone(), bits: fastrand::u128(1..) }
            }
            (Some(_) | None, Some(_) | None) => RequestId::generate(),
        }
    }

    /// A new random id.
    pub fn generate() -> RequestId {
        let bits = fastrand::u128(1..);
        let mut digits = [0; 32];
        write_hex(bits, &mut digits);
        RequestId { value: HeaderValue::from_bytes(&digits).expect("hex digits are visible ASCII"), bits }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.value.to_str().expect("an id is visible ASCII")
    }

    /// The id as the value of `X-Request-Id`.
    pub fn header(&self) -> &HeaderValue {
        &self.value
    }

    /// 128 random bits, never all zero: the number that a generated id writes out in hex digits.
    pub(crate) fn bits(&self) -> u128 {
        self.bits
    }
}

/// Writes the last `digits.len()` hex digits of a number, in lower case; they must be a multiple of eight.
pub(crate) fn write_hex(mut number: u128, digits: &mut [u8]) {
    for eight in digits.rchunks_exact_mut(8) {
        eight.copy_from_slice(&hex_digits((number & 0xffff_ffff) as u32));
        number >>= 32;
    }
}

/// All eight digits at once: each half of the number moves away from the other until each byte holds one digit.
fn hex_digits(number: u32) -> [u8; 8] {
    let mut spread = u64::from(number);
    spread = (spread & 0xffff_0000) << 16 | (spread & 0xffff);
    spread = (spread << 8) & 0x00ff_0000_00ff_0000 | spread & 0x0000_00ff_0000_00ff;
    spread = (spread << 4) & 0x0f00_0f00_0f00_0f00 | spread & 0x000f_000f_000f_000f;
    // One in each byte whose digit is a letter: 10 and more carry into the next four bits when 6 is added.
    let letters = ((spread + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (spread + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
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
