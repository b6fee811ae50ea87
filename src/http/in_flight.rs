//! The limit on requests in flight. A permit lives until the body of the reply has ended, also where the exchange goes
//! on without its client: the permit of tower's own limit ends with the future of the reply's head.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts requests in flight, of all workers together.
#[derive(Debug)]
pub struct InFlight {
    limit: usize,
    count: AtomicUsize,
}

impl InFlight {
    /// At most `limit` at once.
    pub fn new(limit: usize) -> Arc<InFlight> {
        Arc::new(InFlight { limit, count: AtomicUsize::new(0) })
    }

    /// One more; `None` when the limit is reached.
    pub(super) fn acquire(self: &Arc<Self>) -> Option<Permit> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Permit(Arc::clone(self)))
    }
}

/// One request in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<InFlight>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_given_back_when_it_is_dropped() {
        let in_flight = InFlight::new(2);
        let permits = [in_flight.acquire().unwrap(), in_flight.acquire().unwrap()];
        assert!(in_flight.acquire().is_none() && in_flight.acquire().is_none());
        drop(permits);
        assert!(in_flight.acquire().is_some());
    }
}
