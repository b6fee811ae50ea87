//! What goes between a worker and the writer: one wake for many, not one a request.
//!
//! To wake another thread costs a system call. So the writer puts a batch's answers into the mailbox of each worker and
//! wakes the one task that empties it; that task wakes those who wait from inside of the runtime, which costs nothing.
//! What a worker's requests want of the writer gathers here too, until the same task has its turn: behind all that were
//! ready before it. So whatever came in with one look at the sockets goes to the writer together, and into one transaction.

use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::sync::oneshot;

use crate::failpoint;
use crate::store::error::{HoldRefused, Unavailable};
use crate::store::writer::hold::{Held, Settled};
use crate::store::writer::queue::{Command, Queue};

/// A reply and its waiter.
pub(in crate::store) enum Delivery {
    Hold(oneshot::Sender<Result<Held, HoldRefused>>, Result<Held, HoldRefused>),
    Settled(oneshot::Sender<Settled>, Settled),
}

impl Delivery {
    /// Hands the reply over. If the waiter is gone, its hold is dropped here, and so cancelled.
    pub(in crate::store) fn hand_over(self) {
        match self {
            Delivery::Hold(sender, answer) => {
                failpoint::reach("hold-answered");
                drop(sender.send(answer));
            }
            Delivery::Settled(sender, answer) => drop(sender.send(answer)),
        }
    }
}

/// What waits for one worker, and what one worker's requests want.
pub(in crate::store) struct Mailbox {
    queue: Arc<Queue>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    wanted: Vec<Command>,
    waiting: Vec<Delivery>,
    waker: Option<Waker>,
    closed: bool,
}

impl Mailbox {
    pub(in crate::store) fn new(queue: Arc<Queue>) -> Mailbox {
        Mailbox { queue, inner: Mutex::default() }
    }

    /// Hands a message to the writer, with the others of this worker.
    ///
    /// # Errors
    /// The writer has ended. If it ends later, the waiter learns of it when the message is dropped.
    pub(in crate::store) fn submit(&self, command: Command) -> Result<(), Unavailable> {
        let waker = {
            let mut inner = self.lock();
            if inner.closed {
                drop(inner);
                return self.queue.push([command]);
            }
            inner.wanted.push(command);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Leaves a batch's answers, emptying `answers`, and wakes the worker once. After the worker is gone they are
    /// handed over here.
    pub(in crate::store) fn deliver(&self, answers: &mut Vec<Delivery>) {
        let waker = {
            let mut inner = self.lock();
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

    /// Hands messages and replies over as they arrive: a task of the worker's runtime that never ends. Dropping it closes the
    /// mailbox.
    pub(in crate::store) async fn run(&self) {
        let _closes = CloseOnDrop(self);
        let (mut wanted, mut waiting) = (Vec::new(), Vec::new());
        loop {
            poll_fn(|cx| {
                let mut inner = self.lock();
                if inner.waiting.is_empty() && inner.wanted.is_empty() {
                    inner.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                mem::swap(&mut wanted, &mut inner.wanted);
                mem::swap(&mut waiting, &mut inner.waiting);
                Poll::Ready(())
            })
            .await;
            self.send(wanted.drain(..));
            waiting.drain(..).for_each(Delivery::hand_over);
        }
    }

    /// If the writer does not take the messages, their waiters learn of it when they are dropped; leases stay in the file.
    fn send(&self, wanted: impl IntoIterator<Item = Command>) {
        if let Err(reason) = self.queue.push(wanted) {
            tracing::warn!(%reason, "what was wanted of the database was not done; what is held is released at the next start");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct CloseOnDrop<'a>(&'a Mailbox);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        let (wanted, waiting) = {
            let mut inner = self.0.lock();
            inner.closed = true;
            (mem::take(&mut inner.wanted), mem::take(&mut inner.waiting))
        };
        self.0.send(wanted);
        waiting.into_iter().for_each(Delivery::hand_over);
    }
}
