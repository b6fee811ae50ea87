//! Reports when the head of a reply has been written to the client's socket.
//!
//! hyper does not report it. Instead this relies on the fact that hyper's next write to the socket begins with the head that
//! hyper received last. `tests/contract.rs` fails when a new version of hyper writes something else first.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Callbacks for the next write to a client's socket.
#[derive(Default)]
pub(super) struct WriteObserver {
    is_set: AtomicBool,
    callbacks: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl WriteObserver {
    /// Calls back once, when the socket next accepts bytes; never if it accepts none. Earlier callbacks stay: where a
    /// client pipelines, hyper may take another request while the head of a reply is still in a full socket.
    pub(super) fn on_next_write(&self, callback: Box<dyn FnOnce() + Send>) {
        self.callbacks.lock().unwrap_or_else(PoisonError::into_inner).push(callback);
        self.is_set.store(true, Ordering::Release);
    }

    /// The socket has accepted bytes.
    pub(super) fn written(&self) {
        if !self.is_set.load(Ordering::Acquire) {
            return;
        }
        self.is_set.store(false, Ordering::Release);
        let callbacks = mem::take(&mut *self.callbacks.lock().unwrap_or_else(PoisonError::into_inner));
        callbacks.into_iter().for_each(|callback| callback());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn every_callback_is_called_once_at_the_next_write() {
        let (observer, called) = (WriteObserver::default(), Arc::new(AtomicUsize::new(0)));
        for count in [2, 0, 3] {
            called.store(0, Ordering::Relaxed);
            for _ in 0..count {
                let called = Arc::clone(&called);
                observer.on_next_write(Box::new(move || {
                    called.fetch_add(1, Ordering::Relaxed);
                }));
            }
            observer.written();
            observer.written();
            assert_eq!(called.load(Ordering::Relaxed), count);
        }
    }
}
