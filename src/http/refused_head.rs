//! Replies to requests whose head cannot be served: hyper's parser refuses it, or it does not arrive in time. There is no
//! request then, and so no service: the reply is written to the socket as it is, and the access log gets its line here.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use super::client::ClientConnection;
use super::problem::{Problem, ProblemKind};
use super::request_id::RequestId;
use crate::telemetry::access::AccessLine;

/// What hyper's own replies begin with (RFC 9112 §4).
const STATUS_LINE: &[u8] = b"HTTP/1.1 ";

/// Finds the reply that hyper's parser has put at the end of `written`: where it begins, and the problem that its status
/// stands for. `None` when there is no such reply, which would be a change in hyper.
pub(super) fn find_parser_reply(written: &[u8]) -> Option<(usize, ProblemKind)> {
    let start = written.windows(STATUS_LINE.len()).rposition(|window| window == STATUS_LINE)?;
    let digits = written.get(start + STATUS_LINE.len()..)?.get(..3)?;
    let kind = match StatusCode::from_bytes(digits).ok()? {
        StatusCode::BAD_REQUEST => ProblemKind::BadRequest,
        StatusCode::URI_TOO_LONG => ProblemKind::UriTooLong,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => ProblemKind::HeaderTooLarge,
        _ => return None,
    };
    Some((start, kind))
}

/// The whole reply, as bytes for the socket; the connection is closed after it. Counts and logs the request, whose head was
/// waited for so long (`duration`).
pub(super) fn refuse_head(client: &ClientConnection, kind: ProblemKind, duration: Duration) -> Bytes {
    let edge = &client.edge;
    edge.metrics.refused(kind as usize);
    let id = RequestId::generate();
    let mut response: Response<Bytes> = Problem::from(kind).into_response(&id);
    let line = AccessLine::new(edge.listener.name(), id.as_str(), client.peer().ip(), "-", "-", kind.status().as_u16());
    AccessLine { problem: Some(kind.code()), reply_bytes: response.body().len() as u64, duration, ..line }.emit();
    let length = HeaderValue::from(response.body().len());
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()).ok()
        && let Ok(date) = HeaderValue::try_from(date)
    {
        headers.insert(DATE, date);
    }
    as_bytes(&response)
}

/// An HTTP/1.1 message (RFC 9112 §2.1).
fn as_bytes(response: &Response<Bytes>) -> Bytes {
    let status = response.status();
    let mut bytes = [STATUS_LINE, status.as_str().as_bytes(), b" "].concat();
    bytes.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    bytes.extend_from_slice(b"\r\n");
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(response.body());
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reply_of_what_is_written_is_found() {
        let reply = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        let before = b"the end of a body that shows HTTP/1.1 400 Bad Request\r\n\r\n";
        assert_eq!(find_parser_reply(reply), Some((0, ProblemKind::BadRequest)));
        let both = [&before[..], reply].concat();
        assert_eq!(find_parser_reply(&both), Some((before.len(), ProblemKind::BadRequest)));
        for other in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"", b"HTTP/1.1 4", b"nothing"] {
            assert_eq!(find_parser_reply(other), None);
        }
    }
}
