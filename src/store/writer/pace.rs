//! How often the writer leaves the write lock free.
//!
//! SQLite's busy handler polls, at intervals that grow to 100 ms, and gives up after 5 s: about sixty tries. A writer
//! that always has the next batch at hand would meet nearly all of them. So the lock is free for at least a quarter
//! of the time: the chance that all tries meet it taken is then below one in ten million.

use std::thread;
use std::time::{Duration, Instant};

/// Below this the rest is put off: sleeping is not more exact.
const LEAST_REST: Duration = Duration::from_millis(1);
/// What is owed at most, after a long transaction.
const MOST_REST: Duration = Duration::from_millis(50);

/// Accounts of time with and without the write lock.
pub(in crate::store) struct Pace {
    owed: Duration,
    free_since: Instant,
    held_since: Instant,
}

impl Pace {
    pub(in crate::store) fn new() -> Pace {
        let now = Instant::now();
        Pace { owed: Duration::ZERO, free_since: now, held_since: now }
    }

    /// Called before the lock is taken: rests when a rest is owed.
    pub(in crate::store) fn rest(&mut self) {
        let rest = self.due(self.free_since.elapsed());
        if !rest.is_zero() {
            thread::sleep(rest);
        }
        self.free_since = Instant::now();
    }

    /// The rest that is due now, after the lock has been free for a while.
    fn due(&mut self, free: Duration) -> Duration {
        self.owed = self.owed.saturating_sub(free);
        if self.owed < LEAST_REST {
            return Duration::ZERO;
        }
        std::mem::take(&mut self.owed)
    }

    /// Called when the lock was got.
    pub(in crate::store) fn taken(&mut self, now: Instant) {
        self.held_since = now;
    }

    /// Called when the lock is free again. How long it was held.
    pub(in crate::store) fn freed(&mut self) -> Duration {
        let now = Instant::now();
        let held = now.saturating_duration_since(self.held_since);
        self.owe(held);
        self.free_since = now;
        held
    }

    /// A third of the time that the lock was held is owed.
    fn owe(&mut self, held: Duration) {
        self.owed = (self.owed + held / 3).min(MOST_REST);
    }
}

#[cfg(test)]
mod tests {
    use crate::store::writer::pace::*;

    #[test]
    fn the_lock_is_free_for_a_quarter_of_the_time_however_short_the_turns() {
        for held in [Duration::from_micros(50), Duration::from_millis(2), Duration::from_millis(100)] {
            let mut pace = Pace::new();
            let (mut busy, mut free) = (Duration::ZERO, Duration::ZERO);
            while busy < Duration::from_secs(10) {
                // The next batch is always at hand.
                free += pace.due(Duration::ZERO);
                pace.owe(held);
                busy += held;
            }
            free += pace.due(Duration::ZERO);
            assert!(free * 3 + LEAST_REST * 3 >= busy, "{held:?}: free {free:?} of {busy:?}");
        }
    }

    #[test]
    fn a_lock_that_is_free_by_itself_owes_no_rest() {
        let mut pace = Pace::new();
        for _ in 0..1000 {
            assert_eq!(pace.due(Duration::from_millis(2)), Duration::ZERO);
            pace.owe(Duration::from_millis(3));
        }
    }
}
