//! The two listeners: the layers that are not about money around the gateway and around the admin API.
//!
//! The admin listener has a worker of its own, so that no operator slows clients down, and limits of its own.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use hyper::body::Incoming;
use tower::layer::layer_fn;
use tower::{Service, ServiceBuilder};

use crate::admin::{self, AdminService, AdminSettings, HostCheck};
use crate::billing::Billing;
use crate::config::Config;
use crate::gateway::{self, Gateway, Shared};
use crate::http::{
    AccessLog, CatchPanics, ClientConnection, Edge, EdgeBody, EdgeLimits, EdgeRequest, EdgeService, IsProbe, Lifecycle,
    LimitInFlight, Listener, MarkProbes, RequestIds, StartError, WorkerIndex, Workers,
};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// The layers of a listener around what answers its requests, in the order in which a request passes them.
fn layered<S, B>(is_probe: IsProbe, service: S) -> impl EdgeService<Body: EdgeBody> + use<S, B>
where
    S: Service<EdgeRequest, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + Unpin + 'static,
    B: EdgeBody + From<Bytes> + Unpin,
{
    ServiceBuilder::new()
        // Everything that follows, refusals included, is named by the id.
        .layer(layer_fn(RequestIds::new))
        // Outside of all that can refuse, so that every request leaves a line.
        .layer(layer_fn(AccessLog::new))
        // A panic in what follows is a reply, and has its line.
        .layer(layer_fn(CatchPanics::new))
        // Before the limits, which do not apply to probes.
        .layer(layer_fn(move |inner| MarkProbes::new(inner, is_probe)))
        // Last, so that a permit is held by nothing but requests that are served.
        .layer(layer_fn(LimitInFlight::new))
        .service(service)
}

/// Starts the workers of the data listener: one gateway each, with upstream connections of its own.
pub(super) async fn start_data(
    config: &Config,
    store: &Store,
    shared: &Arc<Shared>,
    metrics: &Metrics,
    lifecycle: &Arc<Lifecycle>,
) -> Result<Workers, StartError> {
    let limits = EdgeLimits::data(&config.limits);
    let edge = edge(Listener::Data, limits, config, metrics, lifecycle);
    let (store, shared, apis, limits) = (store.clone(), Arc::clone(shared), config.apis.clone(), config.limits.clone());
    let hook = move |_: WorkerIndex| {
        let (store, shared, apis, limits) = (store.clone(), Arc::clone(&shared), apis.clone(), limits.clone());
        async move {
            let (ledger, replies) = store.ledger();
            tokio::spawn(replies);
            let gateway = Arc::new(Gateway::new(shared, Billing::new(ledger, &limits), &apis));
            move |client: &Arc<ClientConnection>| layered(gateway::is_probe::<Incoming>, gateway.service(client))
        }
    };
    Workers::start("worker", config.server.workers, &edge, hook).await
}

/// Starts the worker of the admin listener.
pub(super) async fn start_admin(
    config: &Config,
    store: &Store,
    metrics: &Arc<Metrics>,
    lifecycle: &Arc<Lifecycle>,
) -> Result<Workers, StartError> {
    let limits = EdgeLimits::admin(&config.limits);
    let edge = edge(Listener::Admin, limits, config, metrics, lifecycle);
    let settings = AdminSettings {
        token: config.admin.token.clone(),
        apis: config.api_names(),
        storage: config.keys.storage,
        prefix: config.keys.prefix.clone(),
        body_bytes: config.limits.admin_body_bytes,
        body_timeout: config.limits.request_body_idle,
        host_check: HostCheck::new(config.admin.listen.ip(), &config.admin.hosts),
    };
    let service = AdminService::new(store.clone(), Arc::clone(metrics), Arc::clone(lifecycle), settings);
    let hook = move |_: WorkerIndex| {
        let service = service.clone();
        async move { move |_: &Arc<ClientConnection>| layered(admin::is_probe::<Incoming>, service.clone()) }
    };
    Workers::start("admin", 1, &edge, hook).await
}

fn edge(
    listener: Listener,
    limits: EdgeLimits,
    config: &Config,
    metrics: &Metrics,
    lifecycle: &Arc<Lifecycle>,
) -> Arc<Edge> {
    let own = match listener {
        Listener::Data => &metrics.data,
        Listener::Admin => &metrics.admin,
    };
    let trusted_proxies = &config.server.trusted_proxies;
    Edge::new(listener, limits, trusted_proxies, Arc::clone(own), Arc::clone(&metrics.gateway), Arc::clone(lifecycle))
}
