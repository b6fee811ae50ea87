//! `traceparent` (W3C Trace Context level 1): continued when it is valid, started otherwise.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::{RequestId, write_hex};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `00-` trace id `-` parent id `-` flags.
const LENGTH: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;

/// Keeps a valid trace and starts one where there is none. A started trace is named by the request's 128 bits and is
/// marked as sampled: "not sampled" would switch off the tracing of every upstream that follows its caller's decision.
pub(super) fn continue_or_start(headers: &mut HeaderMap, request_id: &RequestId) {
    let mut lines = headers.get_all(TRACEPARENT).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) if is_valid(line.as_bytes()) => return,
        // The state belongs to the trace that is not continued (§3.2).
        (Some(_), Some(_) | None) => drop(headers.remove(TRACESTATE)),
        (None, Some(_) | None) => {}
    }
    start(headers, request_id);
}

/// Starts a trace; there is none.
pub(super) fn start(headers: &mut HeaderMap, request_id: &RequestId) {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    write_hex(request_id.bits(), &mut text[3..35]);
    write_hex(u128::from(fastrand::u64(1..)), &mut text[36..52]);
    headers.insert(TRACEPARENT, HeaderValue::from_bytes(&text).expect("hex digits and dashes are visible ASCII"));
}

/// Whether it is a version 00 `traceparent`: lower-case hex in its places, neither id all zero.
fn is_valid(text: &[u8]) -> bool {
    if text.len() != LENGTH || !text.starts_with(b"00-") || text[35] != b'-' || text[52] != b'-' {
        return false;
    }
    let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |part: &[u8]| is_hex(part) && part.iter().any(|byte| *byte != b'0');
    is_id(&text[3..35]) && is_id(&text[36..52]) && is_hex(&text[53..])
}
