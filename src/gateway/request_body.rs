//! The body of a request on its way upstream: streamed, bounded, and not waited for without end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{error, fmt};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::headers::{CredentialHeaders, clean_request_trailers};
use crate::config::Limits;
use crate::http::{Problem, Record, body_too_large};

/// The body of a request. Most requests have none, and are moved often: so what a body needs is boxed.
#[derive(Default)]
pub struct RequestBody(Option<Box<Stream>>);

/// A body that is on its way.
struct Stream {
    incoming: Incoming,
    /// Removed from its trailers.
    credentials: Arc<CredentialHeaders>,
    limit_bytes: u64,
    received_bytes: u64,
    deadline: Deadline,
    idle: Duration,
    /// Made when the client is first waited for.
    timer: Option<Pin<Box<Sleep>>>,
    /// Since when the client is waited for; `None` while it is not.
    waits_since: Option<Instant>,
    has_ended: bool,
    record: Record,
}

/// How long a client may take for its whole body. Only the time in which it is waited for counts, and each byte that
/// arrives prolongs it.
struct Deadline {
    timeout: Duration,
    bytes_per_second: u64,
    waited: Duration,
}

impl Deadline {
    /// What is left after so many bytes; zero when it is over.
    fn left(&self, received_bytes: u64) -> Duration {
        let earned_ms = u128::from(received_bytes) * 1_000 / u128::from(self.bytes_per_second);
        let earned = Duration::from_millis(u64::try_from(earned_ms).unwrap_or(u64::MAX));
        self.timeout.saturating_add(earned).saturating_sub(self.waited)
    }
}

/// Why a body broke off: the fault of the client.
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

impl RequestBody {
    /// Looks at a body without polling it: hyper sends `100 Continue` at the first poll, so that what is refused before
    /// is refused without it.
    ///
    /// # Errors
    /// A body that announces more than is allowed.
    pub(super) fn admit(incoming: &Incoming, limits: &Limits) -> Result<(), Problem> {
        let limit_bytes = limits.request_body_bytes;
        if incoming.size_hint().lower() > limit_bytes { Err(body_too_large(limit_bytes)) } else { Ok(()) }
    }

    /// The body that goes upstream. `credentials` are removed from its trailers.
    pub(super) fn new(
        incoming: Incoming,
        credentials: &Arc<CredentialHeaders>,
        limits: &Limits,
        record: &Record,
    ) -> RequestBody {
        if incoming.is_end_stream() {
            return RequestBody(None);
        }
        RequestBody(Some(Box::new(Stream {
            incoming,
            credentials: Arc::clone(credentials),
            limit_bytes: limits.request_body_bytes,
            received_bytes: 0,
            deadline: Deadline {
                timeout: limits.request_body_timeout,
                bytes_per_second: limits.request_body_bytes_per_second,
                waited: Duration::ZERO,
            },
            idle: limits.request_body_idle,
            timer: None,
            waits_since: None,
            has_ended: false,
            record: record.clone(),
        })))
    }
}

impl Stream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(self.check(frame))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Broken(error)))),
            Poll::Ready(None) => {
                self.has_ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => self.poll_wait(cx).map(|error| Some(Err(error))),
        }
    }

    fn check(&mut self, mut frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        if let Some(since) = self.waits_since.take() {
            self.deadline.waited += since.elapsed();
        }
        if let Some(trailers) = frame.trailers_mut() {
            clean_request_trailers(trailers, &self.credentials);
        }
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.received_bytes += bytes;
        self.record.received(bytes);
        if self.received_bytes > self.limit_bytes {
            return Err(BodyError::TooLarge { limit_bytes: self.limit_bytes });
        }
        Ok(frame)
    }

    /// Ready when the client has been waited for too long.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        // After the head of the reply only silence counts.
        let left = if self.record.has_reply() { self.idle } else { self.deadline.left(self.received_bytes) };
        let due = since + left.min(self.idle);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(if left >= self.idle { BodyError::Idle } else { BodyError::TooSlow })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Some(stream) => stream.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|stream| stream.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |stream| stream.incoming.size_hint())
    }
}

impl Drop for Stream {
    /// The client of a body that is not read to its end may still be sending it.
    fn drop(&mut self) {
        if !self.has_ended && !self.incoming.is_end_stream() {
            self.record.client().leave_body_unread();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_prolongs_the_deadline_and_each_wait_shortens_it() {
        let deadline = |waited_ms| Deadline {
            timeout: Duration::from_secs(30),
            bytes_per_second: 500,
            waited: Duration::from_millis(waited_ms),
        };
        for (waited_ms, received_bytes, left_ms) in [
            (0, 0, 30_000),
            (29_000, 0, 1_000),
            (30_001, 0, 0),
            (30_001, 500, 999),
            (31_000, 250, 0),
            (30_400, 250, 100),
        ] {
            let left = deadline(waited_ms).left(received_bytes).as_millis();
            assert_eq!(left, left_ms, "{waited_ms} ms, {received_bytes} bytes");
        }
    }
}
