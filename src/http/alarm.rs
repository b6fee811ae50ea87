//! The timer of a connection's wait for a request head.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::timer::Timer;

/// A timer that is set rarely: when it goes off too early, it is set again.
#[derive(Default)]
pub(super) struct Alarm {
    timer: Timer,
    due: Option<Instant>,
}

impl Alarm {
    /// Ready when it went off, which may be before `due`; never after.
    pub(super) fn poll(&mut self, due: Instant, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        match self.due {
            Some(set) if set <= due && now < set => return Poll::Pending,
            Some(set) if set <= due => {}
            Some(_) | None => {
                self.due = Some(due);
                self.timer.set(due);
            }
        }
        ready!(self.timer.poll(cx));
        self.due = None;
        Poll::Ready(())
    }
}
