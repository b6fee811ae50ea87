//! A body that goes upstream as it arrives.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::BodyError;
use super::continue_gate::ContinueGate;
use super::deadline::Deadline;
use crate::config::{ExchangePolicy, Limits};
use crate::gateway::headers::{CredentialHeaders, clean_request_trailers};
use crate::http::{Record, Timer};

/// A client's body, bounded in bytes and in time.
pub(crate) struct Streamed {
    incoming: Incoming,
    /// What was read of it before, and comes first; with its part of the room for collected bodies.
    ahead: Option<(Bytes, Option<OwnedSemaphorePermit>)>,
    /// Removed from its trailers.
    credentials: Arc<CredentialHeaders>,
    limit_bytes: u64,
    received_bytes: u64,
    deadline: Deadline,
    idle: Duration,
    /// For the time during which the client is waited for.
    timer: Timer,
    /// Since when the client is waited for; `None` while it is not.
    waits_since: Option<Instant>,
    has_ended: bool,
    /// `None` when the client need not be asked for the body, and once it was asked.
    gate: Option<ContinueGate>,
    record: Record,
}

/// What bounds a body.
pub(crate) struct BodyLimits<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) policy: &'a ExchangePolicy,
    pub(crate) credentials: &'a Arc<CredentialHeaders>,
}

impl Streamed {
    /// A body that is not read before `gate` opens.
    pub(crate) fn new(
        incoming: Incoming,
        bounds: &BodyLimits<'_>,
        gate: Option<ContinueGate>,
        record: &Record,
    ) -> Streamed {
        let BodyLimits { limits, policy, credentials } = *bounds;
        record.set_awaits_continue(gate.is_some());
        Streamed {
            incoming,
            ahead: None,
            credentials: Arc::clone(credentials),
            limit_bytes: policy.request_body_bytes,
            received_bytes: 0,
            deadline: Deadline {
                timeout: limits.request_body_timeout,
                bytes_per_second: limits.request_body_bytes_per_second,
                waited: Duration::ZERO,
            },
            idle: limits.request_body_idle,
            timer: Timer::default(),
            waits_since: None,
            has_ended: false,
            gate,
            record: record.clone(),
        }
    }

    /// Puts back what was read: it comes first. `permit` is kept until it has been handed on.
    pub(super) fn put_back(&mut self, data: Bytes, permit: Option<OwnedSemaphorePermit>) {
        self.ahead = Some((data, permit));
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some((data, _permit)) = self.ahead.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(gate) = &mut self.gate {
            if self.record.has_reply() {
                // The final reply came first: the client is not asked, and the body is dropped with the exchange.
                return Poll::Pending;
            }
            ready!(gate.poll_open(cx));
            self.record.set_awaits_continue(false);
            self.gate = None;
        }
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
            // hyper does not ask for an end after them.
            self.has_ended = true;
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
        self.timer.set(since + left.min(self.idle));
        ready!(self.timer.poll(cx));
        Poll::Ready(if left >= self.idle { BodyError::Idle } else { BodyError::TooSlow })
    }

    pub(super) fn is_asked_for(&self) -> bool {
        self.gate.is_none()
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.size_hint();
        let ahead = self.ahead.as_ref().map_or(0, |(data, _)| data.len() as u64);
        rest.exact().map_or(rest, |rest| SizeHint::with_exact(rest + ahead))
    }
}

impl Drop for Streamed {
    /// The client of a body that is not read to its end may still be sending it.
    fn drop(&mut self) {
        if !self.has_ended && !self.incoming.is_end_stream() {
            self.record.client().leave_body_unread();
        }
    }
}
