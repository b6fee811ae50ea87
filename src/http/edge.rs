//! What the connections and requests of one listener share: its name, limits, metrics and phase.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::in_flight::InFlight;
use super::keyed_limit::{AddressGroup, KeyedLimit};
use super::lifecycle::Lifecycle;
use super::refused::RefusedConnections;
use crate::config::Limits;
use crate::telemetry::metrics::{EdgeMetrics, GatewayMetrics};

/// How often a socket with unread data is checked for a reset, which wakes no task then.
const RESET_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Which listener. The name is a label of metrics and a field of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// For the clients of the APIs.
    Data,
    /// For operators.
    Admin,
}

impl Listener {
    /// `data` or `admin`.
    pub fn name(self) -> &'static str {
        match self {
            Listener::Data => "data",
            Listener::Admin => "admin",
        }
    }
}

/// The limits of a listener; see [`Limits`] for each that can be configured.
#[derive(Clone, Copy, Debug)]
pub struct EdgeLimits {
    /// Connections open at once, of all workers together.
    pub connections: usize,
    /// Connections beyond that, which serve probes only.
    pub probe_connections: usize,
    /// From the start of a connection for probes to the end of the request head.
    pub probe_header_timeout: Duration,
    /// Connections of one client address; 0 is no limit.
    pub connections_per_address: usize,
    /// Requests in flight of one client address; 0 is no limit.
    pub requests_per_address: usize,
    /// Requests in flight at once.
    pub requests: usize,
    /// Bytes of a request's header section.
    pub header_bytes: usize,
    /// Header fields of a request.
    pub headers: usize,
    /// For a request head to arrive.
    pub header_timeout: Duration,
    /// While a client reads nothing of its reply.
    pub reply_write_idle: Duration,
    /// How long a client's TCP may acknowledge nothing of a reply before the client counts as stalled.
    pub client_stall: Duration,
    /// How often a socket with unread data is checked for a reset. Not configurable; tests change it.
    pub reset_check_interval: Duration,
    /// After this age a connection is closed with its next reply, or as soon as it has been idle for a second.
    pub connection_age: Duration,
    /// The Content-Length of a refused body up to which it is read and the connection is kept.
    pub refused_body_bytes: u64,
    /// Silence after which the rest of a refused body is no longer waited for.
    pub refused_body_idle: Duration,
    /// For the rest of a refused body, in all.
    pub refused_body_timeout: Duration,
    /// When TCP begins to probe a silent client.
    pub tcp_keepalive: Duration,
    /// How long sent data may stay unacknowledged by the client.
    pub tcp_user_timeout: Duration,
}

impl EdgeLimits {
    /// Those of the data listener.
    pub fn data(limits: &Limits) -> EdgeLimits {
        EdgeLimits {
            connections: limits.connections,
            probe_connections: limits.probe_connections,
            probe_header_timeout: limits.probe_header_timeout,
            connections_per_address: limits.connections_per_address,
            requests_per_address: limits.requests_per_address,
            requests: limits.requests,
            header_bytes: limits.header_bytes,
            headers: limits.headers,
            header_timeout: limits.header_timeout,
            reply_write_idle: limits.reply_write_idle,
            client_stall: limits.client_stall,
            reset_check_interval: RESET_CHECK_INTERVAL,
            connection_age: limits.connection_age,
            refused_body_bytes: limits.refused_body_bytes,
            refused_body_idle: limits.refused_body_idle,
            refused_body_timeout: limits.refused_body_timeout,
            tcp_keepalive: limits.tcp_keepalive,
            tcp_user_timeout: limits.tcp_user_timeout,
        }
    }

    /// Those of the admin listener, which has a limit on connections of its own; a connection carries one request at a
    /// time.
    pub fn admin(limits: &Limits) -> EdgeLimits {
        EdgeLimits {
            connections: limits.admin_connections,
            requests: limits.admin_connections,
            connections_per_address: 0,
            requests_per_address: 0,
            ..EdgeLimits::data(limits)
        }
    }
}

/// One listener's shared state.
pub struct Edge {
    pub(super) listener: Listener,
    pub(super) limits: EdgeLimits,
    pub(super) metrics: Arc<EdgeMetrics>,
    pub(super) gateway_metrics: Arc<GatewayMetrics>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) refused: RefusedConnections,
    pub(super) in_flight: InFlight,
    trusted_proxies: Box<[IpNet]>,
    pub(super) connections_of_address: Option<Arc<KeyedLimit<AddressGroup>>>,
    pub(super) requests_of_address: Option<Arc<KeyedLimit<AddressGroup>>>,
}

impl Edge {
    /// `trusted_proxies`: the peers whose `X-Forwarded-For` is believed.
    pub fn new(
        listener: Listener,
        limits: EdgeLimits,
        trusted_proxies: &[IpNet],
        metrics: Arc<EdgeMetrics>,
        gateway_metrics: Arc<GatewayMetrics>,
        lifecycle: Arc<Lifecycle>,
    ) -> Arc<Edge> {
        Arc::new(Edge {
            listener,
            refused: RefusedConnections::new(Arc::clone(&metrics)),
            in_flight: InFlight::new(limits.requests),
            limits,
            metrics,
            gateway_metrics,
            lifecycle,
            trusted_proxies: trusted_proxies.into(),
            connections_of_address: KeyedLimit::new(limits.connections_per_address),
            requests_of_address: KeyedLimit::new(limits.requests_per_address),
        })
    }

    pub(super) fn trusted_proxies(&self) -> &[IpNet] {
        &self.trusted_proxies
    }
}
