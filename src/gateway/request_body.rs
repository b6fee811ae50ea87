//! A request's body on its way to the upstream: never gathered, bounded in size, not waited for without end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{error, fmt};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::headers::{CredentialHeaders, clean_request_trailers};
use super::problem::Problem;
use crate::config::Limits;

/// The body of a request.
pub struct RequestBody {
    incoming: Incoming,
    /// For its trailers; `None` for a body that is empty and has none.
    credentials: Option<Arc<CredentialHeaders>>,
    left_bytes: u64,
    limit_bytes: u64,
    idle: Duration,
    /// Made when the body is first waited for.
    timer: Option<Pin<Box<Sleep>>>,
    waits: bool,
}

/// Why a body broke off: the client's doing.
#[derive(Debug)]
pub enum BodyFault {
    /// It is longer than is taken.
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// It stopped coming.
    Idle,
    /// The client went away, or its framing is wrong.
    Broken(hyper::Error),
}

impl RequestBody {
    /// Looks at a body without polling it: hyper says `100 Continue` at the first poll, so that what is refused before
    /// is refused without it.
    ///
    /// # Errors
    /// A body that says of itself that it is too long.
    pub(super) fn admit(incoming: &Incoming, limits: &Limits) -> Result<(), Problem> {
        let limit_bytes = limits.request_body_bytes;
        if incoming.size_hint().lower() > limit_bytes { Err(Problem::BodyTooLarge { limit_bytes }) } else { Ok(()) }
    }

    /// The body that goes upstream. `credentials` do not, in its trailers.
    pub(super) fn new(incoming: Incoming, credentials: &Arc<CredentialHeaders>, limits: &Limits) -> RequestBody {
        RequestBody {
            credentials: (!incoming.is_end_stream()).then(|| Arc::clone(credentials)),
            incoming,
            left_bytes: limits.request_body_bytes,
            limit_bytes: limits.request_body_bytes,
            idle: limits.request_body_idle,
            timer: None,
            waits: false,
        }
    }

    fn check(&mut self, mut frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyFault> {
        if let Some(trailers) = frame.trailers_mut() {
            match &self.credentials {
                Some(credentials) => clean_request_trailers(trailers, credentials),
                None => trailers.clear(),
            }
        }
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.left_bytes.checked_sub(bytes) {
            Some(left) => self.left_bytes = left,
            None => return Err(BodyFault::TooLarge { limit_bytes: self.limit_bytes }),
        }
        Ok(frame)
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = Instant::now() + self.idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if !self.waits {
            self.waits = true;
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.waits = false;
                Poll::Ready(Some(self.check(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyFault::Broken(error)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.poll_idle(cx).map(|()| Some(Err(BodyFault::Idle))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyFault::TooLarge { .. } => "the request's body is too large",
            BodyFault::Idle => "the request's body stopped coming",
            BodyFault::Broken(_) => "the request's body broke off",
        })
    }
}

impl error::Error for BodyFault {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            BodyFault::Broken(error) => Some(error),
            BodyFault::TooLarge { .. } | BodyFault::Idle => None,
        }
    }
}
