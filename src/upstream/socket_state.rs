//! State shared by an exchange and the socket that hyper owns.
//!
//! The socket belongs to hyper's task, the exchange to the request's. Both are on one worker, so that nothing here is
//! contended; the atomics are for [`super::Upstream`], which may be shared between threads.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::net::TcpStream;

/// More than any connection carries.
const UNLIMITED: u64 = u64::MAX;

/// One for each connection, made with it.
pub(super) struct SocketState {
    addresses: Option<(SocketAddr, SocketAddr)>,
    /// How many bytes may be read: limited while the head of a reply is awaited.
    read_allowance: AtomicU64,
    /// Whether what is written next is a whole request that may be sent again.
    keeps_request: AtomicBool,
    /// Whether anything of the request that is under way was written.
    has_written: AtomicBool,
    write_failed: AtomicBool,
    is_tunnel: AtomicBool,
    /// A request that may be sent again, after the connection ended without one byte of reply to it.
    unanswered: Mutex<Option<Vec<u8>>>,
}

impl SocketState {
    pub(super) fn new(stream: &TcpStream) -> SocketState {
        SocketState {
            addresses: stream.local_addr().ok().zip(stream.peer_addr().ok()),
            read_allowance: AtomicU64::new(UNLIMITED),
            keeps_request: AtomicBool::new(false),
            has_written: AtomicBool::new(false),
            write_failed: AtomicBool::new(false),
            is_tunnel: AtomicBool::new(false),
            unanswered: Mutex::new(None),
        }
    }

    /// The local address and the upstream's.
    pub(super) fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.addresses
    }

    /// A request is about to be sent. Up to the head of its reply at most `head_bytes` are read. `may_repeat`: the request is
    /// kept until the first byte of the reply.
    pub(super) fn begin(&self, head_bytes: u64, may_repeat: bool) {
        self.read_allowance.store(head_bytes, Ordering::Relaxed);
        self.keeps_request.store(may_repeat, Ordering::Relaxed);
        self.has_written.store(false, Ordering::Relaxed);
    }

    /// The head of the reply is there: its body may be of any length.
    pub(super) fn head_received(&self) {
        self.read_allowance.store(UNLIMITED, Ordering::Relaxed);
    }

    /// How many bytes may be read now.
    pub(super) fn read_allowance(&self) -> u64 {
        self.read_allowance.load(Ordering::Relaxed)
    }

    /// So many bytes were read.
    pub(super) fn count_received(&self, bytes: u64) {
        self.read_allowance.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn keeps_request(&self) -> bool {
        self.keeps_request.load(Ordering::Relaxed)
    }

    /// The first byte of the reply came.
    pub(super) fn stop_keeping_request(&self) {
        self.keeps_request.store(false, Ordering::Relaxed);
    }

    /// The connection ended without a reply to this request.
    pub(super) fn set_unanswered(&self, request: Vec<u8>) {
        *self.unanswered.lock().unwrap_or_else(PoisonError::into_inner) = Some(request);
    }

    /// The request that the connection ended without a byte of reply to, as it was written; at most once.
    pub(super) fn take_unanswered(&self) -> Option<Vec<u8>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A part of the request was written.
    pub(super) fn set_written(&self) {
        self.has_written.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_written(&self) -> bool {
        self.has_written.load(Ordering::Relaxed)
    }

    /// A write failed: the upstream broke off before the whole request was sent.
    pub(super) fn set_write_failed(&self) {
        self.write_failed.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_write_failed(&self) -> bool {
        self.write_failed.load(Ordering::Relaxed)
    }

    /// The connection speaks another protocol from now on.
    pub(super) fn become_tunnel(&self) {
        self.is_tunnel.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.is_tunnel.load(Ordering::Relaxed)
    }
}
