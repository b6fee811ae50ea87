//! The admin plane: users, keys, wallets and charges as JSON over HTTP, and what probes and metrics need.
//!
//! It owns its router, its listener's connections and its problems. Everything under `/v1/` wants the bearer token and
//! is closed when none is configured; `/healthz`, `/readyz` and `/metrics` want none. A change is in force when its
//! answer arrives. A key is in the answer that made it and in nothing else. The wiring of the program may call it.

mod accept;
mod answer;
mod charges;
mod connections;
mod entries;
mod fields;
mod host;
mod idempotency;
mod json;
mod keys;
mod params;
mod path;
mod probes;
mod problem;
mod request_id;
mod token;
mod users;
mod value;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

pub use connections::serve;
pub use host::HostCheck;

use crate::config::{AdminToken, KeyStorage};
use crate::model::KeyPrefix;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use problem::Problem;

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
    draining: Arc<AtomicBool>,
}

/// The whole plane. `draining`: set when the gateway begins to stop; `/readyz` says 503 from then on.
pub fn router(store: Store, metrics: Arc<Metrics>, draining: Arc<AtomicBool>, settings: AdminSettings) -> Router {
    let state = AdminState { store, settings: Arc::new(settings), metrics, draining };
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
        .layer(from_fn(answer::frame))
        .with_state(state)
}

async fn no_route() -> Problem {
    Problem::NoRoute
}

async fn wrong_method() -> Problem {
    Problem::WrongMethod
}
