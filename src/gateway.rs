//! The request path of the data listener.
//!
//! [`Gateway::serve`] is the whole of it, on one screen: route, credential, authenticate, hold, forward, settle, reply.
//! Each step returns what the next one demands, or the [`Problem`] that ends the request. Nothing else makes answers
//! for clients of the data listener.

mod bad_request;
mod credential;
mod detach;
mod exchange;
mod gather;
mod headers;
mod held_reply;
mod idempotency;
mod path;
mod payment;
mod percent;
pub mod pieces;
mod probes;
mod problem;
mod reply;
mod request_body;
mod route;
mod settle;
mod stall_watch;
mod target;
mod tunnel;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use tokio::sync::Semaphore;

pub use probes::{Readiness, is_probe};
pub use reply::ReplyBody;
pub use request_body::RequestBody;
pub use route::RouteTable;

use crate::auth::{Auth, Known};
use crate::billing::{Billing, Passage, Price};
use crate::config::{ApiConfig, CredentialSource, ExchangePolicy, Limits};
use crate::http::{ClientConnection, EdgeRequest, KeyedLimit, Problem, ProblemKind, Record};
use crate::model::{ApiKey, IdempotentRequest, KeyPrefix, RouteId, UserId};
use crate::store::HoldRefused;
use crate::upstream::{HostHeader, Upstream, UpstreamLimits};
use credential::Taken;
use detach::DetachOnDrop;
use exchange::Exchange;
use headers::{CredentialHeaders, Peer, Via};
use problem::{no_credential, no_hold, wrong_api};
use request_body::{BodyLimits, Collection, Streamed};
use route::Match;
use target::Target;

/// How often a request whose key changed under it is tried with what the database says now.
const KEY_RELOADS: usize = 2;

/// What every worker shares.
pub struct Shared {
    parts: Parts,
    /// Where a key is looked for, in words.
    credential_hint: Box<str>,
    /// The headers that a key is looked for in.
    credential_headers: Arc<CredentialHeaders>,
    /// This process's name in `Via`.
    via: Via,
    requests_of_user: Option<Arc<KeyedLimit<UserId>>>,
    /// A permit for each byte of request bodies that may be collected at once.
    collected_bytes: Arc<Semaphore>,
}

/// What [`Shared`] is made of.
pub struct Parts {
    /// The APIs and their routes.
    pub routes: Arc<RouteTable>,
    /// The number of each route in the books, by the route's index.
    pub route_ids: Vec<RouteId>,
    /// Where a credential is looked for.
    pub sources: Vec<CredentialSource>,
    /// What issued keys begin with.
    pub prefix: KeyPrefix,
    /// The view of keys.
    pub auth: Auth,
    /// Limits of bodies, keys and waits.
    pub limits: Limits,
    /// What probes are answered.
    pub readiness: Readiness,
}

impl Shared {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Shared {
        let credential_hint = credential::describe(&parts.sources).into();
        let credential_headers = Arc::new(CredentialHeaders::of(&parts.sources));
        let requests_of_user = KeyedLimit::new(parts.limits.requests_per_user);
        let collected_bytes = Arc::new(Semaphore::new(parts.limits.collected_bytes));
        Shared { parts, credential_hint, credential_headers, via: Via::new(), requests_of_user, collected_bytes }
    }

    /// The bounds of a request's body.
    fn body_limits<'a>(&'a self, policy: &'a ExchangePolicy) -> BodyLimits<'a> {
        BodyLimits { limits: &self.parts.limits, policy, credentials: &self.credential_headers }
    }
}

/// One worker's gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    billing: Billing,
    /// By API.
    upstreams: Vec<Upstream<RequestBody>>,
}

impl Gateway {
    /// With connections of its own to the upstreams of `apis`.
    pub fn new(shared: Arc<Shared>, billing: Billing, apis: &[ApiConfig]) -> Gateway {
        let limits = UpstreamLimits::from(&shared.parts.limits);
        let upstreams = apis
            .iter()
            .map(|api| {
                let host = if api.preserve_host { HostHeader::Preserve } else { HostHeader::Replace };
                Upstream::new(&api.upstreams, host, limits)
            })
            .collect();
        Gateway { shared, billing, upstreams }
    }

    /// The service of one connection.
    pub fn service(self: &Arc<Self>, client: &Arc<ClientConnection>) -> Connection {
        let peer = Peer::new(client.address(), client.is_trusted_proxy());
        Connection { gateway: Arc::clone(self), peer: Arc::new(peer) }
    }

    /// Answers a request, whatever comes.
    async fn answer(self: Arc<Self>, peer: Arc<Peer>, request: EdgeRequest) -> Result<Response<ReplyBody>, Infallible> {
        let EdgeRequest { request, record, is_probe, .. } = request;
        if is_probe && let Some(probe) = self.shared.parts.readiness.probe(&request) {
            return Ok(probe);
        }
        let mut request = request.map(Some);
        let served = self.serve(&peer, &record, &mut request).await;
        Ok(served.unwrap_or_else(|problem| record.refuse(problem, request.into_body())))
    }

    /// The request path. The body is taken when the request is forwarded; what is refused before leaves it unread.
    async fn serve(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        record: &Record,
        request: &mut Request<Option<Incoming>>,
    ) -> Result<Response<ReplyBody>, Problem> {
        let shared = &self.shared;
        let mut target = Target::of(request)?;
        let found = target.route(&shared.parts.routes, request.method())?;
        record.routed(found.api.index, &found.api.name);
        if shared.via.is_loop(request.headers()) {
            return Err(ProblemKind::LoopDetected.into());
        }
        let key = self.credential(&found, &mut target, request.headers_mut())?;
        let known = match &key {
            Some(taken) => Some(self.authenticate(taken, &found, record).await?),
            None => None,
        };
        let policy = found.route.policy;
        if let Some(body) = request.body() {
            request_body::admit(request.headers(), body, &policy)?;
        }
        let idempotent = idempotency::read(&found, &target, request)?;
        let collected = if found.route.price.is_zero() { None } else { self.collect(request, &policy, record).await? };
        let passage = self.pay(&found, idempotent, key.as_ref(), known, record).await?;
        let (gateway, peer, record) = (Arc::clone(self), Arc::clone(peer), record.clone());
        let exchange = Exchange { gateway, peer, passage, record, policy };
        let outgoing = exchange.outgoing(&found, target, request, collected)?;
        let is_paid = exchange.passage.hold().is_some();
        DetachOnDrop::new(is_paid, exchange.run(found.api.index, outgoing)).await
    }

    /// Takes the key out of the request; none is needed, and none goes on, where a route is public.
    fn credential(
        &self,
        found: &Match<'_>,
        target: &mut Target,
        headers: &mut HeaderMap,
    ) -> Result<Option<Key>, Problem> {
        let Shared { parts: Parts { sources, prefix, limits, .. }, credential_hint, .. } = &*self.shared;
        let original = target.original();
        let query = original.query();
        if found.route.public {
            let stripped = credential::strip(headers, query, sources, prefix);
            target.set_query(stripped.as_deref());
            return Ok(None);
        }
        let taken = credential::take(headers, query, sources, limits.key_bytes);
        let Taken { key, others, query } = taken.map_err(|refusal| no_credential(refusal, credential_hint))?;
        target.set_query(query.as_deref());
        Ok(Some(Key { key, others }))
    }

    /// Whom the key belongs to, and whether it is valid for this API.
    async fn authenticate(&self, key: &Key, found: &Match<'_>, record: &Record) -> Result<Arc<Known>, Problem> {
        let auth = &self.shared.parts.auth;
        for other in &key.others {
            if Box::pin(auth.is_key(other)).await.map_err(|_| ProblemKind::BillingUnavailable)? {
                return Err(ProblemKind::AmbiguousKey.into());
            }
        }
        let mut known = auth.authenticate(&key.key).await?;
        if found.route.price.is_zero() || known.api() != Some(found.api.index) {
            known = auth.confirm(&key.key, known).await?;
        }
        record.authenticated(known.user_id(), known.key_id());
        check_api(&known, found)?;
        if let Some(limit) = &self.shared.requests_of_user {
            record.keep_of_user(limit.acquire(known.user_id()).ok_or(ProblemKind::RateLimited)?);
        }
        Ok(known)
    }

    /// Reads a small body of a priced request to its end, so that a request whose body breaks off is neither forwarded nor
    /// charged. `None`: there is no body, or it is streamed.
    async fn collect(
        &self,
        request: &mut Request<Option<Incoming>>,
        policy: &ExchangePolicy,
        record: &Record,
    ) -> Result<Option<Collection>, Problem> {
        let shared = &self.shared;
        let is_collected = |body: &Incoming| request_body::is_collected(body, &shared.parts.limits);
        if !request.body().as_ref().is_some_and(is_collected) || shared.collected_bytes.available_permits() == 0 {
            return Ok(None);
        }
        let Some(body) = request.body_mut().take() else { return Ok(None) };
        let body = Streamed::new(body, &shared.body_limits(policy), None, record);
        let collection = Box::pin(request_body::collect(body, &shared.collected_bytes)).await;
        collection.map(Some).map_err(|error| Problem::from(&error))
    }

    /// Takes the price out of the wallet; a priced request goes on only with what comes back.
    async fn pay(
        &self,
        found: &Match<'_>,
        idempotent_request: Option<Box<IdempotentRequest>>,
        key: Option<&Key>,
        known: Option<Arc<Known>>,
        record: &Record,
    ) -> Result<Passage, Problem> {
        if let Some(passage) = Passage::free(found.route.price) {
            return Ok(passage);
        }
        let (Some(key), Some(mut known)) = (key, known) else { return Err(ProblemKind::Internal.into()) };
        let route = *self.shared.parts.route_ids.get(found.route.index).ok_or(ProblemKind::Internal)?;
        let price = Price { cents: found.route.price, route, idempotent_request };
        for _ in 0..=KEY_RELOADS {
            match self.billing.hold(known.principal(&key.key), known.generation(), &price).await {
                Ok(hold) => {
                    known.stamp(hold.generation());
                    record.held(hold.charge_id());
                    return Ok(Passage::paid(hold));
                }
                Err(HoldRefused::KeyChanged) => {
                    known = Box::pin(self.shared.parts.auth.reload(&key.key, &known)).await?;
                    check_api(&known, found)?;
                }
                Err(refused) => return Err(no_hold(&refused, price.cents)),
            }
        }
        // A key that changes with every look at it.
        Err(ProblemKind::BillingUnavailable.into())
    }
}

/// A presented key, and values in other places that may be keys.
struct Key {
    key: ApiKey,
    others: Vec<ApiKey>,
}

fn check_api(known: &Known, found: &Match<'_>) -> Result<(), Problem> {
    if known.api() == Some(found.api.index) {
        return Ok(());
    }
    Err(wrong_api(&found.api.name))
}

/// The gateway as one connection uses it.
#[derive(Clone)]
pub struct Connection {
    gateway: Arc<Gateway>,
    peer: Arc<Peer>,
}

impl tower::Service<EdgeRequest> for Connection {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: EdgeRequest) -> Self::Future {
        Box::pin(Arc::clone(&self.gateway).answer(Arc::clone(&self.peer), request))
    }
}
