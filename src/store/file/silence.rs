//! Detects instances that have stopped sending heartbeats. They count as dead even if another process holds their lock file.
//!
//! Every gateway that shares a file with another one increments `turn` in its row, and states in `timeout_ms` how long the
//! value may stay unchanged. Clocks are not compared: each process measures for itself how long it has read the same value.
//! At most `step` is counted between two reads, so that a process that was suspended itself does not declare the others
//! silent.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// For how long the other instances have been silent, as this process has seen it.
#[derive(Debug)]
pub(in crate::store) struct Silence {
    /// The most that counts between two looks.
    step: Duration,
    seen: HashMap<i64, Seen>,
}

#[derive(Debug)]
struct Seen {
    turn: i64,
    silent: Duration,
    looked_at: Instant,
}

impl Silence {
    /// `interval`: how often the others are looked at.
    pub(in crate::store) fn new(interval: Duration) -> Silence {
        Silence { step: 2 * interval, seen: HashMap::new() }
    }

    /// Records the current `turn` of an instance. Returns how long the value has been unchanged.
    pub(in crate::store) fn note(&mut self, instance: i64, turn: i64, now: Instant) -> Duration {
        let seen = self.seen.entry(instance).or_insert(Seen { turn, silent: Duration::ZERO, looked_at: now });
        if seen.turn == turn {
            seen.silent += now.saturating_duration_since(seen.looked_at).min(self.step);
        } else {
            (seen.turn, seen.silent) = (turn, Duration::ZERO);
        }
        seen.looked_at = now;
        seen.silent
    }

    /// Forgets all instances but these.
    pub(in crate::store) fn keep_only(&mut self, instances: &[i64]) {
        self.seen.retain(|instance, _| instances.contains(instance));
    }
}

#[cfg(test)]
mod tests {
    use crate::store::file::silence::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_instance_is_silent_for_as_long_as_its_turn_was_seen_to_stay_the_same() {
        let (mut silence, start) = (Silence::new(SECOND), Instant::now());
        let mut looks = |turn: i64, seconds: u32| silence.note(7, turn, start + seconds * SECOND);
        assert_eq!([looks(3, 0), looks(3, 1), looks(3, 2)], [Duration::ZERO, SECOND, 2 * SECOND]);
        assert_eq!([looks(4, 3), looks(4, 4)], [Duration::ZERO, SECOND]);
        // A look after a long time of which nothing is known.
        assert_eq!(looks(4, 1_000), 3 * SECOND);
    }

    #[test]
    fn an_instance_that_was_forgotten_begins_again() {
        let (mut silence, start) = (Silence::new(SECOND), Instant::now());
        silence.note(7, 3, start);
        silence.note(8, 3, start);
        silence.keep_only(&[8]);
        assert_eq!(silence.note(7, 3, start + SECOND), Duration::ZERO);
        assert_eq!(silence.note(8, 3, start + SECOND), SECOND);
    }
}
