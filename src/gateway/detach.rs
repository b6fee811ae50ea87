//! What must be finished although nobody waits for it any more.
//!
//! hyper drops the future of a request when its client goes away. From the moment that a request is forwarded its
//! future goes on all the same, as a task of its own: it waits for the upstream's head, settles by it, and only then
//! drops the reply, which closes the upstream's connection. A client that stays costs no task.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use crate::failpoint;

/// A future that moves to a task of its own when it is dropped before its end, if something is owed until then.
/// Boxed in any case: it is long, and would be moved around with all that waits for it.
pub(super) fn survive<F>(is_owed: bool, future: F) -> Surviving<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    Surviving { future: Some(Box::pin(future)), is_owed }
}

pub(super) struct Surviving<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    future: Option<Pin<Box<F>>>,
    is_owed: bool,
}

impl<F> Future for Surviving<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(future) = &mut self.future else { return Poll::Pending };
        let output = std::task::ready!(future.as_mut().poll(cx));
        self.future = None;
        Poll::Ready(output)
    }
}

impl<F> Drop for Surviving<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn drop(&mut self) {
        // A future that panicked must not be polled again, and without a runtime nothing can be finished: then what
        // it holds is dropped here, and so released.
        if let Some(future) = self.future.take()
            && self.is_owed
            && !std::thread::panicking()
            && let Ok(runtime) = Handle::try_current()
        {
            failpoint::reach("client-left");
            drop(runtime.spawn(future));
        }
    }
}
