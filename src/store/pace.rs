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
pub(super) struct Pace {
    owed: Duration,
    free_since: Instant,
    held_since: Instant,
}

impl Pace {
    pub(super) fn new() -> Pace {
        let now = Instant::now();
        Pace { owed: Duration::ZERO, free_since: now, held_since: now }
    }

    /// Called before the lock is taken: rests when a rest is owed.
    pub(super) fn rest(&mut self) {
        self.owed = self.owed.saturating_sub(self.free_since.elapsed());
        if self.owed >= LEAST_REST {
            thread::sleep(self.owed);
            self.owed = Duration::ZERO;
        }
        self.free_since = Instant::now();
    }

    /// Called when the lock was got.
    pub(super) fn taken(&mut self, now: Instant) {
        self.held_since = now;
    }

    /// Called when the lock is free again: a third of the time that it was held is owed. How long it was held.
    pub(super) fn freed(&mut self) -> Duration {
        let now = Instant::now();
        let held = now.saturating_duration_since(self.held_since);
        self.owed = (self.owed + held / 3).min(MOST_REST);
        self.free_since = now;
        held
    }
}
