//! The one timer of a client's stream.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::timer::Timer;

/// What the timer runs for. One purpose at a time is enough: a blocked write keeps hyper from everything else, and when the
/// stream lingers, no request is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The client's socket is full.
    BlockedWrite,
    /// Something in the socket is unread, so that a reset wakes no task.
    ResetCheck,
    /// The sending side is closed, the other one not yet.
    Linger,
}

/// A timer for one purpose after the other.
#[derive(Default)]
pub(super) struct StreamTimer {
    timer: Timer,
    purpose: Option<Purpose>,
}

impl StreamTimer {
    /// Ready at `due`, which counts only at the first call for this purpose since the timer last went off, was stopped, or
    /// ran for another purpose.
    pub(super) fn poll(&mut self, purpose: Purpose, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if self.purpose != Some(purpose) {
            self.purpose = Some(purpose);
            self.timer.set(due);
        }
        ready!(self.timer.poll(cx));
        self.purpose = None;
        Poll::Ready(())
    }

    pub(super) fn is_running(&self, purpose: Purpose) -> bool {
        self.purpose == Some(purpose)
    }

    /// Stops it if it runs for this purpose.
    pub(super) fn stop(&mut self, purpose: Purpose) {
        if self.purpose == Some(purpose) {
            self.purpose = None;
        }
    }
}
