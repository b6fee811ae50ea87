//! The one wide line that every request leaves in the log.

use std::net::IpAddr;
use std::time::Duration;

use tracing::Level;

/// The target that access lines are logged under, for filters: `keytoll::access=off`.
pub const TARGET: &str = "keytoll::access";

/// What is said of one request when its reply has ended. A part that is not known is left out.
#[derive(Clone, Copy, Debug)]
pub struct AccessLine<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// Who was connected.
    pub client: IpAddr,
    /// The method.
    pub method: &'a str,
    /// The path, without the query: a query may hold secrets.
    pub path: &'a str,
    /// The API's name.
    pub api: Option<&'a str>,
    /// `users.id` of the payer.
    pub user_id: Option<i64>,
    /// `api_keys.id`.
    pub key_id: Option<i64>,
    /// The status of the reply.
    pub status: u16,
    /// The code of the problem, when Keytoll itself answered.
    pub problem: Option<&'static str>,
    /// What was captured.
    pub cost_cents: Option<i64>,
    /// The charge, captured or released.
    pub charge_id: Option<i64>,
    /// From the request's head to the end of the reply.
    pub duration: Duration,
    /// From forwarding to the upstream's head.
    pub upstream: Option<Duration>,
}

impl AccessLine<'_> {
    /// Logs the line, at `info`. Costs a comparison when nobody listens.
    pub fn emit(&self) {
        if !tracing::enabled!(target: TARGET, Level::INFO) {
            return;
        }
        tracing::info!(
            target: TARGET,
            request_id = self.request_id,
            client = %self.client,
            method = self.method,
            path = self.path,
            api = self.api,
            user_id = self.user_id,
            key_id = self.key_id,
            status = self.status,
            problem = self.problem,
            cost_cents = self.cost_cents,
            charge_id = self.charge_id,
            duration_ms = milliseconds(self.duration),
            upstream_ms = self.upstream.map(milliseconds),
            "request"
        );
    }
}

/// To the microsecond.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
