//! What the acceptor, workers and connections share: how many connections are open, and whether the drain has begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::edge::Edge;
use super::keyed_limit::{AddressGroup, KeyedPermit};
use super::population::Member;

/// The count of open connections, all workers together.
#[derive(Default)]
pub(super) struct Census {
    open: AtomicUsize,
    empty: Notify,
}

impl Census {
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
pub(super) struct Place {
    census: Arc<Census>,
    worker: Arc<AtomicUsize>,
    edge: Arc<Edge>,
    _member: Member,
    _of_address: Option<KeyedPermit<AddressGroup>>,
}

impl Place {
    /// A place with the worker whose count is `worker`.
    pub(super) fn new(
        census: &Arc<Census>,
        worker: &Arc<AtomicUsize>,
        edge: &Arc<Edge>,
        member: Member,
        of_address: Option<KeyedPermit<AddressGroup>>,
    ) -> Place {
        census.open.fetch_add(1, Ordering::AcqRel);
        worker.fetch_add(1, Ordering::Relaxed);
        edge.metrics.connections_open.inc();
        Place {
            census: Arc::clone(census),
            worker: Arc::clone(worker),
            edge: Arc::clone(edge),
            _member: member,
            _of_address: of_address,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.edge.metrics.connections_open.dec();
        self.worker.fetch_sub(1, Ordering::Relaxed);
        if self.census.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.census.empty.notify_waiters();
        }
    }
}

/// Tells the connections of one worker that the drain has begun.
#[derive(Default)]
pub(super) struct Drain {
    begun: AtomicBool,
    bell: Notify,
}

impl Drain {
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.bell.notify_waiters();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Ready when the drain begins.
    pub(super) fn bell(&self) -> tokio::sync::futures::Notified<'_> {
        self.bell.notified()
    }
}
