//! Holds as the rest of the program sees them: a request for a hold, the committed hold, its settlement.
//!
//! A [`HeldCharge`] is made only from a committed hold. It is settled once: [`HeldCharge::capture`], [`HeldCharge::release`]
//! and [`HeldCharge::cancel`] consume it, and one that is dropped is given back. Its settlement has a place in the queue from
//! the moment that the hold was accepted.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::failpoint;
use crate::ledger::{Hold, Refund};
use crate::model::{Cents, ChargeId, IdempotentRequest, Principal, RouteId};
use crate::store::error::{HoldRefused, Unavailable};
use crate::store::file::view::Generation;
use crate::store::writer::mailbox::Mailbox;
use crate::store::writer::queue::{ChargePermit, Command, HoldCommand, Queue, Reply, SettleAction, SettleCommand};
use crate::store::writer::reply_head::ReplyHead;

/// What a hold is requested for.
#[derive(Clone, Debug)]
pub struct HoldRequest {
    /// Who pays, with which key.
    pub principal: Principal,
    /// What the store's view was before the principal was loaded.
    pub generation: Generation,
    /// The API and route, for the books. The key must be good for that API.
    pub route: RouteId,
    /// The price; positive.
    pub price: Cents,
}

/// A committed hold.
#[derive(Debug)]
pub struct Held {
    /// The charge, to be settled.
    pub charge: HeldCharge,
    /// The wallet's balance without the price.
    pub balance: Cents,
    /// The view under which the principal is true.
    pub generation: Generation,
}

/// One worker's access to the ledger. Cloning is cheap.
#[derive(Clone)]
pub struct Ledger {
    pub(in crate::store) queue: Arc<Queue>,
    pub(in crate::store) mailbox: Arc<Mailbox>,
}

impl Ledger {
    /// Takes the price out of the wallet; returns when that is committed. Dropping the future cancels the hold.
    ///
    /// `idempotent_request`: the client may send the request again. If an earlier request with the same key was charged and its reply
    /// never reached the client, that charge is refunded in the same transaction ([`HeldCharge::retry_of`]).
    ///
    /// # Errors
    /// Not enough money, a key that changed, books that cannot be written now, or an `Idempotency-Key` that was used before;
    /// nothing is held then.
    pub async fn hold(
        &self,
        request: HoldRequest,
        idempotent_request: Option<Box<IdempotentRequest>>,
    ) -> Result<Held, HoldRefused> {
        let permit = ChargePermit::take(&self.queue).map_err(HoldRefused::Unavailable)?;
        let (sender, receiver) = oneshot::channel();
        let command = HoldCommand {
            request,
            idempotent_request,
            deadline: Instant::now() + self.queue.limits.hold_timeout,
            reply: Reply::new(sender, Arc::clone(&self.mailbox)),
            permit,
        };
        self.mailbox.submit(Command::Hold(command)).map_err(HoldRefused::Unavailable)?;
        failpoint::reach("hold-queued");
        receiver.await.unwrap_or(Err(HoldRefused::Unavailable(Unavailable::Stopping)))
    }
}

/// A hold that is not settled. Dropped: released if its request was forwarded, or else cancelled.
pub struct HeldCharge {
    hold: Hold,
    /// The charge of an earlier request with the same `Idempotency-Key`, which was refunded with this hold.
    refunded: Option<Refund>,
    was_forwarded: AtomicBool,
    /// Of a request with an `Idempotency-Key` that is not a retry.
    head: Option<Arc<ReplyHead>>,
    mailbox: Arc<Mailbox>,
    /// `None` once the settlement is on its way.
    permit: Option<ChargePermit>,
}

impl HeldCharge {
    pub(in crate::store) fn new(
        hold: Hold,
        refunded: Option<Refund>,
        mailbox: Arc<Mailbox>,
        permit: ChargePermit,
    ) -> HeldCharge {
        let may_be_refunded = hold.is_recorded && refunded.is_none();
        let head = may_be_refunded.then(|| Arc::new(ReplyHead::new(hold.charge, permit.queue())));
        HeldCharge { hold, refunded, was_forwarded: AtomicBool::new(false), head, mailbox, permit: Some(permit) }
    }

    /// The charge's id.
    pub fn id(&self) -> ChargeId {
        self.hold.charge
    }

    /// What is held.
    pub fn cents(&self) -> Cents {
        self.hold.cents
    }

    /// The charge of an earlier request with the same `Idempotency-Key`, which was refunded with this hold.
    pub fn retry_of(&self) -> Option<ChargeId> {
        self.refunded.map(|refund| refund.charge)
    }

    /// Notes that the request is being forwarded: a hold that is dropped after that leaves a released charge.
    pub fn begin_forwarding(&self) {
        self.was_forwarded.store(true, Ordering::Relaxed);
    }

    /// Where to report that the head of the reply was sent; `None` if the charge cannot be refunded to a retry.
    pub fn reply_head(&self) -> Option<Arc<ReplyHead>> {
        self.head.clone()
    }

    /// Makes the hold final. The settlement goes on whether or not it is awaited.
    pub fn capture(mut self, status: u16) -> Settlement {
        let is_answered = self.head.as_ref().is_some_and(|head| head.begin_capture());
        self.settle(SettleAction::Capture { status, is_answered })
    }

    /// Gives the hold of a request back that was forwarded, because of an outcome with this status, or none.
    pub fn release(mut self, status: Option<u16>) -> Settlement {
        self.settle(SettleAction::Release { status, leaves_charge: true })
    }

    /// Gives the hold of a request back that was not forwarded, and whose client got a receipt. A retry pays again for the
    /// charge that was refunded with it, and the next retry has that refunded: the result is [`Settled::Captured`].
    pub fn cancel(mut self) -> Settlement {
        self.settle(self.cancellation(true))
    }

    fn cancellation(&self, leaves_charge: bool) -> SettleAction {
        match self.refunded {
            Some(Refund { cents: refunded, .. }) => SettleAction::Restore { refunded },
            None => SettleAction::Release { status: None, leaves_charge },
        }
    }

    fn settle(&mut self, action: SettleAction) -> Settlement {
        let (sender, receiver) = oneshot::channel();
        let reply = Reply::new(sender, Arc::clone(&self.mailbox));
        let decision = Arc::new(Decision::default());
        self.send(action, Some((reply, Arc::clone(&decision))));
        Settlement { receiver, decision }
    }

    fn send(&mut self, action: SettleAction, waiter: Option<(Reply<Settled>, Arc<Decision>)>) {
        let Some(permit) = self.permit.take() else { return };
        let deadline = Instant::now() + permit.queue().limits.settle_timeout;
        let (reply, decision) = waiter.unzip();
        let command = SettleCommand { hold: self.hold, action, deadline, reply, decision, _permit: permit };
        if let Err(reason) = self.mailbox.submit(Command::Settle(command)) {
            // The reply's sender is dropped with the command, so the waiter learns of it; the lease stays in the file until
            // the next start returns it.
            let charge_id = self.hold.charge.0;
            tracing::warn!(charge_id, %reason, "a charge could not be settled; its price is returned at the next start");
        }
        failpoint::reach(match action {
            SettleAction::Capture { .. } => "capture-queued",
            SettleAction::Release { .. } | SettleAction::Restore { .. } | SettleAction::Refund => "release-queued",
        });
    }
}

impl Drop for HeldCharge {
    fn drop(&mut self) {
        let was_forwarded = *self.was_forwarded.get_mut();
        let action = match was_forwarded {
            true => SettleAction::Release { status: None, leaves_charge: true },
            false => self.cancellation(false),
        };
        self.send(action, None);
    }
}

impl fmt::Debug for HeldCharge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeldCharge").field(&self.hold.charge).finish()
    }
}

/// Decides between the commit of a settlement and the end of its waiter's patience: the first of both.
#[derive(Debug, Default)]
pub(in crate::store) struct Decision(AtomicBool);

impl Decision {
    /// Decides, unless the other side has before. Whether it did.
    pub(in crate::store) fn claim(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// What became of a charge, committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Final.
    Captured,
    /// Given back; a capture that could not be committed in time ends so too.
    Released {
        /// The wallet's balance then; `None` when it has no wallet, or the balance is not an integer.
        balance: Option<Cents>,
    },
    /// Not known: the store stopped, or the commit takes longer than the limit (a capture is then undone). Nothing may be
    /// built on it.
    Unknown,
}

/// The result of a capture or release, ready after its commit. May be dropped.
#[derive(Debug)]
pub struct Settlement {
    receiver: oneshot::Receiver<Settled>,
    decision: Arc<Decision>,
}

impl Settlement {
    /// Stops waiting. `true`: no result will come, and a capture that is committed nevertheless is refunded. `false`: the
    /// result is on its way.
    pub fn give_up(&self) -> bool {
        self.decision.claim()
    }
}

impl Future for Settlement {
    type Output = Settled;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Settled> {
        let settled = ready!(Pin::new(&mut self.receiver).poll(cx));
        Poll::Ready(settled.unwrap_or(Settled::Unknown))
    }
}
