//! Connections that Keytoll closes while no request is in flight on them. Each reason has an exact counter and at most one
//! log line per second, so that a flood of connections does not flood the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::telemetry::metrics::EdgeMetrics;

/// How often refused connections are summed up in the log.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(1);

/// Why a connection was closed while no request was in flight on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// It had waited longest for a request head, and the listener was full.
    Evicted,
    /// The listener was full, the connections for probes too, and none of them waited.
    Overloaded,
    /// Its address has as many connections as it may.
    AddressLimit,
    /// It sent nothing in time.
    HeadTimeout,
}

impl RefusalReason {
    const ALL: [RefusalReason; 4] =
        [RefusalReason::Evicted, RefusalReason::Overloaded, RefusalReason::AddressLimit, RefusalReason::HeadTimeout];

    /// The names of all reasons, as labels of metrics, by index.
    pub const NAMES: [&'static str; 4] = ["evicted", "overloaded", "address_limit", "head_timeout"];
}

/// The counts of one listener.
pub(super) struct RefusedConnections {
    metrics: Arc<EdgeMetrics>,
    /// Not in the log yet.
    unreported: [AtomicU64; RefusalReason::ALL.len()],
}

impl RefusedConnections {
    pub(super) fn new(metrics: Arc<EdgeMetrics>) -> RefusedConnections {
        RefusedConnections { metrics, unreported: Default::default() }
    }

    pub(super) fn count(&self, reason: RefusalReason) {
        self.metrics.connection_refused(reason as usize);
        self.unreported[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Logs what was counted since the last call, one line for each reason.
    pub(super) fn report(&self, listener: &'static str) {
        for reason in RefusalReason::ALL {
            let count = self.unreported[reason as usize].swap(0, Ordering::Relaxed);
            let name = RefusalReason::NAMES[reason as usize];
            match (count, reason) {
                (0, _) => {}
                (_, RefusalReason::HeadTimeout) => {
                    tracing::info!(listener, reason = name, count, "silent connections were closed");
                }
                (_, RefusalReason::Evicted) => {
                    tracing::warn!(listener, reason = name, count, "connections were closed to make room for others");
                }
                (_, RefusalReason::Overloaded | RefusalReason::AddressLimit) => {
                    tracing::warn!(listener, reason = name, count, "connections were refused");
                }
            }
        }
    }

    /// Reports once a second, until it is dropped.
    pub(super) async fn report_periodically(&self, listener: &'static str) {
        loop {
            tokio::time::sleep(SUMMARY_INTERVAL).await;
            self.report(listener);
        }
    }
}
