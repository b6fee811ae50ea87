//! The body of a request on its way upstream: collected before its price is held, or streamed. Bounded in either case, and
//! never waited for without end.

mod collected;
mod continue_gate;
mod deadline;
mod streamed;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::{error, fmt};

use bytes::Bytes;
use http::HeaderMap;
use http::header::TRANSFER_ENCODING;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::bad_request::BadRequest;
use crate::config::{ExchangePolicy, Limits};
use crate::http::{Problem, body_too_large, is_chunked};

pub(super) use collected::{Collected, Collection, collect};
pub(super) use continue_gate::{ContinueGate, expects_continue};
pub(super) use streamed::{BodyLimits, Streamed};

/// The body of a request. Most requests have none and are moved often, so the other kinds are boxed.
#[derive(Default)]
pub struct RequestBody(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Collected(Box<Collected>),
    Streamed(Box<Streamed>),
}

/// Why a body broke off. The client caused it.
#[derive(Debug)]
pub enum BodyError {
    /// It is longer than allowed.
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// It stopped coming.
    Idle,
    /// It came too slowly.
    TooSlow,
    /// The client went away, or the framing is wrong.
    Broken(hyper::Error),
}

/// Looks at a body without polling it: hyper sends `100 Continue` at the first poll, so a request that is refused before is
/// refused without it.
///
/// # Errors
/// A body that announces more than is allowed, or that has another transfer coding than `chunked`: hyper would decode only
/// that one, and the upstream would not learn of the other (RFC 9112 §6.1).
pub(super) fn admit(headers: &HeaderMap, incoming: &Incoming, policy: &ExchangePolicy) -> Result<(), Problem> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if !codings.next().is_none_or(is_chunked) || codings.next().is_some() {
        return Err(BadRequest::TransferCoding.into());
    }
    let limit_bytes = policy.request_body_bytes;
    if incoming.size_hint().lower() > limit_bytes { Err(body_too_large(limit_bytes)) } else { Ok(()) }
}

/// Whether a body is collected: one with a positive Content-Length up to `limits.collected_body_bytes`.
pub(super) fn is_collected(incoming: &Incoming, limits: &Limits) -> bool {
    let length = incoming.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    length.is_some_and(|length| (1..=limits.collected_body_bytes).contains(&length))
}

impl From<Collection> for RequestBody {
    fn from(collection: Collection) -> RequestBody {
        match collection {
            Collection::Whole(collected) => RequestBody(Kind::Collected(Box::new(collected))),
            Collection::Streamed(streamed) => streamed.into(),
        }
    }
}

impl From<Streamed> for RequestBody {
    fn from(streamed: Streamed) -> RequestBody {
        RequestBody(Kind::Streamed(Box::new(streamed)))
    }
}

impl crate::upstream::RequestBody for RequestBody {
    fn is_asked_for(&self) -> bool {
        match &self.0 {
            Kind::Empty | Kind::Collected(_) => true,
            Kind::Streamed(streamed) => streamed.is_asked_for(),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Collected(collected) => Poll::Ready(collected.take().map(|data| Ok(Frame::data(data)))),
            Kind::Streamed(streamed) => streamed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Collected(collected) => collected.len() == 0,
            Kind::Streamed(streamed) => streamed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Collected(collected) => SizeHint::with_exact(collected.len() as u64),
            Kind::Streamed(streamed) => streamed.size_hint(),
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyError::TooLarge { .. } => "the request body is too large",
            BodyError::Idle => "the request body stopped coming",
            BodyError::TooSlow => "the request body came too slowly",
            BodyError::Broken(_) => "the request body broke off",
        })
    }
}

impl error::Error for BodyError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            BodyError::Broken(error) => Some(error),
            BodyError::TooLarge { .. } | BodyError::Idle | BodyError::TooSlow => None,
        }
    }
}
