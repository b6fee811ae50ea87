//! The socket of a connection to an upstream, as hyper reads and writes it.
//!
//! - Reads are of a limited size, so that a reply that its client reads slowly is kept in few bytes: hyper offers a larger
//!   buffer after each read that fills it.
//! - Until the head of a reply is there, only so many bytes are read: an upstream cannot send interim replies without end.
//! - When a write fails, hyper is not told: the upstream may have answered before it closed, and hyper would drop that reply.
//!   Nothing is written any more, and what the upstream has sent is read to its end.
//! - A request that may be sent again is kept until the first byte of its reply.

use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, yield_now};

use super::socket_state::SocketState;

/// The most that one read takes.
const READ_BYTES: usize = 8 * 1024;

/// The longest kept request whose buffer is used for the next one.
const REQUEST_BUFFER_BYTES: usize = 4 * 1024;

/// A connection to an upstream.
pub(super) struct UpstreamSocket {
    stream: TcpStream,
    state: Arc<SocketState>,
    /// The request that is under way, if it may be sent again and nothing of its reply came.
    request: Vec<u8>,
    failed_write: Option<ErrorKind>,
    /// Whether hyper has nothing left to write of what came before.
    is_flushed: bool,
    /// Yields once, so that the exchange can take a complete head before the read limit is enforced.
    pending_yield: Option<JoinHandle<()>>,
}

impl UpstreamSocket {
    pub(super) fn new(stream: TcpStream, state: Arc<SocketState>) -> UpstreamSocket {
        UpstreamSocket { stream, state, request: Vec::new(), failed_write: None, is_flushed: true, pending_yield: None }
    }

    /// Takes up to `most` bytes; how many came.
    fn poll_read_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, most: usize) -> Poll<Result<usize>> {
        if buf.remaining() <= most {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            return Poll::Ready(Ok(buf.filled().len() - before));
        }
        // Only in the middle of a long body.
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        buf.advance(count);
        Poll::Ready(Ok(count))
    }

    fn received(&mut self, count: usize) {
        self.state.count_received(count as u64);
        self.pending_yield = None;
        if !self.request.is_empty() {
            self.state.stop_keeping_request();
            self.request.clear();
            self.request.shrink_to(REQUEST_BUFFER_BYTES);
        }
    }

    /// The upstream ended its side, or broke the connection.
    fn ended(&mut self, error: Option<Error>) -> Result<()> {
        if !self.request.is_empty() {
            self.state.set_unanswered(std::mem::take(&mut self.request));
        }
        match (error, self.failed_write) {
            (Some(error), _) => Err(error),
            // The failed write has consumed the socket's error, so that a reset looks like an end. Where the end had come in
            // order before the reset, Linux says `EPIPE` instead of `ECONNRESET`.
            (None, Some(kind)) if kind != ErrorKind::BrokenPipe => Err(kind.into()),
            (None, _) => Ok(()),
        }
    }

    /// The read limit is reached before the exchange has reported a head. hyper may just have handed the head to the exchange:
    /// tasks that are already queued run before a new one, and so does the exchange.
    fn poll_limited(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let pending_yield = self.pending_yield.get_or_insert_with(|| tokio::spawn(yield_now()));
        let joined = ready!(Pin::new(pending_yield).poll(cx));
        self.pending_yield = None;
        joined.map_err(Error::other)?;
        Poll::Ready(Err(Error::other("the upstream sent too much before the head of its reply")))
    }
}

impl AsyncRead for UpstreamSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let allowance = self.state.read_allowance();
        if allowance == 0 {
            return self.poll_limited(cx);
        }
        let most = usize::try_from(allowance).unwrap_or(READ_BYTES).min(READ_BYTES);
        match ready!(self.poll_read_some(cx, buf, most)) {
            Ok(0) => Poll::Ready(self.ended(None)),
            Ok(count) => {
                self.received(count);
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(self.ended(Some(error))),
        }
    }
}

impl AsyncWrite for UpstreamSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        if let Some(kind) = self.failed_write {
            // No wake-up is needed: what ends the exchange is a read, or a timer.
            return if self.state.is_tunnel() { Poll::Ready(Err(kind.into())) } else { Poll::Pending };
        }
        // hyper hands over the head of a request in one piece, and a request that may be sent again has nothing else. After
        // an early answer the rest of the request before it may stand in front of it: then it is not kept.
        if std::mem::take(&mut self.is_flushed) && self.state.keeps_request() {
            self.request.extend_from_slice(buf);
        }
        match ready!(Pin::new(&mut self.stream).poll_write(cx, buf)) {
            Err(error) if !self.state.is_tunnel() => {
                tracing::debug!(%error, "an upstream broke off while it was sent a request; its reply is awaited");
                self.failed_write = Some(error.kind());
                self.state.set_write_failed();
                Poll::Pending
            }
            written => {
                self.state.set_written();
                Poll::Ready(written)
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        // hyper flushes when it has written all.
        self.is_flushed = true;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
