//! The hold of a reply that is on its way, and the clock that ends its being open.
//!
//! A charge that stays held keeps the books from adding up what came after it. So a reply that takes very long is captured
//! on the way and flows on. The clock is a task of its own: the body of a client that takes next to nothing is not asked
//! for anything for as long.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::billing::{Hold, Outcome, SettlementReason};
use crate::http::Record;
use crate::store::Settled;

/// The hold, as the reply has it.
pub(super) struct OpenHold {
    shared: Arc<Shared>,
    clock: AbortHandle,
}

struct Shared {
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    /// Of the reply's connection.
    waker: Option<Waker>,
}

enum State {
    Held(Hold),
    /// Its time was over, and the capture is on its way.
    Capturing,
    Captured,
    /// It could not be captured: the reply must not end as if it were paid.
    Unpaid,
    /// Settled by the reply itself.
    Taken,
}

impl OpenHold {
    /// Holds for `limit` at most; `outcome` is what it is captured by then.
    pub(super) fn new(hold: Hold, outcome: Outcome, limit: Duration, record: Record) -> OpenHold {
        let inner = Inner { state: State::Held(hold), waker: None };
        let shared = Arc::new(Shared { inner: Mutex::new(inner) });
        let ends = Arc::clone(&shared);
        let clock = tokio::spawn(async move {
            sleep(limit).await;
            ends.capture(outcome, &record).await;
        });
        OpenHold { shared, clock: clock.abort_handle() }
    }

    /// The hold, to be settled; `None` when its time was over before.
    pub(super) fn take(&self) -> Option<Hold> {
        self.shared.lock().take(State::Taken)
    }

    /// Whether the capture that its time brought about is committed; only after [`OpenHold::take`] had nothing to give.
    pub(super) fn poll_captured(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut inner = self.shared.lock();
        match inner.state {
            State::Capturing => {
                inner.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Captured => Poll::Ready(true),
            State::Held(_) | State::Unpaid | State::Taken => Poll::Ready(false),
        }
    }

    /// Whether its time was over and it could not be captured. The connection is woken when that becomes so.
    pub(super) fn is_unpaid(&self, cx: &Context<'_>) -> bool {
        let mut inner = self.shared.lock();
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
        matches!(inner.state, State::Unpaid)
    }
}

impl Drop for OpenHold {
    /// A capture that has begun goes on to its end, so that its outcome is recorded.
    fn drop(&mut self) {
        if !matches!(self.shared.lock().state, State::Capturing) {
            self.clock.abort();
        }
    }
}

impl Shared {
    async fn capture(&self, outcome: Outcome, record: &Record) {
        if record.is_cutting() {
            return;
        }
        let Some(hold) = self.lock().take(State::Capturing) else { return };
        let cents = hold.cents();
        let is_captured = hold.capture(outcome).await == Settled::Captured;
        record.capture_ended(is_captured, SettlementReason::Captured, cents);
        let waker = {
            let mut inner = self.lock();
            inner.state = if is_captured { State::Captured } else { State::Unpaid };
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The hold, if it is still held; `after` is the state then.
    fn take(&mut self, after: State) -> Option<Hold> {
        match std::mem::replace(&mut self.state, after) {
            State::Held(hold) => Some(hold),
            other => {
                self.state = other;
                None
            }
        }
    }
}
