//! A timer that is made when it is first needed, and then moved: to move a registered timer into the future costs next to
//! nothing, to register a new one for each wait does not.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Goes off at one time at most; nothing is registered before the first one is set.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Goes off at `due`, and not at the time that was set before.
    pub(crate) fn set(&mut self, due: Instant) {
        match &mut self.0 {
            Some(sleep) if sleep.deadline() == due => {}
            Some(sleep) => sleep.as_mut().reset(due),
            None => self.0 = Some(Box::pin(sleep_until(due))),
        }
    }

    /// Ready when the time that was set last is over; never before one was set.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}
