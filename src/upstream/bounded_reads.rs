//! Reads of a limited size from an upstream, so that a reply that its client reads slowly is kept in few bytes: hyper
//! offers a larger buffer after each read that fills it.

use std::io::Result;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The most that one read takes.
const READ_BYTES: usize = 8 * 1024;

/// A connection to an upstream.
pub(super) struct BoundedReads(pub(super) TcpStream);

impl AsyncRead for BoundedReads {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if buf.remaining() <= READ_BYTES {
            return Pin::new(&mut self.0).poll_read(cx, buf);
        }
        // Only in the middle of a long body.
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(READ_BYTES));
        let read = Pin::new(&mut self.0).poll_read(cx, &mut part);
        let count = part.filled().len();
        buf.advance(count);
        read
    }
}

impl AsyncWrite for BoundedReads {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
