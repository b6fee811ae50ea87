//! The name of an admin request in its answer and in the log.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Where it stands in a request and in every answer.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The client's own id, if it is 1 to 128 of `[A-Za-z0-9._-]`, else 32 random hex digits.
#[derive(Clone)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    pub(super) fn of(headers: &HeaderMap) -> RequestId {
        let mut lines = headers.get_all(X_REQUEST_ID).iter();
        if let (Some(line), None) = (lines.next(), lines.next())
            && is_acceptable(line.as_bytes())
        {
            return RequestId(line.clone());
        }
        let digits = format!("{:032x}", fastrand::u128(..));
        RequestId(HeaderValue::from_str(&digits).expect("hex digits are visible ASCII"))
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.to_str().expect("an id is visible ASCII")
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_acceptable(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
