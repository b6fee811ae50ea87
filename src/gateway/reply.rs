//! The body of a reply to the client, and problems as replies.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::response::Parts;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

use super::gather::PeekedBody;
use super::headers::Receipt;
use super::held_reply::{HeldReply, ReplyError};
use crate::http::{Problem, Record};

/// The body of a reply.
pub struct ReplyBody(Kind);

enum Kind {
    /// There already, and settled.
    Whole(Full<Bytes>),
    /// None, in a reply whose head gives the length of another one.
    NotModified { length: u64 },
    /// On its way, with nothing left to settle.
    Streamed(Box<PeekedBody>),
    /// On its way, and not paid yet.
    Held(Box<HeldReply>),
}

impl ReplyBody {
    pub(super) fn empty() -> ReplyBody {
        ReplyBody::from(Bytes::new())
    }

    /// Of a reply that is there, with or without data. hyper writes the Content-Length of the body that it is given, and never
    /// asks for that of a 304, whose length is that of the reply to a request without conditions.
    pub(super) fn whole(data: Option<Bytes>, head: &Parts) -> ReplyBody {
        let length = head.headers.get(CONTENT_LENGTH).filter(|_| head.status == StatusCode::NOT_MODIFIED);
        match length.and_then(|length| length.to_str().ok()?.parse().ok()) {
            Some(length) => ReplyBody(Kind::NotModified { length }),
            None => data.map_or_else(ReplyBody::empty, ReplyBody::from),
        }
    }
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> ReplyBody {
        ReplyBody(Kind::Whole(Full::new(bytes)))
    }
}

impl From<PeekedBody> for ReplyBody {
    fn from(body: PeekedBody) -> ReplyBody {
        ReplyBody(Kind::Streamed(Box::new(body)))
    }
}

impl From<HeldReply> for ReplyBody {
    fn from(reply: HeldReply) -> ReplyBody {
        ReplyBody(Kind::Held(Box::new(reply)))
    }
}

/// A problem as the reply to a request that has been forwarded.
pub(super) fn problem(problem: Problem, receipt: Option<&Receipt>, record: &Record) -> Response<ReplyBody> {
    let mut reply = record.refuse(problem, None);
    if let Some(receipt) = receipt {
        receipt.write(reply.headers_mut());
    }
    reply
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        match &mut self.0 {
            Kind::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Kind::NotModified { .. } => Poll::Ready(None),
            Kind::Streamed(body) => body.poll_frame(cx).map_err(ReplyError::Upstream),
            Kind::Held(reply) => reply.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(body) => body.is_end_stream(),
            Kind::NotModified { .. } => false,
            Kind::Streamed(body) => body.is_end_stream(),
            Kind::Held(reply) => reply.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(body) => body.size_hint(),
            Kind::NotModified { length } => SizeHint::with_exact(*length),
            // The head says how long it is, if that is known.
            Kind::Streamed(_) | Kind::Held(_) => SizeHint::default(),
        }
    }
}
