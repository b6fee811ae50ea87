//! Since when a connection has been waiting for a request head, as the acceptor sees it from another thread.
//!
//! When a listener is full, the acceptor closes the connection that has waited longest. The decision is one
//! compare-and-swap: either the connection is evicted, or its next request begins, never both. A connection between two
//! requests that follow each other quickly counts as busy: it would not be evicted anyway, and so costs nothing.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

/// A request is in flight on the connection.
const BUSY: u64 = 0;
/// The connection is closed.
const CLOSED: u64 = u64::MAX - 1;
/// The acceptor has given the connection's place away.
const EVICTED: u64 = u64::MAX;

/// The origin of the times that are stored.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// One connection's wait for a request head.
#[derive(Debug)]
pub(super) struct HeadWaitState {
    /// [`BUSY`], [`CLOSED`], [`EVICTED`], or the begin of the wait in microseconds after [`START`], plus one.
    state: AtomicU64,
    /// Of the connection's task.
    waker: AtomicWaker,
}

impl HeadWaitState {
    /// A connection that has just been accepted.
    pub(super) fn new() -> HeadWaitState {
        HeadWaitState { state: AtomicU64::new(stamp(Instant::now())), waker: AtomicWaker::new() }
    }

    /// A wait has begun. An evicted connection stays evicted.
    pub(super) fn begin(&self, now: Instant) {
        if self.state.load(Ordering::Relaxed) == BUSY {
            let _ = self.state.compare_exchange(BUSY, stamp(now), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// A request head has arrived. False: the connection was evicted just before.
    pub(super) fn end(&self) -> bool {
        if self.state.load(Ordering::Relaxed) == BUSY {
            return true;
        }
        let waited =
            self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| (state != EVICTED).then_some(BUSY));
        waited.is_ok()
    }

    /// The connection is gone. False: it had been evicted, so that its place is taken.
    pub(super) fn close(&self) -> bool {
        self.state.swap(CLOSED, Ordering::Relaxed) != EVICTED
    }

    /// Since when the connection waits; `None` while it does not.
    pub(super) fn since(&self) -> Option<Since> {
        match self.state.load(Ordering::Relaxed) {
            BUSY | CLOSED | EVICTED => None,
            since => Some(Since(since)),
        }
    }

    /// Evicts the connection if it is still in the wait that began at `since`, and wakes its task.
    pub(super) fn evict(&self, since: Since) -> bool {
        let evicted = self.state.compare_exchange(since.0, EVICTED, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if evicted {
            self.waker.wake();
        }
        evicted
    }

    /// The task with this waker is woken when the connection is evicted.
    pub(super) fn wake_on_eviction(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Whether the connection was evicted.
    pub(super) fn is_evicted(&self) -> bool {
        self.state.load(Ordering::Relaxed) == EVICTED
    }
}

/// When a wait began; earlier is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Since(u64);

impl Since {
    /// Whether the wait has lasted for `duration`.
    pub(super) fn is_older_than(self, duration: Duration) -> bool {
        let age = stamp(Instant::now()).saturating_sub(self.0);
        u128::from(age) >= duration.as_micros()
    }
}

fn stamp(now: Instant) -> u64 {
    let passed = now.saturating_duration_since(*START).as_micros();
    u64::try_from(passed).unwrap_or(CLOSED - 2) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_either_evicted_or_serves_its_next_request() {
        let waiting = HeadWaitState::new();
        let since = waiting.since().unwrap();
        assert!(waiting.end() && waiting.since().is_none());
        assert!(!waiting.evict(since), "it is busy");
        waiting.begin(Instant::now());
        let since = waiting.since().unwrap();
        assert!(waiting.evict(since) && waiting.is_evicted());
        assert!(!waiting.end(), "a request that comes later is not served");
        waiting.begin(Instant::now());
        assert!(waiting.since().is_none() && !waiting.close());
    }

    #[test]
    fn a_new_wait_is_not_the_one_that_was_seen() {
        let waiting = HeadWaitState::new();
        let seen = waiting.since().unwrap();
        assert!(waiting.end());
        waiting.begin(Instant::now() + Duration::from_millis(5));
        assert!(!waiting.evict(seen) && waiting.close());
    }
}
