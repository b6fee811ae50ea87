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

use crate::failpoint;
use crate::model::{AccountId, Cents, ChargeId, Principal, Retryable, RouteId, UserId};
use crate::store::error::{HoldRefused, Unavailable};
use crate::store::file::view::Generation;
use crate::store::writer::mailbox::Mailbox;
use crate::store::writer::queue::{Command, HoldCommand, Queue, Reply, SettleCommand, Slot};
use crate::store::writer::reply_head::ReplyHead;

/// What a hold is wanted for.
#[derive(Clone, Debug)]
pub struct HoldWish {
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
    /// The wallet's balance with this hold taken out.
    pub balance: Cents,
    /// The view under which the principal is true.
    pub generation: Generation,
}

/// One worker's way to the writer. Cloning is cheap.
#[derive(Clone)]
pub struct Ledger {
    pub(in crate::store) queue: Arc<Queue>,
    pub(in crate::store) mailbox: Arc<Mailbox>,
}

impl Ledger {
    /// Takes the price out of the wallet; answers when that is committed. Dropping the future cancels the hold,
    /// or releases it when the writer already has it.
    ///
    /// # Errors
    /// Not enough money, a key that changed, or books that cannot be written now; nothing is held then.
    pub async fn hold(&self, wish: HoldWish) -> Result<Held, HoldRefused> {
        self.hold_once(wish, None).await
    }

    /// The same for a request that its client may send again. Where one with the same key is captured and its reply never
    /// reached the client, that charge is handed back instead, to be forwarded once more: captured, the forward was had;
    /// released, its price is given back; dropped or withdrawn, it is as if nobody had asked.
    ///
    /// # Errors
    /// Those of [`Ledger::hold`], and what a request meets whose key was used before.
    pub async fn hold_once(&self, wish: HoldWish, retryable: Option<Box<Retryable>>) -> Result<Held, HoldRefused> {
        let slot = Slot::take(&self.queue).map_err(HoldRefused::Unavailable)?;
        let (sender, receiver) = oneshot::channel();
        let command = HoldCommand {
            wish,
            retryable,
            deadline: Instant::now() + self.queue.limits.hold_timeout,
            reply: Reply::new(sender, Arc::clone(&self.mailbox)),
            slot,
        };
        self.mailbox.submit(Command::Hold(command)).map_err(HoldRefused::Unavailable)?;
        failpoint::reach("hold-queued");
        receiver.await.unwrap_or(Err(HoldRefused::Unavailable(Unavailable::Stopping)))
    }
}

/// What a charge pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Attempt {
    /// A request that is no retry of another, and will have none.
    Plain,
    /// A request that its client may send again.
    First,
    /// The same, and the head of its reply was sent before its capture.
    Seen,
    /// A request that is forwarded once more, for a charge that is captured.
    Again,
    /// The same, and its client kept it from coming about.
    Withdrawn,
}

impl Attempt {
    /// Whether the charge was made with a row of its request.
    pub(in crate::store) fn is_known(self) -> bool {
        match self {
            Attempt::First | Attempt::Seen => true,
            Attempt::Plain | Attempt::Again | Attempt::Withdrawn => false,
        }
    }

    /// Whether the charge was captured before.
    pub(in crate::store) fn is_again(self) -> bool {
        match self {
            Attempt::Again | Attempt::Withdrawn => true,
            Attempt::Plain | Attempt::First | Attempt::Seen => false,
        }
    }
}

/// What the books know of a held charge.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct ChargeFacts {
    pub(in crate::store) id: ChargeId,
    pub(in crate::store) user_id: UserId,
    pub(in crate::store) account: AccountId,
    pub(in crate::store) cents: Cents,
    /// Which of the writer's spans of time the hold was made in.
    pub(in crate::store) span: u64,
    pub(in crate::store) attempt: Attempt,
}

/// A charge that is held and not settled, or captured and forwarded once more. Dropped: released, or as it was.
pub struct HeldCharge {
    facts: ChargeFacts,
    /// Of a request that its client may send again.
    head: Option<Arc<ReplyHead>>,
    mailbox: Arc<Mailbox>,
    /// Gone when the settlement is on its way.
    slot: Option<Slot>,
}

impl HeldCharge {
    pub(in crate::store) fn new(facts: ChargeFacts, mailbox: Arc<Mailbox>, slot: Slot) -> HeldCharge {
        let head = (facts.attempt == Attempt::First).then(|| Arc::new(ReplyHead::new(facts.id, slot.queue())));
        HeldCharge { facts, head, mailbox, slot: Some(slot) }
    }

    /// The charge's id.
    pub fn id(&self) -> ChargeId {
        self.facts.id
    }

    /// What is held.
    pub fn cents(&self) -> Cents {
        self.facts.cents
    }

    /// The earlier charge of the same request, which the transaction of this hold refunded.
    pub fn retry_of(&self) -> Option<ChargeId> {
        None
    }

    /// Where it is to be said that the head of the reply is sent, if anyone wants to know.
    pub fn reply_head(&self) -> Option<Arc<ReplyHead>> {
        self.head.clone()
    }

    /// Makes the hold final. The settlement goes on whether or not its answer is awaited.
    pub fn capture(mut self, status: u16) -> Settlement {
        if self.head.as_ref().is_some_and(|head| head.begin_capture()) {
            self.facts.attempt = Attempt::Seen;
        }
        self.settle(Wanted::Capture, Some(status))
    }

    /// Gives the hold back, because of an outcome with this status, or none.
    pub fn release(mut self, status: Option<u16>) -> Settlement {
        self.settle(Wanted::Release, status)
    }

    /// Gives the hold back because its client kept the request from coming about. What is forwarded once more stays paid,
    /// and owed to the client.
    pub fn withdraw(mut self) -> Settlement {
        self.withdrawn();
        self.settle(Wanted::Release, None)
    }

    fn withdrawn(&mut self) {
        if self.facts.attempt == Attempt::Again {
            self.facts.attempt = Attempt::Withdrawn;
        }
    }

    fn settle(&mut self, wanted: Wanted, status: Option<u16>) -> Settlement {
        let (sender, receiver) = oneshot::channel();
        let reply = Reply::new(sender, Arc::clone(&self.mailbox));
        let decision = Arc::new(Decision::default());
        if let Some(slot) = self.slot.take() {
            send(&self.mailbox, self.facts, wanted, status, Some((reply, Arc::clone(&decision))), slot);
        }
        Settlement { receiver, decision }
    }
}

impl Drop for HeldCharge {
    fn drop(&mut self) {
        self.withdrawn();
        if let Some(slot) = self.slot.take() {
            send(&self.mailbox, self.facts, Wanted::Release, None, None, slot);
        }
    }
}

fn send(
    mailbox: &Mailbox,
    facts: ChargeFacts,
    wanted: Wanted,
    status: Option<u16>,
    waiter: Option<(Reply<Settled>, Arc<Decision>)>,
    slot: Slot,
) {
    let deadline = Instant::now() + slot.queue().limits.settle_timeout;
    let (reply, decision) = waiter.unzip();
    let command = Command::Settle(SettleCommand { facts, wanted, status, deadline, reply, decision, _slot: slot });
    if let Err(reason) = mailbox.submit(command) {
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
pub(in crate::store) enum Wanted {
    Capture,
    Release,
    /// A capture that was committed after its waiter had given up, and told its client that nothing was charged, is
    /// turned into a release, unless a retry was forwarded for the charge meanwhile: then it stays. Only the writer wants
    /// this, and before anyone has heard of the capture.
    Undo,
}

/// What a settlement comes to when its commit and the end of its waiter's patience cross: whoever is first decides.
#[derive(Debug, Default)]
pub(in crate::store) struct Decision(AtomicBool);

impl Decision {
    /// Decides, unless somebody has before. Whether it did.
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
        self.decision.claim()
    }
}

impl Future for Settlement {
    type Output = Settled;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Settled> {
        let answer = ready!(Pin::new(&mut self.receiver).poll(cx));
        Poll::Ready(answer.unwrap_or(Settled::Unknown))
    }
}
