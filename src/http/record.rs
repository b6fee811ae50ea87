//! What is known of one request: for its line in the access log and its place in the metrics, both written when its
//! reply has ended.
//!
//! The record also holds what must live as long as the request is in flight: its permits. It is shared by all who work
//! on the request (the reply's body, a detached exchange, a tunnel), and the last one to drop it ends the request.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::EXPECT;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;

use super::client::ClientConnection;
use super::keyed_limit::{AddressGroup, KeyedPermit};
use super::problem::{Problem, ProblemKind};
use super::request_id::RequestId;
use crate::billing::SettlementReason;
use crate::model::{Cents, ChargeId, KeyId, UserId};
use crate::telemetry::access::AccessLine;

/// The record of one request. Cloning shares it; dropping the last clone writes it.
#[derive(Clone)]
pub struct Record {
    inner: Arc<Inner>,
}

struct Inner {
    request_id: RequestId,
    client: Arc<ClientConnection>,
    method: Method,
    path: Option<PathAndQuery>,
    expects_continue: bool,
    started: Instant,
    request_bytes: AtomicU64,
    reply_bytes: AtomicU64,
    /// Whether the head of the final reply is known, from the upstream or from Keytoll.
    has_reply: AtomicBool,
    has_unread: AtomicBool,
    /// Whether the client waits for `100 Continue` and has not been sent it.
    awaits_continue: AtomicBool,
    is_in_flight: AtomicBool,
    facts: Mutex<RequestFacts>,
}

/// What is learned on the way.
#[derive(Default)]
struct RequestFacts {
    api: Option<(usize, Arc<str>)>,
    user: Option<(UserId, KeyId)>,
    status: Option<StatusCode>,
    problem: Option<ProblemKind>,
    charge: Option<ChargeId>,
    settlement: Option<(SettlementReason, Cents)>,
    upstream: Option<Duration>,
    /// A request body that was refused before it was read.
    unread: Option<Incoming>,
    /// Boxed, because most gateways have no such limits.
    owner_permits: Option<Box<OwnerPermits>>,
}

/// What counts against the limits of an address and of a user until the request has ended.
#[derive(Default)]
struct OwnerPermits {
    _address: Option<KeyedPermit<AddressGroup>>,
    _user: Option<KeyedPermit<UserId>>,
}

impl Record {
    pub(super) fn new<B: Body>(request_id: RequestId, client: Arc<ClientConnection>, request: &Request<B>) -> Record {
        client.edge.metrics.requests_open.inc();
        Record {
            inner: Arc::new(Inner {
                request_id,
                client,
                method: request.method().clone(),
                path: request.uri().path_and_query().cloned(),
                expects_continue: !request.body().is_end_stream() && request.headers().contains_key(EXPECT),
                started: Instant::now(),
                request_bytes: AtomicU64::new(0),
                reply_bytes: AtomicU64::new(0),
                has_reply: AtomicBool::new(false),
                has_unread: AtomicBool::new(false),
                awaits_continue: AtomicBool::new(false),
                is_in_flight: AtomicBool::new(false),
                facts: Mutex::default(),
            }),
        }
    }

    /// The id of the request.
    pub fn request_id(&self) -> &RequestId {
        &self.inner.request_id
    }

    /// The connection that the request came in on.
    pub fn client(&self) -> &Arc<ClientConnection> {
        &self.inner.client
    }

    pub(super) fn started(&self) -> Instant {
        self.inner.started
    }

    /// Notes the API that the request is for, by its index in the configuration.
    pub fn routed(&self, index: usize, name: &Arc<str>) {
        self.facts().api = Some((index, Arc::clone(name)));
    }

    /// Notes the owner of the key, and the key.
    pub fn authenticated(&self, user: UserId, key: KeyId) {
        self.facts().user = Some((user, key));
    }

    /// Whose key came with the request, once it is authenticated.
    pub fn user(&self) -> Option<(UserId, KeyId)> {
        self.facts().user
    }

    /// Notes the charge that the request is paid with.
    pub fn held(&self, charge: ChargeId) {
        self.facts().charge = Some(charge);
    }

    /// Notes that the head of the upstream's reply came, so long `after` the request was forwarded.
    pub fn upstream_answered(&self, after: Duration) {
        self.inner.has_reply.store(true, Ordering::Relaxed);
        let mut facts = self.facts();
        facts.upstream = Some(after);
        if let Some((index, _)) = &facts.api
            && let Some(api) = self.inner.client.edge.gateway_metrics.api(*index)
        {
            api.upstream_answered(after);
        }
    }

    /// Notes why the request was charged or not, and what it cost; the last call counts.
    pub fn settled(&self, reason: SettlementReason, cost: Cents) {
        self.facts().settlement = Some((reason, cost));
    }

    /// Notes that a capture of `cost`, which was begun for this `reason`, has ended: durable in time, or not.
    pub fn capture_ended(&self, is_captured: bool, reason: SettlementReason, cost: Cents) {
        match is_captured {
            true => self.settled(reason, cost),
            false => self.settled(SettlementReason::Unpaid, Cents::ZERO),
        }
    }

    /// Notes the status of the final reply.
    pub fn replied(&self, status: StatusCode) {
        self.inner.has_reply.store(true, Ordering::Relaxed);
        self.facts().status = Some(status);
    }

    /// Whether the head of the final reply is known: from then on the request body has no deadline.
    pub fn has_reply(&self) -> bool {
        self.inner.has_reply.load(Ordering::Relaxed)
    }

    /// Adds `bytes` of request body to the count in the access line.
    pub fn received(&self, bytes: u64) {
        self.inner.request_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.inner.reply_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether Keytoll itself is cutting off what is left.
    pub fn is_cutting(&self) -> bool {
        self.inner.client.edge.lifecycle.is_cutting()
    }

    /// Counts and notes that Keytoll itself answers the request.
    pub fn note_problem(&self, kind: ProblemKind) {
        self.inner.client.edge.metrics.refused(kind as usize);
        let mut facts = self.facts();
        facts.problem = Some(kind);
        facts.status = Some(kind.status());
    }

    /// Answers the request with a problem. `unread`: its body, if nothing has read it to its end.
    pub fn refuse<B: From<Bytes>>(&self, problem: Problem, unread: Option<Incoming>) -> Response<B> {
        self.note_problem(problem.kind());
        self.inner.has_reply.store(true, Ordering::Relaxed);
        if let Some(body) = unread.filter(|body| !body.is_end_stream()) {
            self.facts().unread = Some(body);
            self.inner.has_unread.store(true, Ordering::Relaxed);
        }
        problem.into_response(self.request_id())
    }

    /// Notes whether the client waits for `100 Continue` and has not been sent it.
    pub fn set_awaits_continue(&self, awaits: bool) {
        self.inner.awaits_continue.store(awaits, Ordering::Relaxed);
    }

    /// Decides what becomes of a body that was refused unread, or is still to be asked for. True: the connection is closed
    /// after the reply.
    pub(super) fn closes_for_unread_body(&self) -> bool {
        if self.inner.awaits_continue.load(Ordering::Relaxed) {
            // After a final reply some clients send the body, and others the next request.
            self.inner.client.leave_body_unread();
            return true;
        }
        if !self.inner.has_unread.load(Ordering::Relaxed) {
            return false;
        }
        let mut facts = self.facts();
        let Some(body) = &facts.unread else { return false };
        let length = body.size_hint().exact();
        let is_small = length.is_some_and(|length| length <= self.inner.client.edge.limits.refused_body_bytes);
        if is_small && !self.inner.expects_continue {
            return false;
        }
        facts.unread = None;
        drop(facts);
        self.inner.client.leave_body_unread();
        true
    }

    /// The refused body that is still to be read, so that the connection can be kept.
    pub(super) fn take_unread_body(&self) -> Option<Incoming> {
        if self.inner.has_unread.load(Ordering::Relaxed) { self.facts().unread.take() } else { None }
    }

    /// Counts the request as in flight until it has ended. False when the limit is reached.
    pub(super) fn count_in_flight(&self) -> bool {
        let is_within = self.inner.client.edge.in_flight.acquire();
        self.inner.is_in_flight.store(is_within, Ordering::Relaxed);
        is_within
    }

    /// Keeps the permit of the client's address until the request has ended.
    pub(super) fn keep_of_address(&self, permit: KeyedPermit<AddressGroup>) {
        self.facts().owner_permits.get_or_insert_default()._address = Some(permit);
    }

    /// Keeps the user's permit until the request has ended.
    pub fn keep_of_user(&self, permit: KeyedPermit<UserId>) {
        self.facts().owner_permits.get_or_insert_default()._user = Some(permit);
    }

    fn facts(&self) -> MutexGuard<'_, RequestFacts> {
        self.inner.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// nginx's status code for a client that disconnected before it got a reply. Used only in the log.
const CLIENT_LEFT: u16 = 499;

impl Drop for Inner {
    fn drop(&mut self) {
        let facts = self.facts.get_mut().unwrap_or_else(PoisonError::into_inner);
        let duration = self.started.elapsed();
        let edge = &self.client.edge;
        edge.metrics.requests_open.dec();
        if *self.is_in_flight.get_mut() {
            edge.in_flight.release();
        }
        if let (Some((index, _)), Some(status)) = (&facts.api, facts.status)
            && let Some(api) = edge.gateway_metrics.api(*index)
        {
            api.replied(status, duration);
        }
        // A hold that was dropped without a recorded settlement was released.
        let reason = if edge.lifecycle.is_cutting() { SettlementReason::Drained } else { SettlementReason::Released };
        let dropped = facts.charge.map(|_| (reason, Cents::ZERO));
        let settlement = facts.settlement.or(dropped);
        if let Some((reason, _)) = settlement {
            edge.gateway_metrics.settled(reason as usize);
        }
        AccessLine {
            listener: edge.listener.name(),
            request_id: self.request_id.as_str(),
            client: self.client.peer().ip(),
            method: self.method.as_str(),
            path: self.path.as_ref().map_or("*", |path| path.path()),
            api: facts.api.as_ref().map(|(_, name)| &**name),
            user_id: facts.user.map(|(user, _)| user.0),
            key_id: facts.user.map(|(_, key)| key.0),
            status: facts.status.map_or(CLIENT_LEFT, |status| status.as_u16()),
            problem: facts.problem.map(ProblemKind::code),
            cost_cents: settlement.map(|(_, cost)| cost.0),
            settlement: settlement.map(|(reason, _)| reason.name()),
            charge_id: facts.charge.map(|charge| charge.0),
            request_bytes: *self.request_bytes.get_mut(),
            reply_bytes: *self.reply_bytes.get_mut(),
            duration,
            upstream: facts.upstream,
        }
        .emit();
    }
}
