//! The check of a reply's head before anything of it is handed on.
//!
//! hyper decides where a reply ends, and is lenient where it does not need to know. Whatever a client, or a cache between,
//! could read in another way than hyper did is refused here, or written in the only way that leaves no choice.

use std::fmt;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode, Version};

use crate::http::{is_chunked, is_plain_content_length, normalize_content_length};

/// Why a reply is rejected although its head is HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyHeadError {
    /// Its Content-Length is not one decimal number.
    ContentLength,
    /// Its Transfer-Encoding is not `chunked` alone, or its version has no Transfer-Encoding.
    TransferEncoding,
    /// It switches protocols in a version of HTTP that cannot.
    Upgrade,
    /// Its interim replies are longer than allowed.
    InterimReplies,
}

impl fmt::Display for ReplyHeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReplyHeadError::ContentLength => "its Content-Length is not one decimal number",
            ReplyHeadError::TransferEncoding => "its Transfer-Encoding is not just \"chunked\", or it is HTTP/1.0",
            ReplyHeadError::Upgrade => "it is HTTP/1.0 and switches protocols",
            ReplyHeadError::InterimReplies => "the interim replies before it are too long",
        })
    }
}

impl std::error::Error for ReplyHeadError {}

/// What the head of a reply says to the rest of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplyTraits {
    /// Whether its type is `text/event-stream`.
    pub(super) is_event_stream: bool,
    /// Whether the connection may serve another request, as far as the framing of this reply goes.
    pub(super) is_reusable: bool,
}

/// Checks the head of a final reply and removes what must not be handed on of its framing.
///
/// # Errors
/// A framing that can be read in more than one way.
pub(super) fn check<B>(reply: &mut Response<B>) -> Result<ReplyTraits, ReplyHeadError> {
    let (status, is_http10) = (reply.status(), reply.version() == Version::HTTP_10);
    let headers = reply.headers_mut();
    let framing = Framing::of(headers);
    // To a server whose last reply was HTTP/1.0 hyper sends its next request as HTTP/1.0, and a body of unknown length not
    // at all.
    let mut is_reusable = !is_http10;
    if framing.transfer_encodings > 0 {
        if is_http10 || !framing.is_chunked || framing.transfer_encodings > 1 {
            return Err(ReplyHeadError::TransferEncoding);
        }
        // Of two framings the chunks count (RFC 9112 §6.3). The server may have meant the other one.
        if framing.lengths > 0 {
            headers.remove(CONTENT_LENGTH);
            is_reusable = false;
        }
    } else if framing.lengths > 0 {
        if framing.lengths > 1 || !framing.is_plain_length {
            normalize_content_length(headers).map_err(|_| ReplyHeadError::ContentLength)?;
        }
        if status == StatusCode::NO_CONTENT || status == StatusCode::SWITCHING_PROTOCOLS {
            // Neither may have one (RFC 9110 §8.6). A body that follows nevertheless is not taken for the next reply.
            is_reusable &= headers.remove(CONTENT_LENGTH).is_some_and(|length| length == "0");
        }
    }
    if status == StatusCode::SWITCHING_PROTOCOLS && is_http10 {
        return Err(ReplyHeadError::Upgrade);
    }
    Ok(ReplyTraits { is_event_stream: framing.is_event_stream, is_reusable })
}

/// What the fields that frame a reply look like, found in one pass: to look each one up costs more.
#[derive(Default)]
struct Framing {
    lengths: usize,
    is_plain_length: bool,
    transfer_encodings: usize,
    is_chunked: bool,
    is_event_stream: bool,
}

impl Framing {
    fn of(headers: &HeaderMap) -> Framing {
        let mut framing = Framing::default();
        for (name, value) in headers {
            match name.as_str() {
                "content-length" => {
                    framing.lengths += 1;
                    framing.is_plain_length = is_plain_content_length(value);
                }
                "content-type" => framing.is_event_stream = is_event_stream(value.as_bytes()),
                "transfer-encoding" => {
                    framing.transfer_encodings += 1;
                    framing.is_chunked = is_chunked(value);
                }
                _ => {}
            }
        }
        framing
    }
}

/// Whether a Content-Type is that of an event stream, whatever its parameters.
fn is_event_stream(content_type: &[u8]) -> bool {
    const ESSENCE: &[u8] = b"text/event-stream";
    content_type.split_at_checked(ESSENCE.len()).is_some_and(|(essence, rest)| {
        essence.eq_ignore_ascii_case(ESSENCE) && matches!(rest.first(), None | Some(b';' | b' ' | b'\t'))
    })
}
