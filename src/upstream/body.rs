//! A reply's body: breaks off when nothing comes, and gives its connection back at its end.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::connection::{BodyTimeouts, Connection};
use super::outgoing::Progress;
use super::pool::Pool;
use super::reply_head::ReplyTraits;
use super::{BodyError, ExchangeDeadlines, RequestBody};

/// The body of an upstream's reply. At its end the connection goes back to the pool; to drop it earlier closes the
/// connection.
pub struct UpstreamBody<B: RequestBody> {
    incoming: Incoming,
    lease: Option<Lease<B>>,
    is_event_stream: bool,
    /// Of the request's body, which may still be on its way.
    request: Option<Arc<Progress>>,
    /// Whether the timer runs since the last piece; a piece that is there at once never touches it.
    is_waiting: bool,
}

struct Lease<B: RequestBody> {
    connection: Connection<B>,
    /// Where the connection goes at the end; `None` when it may not be used again.
    pool: Option<Arc<Pool<B>>>,
}

impl<B: RequestBody> UpstreamBody<B> {
    pub(super) fn new(
        incoming: Incoming,
        mut connection: Connection<B>,
        pool: &Arc<Pool<B>>,
        request: Option<Arc<Progress>>,
        traits: ReplyTraits,
        deadlines: &ExchangeDeadlines<'_>,
    ) -> UpstreamBody<B> {
        let ReplyTraits { is_event_stream, is_reusable } = traits;
        let mut body = UpstreamBody { incoming, lease: None, is_event_stream, request, is_waiting: false };
        // An upstream that answers before it has the whole request may be about to close.
        let has_whole_request = body.is_request_complete();
        let pool = (is_reusable && has_whole_request).then(|| Arc::clone(pool));
        if body.incoming.is_end_stream() {
            if let Some(pool) = pool {
                pool.give(connection);
            }
            return body;
        }
        let policy = deadlines.policy;
        let idle = if is_event_stream { policy.event_stream_idle } else { policy.body_idle };
        let end = policy.total_timeout.map(|timeout| deadlines.start + timeout);
        connection.set_body_timeouts(BodyTimeouts { idle, end });
        body.lease = Some(Lease { connection, pool });
        body
    }

    /// Of a 101. The connection is closed unless [`UpstreamBody::upgrade`] is called.
    pub(super) fn of_upgrade(
        incoming: Incoming,
        connection: Connection<B>,
        request: Option<Arc<Progress>>,
    ) -> UpstreamBody<B> {
        let lease = Some(Lease { connection, pool: None });
        UpstreamBody { incoming, lease, is_event_stream: false, request, is_waiting: false }
    }

    /// Leaves the connection of a 101 to the other protocol.
    pub fn upgrade(mut self) {
        if let Some(mut lease) = self.lease.take() {
            lease.connection.release();
        }
    }

    /// Whether the upstream has taken the whole body of the request.
    pub fn is_request_complete(&self) -> bool {
        self.request.as_ref().is_none_or(|request| request.has_ended())
    }

    /// Whether the reply is of type `text/event-stream`.
    pub fn is_event_stream(&self) -> bool {
        self.is_event_stream
    }

    /// The local and the remote address of the connection that the body comes on; `None` after its end.
    pub fn socket_addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.lease.as_ref()?.connection.addresses()
    }

    fn finish(&mut self) {
        if let Some(Lease { connection, pool: Some(pool) }) = self.lease.take() {
            pool.give(connection);
        }
    }

    /// Closes the connection.
    fn break_off(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.lease = None;
        Poll::Ready(Some(Err(error)))
    }

    /// Whether the time for the whole exchange is over.
    fn is_late(&mut self) -> bool {
        let end = self.lease.as_mut().and_then(|lease| lease.connection.body_timeouts().0.end);
        end.is_some_and(|end| Instant::now() >= end)
    }

    /// Ready when the upstream, or the rest of the request's body, has been waited for too long. While that body moves, the
    /// upstream is not idle.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let Some(lease) = &mut self.lease else { return Poll::Pending };
        let (BodyTimeouts { idle, end }, timer) = lease.connection.body_timeouts();
        let until = |due: Instant| end.map_or(due, |end| end.min(due));
        if !self.is_waiting {
            self.is_waiting = true;
            timer.set(until(Instant::now() + idle));
        }
        loop {
            ready!(timer.poll(cx));
            let now = Instant::now();
            let is_late = end.is_some_and(|end| now >= end);
            if let Some(request) = &self.request {
                if request.is_client_awaited() && (is_late || request.has_client_stalled()) {
                    return Poll::Ready(BodyError::RequestStalled);
                }
                let due = request.silent_since() + idle;
                if !is_late && due > now {
                    timer.set(until(due));
                    continue;
                }
            }
            let late = BodyError::TotalTimeout { was_client_slow: false };
            return Poll::Ready(if is_late { late } else { BodyError::Idle });
        }
    }

    fn broken(&mut self, cause: hyper::Error) -> BodyError {
        // hyper ends a connection whose request body fails; its error does not name the cause.
        let is_clients = self.request.as_ref().is_some_and(|request| request.has_failed())
            && !self.lease.as_ref().is_some_and(|lease| lease.connection.has_write_failed());
        match &self.request {
            _ if is_clients => BodyError::RequestBody(cause),
            Some(request) if request.has_client_stalled() => BodyError::RequestStalled,
            Some(_) | None => BodyError::Broken(cause),
        }
    }
}

impl<B: RequestBody> Body for UpstreamBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(_))) if self.is_late() => {
                // While the upstream is waited for, hyper asks for each piece as soon as it comes: a piece that is late
                // now was there in time only if it was not asked for since the one before.
                let was_client_slow = !self.is_waiting;
                self.break_off(BodyError::TotalTimeout { was_client_slow })
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.is_waiting = false;
                // hyper's server may never ask again after the last byte or the trailers.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(cause))) => {
                let error = self.broken(cause);
                self.break_off(error)
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let error = ready!(self.poll_wait(cx));
                self.break_off(error)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
