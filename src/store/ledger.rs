//! Charges as the rest of the program sees them: a wish for a hold, the charge that a committed hold made, its settlement.
//!
//! A [`HeldCharge`] is made nowhere but from a committed hold. It is settled once: [`HeldCharge::capture`] and
//! [`HeldCharge::release`] consume it, and one that is dropped is released. Its settlement has a place in the queue
//! from the moment that the hold was accepted.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::sync::oneshot;

use super::mailbox::Mailbox;
use super::queue::{Command, HoldCommand, Queue, Reply, SettleCommand, Slot};
use super::refusal::{HoldRefused, Unavailable};
use super::view::Generation;
use crate::failpoint;
use crate::model::{AccountId, Cents, ChargeId, Principal, RouteId, UserId};

/// What a hold is wanted for.
#[derive(Clone, Debug)]
pub struct HoldWish {
    /// Who pays, with which key.
    pub principal: Arc<Principal>,
    /// What the store's view was before the principal was loaded.
    pub generation: Generation,
    /// The API and route, for the books.
    pub route: RouteId,
    /// The price; positive.
    pub price: Cents,
}

/// A committed hold.
#[derive(Debug)]
pub struct Held {
    /// The charge, to be settled.
    pub charge: HeldCharge,
    /// The wallet's balance with this hold taken out.
    pub balance: Cents,
    /// The view under which the principal is true.
    pub generation: Generation,
}

/// One worker's way to the writer. Cloning is cheap.
#[derive(Clone)]
pub struct Ledger {
    pub(super) queue: Arc<Queue>,
    pub(super) mailbox: Arc<Mailbox>,
}

impl Ledger {
    /// Takes the price out of the wallet; answers when that is committed. Dropping the future cancels the hold,
    /// or releases it when the writer already has it.
    ///
    /// # Errors
    /// Not enough money, a key that changed, or books that cannot be written now; nothing is held then.
    pub async fn hold(&self, wish: HoldWish) -> Result<Held, HoldRefused> {
        let slot = Slot::take(&self.queue).map_err(HoldRefused::Unavailable)?;
        let (sender, receiver) = oneshot::channel();
        let command = HoldCommand {
            wish,
            deadline: Instant::now() + self.queue.limits.hold_timeout,
            reply: Reply::new(sender, Some(Arc::clone(&self.mailbox))),
            slot,
        };
        self.queue.push(Command::Hold(command)).map_err(HoldRefused::Unavailable)?;
        failpoint::reach("hold-queued");
        receiver.await.unwrap_or(Err(HoldRefused::Unavailable(Unavailable::Stopping)))
    }
}

/// What the books know of a held charge.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChargeFacts {
    pub(super) id: ChargeId,
    pub(super) user_id: UserId,
    pub(super) account: AccountId,
    pub(super) cents: Cents,
    /// Which of the writer's spans of time the hold was made in.
    pub(super) span: u64,
}

/// A charge that is held and not settled. Dropped: released.
pub struct HeldCharge {
    facts: ChargeFacts,
    mailbox: Option<Arc<Mailbox>>,
    /// Gone when the settlement is on its way.
    slot: Option<Slot>,
}

impl HeldCharge {
    pub(super) fn new(facts: ChargeFacts, mailbox: Option<Arc<Mailbox>>, slot: Slot) -> HeldCharge {
        HeldCharge { facts, mailbox, slot: Some(slot) }
    }

    /// The charge's id.
    pub fn id(&self) -> ChargeId {
        self.facts.id
    }

    /// What is held.
    pub fn cents(&self) -> Cents {
        self.facts.cents
    }

    /// Makes the hold final. The settlement goes on whether or not its answer is awaited.
    pub fn capture(mut self, status: u16) -> Settlement {
        self.settle(Wanted::Capture, Some(status))
    }

    /// Gives the hold back, because of an outcome with this status, or none.
    pub fn release(mut self, status: Option<u16>) -> Settlement {
        self.settle(Wanted::Release, status)
    }

    fn settle(&mut self, wanted: Wanted, status: Option<u16>) -> Settlement {
        let (sender, receiver) = oneshot::channel();
        let reply = Reply::new(sender, self.mailbox.take());
        let decision = Arc::new(Decision::default());
        if let Some(slot) = self.slot.take() {
            send(self.facts, wanted, status, Some((reply, Arc::clone(&decision))), slot);
        }
        Settlement { receiver, decision }
    }
}

impl Drop for HeldCharge {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            send(self.facts, Wanted::Release, None, None, slot);
        }
    }
}

fn send(
    facts: ChargeFacts,
    wanted: Wanted,
    status: Option<u16>,
    waiter: Option<(Reply<Settled>, Arc<Decision>)>,
    slot: Slot,
) {
    let queue = Arc::clone(slot.queue());
    let deadline = Instant::now() + queue.limits.settle_timeout;
    let (reply, decision) = waiter.unzip();
    let command = Command::Settle(SettleCommand { facts, wanted, status, deadline, reply, decision, _slot: slot });
    if let Err(reason) = queue.push(command) {
        // The reply's sender is gone with the command, so that the one who waits is told; the charge stays held in
        // the file until the next start finds it.
        tracing::warn!(charge_id = facts.id.0, %reason, "a charge could not be settled; it is released at the next start");
    }
    failpoint::reach(match wanted {
        Wanted::Capture => "capture-queued",
        Wanted::Release | Wanted::Undo => "release-queued",
    });
}

impl fmt::Debug for HeldCharge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeldCharge").field(&self.facts.id).finish()
    }
}

/// What a settlement is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Capture,
    Release,
    /// A capture that was committed after its waiter had given up, and told its client that nothing was charged, is
    /// turned into a release. Only the writer wants this, and before anyone has heard of the capture.
    Undo,
}

/// What a settlement comes to when its commit and the end of its waiter's patience cross: whoever is first decides.
#[derive(Debug, Default)]
pub(super) struct Decision(AtomicBool);

impl Decision {
    /// Whether nobody has decided before.
    pub(super) fn is_mine(&self) -> bool {
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
        /// The wallet's balance then; none when it has no wallet, or no integer in it.
        balance: Option<Cents>,
    },
    /// Not known yet, or not this settlement's doing: the store stopped, the commit takes longer than the limit (a
    /// capture is then undone), or somebody else settled the charge. Nothing may be built on it.
    Unknown,
}

/// The answer to a capture or release, given after its commit. May be dropped.
#[derive(Debug)]
pub struct Settlement {
    receiver: oneshot::Receiver<Settled>,
    decision: Arc<Decision>,
}

impl Settlement {
    /// Waits no longer. `true`: no answer will come, and a capture that is committed all the same is undone. `false`:
    /// the answer is on its way.
    pub fn give_up(&self) -> bool {
        self.decision.is_mine()
    }
}

impl Future for Settlement {
    type Output = Settled;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Settled> {
        let answer = ready!(Pin::new(&mut self.receiver).poll(cx));
        Poll::Ready(answer.unwrap_or(Settled::Unknown))
    }
}
