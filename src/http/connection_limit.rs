//! A bounded set of open connections, from which the one that has waited longest can be evicted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::waiting::{HeadWaitState, Since};

/// How many candidates for eviction one look at all connections finds.
const CANDIDATES: usize = 64;

/// The open connections of one kind.
pub(super) struct ConnectionLimit {
    limit: usize,
    is_for_probes: bool,
    /// Without those that were evicted and are not closed yet.
    open: AtomicUsize,
    members: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    next_id: u64,
    waiting: HashMap<u64, Arc<HeadWaitState>>,
    /// The connections that had waited longest at the last look, the longest wait at the end.
    candidates: Vec<(Since, Arc<HeadWaitState>)>,
}

impl ConnectionLimit {
    /// At most `limit` connections. `is_for_probes`: they serve nothing but probes.
    pub(super) fn new(limit: usize, is_for_probes: bool) -> Arc<ConnectionLimit> {
        Arc::new(ConnectionLimit { limit, is_for_probes, open: AtomicUsize::new(0), members: Mutex::default() })
    }

    /// Takes a place, if one is free. Only the acceptor calls this, so that no other thread takes it in between.
    pub(super) fn join(self: &Arc<Self>) -> Option<ConnectionPermit> {
        if self.open.load(Ordering::Relaxed) >= self.limit {
            return None;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let waiting = Arc::new(HeadWaitState::new());
        let mut members = self.lock();
        let id = members.next_id;
        members.next_id += 1;
        members.waiting.insert(id, Arc::clone(&waiting));
        Some(ConnectionPermit { connection_limit: Arc::clone(self), id, waiting })
    }

    /// Evicts the connection that has waited longest for a request head, if one has waited for `least`. Whether a place
    /// became free.
    pub(super) fn evict_longest(&self, least: Duration) -> bool {
        let mut members = self.lock();
        for _ in 0..2 {
            while let Some((since, waiting)) = members.candidates.pop() {
                if since.is_older_than(least) && waiting.evict(since) {
                    self.open.fetch_sub(1, Ordering::Relaxed);
                    return true;
                }
            }
            members.look_for_candidates();
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn look_for_candidates(&mut self) {
        let since = |waiting: &Arc<HeadWaitState>| Some((waiting.since()?, Arc::clone(waiting)));
        let mut found: Vec<_> = self.waiting.values().filter_map(since).collect();
        if found.len() > CANDIDATES {
            found.select_nth_unstable_by_key(CANDIDATES - 1, |(since, _)| *since);
            found.truncate(CANDIDATES);
        }
        found.sort_unstable_by_key(|(since, _)| std::cmp::Reverse(*since));
        self.candidates = found;
    }
}

/// A connection's membership, until it is dropped.
pub(super) struct ConnectionPermit {
    connection_limit: Arc<ConnectionLimit>,
    id: u64,
    waiting: Arc<HeadWaitState>,
}

impl ConnectionPermit {
    /// Whether the connection serves nothing but probes.
    pub(super) fn is_for_probes(&self) -> bool {
        self.connection_limit.is_for_probes
    }

    pub(super) fn waiting(&self) -> &Arc<HeadWaitState> {
        &self.waiting
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if self.waiting.close() {
            self.connection_limit.open.fetch_sub(1, Ordering::Relaxed);
        }
        self.connection_limit.lock().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_longest_wait_is_evicted_and_busy_connections_are_not() {
        let connection_limit = ConnectionLimit::new(3, false);
        let members: Vec<ConnectionPermit> = (0..3).map(|_| connection_limit.join().unwrap()).collect();
        assert!(connection_limit.join().is_none(), "the limit is reached");
        for (member, later_ms) in members.iter().zip([30, 10, 20]) {
            assert!(member.waiting().end());
            member.waiting().begin(Instant::now() + Duration::from_millis(later_ms));
        }
        assert!(members[1].waiting().end(), "the one that waited longest gets a request");
        assert!(connection_limit.evict_longest(Duration::ZERO));
        let evicted = |member: &ConnectionPermit| member.waiting().is_evicted();
        assert_eq!(members.iter().map(evicted).collect::<Vec<_>>(), [false, false, true]);
        let fourth = connection_limit.join().unwrap();
        assert!(connection_limit.join().is_none());
        drop(members);
        assert_eq!(connection_limit.open.load(Ordering::Relaxed), 1, "an evicted connection is not subtracted twice");
        assert!(!connection_limit.evict_longest(Duration::from_secs(60)), "it has not waited long enough");
        drop(fourth);
        assert!(connection_limit.lock().waiting.is_empty());
    }
}
