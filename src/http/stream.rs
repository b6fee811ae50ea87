//! A client's socket as hyper sees it. It cuts off a client that reads nothing, notices one that resets the connection or
//! stalls, replaces the replies of hyper's parser by problem documents, and does not let a reply get lost when the
//! connection is closed.
//!
//! A client that ends its sending side has not left: it may still read. So hyper does not read while a request is in
//! flight, and what tells it that the client is gone is this stream: [`ClientStream::poll_flush`], which hyper calls in
//! each of its polls (`tests/contract.rs`), fails when the connection was reset.

use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

use super::client::ClientConnection;
use super::drain::ConnectionGuard;
use super::head_wait::HeadWaitTimer;
use super::problem::ProblemKind;
use super::refused_head::{find_parser_reply, refuse_head};
use super::stall::BlockedWrite;
use super::stream_timer::{Purpose, StreamTimer};
use super::transport::Transport;

/// How long a closed connection is still read from when the client is not known to be sending.
const LINGER: Duration = Duration::from_secs(1);

/// A client's connection.
pub(super) struct ClientStream<T> {
    transport: T,
    client: Arc<ClientConnection>,
    heads: HeadWaitTimer,
    timer: StreamTimer,
    blocked: Option<BlockedWrite>,
    linger: Option<Linger>,
    /// Read from the client before, and not used yet.
    ahead: Bytes,
    /// The rest of the reply that replaces one of hyper's parser.
    replacement: Option<Bytes>,
    _place: ConnectionGuard,
}

struct Linger {
    since: Instant,
    has_read: bool,
}

impl<T: Transport> ClientStream<T> {
    pub(super) fn new(
        transport: T,
        client: Arc<ClientConnection>,
        heads: HeadWaitTimer,
        place: ConnectionGuard,
    ) -> Self {
        ClientStream {
            transport,
            client,
            heads,
            timer: StreamTimer::default(),
            blocked: None,
            linger: None,
            ahead: Bytes::new(),
            replacement: None,
            _place: place,
        }
    }

    /// Gives back what was read and not used: it comes first with the next read.
    pub(super) fn unread(&mut self, ahead: &[u8]) {
        debug_assert!(self.ahead.is_empty(), "what is ahead is used before hyper reads more");
        // A copy: even an empty part of hyper's buffer would keep all of it.
        self.ahead = Bytes::copy_from_slice(ahead);
    }

    #[cold]
    fn read_ahead(&mut self, buf: &mut ReadBuf<'_>) {
        let most = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..most]);
        self.ahead.advance(most);
        if self.ahead.is_empty() {
            // Free its memory, too.
            self.ahead = Bytes::new();
        }
        self.client.activity.read();
        self.heads.note_read();
    }

    /// Ready when there may be something to read, or the client is gone.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.is_empty() { self.transport.poll_readable(cx) } else { Poll::Ready(()) }
    }

    /// Answers a head that was begun, and closes.
    pub(super) async fn refuse_head(mut self, kind: ProblemKind, waited: Duration) {
        let reply = refuse_head(&self.client, kind, waited);
        // A client that does not take the reply is gone or cut off, and gets no other.
        if self.write_all(&reply).await.is_ok() {
            let _ = self.shutdown().await;
        }
    }

    /// The same with no time for it: the socket takes the reply at once, or the client gets none.
    pub(super) async fn refuse_head_at_once(mut self, kind: ProblemKind, waited: Duration) {
        let reply = refuse_head(&self.client, kind, waited);
        let _ = timeout(Duration::ZERO, self.write_all(&reply)).await;
    }

    /// Takes note of a write, and cuts off a client that reads nothing for too long.
    fn note_write(&mut self, written: Poll<Result<usize>>, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        self.client.activity.written(written.is_ready());
        if written.is_pending() {
            return self.poll_blocked(cx).map(Err);
        }
        if let Some(mut blocked) = self.blocked.take() {
            self.timer.stop(Purpose::BlockedWrite);
            blocked.end(&self.client.stalls, Instant::now());
        }
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.client.writes.written();
        }
        written
    }

    /// Checks periodically whether the client is stalled. Ready when its socket has been full for `reply_write_idle`.
    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let ClientStream { transport, client, timer, blocked, .. } = self;
        let limits = &client.edge.limits;
        let blocked = blocked.get_or_insert_with(|| BlockedWrite::new(limits, Instant::now()));
        loop {
            ready!(timer.poll(Purpose::BlockedWrite, blocked.due(), cx));
            let now = Instant::now();
            blocked.sample(transport.socket_info(), limits, &client.stalls, now);
            if now >= blocked.since() + limits.reply_write_idle {
                return Poll::Ready(Error::new(ErrorKind::TimedOut, "the client reads nothing"));
            }
        }
    }

    /// Whether a request is in flight, so that hyper may not read from the socket.
    fn is_request_in_flight(&self) -> bool {
        let activity = &self.client.activity;
        !(self.heads.is_waiting() || activity.is_closing() || activity.is_upgraded())
    }

    /// Called when the socket holds data, a FIN or a reset that hyper does not read.
    ///
    /// # Errors
    /// The connection was reset, or is broken in another way.
    #[cold]
    fn check_for_reset(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if let Some(error) = self.transport.take_socket_error() {
            return Err(error);
        }
        loop {
            // The timer keeps running across the requests of a pipelining client.
            if !self.timer.is_running(Purpose::ResetCheck) {
                match self.transport.poll_unread(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(unread) => unread?,
                }
            }
            if self
                .timer
                .poll(Purpose::ResetCheck, Instant::now() + self.client.edge.limits.reset_check_interval, cx)
                .is_pending()
            {
                return Ok(());
            }
        }
    }

    /// Writes what ends with a reply of hyper's parser: first what comes before it, then the problem document instead.
    fn poll_write_replacement(&mut self, cx: &mut Context<'_>, written: &[u8]) -> Poll<Result<usize>> {
        let Some((start, kind)) = find_parser_reply(written) else {
            tracing::warn!("hyper refused a request head in an unknown way");
            let written = Pin::new(&mut self.transport).poll_write(cx, written);
            return self.note_write(written, cx);
        };
        let ClientStream { transport, client, replacement, .. } = self;
        let replacement = replacement.get_or_insert_with(|| refuse_head(client, kind, Duration::ZERO));
        if start > 0 {
            let written = Pin::new(transport).poll_write(cx, &written[..start]);
            return self.note_write(written, cx);
        }
        while !replacement.is_empty() {
            match Pin::new(&mut *transport).poll_write(cx, replacement) {
                Poll::Ready(Ok(count @ 1..)) => replacement.advance(count),
                other => return self.note_write(other, cx),
            }
        }
        self.note_write(Poll::Ready(Ok(written.len())), cx)
    }
}

impl<T: Transport> AsyncRead for ClientStream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if !self.ahead.is_empty() {
            self.read_ahead(buf);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.transport).poll_read(cx, buf);
        if read.is_ready() {
            self.client.activity.read();
            self.heads.note_read();
        }
        read
    }
}

impl<T: Transport> AsyncWrite for ClientStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        if self.replacement.is_some() || self.heads.has_refused_head() {
            return self.poll_write_replacement(cx, buf);
        }
        let written = Pin::new(&mut self.transport).poll_write(cx, buf);
        self.note_write(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
        // While the receive buffer is empty, `poll_readable` registers the task to be woken, as a read would.
        if self.is_request_in_flight() && self.transport.poll_readable(cx).is_ready() {
            self.check_for_reset(cx)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the sending side, then reads and discards until the client ends its own. To close while something from the
    /// client is unread makes the kernel send a reset, on which the client's kernel discards a reply that was not read
    /// yet. A client that is still sending a refused body gets the time that the settings give it: many clients read the
    /// reply only after they have sent everything.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.client.activity.is_upgraded() {
            // The other direction goes on, and is read by whom it belongs to.
            return Pin::new(&mut self.transport).poll_shutdown(cx);
        }
        let limits = self.client.edge.limits;
        if self.linger.is_none() {
            self.client.activity.close();
            ready!(Pin::new(&mut self.transport).poll_shutdown(cx))?;
            let has_read = self.client.has_unread_body();
            self.linger = Some(Linger { since: Instant::now(), has_read });
            // A connection that only lingers makes room for others.
            self.client.waiting.begin(Instant::now().into_std());
        }
        let mut scratch = [0; 8 * 1024];
        let ClientStream { transport, client, linger, timer, .. } = &mut *self;
        let Some(linger) = linger else { return Poll::Ready(Ok(())) };
        // A stop does not wait for clients that only send what nothing reads.
        let longest = if client.edge.lifecycle.is_draining() { LINGER } else { limits.refused_body_timeout };
        let ends = linger.since + longest;
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *transport).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() && Instant::now() < ends => {
                    linger.has_read = true;
                    timer.stop(Purpose::Linger);
                }
                // The reply is out; how the client goes away does not matter.
                Poll::Ready(Ok(()) | Err(_)) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        let idle = if linger.has_read { limits.refused_body_idle } else { LINGER };
        self.timer.poll(Purpose::Linger, ends.min(Instant::now() + idle), cx).map(Ok)
    }
}
