//! The phases at the end of a process, which every connection and request can see.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the process is draining, and whether it is cutting off what is left.
#[derive(Debug, Default)]
pub struct Lifecycle {
    draining: AtomicBool,
    cutting: AtomicBool,
}

impl Lifecycle {
    /// From now on readiness probes fail, and replies say `Connection: close`.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// From now on a reply that is dropped was broken off by Keytoll, not by its client.
    pub fn begin_cut(&self) {
        self.cutting.store(true, Ordering::Release);
    }

    /// Whether requests that are left are being cut off.
    pub fn is_cutting(&self) -> bool {
        self.cutting.load(Ordering::Acquire)
    }
}
