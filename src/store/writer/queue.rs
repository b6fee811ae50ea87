//! The bounded queue in front of the writer.
//!
//! A hold takes a [`ChargePermit`] before it may queue; the charge keeps it until it is settled. So the number of charges
//! open at once is bounded, and every settlement has a place. Admin writes have places of their own.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::config::Limits;
use crate::ledger::Hold;
use crate::model::{Cents, ChargeId, IdempotentRequest};
use crate::store::error::{HoldRefused, Unavailable};
use crate::store::writer::hold::{Decision, Held, HoldRequest, Settled};
use crate::store::writer::mailbox::{Delivery, Mailbox};
use crate::store::writer::write::WriteJob;

/// The least of [`QueueLimits::patience`], however short the other waits are.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// The bounds of the queue and of the waits in it.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct QueueLimits {
    pub(in crate::store) open_charges: usize,
    pub(in crate::store) queued_writes: usize,
    pub(in crate::store) hold_timeout: Duration,
    pub(in crate::store) settle_timeout: Duration,
    pub(in crate::store) sync_late: Duration,
}

impl QueueLimits {
    /// How long the writer may be silent before that counts as trouble.
    pub(in crate::store) fn patience(&self) -> Duration {
        self.hold_timeout.max(LEAST_PATIENCE)
    }
}

impl From<&Limits> for QueueLimits {
    fn from(limits: &Limits) -> QueueLimits {
        QueueLimits {
            open_charges: limits.open_charges,
            queued_writes: limits.queued_writes,
            hold_timeout: limits.hold_timeout,
            settle_timeout: limits.settle_timeout,
            sync_late: limits.sync_late,
        }
    }
}

/// A message for the writer.
pub(in crate::store) enum Command {
    Hold(HoldCommand),
    Settle(SettleCommand),
    Write(Box<dyn WriteJob>),
}

pub(in crate::store) struct HoldCommand {
    pub(in crate::store) request: HoldRequest,
    /// Whether its client may send it again.
    pub(in crate::store) idempotent_request: Option<Box<IdempotentRequest>>,
    pub(in crate::store) deadline: Instant,
    pub(in crate::store) reply: Reply<Result<Held, HoldRefused>>,
    pub(in crate::store) permit: ChargePermit,
}

/// What a settlement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum SettleAction {
    /// `is_answered`: the head of the reply was sent before.
    Capture { status: u16, is_answered: bool },
    /// `leaves_charge`: the charge is appended as released, so that its id can be found. `status`: of the reply, if one came.
    Release { status: Option<u16>, leaves_charge: bool },
    /// A retry that was not forwarded, and with which so much of an earlier charge was refunded, is given up.
    Restore { refunded: Cents },
    /// A capture that was committed after its waiter had given up, and had told the client that nothing was charged, is
    /// refunded. Only the writer does this.
    Refund,
}

pub(in crate::store) struct SettleCommand {
    pub(in crate::store) hold: Hold,
    pub(in crate::store) action: SettleAction,
    pub(in crate::store) deadline: Instant,
    pub(in crate::store) reply: Option<Reply<Settled>>,
    /// Shared with the waiter.
    pub(in crate::store) decision: Option<Arc<Decision>>,
    /// Dropped when the settlement is done.
    pub(in crate::store) _permit: ChargePermit,
}

impl SettleCommand {
    pub(in crate::store) fn is_capture(&self) -> bool {
        matches!(self.action, SettleAction::Capture { .. })
    }

    /// Keeps the waiter, if there is one, from giving up. `false`: it has given up already.
    pub(in crate::store) fn claim(&self) -> bool {
        self.decision.as_ref().is_none_or(|decision| decision.claim())
    }
}

/// Where a reply goes: to its waiter, through the mailbox of the waiter's worker.
pub(in crate::store) struct Reply<T> {
    sender: oneshot::Sender<T>,
    mailbox: Arc<Mailbox>,
}

impl<T> Reply<T> {
    pub(in crate::store) fn new(sender: oneshot::Sender<T>, mailbox: Arc<Mailbox>) -> Reply<T> {
        Reply { sender, mailbox }
    }

    /// Whether the waiter has given up.
    pub(in crate::store) fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }

    pub(in crate::store) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }
}

impl Reply<Result<Held, HoldRefused>> {
    pub(in crate::store) fn address(self, answer: Result<Held, HoldRefused>) -> (Arc<Mailbox>, Delivery) {
        (self.mailbox, Delivery::Hold(self.sender, answer))
    }
}

impl Reply<Settled> {
    pub(in crate::store) fn address(self, answer: Settled) -> (Arc<Mailbox>, Delivery) {
        (self.mailbox, Delivery::Settled(self.sender, answer))
    }
}

/// The place of one open charge, from the request for its hold to the end of its settlement.
pub(in crate::store) struct ChargePermit {
    queue: Arc<Queue>,
}

impl ChargePermit {
    pub(in crate::store) fn take(queue: &Arc<Queue>) -> Result<ChargePermit, Unavailable> {
        if queue.open.fetch_add(1, Ordering::Relaxed) >= queue.limits.open_charges {
            queue.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Unavailable::QueueFull);
        }
        Ok(ChargePermit { queue: Arc::clone(queue) })
    }

    pub(in crate::store) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }
}

impl Drop for ChargePermit {
    fn drop(&mut self) {
        if self.queue.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.queue.drained.notify_waiters();
        }
    }
}

/// The place of one write, until it is finished.
pub(in crate::store) struct WritePermit {
    queue: Arc<Queue>,
}

impl WritePermit {
    pub(in crate::store) fn take(queue: &Arc<Queue>) -> Result<WritePermit, Unavailable> {
        if queue.writes.fetch_add(1, Ordering::Relaxed) >= queue.limits.queued_writes {
            queue.writes.fetch_sub(1, Ordering::Relaxed);
            return Err(Unavailable::QueueFull);
        }
        Ok(WritePermit { queue: Arc::clone(queue) })
    }
}

impl Drop for WritePermit {
    fn drop(&mut self) {
        self.queue.writes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The queue, shared by the writer and everyone else.
pub(in crate::store) struct Queue {
    pub(in crate::store) limits: QueueLimits,
    open: AtomicUsize,
    writes: AtomicUsize,
    drained: Notify,
    inner: Mutex<Inner>,
    /// Captured charges of requests that may be sent again, while it is open whether the head of their reply is sent.
    delivering: Mutex<HashSet<ChargeId>>,
    filled: Condvar,
}

#[derive(Default)]
struct Inner {
    commands: VecDeque<Command>,
    /// Charges whose reply's head was sent after their capture.
    heads: Vec<ChargeId>,
    writer_sleeps: bool,
    /// No hold and no write is taken any more.
    closed: bool,
    /// The writer has ended.
    abandoned: bool,
}

impl Queue {
    pub(in crate::store) fn new(limits: QueueLimits) -> Queue {
        Queue {
            limits,
            open: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
            drained: Notify::new(),
            inner: Mutex::default(),
            delivering: Mutex::default(),
            filled: Condvar::new(),
        }
    }

    /// Charges that are open: wished for, or held and not settled.
    pub(in crate::store) fn open_charges(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Waits until no charge is open.
    pub(in crate::store) async fn drained(&self) {
        loop {
            let notified = self.drained.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.open_charges() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Messages that wait.
    pub(in crate::store) fn depth(&self) -> usize {
        self.lock().commands.len()
    }

    /// Appends messages and wakes the writer if it sleeps.
    ///
    /// # Errors
    /// Some of them were not taken, because the writer is ending. Their waiters learn of it when the messages are dropped.
    pub(in crate::store) fn push(&self, commands: impl IntoIterator<Item = Command>) -> Result<(), Unavailable> {
        let mut refused = Vec::new();
        let mut inner = self.lock();
        for command in commands {
            // What is held may be settled as long as the writer lives.
            let is_settlement = matches!(command, Command::Settle(_));
            if inner.abandoned || (inner.closed && !is_settlement) {
                refused.push(command);
            } else {
                inner.commands.push_back(command);
            }
        }
        if inner.writer_sleeps && !inner.commands.is_empty() {
            inner.writer_sleeps = false;
            drop(inner);
            self.filled.notify_one();
        } else {
            drop(inner);
        }
        // Outside of the lock: what ends with them may queue something itself.
        if refused.is_empty() { Ok(()) } else { Err(Unavailable::Stopping) }
    }

    /// Notes that the head of this charge's reply was sent. Nobody waits for it; past its bound it is dropped, and a retry
    /// of that request has the charge refunded.
    pub(in crate::store) fn note_head(&self, charge: ChargeId) {
        let mut inner = self.lock();
        if inner.abandoned || inner.heads.len() >= self.limits.open_charges {
            drop(inner);
            return self.delivery_ends([charge]);
        }
        inner.heads.push(charge);
        if inner.writer_sleeps {
            inner.writer_sleeps = false;
            drop(inner);
            self.filled.notify_one();
        }
    }

    /// From now on, until [`Queue::delivery_ends`], the reply that this charge paid for may be on its way to the client.
    pub(in crate::store) fn delivery_begins(&self, charge: ChargeId) {
        self.delivering().insert(charge);
    }

    pub(in crate::store) fn delivery_ends(&self, charges: impl IntoIterator<Item = ChargeId>) {
        let mut delivering = self.delivering();
        for charge in charges {
            delivering.remove(&charge);
        }
    }

    pub(in crate::store) fn is_delivering(&self, charge: ChargeId) -> bool {
        self.delivering().contains(&charge)
    }

    fn delivering(&self) -> MutexGuard<'_, HashSet<ChargeId>> {
        self.delivering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves noted heads to the end of `heads`, which keeps within the same bound.
    pub(in crate::store) fn take_heads(&self, heads: &mut Vec<ChargeId>) {
        let mut inner = self.lock();
        let count = inner.heads.len().min(self.limits.open_charges.saturating_sub(heads.len()));
        heads.extend(inner.heads.drain(..count));
    }

    /// Moves up to `most` messages to the end of `batch`; waits for the first one no longer than `patience`.
    /// Whether the queue was closed.
    pub(in crate::store) fn take(&self, batch: &mut Vec<Command>, most: usize, patience: Duration) -> bool {
        let mut inner = self.lock();
        if inner.commands.is_empty() && inner.heads.is_empty() && !inner.closed && !patience.is_zero() {
            inner.writer_sleeps = true;
            let waited = self.filled.wait_timeout_while(inner, patience, |inner| inner.writer_sleeps);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
            inner.writer_sleeps = false;
        }
        // Yield once, so that a worker on the same core can queue the rest of its turn for the same transaction.
        drop(inner);
        std::thread::yield_now();
        let mut inner = self.lock();
        let count = inner.commands.len().min(most);
        batch.extend(inner.commands.drain(..count));
        inner.closed
    }

    /// Closes the queue and wakes the writer.
    pub(in crate::store) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.writer_sleeps = false;
        drop(inner);
        self.filled.notify_one();
    }

    /// Closes the queue and returns the messages in it. Dropping a message wakes its waiter with an error.
    pub(in crate::store) fn abandon(&self) -> Vec<Command> {
        self.close();
        let mut inner = self.lock();
        inner.abandoned = true;
        inner.commands.drain(..).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
