//! hyper's timer for the heads of one connection's requests.
//!
//! hyper asks for a new timer for each request, and drops it when the head is there. To register one with the runtime
//! and take it out again costs more than anything else that is done for a head; to move a registered one into the future
//! costs next to nothing. So a connection has one, and hands it out again and again: hyper has one at a time.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// The timer of one connection.
#[derive(Clone, Default)]
pub(super) struct HeadTimer(Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>);

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let mut sleep = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *sleep {
            Some(sleep) => sleep.as_mut().reset(deadline.into()),
            None => *sleep = Some(Box::pin(tokio::time::sleep_until(deadline.into()))),
        }
        drop(sleep);
        Box::pin(Lent(self.clone()))
    }
}

/// The timer, until the deadline that was set last.
struct Lent(HeadTimer);

impl Sleep for Lent {}

impl Future for Lent {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleep = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        sleep.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }
}
