//! What a client's bytes come over: TCP, or something on top of it such as TLS.

use std::future::Future;
use std::io::{Error, ErrorKind, Result};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::socket_info::SocketInfo;

/// A client's socket, and what must be known of it without reading. What lies on top of TCP passes these questions on to
/// its TCP socket, except for [`Transport::poll_readable`], which may also be ready for bytes that are decrypted already.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {
    /// Ready when there may be something to read, or the client is gone.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ready when bytes, or the end of the client's sending side, wait in the socket: a reset that follows wakes no task.
    /// Pending when nothing does; the task is woken by whatever comes. Nothing is read.
    ///
    /// # Errors
    /// The connection is broken.
    fn poll_unread(&self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// The error that the reactor has reported for this socket, if any; `ConnectionReset` if a read or a write has already
    /// consumed it. Makes no system call while the reactor has reported none.
    fn take_socket_error(&self) -> Option<Error>;

    /// What the kernel knows of the TCP connection; see [`SocketInfo::look_up`].
    ///
    /// # Errors
    /// The kernel gives no such information.
    fn socket_info(&self) -> Result<Option<SocketInfo>>;
}

impl Transport for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // The read that follows returns the error.
        self.poll_read_ready(cx).map(drop)
    }

    fn poll_unread(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut byte = [0];
        self.poll_peek(cx, &mut ReadBuf::new(&mut byte)).map_ok(drop)
    }

    fn take_socket_error(&self) -> Option<Error> {
        let ready = pin!(self.ready(Interest::READABLE | Interest::ERROR));
        match ready.poll(&mut Context::from_waker(Waker::noop())) {
            // A read or a write may have taken the error already.
            Poll::Ready(Ok(ready)) if ready.is_error() => {
                Some(self.take_error().ok().flatten().unwrap_or_else(|| ErrorKind::ConnectionReset.into()))
            }
            Poll::Ready(Ok(_)) | Poll::Pending => None,
            Poll::Ready(Err(error)) => Some(error),
        }
    }

    fn socket_info(&self) -> Result<Option<SocketInfo>> {
        SocketInfo::look_up(self.local_addr()?, self.peer_addr()?)
    }
}
