//! The request path of the data listener.
//!
//! [`Gateway::serve`] is the whole of it, on one screen: route, credential, authenticate, hold, forward, settle, reply.
//! Each step returns what the next one demands, or the [`Problem`] that ends the request. Nothing else makes answers
//! for clients of the data listener.

mod credential;
mod detach;
mod exchange;
mod headers;
mod idempotency;
mod open_hold;
mod path;
mod percent;
pub mod pieces;
mod problem;
mod record;
mod reply;
mod request_body;
mod route;
mod status;
mod target;
mod tunnel;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use ipnet::IpNet;

pub use problem::Code;
pub use reply::ReplyBody;
pub use request_body::RequestBody;
pub use route::RouteTable;
pub use status::Readiness;

use crate::auth::{Auth, AuthRefused, Known};
use crate::billing::{Billing, Hold, Passage, Price};
use crate::config::{ApiConfig, CredentialSource, Limits};
use crate::model::{ApiKey, KeyPrefix, Retryable, RouteId};
use crate::store::HoldRefused;
use crate::telemetry::metrics::GatewayMetrics;
use crate::upstream::{HostHeader, Upstream, UpstreamLimits};
use credential::{Refusal, Taken};
use exchange::Exchange;
use headers::{CredentialHeaders, Peer, RequestId, Via};
use problem::Problem;
use record::Record;
use route::Match;
use target::Target;

/// Does something when a client's socket takes bytes next: the head of a reply that was just handed over, with them.
pub type AtNextWrite = Arc<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// How often a request whose key changed under it is tried with what the database says now.
const KEY_RELOADS: usize = 2;

/// What every worker shares.
pub struct Shared {
    parts: Parts,
    /// Set when what is left of the requests is cut: their replies are broken off by Keytoll, not by their clients.
    cutting: AtomicBool,
    /// Where a key is looked for, in words.
    where_to: Arc<str>,
    /// The headers that a key is looked for in.
    credential_headers: Arc<CredentialHeaders>,
    /// This process's name in `Via`.
    via: Via,
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
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The view of keys.
    pub auth: Auth,
    /// Bounds of bodies, keys and waits.
    pub limits: Limits,
    /// Counts.
    pub metrics: Arc<GatewayMetrics>,
    /// What probes are told.
    pub readiness: Readiness,
}

impl Shared {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Shared {
        let where_to = credential::describe(&parts.sources).into();
        let credential_headers = Arc::new(CredentialHeaders::of(&parts.sources));
        Shared { parts, cutting: AtomicBool::new(false), where_to, credential_headers, via: Via::new() }
    }

    /// From now on a reply that is dropped is one that Keytoll broke off.
    pub fn cut(&self) {
        self.cutting.store(true, Ordering::Release);
    }

    fn is_cutting(&self) -> bool {
        self.cutting.load(Ordering::Acquire)
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
    pub fn service(self: &Arc<Self>, client: SocketAddr, socket: AtNextWrite) -> Connection {
        let address = client.ip().to_canonical();
        let is_trusted = self.shared.parts.trusted_proxies.iter().any(|net| net.contains(&address));
        let caller = Caller { peer: Peer::new(address, is_trusted), client, socket };
        Connection { gateway: Arc::clone(self), caller: Arc::new(caller) }
    }

    /// Answers a request, whatever comes.
    async fn answer(self: Arc<Self>, caller: Arc<Caller>, request: Request<Incoming>) -> Response<ReplyBody> {
        if let Some(probe) = self.shared.parts.readiness.probe(&request) {
            return probe;
        }
        let request_id = RequestId::of(request.headers());
        let record = Record::new(&request_id, caller.client, &request, Arc::clone(&self.shared));
        let served = AssertUnwindSafe(self.serve(&caller, &request_id, record.clone(), request)).catch_unwind().await;
        let problem = match served {
            Ok(Ok(reply)) => return reply,
            Ok(Err(problem)) => problem,
            Err(_) => {
                tracing::error!(request_id = request_id.as_str(), "a request ended with a panic");
                Problem::Internal
            }
        };
        reply::problem(problem, &request_id, None, record)
    }

    /// The request path.
    async fn serve(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        request_id: &RequestId,
        record: Record,
        mut request: Request<Incoming>,
    ) -> Result<Response<ReplyBody>, Problem> {
        let shared = &self.shared;
        let mut target = Target::of(&mut request)?;
        let found = target.route(&shared.parts.routes, request.method())?;
        record.routed(found.api);
        if shared.via.is_loop(request.headers()) {
            return Err(Problem::LoopDetected);
        }
        let key = self.credential(&found, &mut target, &mut request)?;
        let known = match &key {
            Some(taken) => Some(self.authenticate(taken, &found, &record).await?),
            None => None,
        };
        RequestBody::admit(request.body(), &shared.parts.limits)?;
        let retryable = idempotency::read(&found, &target, &request)?;
        let passage = self.pay(&found, retryable, key.as_ref(), known, &record).await?;
        let (gateway, caller) = (Arc::clone(self), Arc::clone(caller));
        let exchange = Exchange { gateway, caller, passage, request_id: request_id.clone(), record };
        let outgoing = exchange.outgoing(&found, target, request)?;
        let is_owed = exchange.passage.hold().is_some();
        detach::survive(is_owed, exchange.run(found.api.index, outgoing)).await
    }

    /// Takes the key out of the request; none is needed, and none goes on, where a route is public.
    fn credential(
        &self,
        found: &Match<'_>,
        target: &mut Target,
        request: &mut Request<Incoming>,
    ) -> Result<Option<Key>, Problem> {
        let Shared { parts: Parts { sources, prefix, limits, .. }, where_to, .. } = &*self.shared;
        let original = target.original();
        let query = original.query();
        if found.route.public {
            let stripped = credential::strip(request.headers_mut(), query, sources, prefix);
            target.set_query(stripped.as_deref());
            return Ok(None);
        }
        let taken = credential::take(request.headers_mut(), query, sources, limits.key_bytes);
        let Taken { key, others, query } = taken.map_err(|refusal| match refusal {
            Refusal::Missing => Problem::MissingKey { where_to: Arc::clone(where_to) },
            Refusal::Malformed(malformed) => Problem::MalformedKey(malformed),
            Refusal::Ambiguous => Problem::AmbiguousKey,
        })?;
        target.set_query(query.as_deref());
        Ok(Some(Key { key, others }))
    }

    /// Who the key stands for, and whether it is good for this API.
    async fn authenticate(&self, key: &Key, found: &Match<'_>, record: &Record) -> Result<Arc<Known>, Problem> {
        let auth = &self.shared.parts.auth;
        for other in &key.others {
            if Box::pin(auth.is_key(other)).await.map_err(|_| Problem::BillingUnavailable)? {
                return Err(Problem::AmbiguousKey);
            }
        }
        let mut known = auth.authenticate(&key.key).await.map_err(refused)?;
        if found.route.price.is_zero() || known.api() != Some(found.api.index) {
            known = auth.confirm(&key.key, known).await.map_err(refused)?;
        }
        record.authenticated(&known);
        check_api(&known, found)?;
        Ok(known)
    }

    /// Takes the price out of the wallet; a priced request goes on only with what comes back.
    async fn pay(
        &self,
        found: &Match<'_>,
        retryable: Option<Box<Retryable>>,
        key: Option<&Key>,
        known: Option<Arc<Known>>,
        record: &Record,
    ) -> Result<Passage, Problem> {
        if let Some(passage) = Passage::free(found.route.price) {
            return Ok(passage);
        }
        let (Some(key), Some(mut known)) = (key, known) else { return Err(Problem::Internal) };
        let route = *self.shared.parts.route_ids.get(found.route.index).ok_or(Problem::Internal)?;
        let price = Price { cents: found.route.price, route, retryable };
        for _ in 0..=KEY_RELOADS {
            match self.billing.hold(known.principal(&key.key), known.generation(), &price).await {
                Ok(hold) => {
                    known.stamp(hold.generation());
                    record.held(&hold);
                    return Ok(Passage::paid(hold));
                }
                Err(HoldRefused::Insufficient { balance }) => {
                    return Err(Problem::InsufficientFunds { price: price.cents, balance });
                }
                Err(HoldRefused::InFlight) => return Err(Problem::RequestInFlight),
                Err(HoldRefused::AlreadyCharged { charge }) => return Err(Problem::AlreadyCharged { charge }),
                Err(HoldRefused::IdempotencyKeyReused) => return Err(Problem::IdempotencyKeyReused),
                Err(HoldRefused::IdempotencyFull) => return Err(Problem::IdempotencyFull),
                Err(HoldRefused::Unavailable(_)) => return Err(Problem::BillingUnavailable),
                Err(HoldRefused::KeyChanged) => {
                    known = Box::pin(self.shared.parts.auth.reload(&key.key, &known)).await.map_err(refused)?;
                    check_api(&known, found)?;
                }
            }
        }
        // A key that changes with every look at it.
        Err(Problem::BillingUnavailable)
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
    Err(Problem::WrongApi { api: Arc::clone(&found.api.name) })
}

fn refused(refused: AuthRefused) -> Problem {
    match refused {
        AuthRefused::Unknown => Problem::InvalidKey,
        AuthRefused::Inactive => Problem::InactiveKey,
        AuthRefused::Unavailable(_) => Problem::BillingUnavailable,
    }
}

/// The receipt that goes with every reply after a hold.
fn receipt(hold: &Hold) -> headers::Receipt {
    headers::Receipt { charge_id: hold.charge_id(), cost: hold.cents(), balance: hold.balance() }
}

/// Who is at the other end of a connection, and the socket to it; made once a connection.
struct Caller {
    peer: Peer,
    client: SocketAddr,
    socket: AtNextWrite,
}

/// The gateway as one connection sees it.
#[derive(Clone)]
pub struct Connection {
    gateway: Arc<Gateway>,
    caller: Arc<Caller>,
}

impl tower::Service<Request<Incoming>> for Connection {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let answer = Arc::clone(&self.gateway).answer(Arc::clone(&self.caller), request);
        Box::pin(answer.map(Ok))
    }
}

/// The answer to a request that came when too many were under way.
pub fn overloaded() -> Response<ReplyBody> {
    let request_id = RequestId::of(&http::HeaderMap::new());
    Problem::Overloaded.into_response(&request_id).map(ReplyBody::whole)
}
