//! When hyper begins and ends to wait for a request's head.
//!
//! hyper asks its timer for a sleep when it begins to wait for a head, and drops it when the head is there. That is the only
//! sign from outside that a connection is between two requests, and nothing of either is under way. To register a real
//! timer for each request would cost more than it is worth: the connection's task has one that outlives them, and hyper's
//! sleeps only say what happened.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// What happened to the wait while a connection was polled: it ended, or it began, or it ended and began anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Happened {
    pub(super) has_ended: bool,
    pub(super) has_begun: bool,
}

/// What the connections of one worker have in common: only one of them is polled at a time.
#[derive(Clone, Default)]
pub(super) struct Heads(Arc<State>);

#[derive(Default)]
struct State {
    has_ended: AtomicBool,
    has_begun: AtomicBool,
    is_waited_for: AtomicBool,
    is_late: AtomicBool,
}

impl Heads {
    /// The timer for hyper.
    pub(super) fn timer(&self) -> impl Timer + Send + Sync + 'static {
        self.clone()
    }

    /// Whether hyper waited for a head in the poll that was just made. After a head that it cannot read it waits no longer,
    /// although it keeps its sleep.
    pub(super) fn is_waited_for(&self) -> bool {
        self.0.is_waited_for.load(Ordering::Relaxed)
    }

    /// Polls a connection. `is_late`: its wait for a head has taken too long, which ends it. What became of the wait.
    pub(super) fn watch<T>(&self, is_late: bool, poll: impl FnOnce() -> T) -> (T, Happened) {
        // Sleeps of another connection may have been dropped with it since.
        self.0.has_ended.store(false, Ordering::Relaxed);
        self.0.has_begun.store(false, Ordering::Relaxed);
        self.0.is_late.store(is_late, Ordering::Relaxed);
        self.0.is_waited_for.store(false, Ordering::Relaxed);
        let done = poll();
        let has_ended = self.0.has_ended.load(Ordering::Relaxed);
        (done, Happened { has_ended, has_begun: self.0.has_begun.load(Ordering::Relaxed) })
    }

    fn begun(&self) {
        self.0.has_begun.store(true, Ordering::Relaxed);
    }
}

impl Timer for Heads {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        self.begun();
        Box::pin(Wait(self.clone()))
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(Duration::ZERO)
    }

    fn reset(&self, _: &mut Pin<Box<dyn Sleep>>, _: Instant) {
        self.begun();
    }
}

struct Wait(Heads);

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.0.0.is_waited_for.store(true, Ordering::Relaxed);
        if self.0.0.is_late.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Sleep for Wait {}

impl Drop for Wait {
    fn drop(&mut self) {
        self.0.0.has_ended.store(true, Ordering::Relaxed);
        self.0.0.has_begun.store(false, Ordering::Relaxed);
    }
}
