//! A reply's body: breaks off when nothing comes, and gives its connection back at its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::connection::Connection;
use super::outgoing::Progress;
use super::pool::Pool;
use super::{BodyError, RequestBody};

/// The body of an upstream's reply. At its end the connection goes back to the pool; to drop it earlier closes the
/// connection.
pub struct UpstreamBody<B: RequestBody> {
    incoming: Incoming,
    lease: Option<Lease<B>>,
    idle: Duration,
    /// Of the request's body, which may still be on its way.
    request: Option<Arc<Progress>>,
    /// Whether the timer runs since the last piece; a piece that is there at once never touches it.
    waits: bool,
}

struct Lease<B: RequestBody> {
    connection: Connection<B>,
    pool: Arc<Pool<B>>,
}

impl<B: RequestBody> UpstreamBody<B> {
    pub(super) fn new(
        incoming: Incoming,
        connection: Connection<B>,
        pool: Arc<Pool<B>>,
        request: Option<Arc<Progress>>,
        idle: Duration,
    ) -> UpstreamBody<B> {
        let lease = Some(Lease { connection, pool });
        let mut body = UpstreamBody { incoming, lease, idle, request, waits: false };
        if body.incoming.is_end_stream() {
            body.finish();
        }
        body
    }

    /// Of a reply whose connection is now something else.
    pub(super) fn none(incoming: Incoming) -> UpstreamBody<B> {
        UpstreamBody { incoming, lease: None, idle: Duration::ZERO, request: None, waits: false }
    }

    fn finish(&mut self) {
        if let Some(Lease { connection, pool }) = self.lease.take() {
            pool.give(connection);
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(lease) = &mut self.lease else { return Poll::Pending };
        let timer = lease.connection.timer();
        if !self.waits {
            self.waits = true;
            timer.set(Instant::now() + self.idle);
        }
        timer.poll(cx)
    }
}

impl<B: RequestBody> Body for UpstreamBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.waits = false;
                // Whoever sends this on may never ask again after the last byte or the trailers.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(cause))) => {
                self.lease = None;
                // hyper ends a connection whose request breaks off, and says no more of it than that.
                let is_clients = self.request.as_ref().is_some_and(|request| request.has_failed());
                let error = if is_clients { BodyError::RequestBody(cause) } else { BodyError::Broken(cause) };
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending => self.poll_idle(cx).map(|()| {
                self.lease = None;
                Some(Err(BodyError::Idle))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
