//! Settles a forwarded request by the status of its reply, or by who caused that there is none.

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Response};
use hyper::upgrade::OnUpgrade;

use super::gather::{Gathered, gather};
use super::headers::{Receipt, to_client, upgrade_granted};
use super::reply::{self, Begun, End, ReplyBody, Terms, Upstreamed};
use super::{Gateway, receipt, tunnel};
use crate::billing::{Hold, Outcome, Passage, SettlementReason, Settling};
use crate::config::{ChargeOn, ExchangePolicy};
use crate::http::{Problem, ProblemKind, Record};
use crate::model::Cents;
use crate::store::{ReplyHead, Settled};
use crate::upstream::SendError;

/// How often a reply that is not whole yet gives way to its connection's task before its head is sent on its own.
const GIVE_WAY: usize = 2;

/// Who caused that a request has no reply that can be handed on.
#[derive(Clone, Copy, Debug)]
pub(super) enum AbortCause {
    /// The upstream, or Keytoll itself.
    Upstream,
    /// The client broke its request off before any of it was forwarded.
    ClientBeforeForwarding,
    /// The client broke its request off after the head of it was forwarded, and no reply had come.
    ClientBeforeReply,
    /// The client broke its request off after the head of a reply came, whose status is one that is charged.
    ClientAfterHead(Outcome),
}

impl AbortCause {
    /// Who caused this error.
    pub(super) fn of(error: &SendError) -> AbortCause {
        match error {
            SendError::RequestStalled | SendError::RequestBody { was_forwarded: true, .. } => {
                AbortCause::ClientBeforeReply
            }
            SendError::RequestBody { was_forwarded: false, .. } => AbortCause::ClientBeforeForwarding,
            SendError::Unreachable { .. }
            | SendError::PassageExpired
            | SendError::HeadTimeout
            | SendError::Broken { .. }
            | SendError::BadReply { .. } => AbortCause::Upstream,
        }
    }
}

/// What settling needs to know of a request.
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
        passage: Passage,
        mut problem: Problem,
        cause: AbortCause,
    ) -> Response<ReplyBody> {
        let mut receipt = None;
        if let Some(hold) = passage.into_hold() {
            let settled = self.settle_failure(hold, cause).await;
            if !settled.cost.is_zero() {
                let detail =
                    format!("{} A part of it had been forwarded, so the request was charged.", problem.detail());
                problem = problem.kind().with_detail(detail);
            }
            receipt = Some(settled);
        }
        reply::problem(problem, receipt.as_ref(), self.record)
    }

    /// Settles a request that has no reply.
    async fn settle_failure(&self, hold: Hold, cause: AbortCause) -> Receipt {
        // Keytoll itself may have cut the client off.
        if self.record.is_cutting() {
            return self.release(hold, Outcome::Failed).await;
        }
        let charged = match cause {
            AbortCause::Upstream => return self.release(hold, Outcome::Failed).await,
            AbortCause::ClientBeforeForwarding => None,
            AbortCause::ClientBeforeReply => self.policy.charge_on_abort.then_some(Outcome::Failed),
            AbortCause::ClientAfterHead(outcome) => Some(outcome),
        };
        let mut receipt = receipt(&hold);
        let Some(outcome) = charged else {
            return self.uncharged(receipt, hold.withdraw(), SettlementReason::AbortedUpload).await;
        };
        let is_captured = hold.capture(outcome).await == Settled::Captured;
        self.record.capture_ended(is_captured, SettlementReason::AbortedUpload, receipt.cost);
        if !is_captured {
            receipt.cost = Cents::ZERO;
        }
        receipt
    }

    /// A head came: its status says what is charged.
    pub(super) async fn replied(&self, passage: Passage, reply: Response<Upstreamed>) -> Response<ReplyBody> {
        let outcome = Outcome::Replied(reply.status());
        let Some(hold) = passage.into_hold() else {
            return self.pass(reply, None).await;
        };
        if !outcome.is_charged(self.charge_on) {
            let receipt = Box::pin(self.release(hold, outcome)).await;
            return self.pass(reply, Some(receipt)).await;
        }
        let (receipt, reply_head) = (receipt(&hold), hold.reply_head());
        let (mut head, mut body) = reply.into_parts();
        to_client(&mut head.headers, Some(&receipt), None);
        self.record.replied(head.status);
        match gather(&mut body, GIVE_WAY).await {
            Gathered::Whole(data) => {
                if !self.capture(hold, outcome).await {
                    return self.unpaid(receipt);
                }
                self.watch(reply_head);
                let body = ReplyBody::whole(data, &head);
                Response::from_parts(head, body)
            }
            Gathered::Begun(first) => {
                let is_silent = self.is_http10 && !head.headers.contains_key(CONTENT_LENGTH);
                let end = if is_silent { End::Silent } else { End::Marked };
                self.watch(reply_head);
                let charge_idle_cut = self.policy.charge_idle_cut && body.is_event_stream();
                let terms = Terms { hold, outcome, end, charge_idle_cut, record: self.record.clone() };
                Response::from_parts(head, ReplyBody::settling(Begun { body, first }, terms))
            }
            Gathered::Broken(error) => {
                let cause = if reply::is_clients_fault(&error) {
                    AbortCause::ClientAfterHead(outcome)
                } else {
                    AbortCause::Upstream
                };
                let problem = ProblemKind::UpstreamBroken.into();
                Box::pin(self.failed(Passage::paid(hold), problem, cause)).await
            }
        }
    }

    /// 101: captured before the client hears of it; then both sides talk to each other.
    pub(super) async fn switched(
        &self,
        passage: Passage,
        mut reply: Response<Upstreamed>,
        upgrade: Option<(HeaderValue, OnUpgrade)>,
    ) -> Response<ReplyBody> {
        let granted = upgrade
            .filter(|_| reply.body().is_request_complete())
            .and_then(|(requested, client)| Some((upgrade_granted(reply.headers(), &requested)?, client)));
        let Some((protocol, client)) = granted else {
            return self.failed(passage, ProblemKind::UpstreamBroken.into(), AbortCause::Upstream).await;
        };
        let outcome = Outcome::Replied(reply.status());
        let mut paid = None;
        if let Some(hold) = passage.into_hold() {
            paid = Some(if outcome.is_charged(self.charge_on) {
                let (receipt, reply_head) = (receipt(&hold), hold.reply_head());
                if !self.capture(hold, outcome).await {
                    return self.unpaid(receipt);
                }
                self.watch(reply_head);
                receipt
            } else {
                self.release(hold, outcome).await
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
    async fn pass(&self, reply: Response<Upstreamed>, receipt: Option<Receipt>) -> Response<ReplyBody> {
        let (mut head, mut body) = reply.into_parts();
        to_client(&mut head.headers, receipt.as_ref(), None);
        // hyper would drop a head that is not sent yet when its body breaks off, and close without a reply.
        let body = match gather(&mut body, 0).await {
            Gathered::Whole(data) => ReplyBody::whole(data, &head),
            Gathered::Begun(first) => ReplyBody::passing(Begun { body, first }),
            Gathered::Broken(_) => {
                return reply::problem(ProblemKind::UpstreamBroken.into(), receipt.as_ref(), self.record);
            }
        };
        self.record.replied(head.status);
        Response::from_parts(head, body)
    }

    /// Whether the price is final now.
    async fn capture(&self, hold: Hold, outcome: Outcome) -> bool {
        let cents = hold.cents();
        if self.record.is_cutting() {
            // The client is cut off already: it will not get what it would pay for.
            Box::pin(self.release(hold, Outcome::Failed)).await;
            return false;
        }
        let captured = hold.capture(outcome).await == Settled::Captured;
        self.record.capture_ended(captured, SettlementReason::Captured, cents);
        captured
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

    /// Gives a hold back; the receipt says so.
    async fn release(&self, hold: Hold, outcome: Outcome) -> Receipt {
        let reason = if self.record.is_cutting() { SettlementReason::Drained } else { SettlementReason::Released };
        self.uncharged(receipt(&hold), hold.release(outcome), reason).await
    }

    /// The receipt of a hold that is being released for this reason.
    async fn uncharged(&self, mut receipt: Receipt, settling: Settling, reason: SettlementReason) -> Receipt {
        match settling.await {
            Settled::Released { balance } => {
                receipt.cost = Cents::ZERO;
                receipt.balance = balance.unwrap_or(Cents::ZERO);
            }
            // The balance as committed with the hold: the release is still on its way.
            Settled::Unknown => receipt.cost = Cents::ZERO,
            // An earlier attempt captured the charge; the client aborted the retry before it was forwarded.
            Settled::Captured => {}
        }
        self.record.settled(reason, receipt.cost);
        receipt
    }
}
