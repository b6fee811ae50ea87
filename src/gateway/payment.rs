//! The payment of one request that goes upstream: its hold, and how that is settled. Each settlement is recorded in the access
//! log with its reason.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use tokio::runtime::Handle;

use super::headers::Receipt;
use crate::billing::{Hold, SettlementReason, Settling};
use crate::http::Record;
use crate::model::Cents;
use crate::store::{ReplyHead, Settled};

/// A hold that is not settled yet. Dropping it cancels the hold.
pub(super) struct Payment {
    hold: Hold,
    record: Record,
}

impl Payment {
    /// The payment of the request of `record`.
    pub(super) fn new(hold: Hold, record: Record) -> Payment {
        Payment { hold, record }
    }

    /// The record of the request.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// The receipt of a request that is charged.
    pub(super) fn receipt(&self) -> Receipt {
        let hold = &self.hold;
        Receipt { charge_id: hold.charge_id(), cost: hold.cents(), balance: hold.balance() }
    }

    /// Called when the reply head has been sent. `None` unless the request has an idempotency key.
    pub(super) fn reply_head(&self) -> Option<Arc<ReplyHead>> {
        self.hold.reply_head()
    }

    /// Charges the request. `status`: of the reply's head; `None` if none came.
    pub(super) fn capture(self, status: Option<StatusCode>, reason: SettlementReason) -> Capture {
        let cents = self.hold.cents();
        Capture { settling: self.hold.capture(status), cents, reason, record: self.record }
    }

    /// Releases the hold of a request that was, or may have been, forwarded. `status`: of the reply's head; `None` if none
    /// came.
    pub(super) async fn release(self, status: Option<StatusCode>, reason: SettlementReason) -> Receipt {
        let receipt = self.receipt();
        uncharged(receipt, self.hold.release(status), &self.record, reason).await
    }

    /// Cancels the hold of a request of which nothing was forwarded.
    pub(super) async fn cancel(self, reason: SettlementReason) -> Receipt {
        let receipt = self.receipt();
        uncharged(receipt, self.hold.cancel(), &self.record, reason).await
    }

    /// Settles a reply with this `status` that ends before it is whole, without waiting for the result. If the client caused
    /// that, by leaving or by aborting its own request, the hold is captured, or all but the last byte would be free.
    /// Otherwise it is released.
    pub(super) fn end_early(self, status: StatusCode, reason: SettlementReason) {
        let reason = unless_drained(&self.record, reason);
        if matches!(reason, SettlementReason::Drained | SettlementReason::Released) {
            self.record.settled(reason, Cents::ZERO);
            drop(self.hold.release(None));
        } else {
            self.capture(Some(status), reason).detach(reason);
        }
    }
}

/// The receipt of a hold that is being given back for this reason.
async fn uncharged(mut receipt: Receipt, settling: Settling, record: &Record, reason: SettlementReason) -> Receipt {
    let reason = unless_drained(record, reason);
    match settling.await {
        Settled::Released { balance } => {
            receipt.cost = Cents::ZERO;
            receipt.balance = balance.unwrap_or(Cents::ZERO);
        }
        // The balance as committed with the hold: the release is still on its way.
        Settled::Unknown => receipt.cost = Cents::ZERO,
        // An earlier attempt captured the charge, and nothing was forwarded for this retry.
        Settled::Captured => {}
    }
    record.settled(reason, receipt.cost);
    receipt
}

/// What Keytoll itself cuts off when it stops has a reason of its own.
fn unless_drained(record: &Record, reason: SettlementReason) -> SettlementReason {
    if record.is_cutting() { SettlementReason::Drained } else { reason }
}

/// A capture under way; the output says whether it is durable, so that the reply may end. It goes on if this is dropped.
pub(super) struct Capture {
    settling: Settling,
    cents: Cents,
    reason: SettlementReason,
    record: Record,
}

impl Capture {
    /// Leaves the capture to a task that records its result, because the reply ends without it.
    pub(super) fn detach(mut self, reason: SettlementReason) {
        self.reason = reason;
        // Stays if the process ends before the result is known.
        self.record.settled(reason, self.cents);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(self);
        }
    }
}

impl Future for Capture {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let is_captured = ready!(Pin::new(&mut self.settling).poll(cx)) == Settled::Captured;
        self.record.capture_ended(is_captured, self.reason, self.cents);
        Poll::Ready(is_captured)
    }
}
