//! The limit on requests in flight. A request counts until the body of its reply has ended, also where its exchange goes
//! on without its client: the permit of tower's own limit ends with the future of the reply's head.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts requests in flight, of all workers together.
#[derive(Debug)]
pub(super) struct InFlight {
    limit: usize,
    count: AtomicUsize,
}

impl InFlight {
    /// At most `limit` at once.
    pub(super) fn new(limit: usize) -> InFlight {
        InFlight { limit, count: AtomicUsize::new(0) }
    }

    /// One more, until [`InFlight::release`]. False when the limit is reached.
    pub(super) fn acquire(&self) -> bool {
        let is_within = self.count.fetch_add(1, Ordering::Relaxed) < self.limit;
        if !is_within {
            self.release();
        }
        is_within
    }

    /// One less.
    pub(super) fn release(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_released_can_be_acquired_again() {
        let in_flight = InFlight::new(2);
        assert!(in_flight.acquire() && in_flight.acquire());
        assert!(!in_flight.acquire() && !in_flight.acquire());
        in_flight.release();
        assert!(in_flight.acquire() && !in_flight.acquire());
    }
}
