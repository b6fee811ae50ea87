//! Detects from outside when hyper waits for a request head.
//!
//! Three things depend on it: the timeout for a head, the memory of an idle connection, and the recognition of replies
//! that hyper's parser gives by itself. hyper reports none of them. What is used instead is the order of its calls:
//!
//! - It asks its timer for a sleep when it begins to wait for a head, and drops the sleep when a head is parsed.
//! - It polls the sleep whenever it has read all there is and the head is not complete.
//! - So when bytes were read in a wait and the sleep was neither polled nor dropped since, the head was refused.
//!
//! `tests/contract.rs` drives hyper itself and fails when a new version calls in another order. A real timer for each
//! request would be too expensive: the connection's task has one timer for all its requests, and the sleeps that hyper
//! gets never end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// What happened to the wait while a connection was polled: it ended, or it began, or it ended and began again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadWaitChange {
    pub(super) has_ended: bool,
    pub(super) has_begun: bool,
}

/// What the connections of one worker have in common: only one of them is polled at a time.
#[derive(Clone, Default)]
pub(super) struct HeadWaitTimer(Arc<State>);

#[derive(Default)]
struct State {
    has_ended: AtomicBool,
    has_begun: AtomicBool,
    /// The wait lasts.
    is_waiting: AtomicBool,
    /// The sleep was polled in this poll of the connection.
    is_polled: AtomicBool,
    /// Bytes were read in the wait, and hyper has neither polled nor dropped the sleep since.
    is_undecided: AtomicBool,
}

impl HeadWaitTimer {
    /// The timer for hyper.
    pub(super) fn timer(&self) -> impl Timer + Send + Sync + 'static {
        self.clone()
    }

    /// Polls a connection. `is_waiting`: whether it waited for a head before. What became of the wait.
    pub(super) fn watch<T>(&self, is_waiting: bool, poll: impl FnOnce() -> T) -> (T, HeadWaitChange) {
        let state = &self.0;
        // The sleeps of another connection may have been dropped with it since.
        state.has_ended.store(false, Ordering::Relaxed);
        state.has_begun.store(false, Ordering::Relaxed);
        state.is_polled.store(false, Ordering::Relaxed);
        state.is_undecided.store(false, Ordering::Relaxed);
        state.is_waiting.store(is_waiting, Ordering::Relaxed);
        let polled = poll();
        // Upgraded connections read and write outside of this function.
        state.is_waiting.store(false, Ordering::Relaxed);
        state.is_undecided.store(false, Ordering::Relaxed);
        let has_ended = state.has_ended.load(Ordering::Relaxed);
        (polled, HeadWaitChange { has_ended, has_begun: state.has_begun.load(Ordering::Relaxed) })
    }

    /// Whether hyper waited for a head at the end of the poll that was just made. After a head that it cannot parse it
    /// keeps its sleep, but does not poll it.
    pub(super) fn is_polled(&self) -> bool {
        self.0.is_polled.load(Ordering::Relaxed)
    }

    /// Whether hyper waits for a head on the connection that is being polled, and so reads from its socket.
    pub(super) fn is_waiting(&self) -> bool {
        self.0.is_waiting.load(Ordering::Relaxed)
    }

    /// The connection that is being polled has read bytes.
    pub(super) fn note_read(&self) {
        if self.0.is_waiting.load(Ordering::Relaxed) {
            self.0.is_undecided.store(true, Ordering::Relaxed);
        }
    }

    /// Whether what the connection that is being polled writes now ends with a reply of hyper's parser.
    pub(super) fn has_refused_head(&self) -> bool {
        self.0.is_undecided.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.0.has_begun.store(true, Ordering::Relaxed);
        self.0.is_waiting.store(true, Ordering::Relaxed);
        // The head may be in hyper's buffer already, where a client pipelines.
        self.0.is_undecided.store(true, Ordering::Relaxed);
    }
}

impl Timer for HeadWaitTimer {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        self.begin();
        Box::pin(EndlessSleep(self.clone()))
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(Duration::ZERO)
    }

    fn reset(&self, _: &mut Pin<Box<dyn Sleep>>, _: Instant) {
        self.begin();
    }
}

struct EndlessSleep(HeadWaitTimer);

impl Future for EndlessSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let state = &self.0.0;
        state.is_polled.store(true, Ordering::Relaxed);
        state.is_undecided.store(false, Ordering::Relaxed);
        Poll::Pending
    }
}

impl Sleep for EndlessSleep {}

impl Drop for EndlessSleep {
    fn drop(&mut self) {
        let state = &self.0.0;
        state.has_ended.store(true, Ordering::Relaxed);
        state.has_begun.store(false, Ordering::Relaxed);
        state.is_waiting.store(false, Ordering::Relaxed);
        state.is_undecided.store(false, Ordering::Relaxed);
    }
}
