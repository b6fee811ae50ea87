//! The admin plane: users, keys, wallets and charges as JSON over HTTP, and what probes and metrics need.
//!
//! It owns its router and the service of its listener's connections. Everything under `/v1/` requires the bearer token
//! and is closed when none is configured; `/healthz`, `/readyz` and `/metrics` require none. A change is in force when
//! its reply arrives. A key is in the reply that created it and in no other. Only `app` may call this module.

mod answer;
mod charges;
mod entries;
mod fields;
mod host;
mod idempotency;
mod json;
mod keys;
mod metrics_format;
mod params;
mod path;
mod probes;
mod problem;
mod token;
mod users;
mod value;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::ServiceExt;

pub use host::HostCheck;

use crate::config::{AdminToken, KeyStorage};
use crate::http::{EdgeRequest, Lifecycle, Problem, ProblemKind, Record};
use crate::model::KeyPrefix;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// The target that changes made here are logged under, one line each, for filters.
pub const LOG_TARGET: &str = "keytoll::admin";

/// What the admin plane has to know.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// The bearer token of `/v1/*`; without one that part is closed.
    pub token: Option<AdminToken>,
    /// The names of the configured APIs: the ones that a key can be issued for.
    pub apis: Vec<Arc<str>>,
    /// How issued keys are stored.
    pub storage: KeyStorage,
    /// What issued keys begin with.
    pub prefix: KeyPrefix,
    /// Bytes of a request's body; past it 413.
    pub body_bytes: usize,
    /// Until a request's body has to be complete; then 408.
    pub body_timeout: Duration,
    /// Which values of `Host` are served.
    pub host_check: HostCheck,
}

/// What every handler may use.
#[derive(Clone)]
struct AdminState {
    store: Store,
    settings: Arc<AdminSettings>,
    metrics: Arc<Metrics>,
    lifecycle: Arc<Lifecycle>,
}

/// The admin API as one connection uses it.
#[derive(Clone)]
pub struct AdminService(Router);

impl AdminService {
    /// The whole API. When the gateway begins to drain, `/readyz` answers 503.
    pub fn new(store: Store, metrics: Arc<Metrics>, lifecycle: Arc<Lifecycle>, settings: AdminSettings) -> Self {
        AdminService(router(AdminState { store, settings: Arc::new(settings), metrics, lifecycle }))
    }
}

impl tower::Service<EdgeRequest> for AdminService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: EdgeRequest) -> Self::Future {
        let EdgeRequest { mut request, record, .. } = request;
        request.extensions_mut().insert(record.clone());
        let counted = request.map(|body| {
            Body::new(body.inspect_frame(move |frame| {
                record.received(frame.data_ref().map_or(0, |data| data.len() as u64));
            }))
        });
        Box::pin(self.0.clone().oneshot(counted))
    }
}

/// Whether a request is a probe or a scrape, which the limits on requests in flight do not apply to.
pub fn is_probe<T>(request: &Request<T>) -> bool {
    matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics")
}

fn router(state: AdminState) -> Router {
    let v1 = Router::new()
        .route("/users", get(users::list).post(users::add))
        .route("/users/{user}", get(users::show).patch(users::update))
        .route("/users/{user}/keys", get(keys::list_of_user).post(keys::issue))
        .route("/users/{user}/wallet", get(entries::wallet))
        .route("/users/{user}/wallet/entries", get(entries::list).post(entries::add))
        .route("/users/{user}/wallet/entries/{entry}", get(entries::show))
        .route("/keys", get(keys::list))
        .route("/keys/{key}", get(keys::show).patch(keys::update).delete(keys::delete))
        .route("/keys/{key}/rotate", post(keys::rotate))
        .route("/charges", get(charges::list))
        .route("/charges/{charge}", get(charges::show))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(state.clone(), token::demand));
    Router::new()
        .nest("/v1", v1)
        .fallback(no_route)
        // What is added below this line is exempt.
        .layer(from_fn_with_state(state.clone(), host::check))
        .route("/healthz", get(probes::health))
        .route("/readyz", get(probes::readiness))
        .route("/metrics", get(probes::metrics))
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(|Extension(record): Extension<Record>, request, next: Next| {
            answer::frame(record, request, next)
        }))
        .with_state(state)
}

async fn no_route() -> Problem {
    problem::no_route()
}

async fn wrong_method() -> ProblemKind {
    ProblemKind::WrongMethod
}
