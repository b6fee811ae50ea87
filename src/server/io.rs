//! A client's socket as hyper is given it: a client that takes nothing is cut off, and an answer is not lost by closing.

use std::fmt;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::drain::Place;

/// How long a connection that we closed is still read from. A client that is still sending has its answer by then on
/// any network worth the name; a slot is not held longer for one that goes on.
const LINGER: Duration = Duration::from_secs(1);

/// How much of it is discarded: what is on its way when the answer is sent, about the product of a fast link's
/// bandwidth and delay. A client that sends gigabytes is not listened to.
const LINGER_BYTES: usize = 256 * 1024;

/// Where it can be said what is to happen when a client's socket takes bytes next. hyper does not tell when a reply's
/// head leaves; the first write after the head was handed to it does.
#[derive(Clone, Default)]
pub struct Outlet(Arc<Awaited>);

#[derive(Default)]
struct Awaited {
    is_set: AtomicBool,
    then: Mutex<Vec<Then>>,
}

/// What is to happen.
pub type Then = Box<dyn FnOnce() + Send>;

impl Outlet {
    /// Does this once, when the socket takes bytes next; never if it takes none. What waits already goes on waiting: where a
    /// client pipelines, hyper may take another request while the head of a reply waits in a full socket.
    pub fn at_next_write(&self, then: Then) {
        self.0.then.lock().unwrap_or_else(PoisonError::into_inner).push(then);
        self.0.is_set.store(true, Ordering::Release);
    }

    fn written(&self) {
        if !self.0.is_set.load(Ordering::Acquire) {
            return;
        }
        self.0.is_set.store(false, Ordering::Release);
        let all = mem::take(&mut *self.0.then.lock().unwrap_or_else(PoisonError::into_inner));
        all.into_iter().for_each(|then| then());
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outlet")
    }
}

/// What a connection's own task wants to know of its socket, which hyper has.
#[derive(Default)]
pub(super) struct Signs {
    spoke: AtomicBool,
    unrest: AtomicBool,
}

impl Signs {
    /// Whether anything was ever read: tells a connection that waits for its first request from an idle one.
    pub(super) fn spoke(&self) -> bool {
        self.spoke.load(Ordering::Relaxed)
    }

    /// Whether nothing came since something was written, and no write is held up.
    pub(super) fn is_quiet(&self) -> bool {
        !self.unrest.load(Ordering::Relaxed)
    }
}

/// A client's connection.
pub(super) struct ClientIo {
    stream: TcpStream,
    write_idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the timer runs for a write that is held up. Also for the linger, which no write follows.
    timed: bool,
    lingers: Option<usize>,
    signs: Arc<Signs>,
    /// Read from the client before, and not used yet.
    ahead: Bytes,
    outlet: Outlet,
    _place: Option<Place>,
}

impl ClientIo {
    pub(super) fn new(stream: TcpStream, write_idle: Duration, outlet: Outlet, place: Option<Place>) -> ClientIo {
        let (signs, ahead) = (Arc::default(), Bytes::new());
        ClientIo { stream, write_idle, timer: None, timed: false, lingers: None, signs, ahead, outlet, _place: place }
    }

    /// What can be seen from outside while hyper has it.
    pub(super) fn signs(&self) -> Arc<Signs> {
        Arc::clone(&self.signs)
    }

    /// Gives back what was read and not used: it comes first with the next read.
    pub(super) fn unread(&mut self, ahead: &[u8]) {
        debug_assert!(self.ahead.is_empty(), "what is ahead is used before hyper reads more");
        // A copy: even an empty part of hyper's buffer would keep all of it.
        self.ahead = Bytes::copy_from_slice(ahead);
    }

    /// Ready when there may be something to read, or the client is gone.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is what the read that follows will say.
        if self.ahead.is_empty() { self.stream.poll_read_ready(cx).map(drop) } else { Poll::Ready(()) }
    }

    /// Ready when the timer, set to `limit` at the first call since `timed` was false, is over.
    fn poll_timer(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if !self.timed {
            self.timed = true;
            let due = Instant::now() + limit;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(due),
                None => self.timer = Some(Box::pin(sleep_until(due))),
            }
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    fn watch(&mut self, written: Poll<Result<usize>>, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        self.signs.unrest.store(written.is_pending(), Ordering::Relaxed);
        if written.is_ready() {
            self.timed = false;
            if matches!(written, Poll::Ready(Ok(1..))) {
                self.outlet.written();
            }
            return written;
        }
        let limit = self.write_idle;
        self.poll_timer(limit, cx).map(|()| Err(Error::new(ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if !self.ahead.is_empty() {
            let most = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..most]);
            self.ahead.advance(most);
            if self.ahead.is_empty() {
                // Not only used up: its memory goes too.
                self.ahead = Bytes::new();
            }
            self.signs.unrest.store(true, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.signs.spoke.store(true, Ordering::Relaxed);
            self.signs.unrest.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Says that no more comes, then reads until the client says the same. To close while something from the client is
    /// unread makes the kernel send a reset, and that makes the client's kernel throw away an answer that it has not
    /// read yet.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.lingers.is_none() {
            // It is over, whatever was written before: nothing that comes now is a request.
            self.signs.unrest.store(true, Ordering::Relaxed);
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.lingers = Some(LINGER_BYTES);
            self.timed = false;
        }
        let mut scratch = [0; 8 * 1024];
        while let Some(left) = self.lingers.filter(|left| *left > 0) {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                // The answer is out; how the client goes away is no error of ours.
                Poll::Ready(Err(_)) => break,
                Poll::Ready(Ok(())) if buf.filled().is_empty() => break,
                Poll::Ready(Ok(())) => self.lingers = Some(left.saturating_sub(buf.filled().len())),
                Poll::Pending => {
                    ready!(self.poll_timer(LINGER, cx));
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
