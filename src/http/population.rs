//! A bounded set of open connections, from which the one that has waited longest can be evicted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::waiting::{Since, Waiting};

/// How many candidates for eviction one look at all connections finds.
const CANDIDATES: usize = 64;

/// The open connections of one kind.
pub(super) struct Population {
    limit: usize,
    /// Without those that were evicted and are not closed yet.
    open: AtomicUsize,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    next_id: u64,
    waiting: HashMap<u64, Arc<Waiting>>,
    /// The connections that had waited longest at the last look, the longest wait at the end.
    candidates: Vec<(Since, Arc<Waiting>)>,
}

impl Population {
    pub(super) fn new(limit: usize) -> Arc<Population> {
        Arc::new(Population { limit, open: AtomicUsize::new(0), members: Mutex::default() })
    }

    /// Takes a place, if one is free. Only the acceptor calls this, so that no other thread takes it in between.
    pub(super) fn join(self: &Arc<Self>) -> Option<Member> {
        if self.open.load(Ordering::Relaxed) >= self.limit {
            return None;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let waiting = Arc::new(Waiting::new());
        let mut members = self.lock();
        let id = members.next_id;
        members.next_id += 1;
        members.waiting.insert(id, Arc::clone(&waiting));
        Some(Member { population: Arc::clone(self), id, waiting })
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

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    fn look_for_candidates(&mut self) {
        let since = |waiting: &Arc<Waiting>| Some((waiting.since()?, Arc::clone(waiting)));
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
pub(super) struct Member {
    population: Arc<Population>,
    id: u64,
    waiting: Arc<Waiting>,
}

impl Member {
    pub(super) fn waiting(&self) -> &Arc<Waiting> {
        &self.waiting
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.waiting.close() {
            self.population.open.fetch_sub(1, Ordering::Relaxed);
        }
        self.population.lock().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_longest_wait_is_evicted_and_busy_connections_are_not() {
        let population = Population::new(3);
        let members: Vec<Member> = (0..3).map(|_| population.join().unwrap()).collect();
        assert!(population.join().is_none(), "the limit is reached");
        for (member, later_ms) in members.iter().zip([30, 10, 20]) {
            assert!(member.waiting().end());
            member.waiting().begin(Instant::now() + Duration::from_millis(later_ms));
        }
        assert!(members[1].waiting().end(), "the one that waited longest gets a request");
        assert!(population.evict_longest(Duration::ZERO));
        let evicted = |member: &Member| member.waiting().is_evicted();
        assert_eq!(members.iter().map(evicted).collect::<Vec<_>>(), [false, false, true]);
        let fourth = population.join().unwrap();
        assert!(population.join().is_none());
        drop(members);
        assert_eq!(population.open.load(Ordering::Relaxed), 1, "an evicted connection is not subtracted twice");
        assert!(!population.evict_longest(Duration::from_secs(60)), "it has not waited long enough");
        drop(fourth);
        assert!(population.lock().waiting.is_empty());
    }
}
