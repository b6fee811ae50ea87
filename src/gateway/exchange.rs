//! From a paid passage to the reply: forward, settle by the outcome, and hand the reply on.
//!
//! Runs to its end even when the client goes away ([`super::detach`]).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::headers::{
    ForUpstream, Identity, Peer, Receipt, to_client, to_upstream, upgrade_granted, upgrade_requested,
};
use super::open_hold::OpenHold;
use super::reply::{self, End, ReplyBody, Terms, Upstreamed};
use super::request_body::{Collected, ContinueGate, RequestBody, Streamed, expects_continue};
use super::route::Match;
use super::target::Target;
use super::{Gateway, receipt, tunnel};
use crate::billing::{Hold, Outcome, Passage, SettlementReason, Settling};
use crate::config::ExchangePolicy;
use crate::failpoint;
use crate::http::{Problem, ProblemKind, Record};
use crate::model::Cents;
use crate::store::{ReplyHead, Settled};
use crate::upstream::{BodyError, SendError};

/// How often a reply that is not whole yet gives way to its connection's task before its head is sent on its own.
const GIVE_WAY: usize = 2;

/// A request that may go upstream.
pub(super) struct Exchange {
    pub(super) gateway: Arc<Gateway>,
    pub(super) peer: Arc<Peer>,
    pub(super) passage: Passage,
    pub(super) record: Record,
    pub(super) policy: ExchangePolicy,
}

/// The request in the form that goes upstream, and what of it decides on the reply.
pub(super) struct Outgoing {
    request: Request<RequestBody>,
    is_head: bool,
    is_http10: bool,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
}

impl Exchange {
    /// Puts the request into the form that goes upstream. `collected`: its body, if that was read before.
    pub(super) fn outgoing(
        &self,
        found: &Match<'_>,
        target: Target,
        request: &mut Request<Option<Incoming>>,
        collected: Option<Collected>,
    ) -> Result<Outgoing, Problem> {
        let upgrade = upgrade_requested(request.headers(), request.version());
        let upgrade = upgrade.map(|protocol| (protocol, hyper::upgrade::on(&mut *request)));
        let identity = self.record.user().map(|(user_id, key_id)| Identity {
            user_id,
            key_id,
            charge_id: self.passage.hold().map(Hold::charge_id),
        });
        let shared = &self.gateway.shared;
        let expects_continue = collected.is_none() && expects_continue(request);
        let about = ForUpstream {
            request_id: self.record.request_id(),
            api: &found.api.name_value,
            identity,
            peer: &self.peer,
            credentials: &shared.credential_headers,
            via: shared.via.entry(request.version()),
            stripped_prefix: found.api.stripped_prefix.as_ref(),
            upgrade: upgrade.as_ref().map(|(protocol, _)| protocol.clone()),
            expects_continue,
            version: request.version(),
        };
        to_upstream(request.headers_mut(), about);
        let mut outgoing = Request::new(RequestBody::default());
        if let Some(collected) = collected {
            *outgoing.body_mut() = collected.into();
        } else if let Some(incoming) = request.body_mut().take().filter(|incoming| !incoming.is_end_stream()) {
            if incoming.size_hint().exact().is_none() {
                // hyper would send a GET of unknown length without its body.
                request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            let limit = shared.parts.limits.expect_continue;
            let gate = expects_continue.then(|| ContinueGate::new(&mut outgoing, limit));
            *outgoing.body_mut() =
                Streamed::new(incoming, &shared.body_limits(&self.policy), gate, &self.record).into();
        }
        let is_http10 = request.version() == Version::HTTP_10;
        *outgoing.uri_mut() = target.into_uri()?;
        let is_head = *request.method() == Method::HEAD;
        *outgoing.method_mut() = mem::take(request.method_mut());
        *outgoing.headers_mut() = mem::take(request.headers_mut());
        Ok(Outgoing { request: outgoing, is_head, is_http10, upgrade })
    }

    /// Forwards, settles by the outcome, and makes the reply. A problem after a hold has its receipt, and so is made
    /// here.
    pub(super) async fn run(self, api: usize, outgoing: Outgoing) -> Result<Response<ReplyBody>, Problem> {
        let Exchange { gateway, passage, record, policy, .. } = self;
        let Outgoing { request, is_head, is_http10, upgrade } = outgoing;
        let upstream = gateway.upstreams.get(api).ok_or(ProblemKind::Internal)?;
        let started = Instant::now();
        let sent = upstream.send(&passage, &policy, request).await;
        failpoint::reach("reply-begun");
        record.upstream_answered(started.elapsed());
        // Each hop has a version of its own (RFC 9110 §6.2); that of an HTTP/1.0 upstream would also take away the
        // chunks that tell the end of a reply from a break.
        let sent = sent.map(|mut reply| {
            *reply.version_mut() = Version::HTTP_11;
            reply
        });
        let settle = Settle { gateway: &gateway, api, policy: &policy, is_http10, record: &record };
        match sent {
            // Rare branches are boxed, here and below, to keep this future small.
            Ok(reply) if reply.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Box::pin(settle.switched(passage, reply, upgrade)).await
            }
            Ok(reply) => settle.replied(passage, reply, is_head).await,
            Err(error) => {
                let by = match error {
                    SendError::RequestBody { is_forwarded, .. } => Failed::Client { is_forwarded },
                    _ => Failed::Upstream,
                };
                Box::pin(settle.failed(passage, Problem::from(&error), by)).await
            }
        }
    }
}

/// What settling needs to know of a request.
struct Settle<'a> {
    gateway: &'a Gateway,
    api: usize,
    policy: &'a ExchangePolicy,
    is_http10: bool,
    record: &'a Record,
}

/// Why there is no reply.
enum Failed {
    Upstream,
    /// The client broke its own request off.
    Client {
        is_forwarded: bool,
    },
}

impl Settle<'_> {
    /// No head came, or one that cannot be used.
    async fn failed(&self, passage: Passage, mut problem: Problem, by: Failed) -> Result<Response<ReplyBody>, Problem> {
        let receipt = match (passage.into_hold(), by) {
            (Some(hold), Failed::Client { is_forwarded }) => {
                let receipt = self.aborted(hold, is_forwarded).await;
                if !receipt.cost.is_zero() {
                    let detail =
                        format!("{} A part of it had been forwarded, so the request was charged.", problem.detail());
                    problem = problem.kind().with_detail(detail);
                }
                Some(receipt)
            }
            (Some(hold), Failed::Upstream) => Some(self.release(hold, Outcome::Failed).await),
            (None, _) => None,
        };
        Ok(reply::problem(problem, receipt.as_ref(), self.record))
    }

    /// The client aborted its request before a reply came. If it was forwarded, the upstream may have worked for it, so that
    /// it is charged unless the route says otherwise.
    async fn aborted(&self, hold: Hold, is_forwarded: bool) -> Receipt {
        let mut receipt = receipt(&hold);
        if self.record.is_cutting() {
            // Keytoll itself cut the client off.
            return self.release(hold, Outcome::Failed).await;
        }
        if !is_forwarded || !self.policy.charge_on_abort {
            return self.uncharged(receipt, hold.withdraw(), SettlementReason::AbortedUpload).await;
        }
        if hold.capture(Outcome::Failed).await == Settled::Captured {
            self.record.settled(SettlementReason::AbortedUpload, receipt.cost);
        } else {
            receipt.cost = Cents::ZERO;
            self.record.settled(SettlementReason::Unpaid, receipt.cost);
        }
        receipt
    }

    /// A head came: its status says what is charged.
    async fn replied(
        &self,
        passage: Passage,
        reply: Response<Upstreamed>,
        is_head: bool,
    ) -> Result<Response<ReplyBody>, Problem> {
        let outcome = Outcome::Replied(reply.status());
        let Some(hold) = passage.into_hold() else {
            return Ok(self.pass(reply, None).await);
        };
        let charge_on = &self.gateway.shared.parts.routes.apis().get(self.api).ok_or(ProblemKind::Internal)?.charge_on;
        if !outcome.is_charged(charge_on) {
            let receipt = Box::pin(self.release(hold, outcome)).await;
            return Ok(self.pass(reply, Some(receipt)).await);
        }
        let (receipt, reply_head) = (receipt(&hold), hold.reply_head());
        let (mut head, mut body) = reply.into_parts();
        to_client(&mut head.headers, Some(&receipt), None);
        self.record.replied(head.status);
        let whole =
            if is_head || has_no_body(head.status) { Gathered::Whole(None) } else { gather(&mut body, GIVE_WAY).await };
        match whole {
            Gathered::Whole(data) => {
                if !self.capture(hold, outcome).await {
                    return Ok(self.unpaid(receipt));
                }
                self.watch(reply_head);
                let body = match data {
                    None if head.status == StatusCode::NOT_MODIFIED => ReplyBody::not_modified(&head.headers),
                    data => data.map_or_else(ReplyBody::empty, ReplyBody::from),
                };
                Ok(Response::from_parts(head, body))
            }
            Gathered::Begun(first) => {
                let is_silent = self.is_http10 && !head.headers.contains_key(CONTENT_LENGTH);
                let end = if is_silent { End::Silent } else { End::Marked };
                self.watch(reply_head);
                let limit = self.gateway.shared.parts.limits.open_charge;
                let open = OpenHold::new(hold, outcome, limit, self.record.clone());
                let charge_idle_cut = self.policy.charge_idle_cut && body.is_event_stream();
                let terms = Terms { open, outcome, end, charge_idle_cut, record: self.record.clone() };
                Ok(Response::from_parts(head, ReplyBody::settling(body, first, terms)))
            }
            Gathered::Broken { is_clients } => {
                let problem = ProblemKind::UpstreamBroken.into();
                let by = if is_clients { Failed::Client { is_forwarded: true } } else { Failed::Upstream };
                Box::pin(self.failed(Passage::paid(hold), problem, by)).await
            }
        }
    }

    /// 101: captured before the client hears of it; then both sides talk to each other.
    async fn switched(
        &self,
        passage: Passage,
        mut reply: Response<Upstreamed>,
        upgrade: Option<(HeaderValue, OnUpgrade)>,
    ) -> Result<Response<ReplyBody>, Problem> {
        let granted =
            upgrade.and_then(|(requested, client)| Some((upgrade_granted(reply.headers(), &requested)?, client)));
        let Some((protocol, client)) = granted else {
            return self.failed(passage, ProblemKind::UpstreamBroken.into(), Failed::Upstream).await;
        };
        let charge_on = &self.gateway.shared.parts.routes.apis().get(self.api).ok_or(ProblemKind::Internal)?.charge_on;
        let outcome = Outcome::Replied(reply.status());
        let mut paid = None;
        if let Some(hold) = passage.into_hold() {
            paid = Some(if outcome.is_charged(charge_on) {
                let (receipt, reply_head) = (receipt(&hold), hold.reply_head());
                if !self.capture(hold, outcome).await {
                    return Ok(self.unpaid(receipt));
                }
                self.watch(reply_head);
                receipt
            } else {
                self.release(hold, outcome).await
            });
        }
        let upstream = hyper::upgrade::on(&mut reply);
        tunnel::start(client, upstream, self.gateway.shared.parts.limits.tunnel_idle, self.record.clone());
        let (mut head, _) = reply.into_parts();
        to_client(&mut head.headers, paid.as_ref(), Some(protocol));
        self.record.replied(head.status);
        Ok(Response::from_parts(head, ReplyBody::empty()))
    }

    /// Hands a reply on for which nothing is left to be settled.
    async fn pass(&self, reply: Response<Upstreamed>, receipt: Option<Receipt>) -> Response<ReplyBody> {
        let (mut head, mut body) = reply.into_parts();
        to_client(&mut head.headers, receipt.as_ref(), None);
        // hyper would drop a head that is not sent yet when its body breaks off, and close without a reply.
        let body = match gather(&mut body, 0).await {
            Gathered::Whole(_) if head.status == StatusCode::NOT_MODIFIED => ReplyBody::not_modified(&head.headers),
            Gathered::Whole(data) => data.map_or_else(ReplyBody::empty, ReplyBody::from),
            Gathered::Begun(first) => ReplyBody::passing(body, first),
            Gathered::Broken { .. } => {
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
        self.record.capture_ended(captured, cents);
        captured
    }

    /// The reply is there, its price is not: the client gets neither.
    fn unpaid(&self, mut receipt: Receipt) -> Response<ReplyBody> {
        receipt.cost = Cents::ZERO;
        reply::problem(ProblemKind::BillingUnavailable.into(), Some(&receipt), self.record)
    }

    /// Has it noted when the head of the reply that is handed over now has left, if a retry may ask for it.
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
            // Paid before, and its client kept it from being forwarded once more.
            Settled::Captured => {}
        }
        self.record.settled(reason, receipt.cost);
        receipt
    }
}

/// How much of a reply's body is there already.
enum Gathered {
    /// All of it: nothing, or one piece.
    Whole(Option<Bytes>),
    /// What came so far.
    Begun(VecDeque<Frame<Bytes>>),
    /// It broke off, because of the client or of the upstream.
    Broken { is_clients: bool },
}

/// Looks whether a short reply is complete, without waiting for the upstream: it is then captured and sent in one
/// piece. hyper's connection task brings the next piece when it is its turn, which it is given `give_way` times.
async fn gather(body: &mut Upstreamed, give_way: usize) -> Gathered {
    let mut frames = VecDeque::new();
    for turn in 0..=give_way {
        let mut ended = body.is_end_stream();
        if !ended {
            match poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await {
                Poll::Ready(Some(Ok(frame))) => {
                    frames.push_back(frame);
                    ended = body.is_end_stream();
                }
                Poll::Ready(Some(Err(error))) => {
                    return Gathered::Broken { is_clients: matches!(error, BodyError::RequestBody(_)) };
                }
                Poll::Ready(None) => ended = true,
                Poll::Pending if turn < give_way => tokio::task::yield_now().await,
                Poll::Pending => {}
            }
        }
        let is_one_piece = frames.len() <= 1 && frames.front().is_none_or(Frame::is_data);
        if ended && is_one_piece {
            return Gathered::Whole(frames.pop_front().and_then(|frame| frame.into_data().ok()));
        }
        if frames.len() > 1 || !is_one_piece {
            break;
        }
    }
    Gathered::Begun(frames)
}

/// Replies that have no body whatever their head says (RFC 9110 §6.4.1); HEAD is known from the request.
fn has_no_body(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}
