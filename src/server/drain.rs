//! What acceptor, workers and connections share: how many are open, and that the end has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

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

    /// Comes back when no connection is open.
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

/// One open connection, counted until it is dropped, also when it lives on as an upgrade.
pub(super) struct Place {
    census: Arc<Census>,
    worker: Arc<AtomicUsize>,
}

impl Place {
    /// A place with the worker whose count is `worker`.
    pub(super) fn new(census: &Arc<Census>, worker: &Arc<AtomicUsize>) -> Place {
        census.open.fetch_add(1, Ordering::AcqRel);
        worker.fetch_add(1, Ordering::Relaxed);
        Place { census: Arc::clone(census), worker: Arc::clone(worker) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker.fetch_sub(1, Ordering::Relaxed);
        if self.census.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.census.empty.notify_waiters();
        }
    }
}

/// Tells one worker's connections that the drain has begun.
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

    /// Rings when the drain begins.
    pub(super) fn bell(&self) -> tokio::sync::futures::Notified<'_> {
        self.bell.notified()
    }
}
