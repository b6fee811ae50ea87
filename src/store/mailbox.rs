//! Answers on their way from the writer to a worker: one wake a batch, not one a request.
//!
//! Waking a single-threaded runtime from another thread costs a system call. So the writer puts a batch's answers
//! into the mailbox of each worker and wakes the one task that empties it; that task wakes those who wait from
//! inside of the runtime, which costs nothing.

use std::future::poll_fn;
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::task::{Poll, Waker};

use tokio::sync::oneshot;

use super::ledger::{Held, Settled};
use super::refusal::HoldRefused;
use crate::failpoint;

/// An answer and the one who waits for it.
pub(super) enum Delivery {
    Hold(oneshot::Sender<Result<Held, HoldRefused>>, Result<Held, HoldRefused>),
    Settled(oneshot::Sender<Settled>, Settled),
}

impl Delivery {
    /// Hands the answer over. The hold of one who is gone is dropped here, and so released.
    pub(super) fn hand_over(self) {
        match self {
            Delivery::Hold(sender, answer) => {
                failpoint::reach("hold-answered");
                drop(sender.send(answer));
            }
            Delivery::Settled(sender, answer) => drop(sender.send(answer)),
        }
    }
}

/// The answers that wait for one worker.
#[derive(Default)]
pub(super) struct Mailbox {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    waiting: Vec<Delivery>,
    waker: Option<Waker>,
    closed: bool,
}

impl Mailbox {
    /// Leaves a batch's answers, emptying `answers`, and wakes the worker once. After the worker is gone they are
    /// handed over here.
    pub(super) fn deliver(&self, answers: &mut Vec<Delivery>) {
        let waker = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            if !inner.closed {
                inner.waiting.append(answers);
            }
            inner.waker.take()
        };
        answers.drain(..).for_each(Delivery::hand_over);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Hands answers over as they come, for ever: a task of the worker's runtime. Dropped, it closes the mailbox.
    pub(super) async fn run(&self) {
        let _closes = CloseOnDrop(self);
        let mut batch = Vec::new();
        loop {
            poll_fn(|cx| {
                let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
                if inner.waiting.is_empty() {
                    inner.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                mem::swap(&mut batch, &mut inner.waiting);
                Poll::Ready(())
            })
            .await;
            batch.drain(..).for_each(Delivery::hand_over);
        }
    }
}

struct CloseOnDrop<'a>(&'a Mailbox);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        let left = {
            let mut inner = self.0.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.closed = true;
            mem::take(&mut inner.waiting)
        };
        left.into_iter().for_each(Delivery::hand_over);
    }
}
