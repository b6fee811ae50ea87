//! Billing: what is charged, and the proof that it was paid.
//!
//! A [`Hold`] is made by nothing but a committed hold. A [`Passage`] is what the way to an upstream demands: paid with
//! such a hold, or free because the price is nothing. Neither can be cloned or made elsewhere, so that the compiler
//! keeps the order: first the hold, then the request. Which outcomes are charged is the gateway's rule.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::time::{Sleep, sleep};

mod reason;

pub use reason::SettlementReason;

use crate::config::Limits;
use crate::failpoint;
use crate::model::{Cents, ChargeId, IdempotentRequest, Principal, RouteId};
use crate::store::{Generation, Held, HoldRefused, HoldRequest, Ledger, ReplyHead, Settled, Settlement, Unavailable};

#[cfg(test)]
mod tests;

/// The writer answers when its commit ends, which may be after its own time limit. The wait ends this much later than that
/// limit, and what is committed still later is undone.
const GRACE: Duration = Duration::from_secs(1);

/// One worker's way to the books.
pub struct Billing {
    ledger: Ledger,
    hold_timeout: Duration,
    settle_timeout: Duration,
    /// After which others may have taken this process for dead, and released the hold.
    forward_within: Duration,
}

/// What a request asks to be held.
#[derive(Clone, Debug)]
pub struct Price {
    /// What it costs; positive.
    pub cents: Cents,
    /// The API and route, for the books.
    pub route: RouteId,
    /// What tells the request from another, if its client may send it again.
    pub idempotent_request: Option<Box<IdempotentRequest>>,
}

impl Billing {
    /// On a worker's ledger.
    pub fn new(ledger: Ledger, limits: &Limits) -> Billing {
        let (hold_timeout, settle_timeout) = (limits.hold_timeout, limits.settle_timeout);
        Billing { ledger, hold_timeout, settle_timeout, forward_within: limits.instance_timeout / 2 }
    }

    /// Takes the price out of the principal's wallet. To drop the future before its end costs nothing.
    ///
    /// # Errors
    /// Not enough money, a key that is no longer what the principal says, an `Idempotency-Key` that was used, or books that
    /// cannot be written now.
    pub async fn hold(&self, principal: Principal, generation: Generation, price: &Price) -> Result<Hold, HoldRefused> {
        failpoint::reach("before-hold");
        let asked = Instant::now();
        let request = HoldRequest { principal, generation, route: price.route, price: price.cents };
        let held = self.ledger.hold(request, price.idempotent_request.clone());
        let held = tokio::time::timeout(self.hold_timeout + GRACE, held).await;
        let held = held.unwrap_or(Err(HoldRefused::Unavailable(Unavailable::TooLate)))?;
        failpoint::reach("hold-committed");
        Ok(Hold { held, settle_timeout: self.settle_timeout, forward_until: asked + self.forward_within })
    }
}

/// The price of one request, taken out of the wallet by a committed transaction. It is settled once.
///
/// As long as nothing of the request was forwarded, it is cancelled: by [`Hold::cancel`], or by dropping it. Afterwards it is
/// captured or released, by dropping it if nothing else; the books keep a record of either, under the id that upstream and
/// client know.
#[derive(Debug)]
pub struct Hold {
    held: Held,
    settle_timeout: Duration,
    /// No request is forwarded with this hold after this time: if this process was suspended, another one may have released it.
    forward_until: Instant,
}

impl Hold {
    /// The charge's id.
    pub fn charge_id(&self) -> ChargeId {
        self.held.charge.id()
    }

    /// The earlier charge of the same request, if this is a retry and the transaction of its hold refunded that charge.
    pub fn retry_of(&self) -> Option<ChargeId> {
        self.held.charge.retry_of()
    }

    /// What was taken.
    pub fn cents(&self) -> Cents {
        self.held.charge.cents()
    }

    /// The wallet's balance after that.
    pub fn balance(&self) -> Cents {
        self.held.balance
    }

    /// The view under which the principal is true.
    pub fn generation(&self) -> Generation {
        self.held.generation
    }

    /// Where to report that the head of the reply was sent; `None` if the charge cannot be refunded to a retry.
    pub fn reply_head(&self) -> Option<Arc<ReplyHead>> {
        self.held.charge.reply_head()
    }

    /// Makes the hold final, for a request that was forwarded. `status`: of the reply's head; `None` if none came.
    pub fn capture(self, status: Option<StatusCode>) -> Settling {
        let settlement = self.held.charge.capture(status.map_or(0, |status| status.as_u16()));
        Settling::new(settlement, self.settle_timeout)
    }

    /// Gives the hold back, for a request that was, or may have been, forwarded. `status`: as for [`Hold::capture`]; `None`
    /// also if the reply broke off.
    pub fn release(self, status: Option<StatusCode>) -> Settling {
        Settling::new(self.held.charge.release(status.map(|status| status.as_u16())), self.settle_timeout)
    }

    /// Gives the hold back, for a request of which nothing was forwarded. If it is a retry, the client pays again for the charge
    /// that was refunded with it, and can retry again.
    pub fn cancel(self) -> Settling {
        Settling::new(self.held.charge.cancel(), self.settle_timeout)
    }
}

/// A settlement under way. It goes on whether or not this is awaited. One that is awaited to its end and is
/// not [`Settled::Captured`] does not cost anything, or will not as soon as the database answers again.
#[derive(Debug)]
pub struct Settling {
    settlement: Settlement,
    timeout: Duration,
    /// Runs from the first poll on.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Settling {
    fn new(settlement: Settlement, timeout: Duration) -> Settling {
        Settling { settlement, timeout: timeout + GRACE, patience: None }
    }
}

impl Future for Settling {
    type Output = Settled;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Settled> {
        let this = self.get_mut();
        if let Poll::Ready(settled) = Pin::new(&mut this.settlement).poll(cx) {
            failpoint::reach(match settled {
                Settled::Captured => "capture-committed",
                Settled::Released { .. } | Settled::Unknown => "release-committed",
            });
            return Poll::Ready(settled);
        }
        let patience = this.patience.get_or_insert_with(|| Box::pin(sleep(this.timeout)));
        ready!(patience.as_mut().poll(cx));
        // Otherwise the answer is on its way.
        if this.settlement.give_up() { Poll::Ready(Settled::Unknown) } else { Poll::Pending }
    }
}

/// The right to be forwarded: a committed hold, or a price of nothing.
#[derive(Debug)]
pub struct Passage(Option<Hold>);

impl Passage {
    /// Paid with a hold.
    pub fn paid(hold: Hold) -> Passage {
        Passage(Some(hold))
    }

    /// Free, when the price is nothing; `None` otherwise.
    pub fn free(price: Cents) -> Option<Passage> {
        price.is_zero().then_some(Passage(None))
    }

    /// Whether a request may be forwarded with it now. A hold that is too old may have been released by another process.
    pub fn is_valid(&self) -> bool {
        self.0.as_ref().is_none_or(|hold| Instant::now() < hold.forward_until)
    }

    /// Records that the request is being forwarded: a hold that is dropped after that leaves a released charge. The passage must
    /// be valid ([`Passage::is_valid`]).
    pub fn begin_forwarding(&self) {
        if let Some(hold) = &self.0 {
            hold.held.charge.begin_forwarding();
        }
    }

    /// The hold that paid, if it was paid.
    pub fn hold(&self) -> Option<&Hold> {
        self.0.as_ref()
    }

    /// Used up: what is left is the hold to be settled, if it was paid.
    pub fn into_hold(self) -> Option<Hold> {
        self.0
    }
}
