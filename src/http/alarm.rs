//! The timer of a connection's wait for a request head.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is set rarely: when it goes off too early, it is set again.
#[derive(Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
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
                match &mut self.sleep {
                    Some(sleep) => sleep.as_mut().reset(due),
                    None => self.sleep = Some(Box::pin(sleep_until(due))),
                }
            }
        }
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
        }
        self.due = None;
        Poll::Ready(())
    }
}
