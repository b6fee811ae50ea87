//! What the acceptor, workers and connections share: how many connections are open, and whether the drain has begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::connection_limit::ConnectionPermit;
use super::edge::Edge;
use super::keyed_limit::{AddressGroup, KeyedPermit};

/// The count of open connections, all workers together.
#[derive(Default)]
pub(super) struct OpenConnections {
    open: AtomicUsize,
    empty: Notify,
}

impl OpenConnections {
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Returns when no connection is open.
    pub(super) async fn emptied(&self) {
        loop {
            let empty = self.empty.notified();
            if self.open() == 0 {
                return;
            }
            empty.await;
        }
    }
}

/// The place of one open connection, counted until it is dropped, also when the connection lives on as an upgrade.
pub(super) struct ConnectionGuard {
    worker: Arc<AtomicUsize>,
    edge: Arc<Edge>,
    _permit: ConnectionPermit,
    _of_address: Option<KeyedPermit<AddressGroup>>,
    /// Dropped last: when no connection is open, every place is free.
    _open: OpenGuard,
}

impl ConnectionGuard {
    /// A place with the worker whose count is `worker`.
    pub(super) fn new(
        open_connections: &Arc<OpenConnections>,
        worker: &Arc<AtomicUsize>,
        edge: &Arc<Edge>,
        permit: ConnectionPermit,
        of_address: Option<KeyedPermit<AddressGroup>>,
    ) -> ConnectionGuard {
        open_connections.open.fetch_add(1, Ordering::AcqRel);
        worker.fetch_add(1, Ordering::Relaxed);
        edge.metrics.connections_open.inc();
        ConnectionGuard {
            worker: Arc::clone(worker),
            edge: Arc::clone(edge),
            _permit: permit,
            _of_address: of_address,
            _open: OpenGuard(Arc::clone(open_connections)),
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.edge.metrics.connections_open.dec();
        self.worker.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of the open connections.
struct OpenGuard(Arc<OpenConnections>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}

/// Tells the connections of one worker that the drain has begun.
#[derive(Default)]
pub(super) struct Drain {
    begun: AtomicBool,
    drain_begun: Notify,
}

impl Drain {
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.drain_begun.notify_waiters();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Ready when the drain begins.
    pub(super) fn drain_begun(&self) -> tokio::sync::futures::Notified<'_> {
        self.drain_begun.notified()
    }
}
