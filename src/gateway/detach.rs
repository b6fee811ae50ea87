//! Finishes a paid request whose client has left.
//!
//! hyper drops the future of a request when its client disconnects. A request that is forwarded has to be settled by its
//! outcome, so its future then moves to a task of its own: it waits for the upstream's head, settles by it, and drops the
//! reply, which closes the upstream's connection. As long as the client stays, this costs no task.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use crate::failpoint;

/// A future that moves to a task of its own when it is dropped before its end.
pub(super) struct DetachOnDrop<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// `None` after its end. Boxed because it is large, and would be moved with every future that awaits it.
    future: Option<Pin<Box<F>>>,
    is_paid: bool,
}

impl<F> DetachOnDrop<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// `is_paid`: whether something has to be settled; otherwise the future is just dropped.
    pub(super) fn new(is_paid: bool, future: F) -> DetachOnDrop<F> {
        DetachOnDrop { future: Some(Box::pin(future)), is_paid }
    }
}

impl<F> Future for DetachOnDrop<F>
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

impl<F> Drop for DetachOnDrop<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn drop(&mut self) {
        // A future that panicked must not be polled again, and without a runtime nothing can be finished. Its hold is
        // dropped with it then, which returns the price.
        if let Some(future) = self.future.take()
            && self.is_paid
            && !std::thread::panicking()
            && let Ok(runtime) = Handle::try_current()
        {
            failpoint::reach("client-left");
            drop(runtime.spawn(future));
        }
    }
}
