//! Billing: what is charged, and the proof that it was paid.
//!
//! A [`Hold`] is made by nothing but a committed hold. A [`Passage`] is what the way to an upstream demands: paid with
//! such a hold, or free because the price is nothing. Neither can be cloned or made elsewhere, so that the compiler
//! keeps the order: first the hold, then the request. This module knows outcomes, not problems or statuses of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::time::{Sleep, sleep};

mod reason;

pub use reason::SettlementReason;

use crate::config::{ChargeOn, Limits};
use crate::failpoint;
use crate::model::{Cents, ChargeId, Principal, Retryable, RouteId};
use crate::store::{
    Generation, HeldCharge, HoldRefused, HoldWish, Ledger, ReplyHead, Settled, Settlement, Unavailable,
};

#[cfg(test)]
mod tests;

/// Beyond its own limit the writer answers when its commit does; this much later nobody waits any more, and what is
/// committed still later is undone.
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
    pub retryable: Option<Box<Retryable>>,
}

/// How a request ended, as far as money is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream's head came.
    Replied(StatusCode),
    /// No head came, or the reply broke off.
    Failed,
}

impl Outcome {
    /// Whether this outcome is charged.
    pub fn is_charged(self, charge_on: &ChargeOn) -> bool {
        match self {
            Outcome::Replied(status) => charge_on.contains(status),
            Outcome::Failed => false,
        }
    }

    fn status(self) -> Option<u16> {
        match self {
            Outcome::Replied(status) => Some(status.as_u16()),
            Outcome::Failed => None,
        }
    }
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
        let wish = HoldWish { principal, generation, route: price.route, price: price.cents };
        let held =
            tokio::time::timeout(self.hold_timeout + GRACE, self.ledger.hold_once(wish, price.retryable.clone())).await;
        let held = held.unwrap_or(Err(HoldRefused::Unavailable(Unavailable::TooLate)))?;
        failpoint::reach("hold-committed");
        Ok(Hold {
            charge: held.charge,
            balance: held.balance,
            generation: held.generation,
            settle_timeout: self.settle_timeout,
            forward_until: asked + self.forward_within,
        })
    }
}

/// The price of one request, taken and committed. Dropped unsettled: released. Of a request that is forwarded once more
/// for a retry: paid by the charge of the first, committed as such; dropped unsettled, it is as if nobody had asked.
#[derive(Debug)]
pub struct Hold {
    charge: HeldCharge,
    balance: Cents,
    generation: Generation,
    settle_timeout: Duration,
    /// No request is forwarded with this hold after this time: if this process was suspended, another one may have released it.
    forward_until: Instant,
}

impl Hold {
    /// The charge's id.
    pub fn charge_id(&self) -> ChargeId {
        self.charge.id()
    }

    /// The earlier charge of the same request, if this is a retry and the transaction of its hold refunded that charge.
    pub fn retry_of(&self) -> Option<ChargeId> {
        self.charge.retry_of()
    }

    /// What was taken.
    pub fn cents(&self) -> Cents {
        self.charge.cents()
    }

    /// The wallet's balance after that.
    pub fn balance(&self) -> Cents {
        self.balance
    }

    /// The view under which the principal is true.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Where it is to be said that the head of the reply is sent; `None`: nobody wants to know.
    pub fn reply_head(&self) -> Option<Arc<ReplyHead>> {
        self.charge.reply_head()
    }

    /// Makes the hold final.
    pub fn capture(self, outcome: Outcome) -> Settling {
        let timeout = self.settle_timeout;
        Settling::new(self.charge.capture(outcome.status().unwrap_or(0)), timeout)
    }

    /// Gives the hold back.
    pub fn release(self, outcome: Outcome) -> Settling {
        let timeout = self.settle_timeout;
        Settling::new(self.charge.release(outcome.status()), timeout)
    }

    /// Gives the hold back without a head, when nobody waits for the answer.
    pub fn release_unawaited(self) {
        drop(self.charge.release(None));
    }

    /// Gives the hold back because the client kept the request from coming about. Nothing is given back of what was paid
    /// before: the retry can be sent once more.
    pub fn withdraw(self) -> Settling {
        let timeout = self.settle_timeout;
        Settling::new(self.charge.withdraw(), timeout)
    }
}

/// A capture or release on its way; it goes on whether or not this is awaited. One that is awaited to its end and is
/// not [`Settled::Captured`] does not cost anything, or will not as soon as the database answers again.
#[derive(Debug)]
pub struct Settling {
    settlement: Settlement,
    /// Gone when the answer was on its way at its end.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Settling {
    fn new(settlement: Settlement, timeout: Duration) -> Settling {
        Settling { settlement, patience: Some(Box::pin(sleep(timeout + GRACE))) }
    }
}

impl Future for Settling {
    type Output = Settled;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Settled> {
        if let Poll::Ready(settled) = Pin::new(&mut self.settlement).poll(cx) {
            failpoint::reach(match settled {
                Settled::Captured => "capture-committed",
                Settled::Released { .. } | Settled::Unknown => "release-committed",
            });
            return Poll::Ready(settled);
        }
        let Some(patience) = &mut self.patience else { return Poll::Pending };
        ready!(patience.as_mut().poll(cx));
        self.patience = None;
        if self.settlement.give_up() { Poll::Ready(Settled::Unknown) } else { Poll::Pending }
    }
}

/// The right to be forwarded: a committed hold, or a price of nothing.
#[derive(Debug)]
pub struct Passage(Kind);

#[derive(Debug)]
enum Kind {
    Paid(Hold),
    Free,
}

impl Passage {
    /// Paid with a hold.
    pub fn paid(hold: Hold) -> Passage {
        Passage(Kind::Paid(hold))
    }

    /// Free, when the price is nothing; `None` otherwise.
    pub fn free(price: Cents) -> Option<Passage> {
        price.is_zero().then_some(Passage(Kind::Free))
    }

    /// Whether a request may be forwarded with it now. A hold that is too old may have been released by another process.
    pub fn is_valid(&self) -> bool {
        match &self.0 {
            Kind::Paid(hold) => Instant::now() < hold.forward_until,
            Kind::Free => true,
        }
    }

    /// The hold that paid, if it was paid.
    pub fn hold(&self) -> Option<&Hold> {
        match &self.0 {
            Kind::Paid(hold) => Some(hold),
            Kind::Free => None,
        }
    }

    /// Used up: what is left is the hold to be settled, if it was paid.
    pub fn into_hold(self) -> Option<Hold> {
        match self.0 {
            Kind::Paid(hold) => Some(hold),
            Kind::Free => None,
        }
    }
}
