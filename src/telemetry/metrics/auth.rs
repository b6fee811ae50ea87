//! What the view of the keys counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Register;

/// Handles of the view of the keys.
#[derive(Debug)]
pub struct AuthMetrics {
    /// Keys found in the view.
    pub hits: Counter,
    /// Keys not found in the view.
    pub misses: Counter,
    /// Unknown and inactive keys found among the remembered refusals.
    pub refusal_hits: Counter,
    /// Look-ups in the database; fewer than misses, as misses of one key share theirs.
    pub loads: Counter,
    /// Keys that are remembered.
    pub keys_cached: Gauge,
    /// Refusals that are remembered.
    pub refusals_cached: Gauge,
}

impl AuthMetrics {
    pub(super) fn new(registry: &mut Registry) -> AuthMetrics {
        let mut register = Register(registry);
        AuthMetrics {
            hits: register.counter("key_cache_hits", "Keys found in memory"),
            misses: register.counter("key_cache_misses", "Keys not found in memory"),
            refusal_hits: register.counter("key_cache_refusal_hits", "Unknown and inactive keys found in memory"),
            loads: register.counter("key_loads", "Keys looked up in the database"),
            keys_cached: register.gauge("keys_cached", "Keys in memory"),
            refusals_cached: register.gauge("refusals_cached", "Unknown and inactive keys in memory"),
        }
    }
}
