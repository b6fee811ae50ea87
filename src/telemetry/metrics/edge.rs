//! What the HTTP edge counts, for each listener.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::increment;

type ListenerLabel = [(&'static str, &'static str); 1];
type ListenerLabels = [(&'static str, &'static str); 2];

/// Handles of one listener.
#[derive(Debug)]
pub struct EdgeMetrics {
    /// Connections of clients that are open.
    pub connections_open: Gauge,
    /// Requests in flight: from their head to the end of their reply.
    pub requests_open: Gauge,
    refusals: Box<[Counter]>,
    connections_refused: Box<[Counter]>,
}

impl EdgeMetrics {
    /// Counts a request that Keytoll itself answered, by the index of its problem in the list that the metrics were
    /// made with.
    pub fn refused(&self, problem: usize) {
        increment(&self.refusals, problem);
    }

    /// Counts a connection that was closed before a request, by the index of the reason.
    pub fn connection_refused(&self, reason: usize) {
        increment(&self.connections_refused, reason);
    }
}

/// The metrics of all listeners, which share their names and differ in the label `listener`.
pub(super) fn edge_metrics<const N: usize>(
    registry: &mut Registry,
    listeners: [&'static str; N],
    problems: &[&'static str],
    refusal_reasons: &[&'static str],
) -> [EdgeMetrics; N] {
    let connections: Family<ListenerLabel, Gauge> = Family::default();
    let requests: Family<ListenerLabel, Gauge> = Family::default();
    let refusals: Family<ListenerLabels, Counter> = Family::default();
    let refused: Family<ListenerLabels, Counter> = Family::default();
    registry.register("connections_open", "Connections of clients that are open", connections.clone());
    registry.register("requests_open", "Requests in flight, until their reply has ended", requests.clone());
    registry.register("refusals", "Requests that Keytoll itself answered, by problem", refusals.clone());
    let help = "Connections closed by Keytoll while no request was in flight, by reason";
    registry.register("connections_refused", help, refused.clone());
    let counters = |family: &Family<ListenerLabels, Counter>, listener, label, values: &[&'static str]| {
        values.iter().map(|value| family.get_or_create_owned(&[("listener", listener), (label, *value)])).collect()
    };
    listeners.map(|listener| EdgeMetrics {
        connections_open: connections.get_or_create_owned(&[("listener", listener)]),
        requests_open: requests.get_or_create_owned(&[("listener", listener)]),
        refusals: counters(&refusals, listener, "problem", problems),
        connections_refused: counters(&refused, listener, "reason", refusal_reasons),
    })
}
