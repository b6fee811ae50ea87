//! Settles a forwarded request by the status of its reply, or by who caused that there is none.

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use super::gather::{Gathered, PeekedBody, ReplySource, gather};
use super::headers::{Receipt, to_client, upgrade_granted};
use super::held_reply::HeldReply;
use super::payment::Payment;
use super::reply::{self, ReplyBody};
use super::{Gateway, tunnel};
use crate::billing::SettlementReason;
use crate::config::{ChargeOn, ExchangePolicy};
use crate::http::{Problem, ProblemKind, Record};
use crate::model::Cents;
use crate::store::ReplyHead;
use crate::upstream::{BodyError, SendError};

/// How often to yield to the connection's task for the rest of a reply before its head is sent on its own.
const YIELDS: usize = 2;

/// Who caused that a request has no reply that can be handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AbortCause {
    /// Anyone, before any of the request was forwarded.
    NotForwarded(SettlementReason),
    /// The upstream, or Keytoll itself, after that.
    Upstream,
    /// The client, after that: it broke its request off. With the status of the reply's head if that had come and its
    /// status is one that is charged.
    Client(Option<StatusCode>),
}

impl AbortCause {
    /// Who caused this error.
    pub(super) fn of(error: &SendError) -> AbortCause {
        match error {
            SendError::Unreachable { .. } | SendError::PassageExpired => {
                AbortCause::NotForwarded(SettlementReason::Released)
            }
            SendError::RequestBody { was_forwarded: false, .. } => {
                AbortCause::NotForwarded(SettlementReason::AbortedUpload)
            }
            SendError::RequestBody { was_forwarded: true, .. } | SendError::RequestStalled => AbortCause::Client(None),
            SendError::HeadTimeout | SendError::Broken { .. } | SendError::BadReply { .. } => AbortCause::Upstream,
        }
    }

    /// Who caused that a reply with this status, which is charged, broke off before any of it was sent.
    fn of_break(error: &BodyError, status: StatusCode) -> AbortCause {
        match error {
            BodyError::RequestBody(_) | BodyError::RequestStalled => AbortCause::Client(Some(status)),
            BodyError::Idle | BodyError::Broken(_) | BodyError::TotalTimeout { .. } => AbortCause::Upstream,
        }
    }
}

/// What settling needs to know of a request. `payment` is `None` throughout for a free request.
pub(super) struct Settle<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) charge_on: &'a ChargeOn,
    pub(super) policy: &'a ExchangePolicy,
    pub(super) is_http10: bool,
    pub(super) record: &'a Record,
}

impl Settle<'_> {
    /// Settles a request for which no usable head came. It is charged if the client aborted it after forwarding had begun,
    /// unless the route says otherwise.
    pub(super) async fn failed(
        &self,
        payment: Option<Payment>,
        mut problem: Problem,
        cause: AbortCause,
    ) -> Response<ReplyBody> {
        let mut receipt = None;
        if let Some(payment) = payment {
            let settled = self.settle_failure(payment, cause).await;
            if !settled.cost.is_zero() && matches!(cause, AbortCause::Client(_)) {
                let detail =
                    format!("{} A part of it had been forwarded, so the request was charged.", problem.detail());
                problem = problem.kind().with_detail(detail);
            }
            receipt = Some(settled);
        }
        reply::problem(problem, receipt.as_ref(), self.record)
    }

    /// Settles a request that has no reply.
    async fn settle_failure(&self, payment: Payment, cause: AbortCause) -> Receipt {
        let status = match cause {
            AbortCause::NotForwarded(reason) => return payment.cancel(reason).await,
            // Keytoll itself may have cut the client off.
            AbortCause::Client(_) if self.record.is_cutting() => {
                return payment.release(None, SettlementReason::Drained).await;
            }
            AbortCause::Upstream => return payment.release(None, SettlementReason::Released).await,
            AbortCause::Client(None) if !self.policy.charge_on_abort => {
                return payment.release(None, SettlementReason::AbortedUpload).await;
            }
            AbortCause::Client(status) => status,
        };
        let mut receipt = payment.receipt();
        if !payment.capture(status, SettlementReason::AbortedUpload).await {
            receipt.cost = Cents::ZERO;
        }
        receipt
    }

    /// A head came: its status says what is charged.
    pub(super) async fn replied(&self, payment: Option<Payment>, reply: Response<ReplySource>) -> Response<ReplyBody> {
        let status = reply.status();
        let Some(payment) = payment else {
            return self.forward(reply, None).await;
        };
        if !self.charge_on.contains(status) {
            let receipt = Box::pin(payment.release(Some(status), SettlementReason::Released)).await;
            return self.forward(reply, Some(receipt)).await;
        }
        let (receipt, reply_head) = (payment.receipt(), payment.reply_head());
        let (mut head, mut body) = reply.into_parts();
        to_client(&mut head.headers, Some(&receipt), None);
        self.record.replied(status);
        match gather(&mut body, YIELDS).await {
            Gathered::Whole(data) => {
                if !self.capture(payment, status).await {
                    return self.unpaid(receipt);
                }
                self.watch(reply_head);
                let body = ReplyBody::whole(data, &head);
                Response::from_parts(head, body)
            }
            Gathered::Partial(frames) => {
                self.watch(reply_head);
                let is_close_delimited = self.is_http10 && !head.headers.contains_key(CONTENT_LENGTH);
                let body = PeekedBody { body, frames };
                let reply = HeldReply::new(body, status, is_close_delimited, self.policy, payment);
                Response::from_parts(head, reply.into())
            }
            Gathered::Broken(error) => {
                let (problem, cause) = (ProblemKind::UpstreamBroken.into(), AbortCause::of_break(&error, status));
                Box::pin(self.failed(Some(payment), problem, cause)).await
            }
        }
    }

    /// 101: captured before the client hears of it; then both sides talk to each other.
    pub(super) async fn switched(
        &self,
        payment: Option<Payment>,
        mut reply: Response<ReplySource>,
        upgrade: Option<(HeaderValue, OnUpgrade)>,
    ) -> Response<ReplyBody> {
        let granted = upgrade
            .filter(|_| reply.body().is_request_complete())
            .and_then(|(requested, client)| Some((upgrade_granted(reply.headers(), &requested)?, client)));
        let Some((protocol, client)) = granted else {
            return self.failed(payment, ProblemKind::UpstreamBroken.into(), AbortCause::Upstream).await;
        };
        let status = reply.status();
        let mut paid = None;
        if let Some(payment) = payment {
            paid = Some(if self.charge_on.contains(status) {
                let (receipt, reply_head) = (payment.receipt(), payment.reply_head());
                if !self.capture(payment, status).await {
                    return self.unpaid(receipt);
                }
                self.watch(reply_head);
                receipt
            } else {
                payment.release(Some(status), SettlementReason::Released).await
            });
        }
        let upstream = hyper::upgrade::on(&mut reply);
        tunnel::start(client, upstream, self.gateway.shared.parts.limits.tunnel_idle, self.record.clone());
        let (mut head, body) = reply.into_parts();
        body.upgrade();
        to_client(&mut head.headers, paid.as_ref(), Some(protocol));
        self.record.replied(head.status);
        Response::from_parts(head, ReplyBody::empty())
    }

    /// Hands a reply on for which nothing is left to be settled.
    async fn forward(&self, reply: Response<ReplySource>, receipt: Option<Receipt>) -> Response<ReplyBody> {
        let (mut head, mut body) = reply.into_parts();
        to_client(&mut head.headers, receipt.as_ref(), None);
        // hyper would drop a head that is not sent yet when its body breaks off, and close without a reply.
        let body = match gather(&mut body, 0).await {
            Gathered::Whole(data) => ReplyBody::whole(data, &head),
            Gathered::Partial(frames) => PeekedBody { body, frames }.into(),
            Gathered::Broken(_) => {
                return reply::problem(ProblemKind::UpstreamBroken.into(), receipt.as_ref(), self.record);
            }
        };
        self.record.replied(head.status);
        Response::from_parts(head, body)
    }

    /// Whether the price is final now.
    async fn capture(&self, payment: Payment, status: StatusCode) -> bool {
        if self.record.is_cutting() {
            // The client is cut off already: it will not get what it would pay for.
            Box::pin(payment.release(None, SettlementReason::Drained)).await;
            return false;
        }
        payment.capture(Some(status), SettlementReason::Captured).await
    }

    /// The reply is there, its price is not: the client gets neither.
    fn unpaid(&self, mut receipt: Receipt) -> Response<ReplyBody> {
        receipt.cost = Cents::ZERO;
        reply::problem(ProblemKind::BillingUnavailable.into(), Some(&receipt), self.record)
    }

    /// Records when the head of the reply has been written. `None` unless the request has an idempotency key.
    fn watch(&self, reply_head: Option<Arc<ReplyHead>>) {
        if let Some(reply_head) = reply_head {
            self.record.client().on_next_write(Box::new(move || reply_head.sent()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_reached_no_upstream_was_not_forwarded() {
        let unreachable = SendError::Unreachable { cause: std::io::ErrorKind::ConnectionRefused.into() };
        for error in [unreachable, SendError::PassageExpired] {
            assert_eq!(AbortCause::of(&error), AbortCause::NotForwarded(SettlementReason::Released), "{error}");
        }
        assert_eq!(AbortCause::of(&SendError::HeadTimeout), AbortCause::Upstream);
        assert_eq!(AbortCause::of(&SendError::RequestStalled), AbortCause::Client(None));
    }
}
