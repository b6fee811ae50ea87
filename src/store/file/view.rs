//! The generation of the view of keys and users, and how fresh it is.
//!
//! A reader notes the generation *before* it loads a row, and keeps it with what it loaded. The generation advances
//! after every commit that may have changed a key or a user: our own writes, and every commit of another program.
//! A row with the generation of now is exactly true; one with an older generation may still be, and is compared again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A count of the changes that the view has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub(in crate::store) u64);

impl Generation {
    /// As a plain number, for an atomic.
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// From such a number.
    pub fn from_u64(number: u64) -> Generation {
        Generation(number)
    }
}

/// The shared view: written by the writer, read by everyone.
pub(in crate::store) struct View {
    generation: AtomicU64,
    started: Instant,
    watched_us: AtomicU64,
}

impl View {
    pub(in crate::store) fn new() -> View {
        View { generation: AtomicU64::new(1), started: Instant::now(), watched_us: AtomicU64::new(0) }
    }

    pub(in crate::store) fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Acquire))
    }

    /// Makes a generation known; only after the commit that it stands for.
    pub(in crate::store) fn publish(&self, generation: Generation) {
        self.generation.store(generation.0, Ordering::Release);
    }

    /// Notes that the file was compared just now, and that the published generation covers what was seen.
    pub(in crate::store) fn watched(&self, at: Instant) {
        let since = at.saturating_duration_since(self.started).as_micros();
        self.watched_us.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// How long ago the file was last compared.
    pub(in crate::store) fn age(&self) -> Duration {
        let watched = Duration::from_micros(self.watched_us.load(Ordering::Acquire));
        self.started.elapsed().saturating_sub(watched)
    }
}
