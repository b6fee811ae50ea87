//! One connection of a client, as layers and services see it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::edge::Edge;
use super::keyed_limit::is_trusted;
use super::stall::Stalls;
use super::waiting::HeadWaitState;
use super::write_observer::WriteObserver;

/// Longer than all but a few requests take.
const LONG_REQUEST: Duration = Duration::from_secs(600);

/// A client's connection.
pub struct ClientConnection {
    pub(super) edge: Arc<Edge>,
    peer: SocketAddr,
    is_trusted_proxy: bool,
    /// The listener is full, and this connection serves probes only.
    pub(super) is_for_probes: bool,
    /// After this time the next reply is the last one.
    closes_after: Instant,
    pub(super) waiting: Arc<HeadWaitState>,
    pub(super) activity: SocketActivity,
    pub(super) writes: WriteObserver,
    pub(super) stalls: Stalls,
    has_unread_body: AtomicBool,
}

impl ClientConnection {
    pub(super) fn new(edge: Arc<Edge>, peer: SocketAddr, is_for_probes: bool, waiting: Arc<HeadWaitState>) -> Self {
        let is_trusted_proxy = is_trusted(peer.ip().to_canonical(), edge.trusted_proxies());
        let closes_after = Instant::now() + edge.limits.connection_age;
        ClientConnection {
            edge,
            peer,
            is_trusted_proxy,
            is_for_probes,
            closes_after,
            waiting,
            activity: SocketActivity::default(),
            writes: WriteObserver::default(),
            stalls: Stalls::default(),
            has_unread_body: AtomicBool::new(false),
        }
    }

    /// The client's address and port.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The client's address, an IPv4 address in its own form.
    pub fn address(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// Whether the peer is a proxy whose `X-Forwarded-*` and `Forwarded` are believed.
    pub fn is_trusted_proxy(&self) -> bool {
        self.is_trusted_proxy
    }

    /// Calls back once, when the client's socket next accepts bytes. See [`WriteObserver`].
    pub fn on_next_write(&self, callback: Box<dyn FnOnce() + Send>) {
        self.writes.on_next_write(callback);
    }

    /// How often this client has stalled: its TCP acknowledged nothing for `limits.client_stall` of a reply that waited to be
    /// sent. Stalls that go on are counted, those that have not lasted so long yet are not. One atomic load: compare two
    /// counts to learn whether a stall fell between them.
    pub fn stall_count(&self) -> u32 {
        self.stalls.count()
    }

    /// Whether this client is stalled now, or its last stall ended less than `recent` ago. A client that was stalled when
    /// its connection ended without another write stays so.
    pub fn was_stalled_within(&self, recent: Duration) -> bool {
        self.stalls.was_within(recent)
    }

    /// When the next reply is the last one.
    pub(super) fn closes_after(&self) -> Instant {
        self.closes_after
    }

    /// Whether the reply that is about to be sent must say `Connection: close`. `started`: when its request came.
    pub(super) fn is_closing(&self, started: Instant) -> bool {
        // The clock is read only where a long request may have reached the age.
        let left = self.closes_after.saturating_duration_since(started);
        let is_too_old = left.is_zero() || (left < LONG_REQUEST && Instant::now() >= self.closes_after);
        is_too_old || self.edge.lifecycle.is_draining()
    }

    /// Notes that the client may still be sending a request body that nothing reads: closing the connection then reads
    /// for longer.
    pub fn leave_body_unread(&self) {
        self.has_unread_body.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_unread_body(&self) -> bool {
        self.has_unread_body.load(Ordering::Relaxed)
    }
}

/// What the connection's task has to know of its socket, which hyper owns.
#[derive(Default)]
pub(super) struct SocketActivity {
    has_received: AtomicBool,
    has_read: AtomicBool,
    is_write_blocked: AtomicBool,
    is_closing: AtomicBool,
    is_discarding: AtomicBool,
    is_upgraded: AtomicBool,
}

impl SocketActivity {
    /// Something was read, or the client has ended its side.
    pub(super) fn read(&self) {
        self.has_received.store(true, Ordering::Relaxed);
        self.has_read.store(true, Ordering::Relaxed);
    }

    /// A write was tried. `is_done`: the socket accepted it, or failed.
    pub(super) fn written(&self, is_done: bool) {
        self.has_read.store(false, Ordering::Relaxed);
        self.is_write_blocked.store(!is_done, Ordering::Relaxed);
    }

    /// Whether anything was ever read: tells a connection that waits for its first request from an idle one.
    pub(super) fn has_received(&self) -> bool {
        self.has_received.load(Ordering::Relaxed)
    }

    /// Whether something was read since the last write: while a head is waited for, the beginning of that head.
    pub(super) fn has_read(&self) -> bool {
        self.has_read.load(Ordering::Relaxed)
    }

    /// Whether the client does not take what is being written to it.
    pub(super) fn is_write_blocked(&self) -> bool {
        self.is_write_blocked.load(Ordering::Relaxed)
    }

    /// The sending side is being closed: whatever comes now is not a request.
    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// Whether a refused body is being read and discarded: no request is in flight meanwhile.
    pub(super) fn discard(&self, is_discarding: bool) {
        self.is_discarding.store(is_discarding, Ordering::Relaxed);
    }

    pub(super) fn is_discarding(&self) -> bool {
        self.is_discarding.load(Ordering::Relaxed)
    }

    /// The connection carries another protocol from now on.
    pub(super) fn upgrade(&self) {
        self.is_upgraded.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.is_upgraded.load(Ordering::Relaxed)
    }
}
