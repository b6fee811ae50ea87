//! The access log: one wide line for every request.

use std::net::IpAddr;
use std::time::Duration;

use tracing::Level;

/// The log target of access lines, for filters: `keytoll::access=off`.
pub const TARGET: &str = "keytoll::access";

/// What is logged about one request when its reply has ended. Fields that are not known are left out.
#[derive(Clone, Copy, Debug)]
pub struct AccessLine<'a> {
    /// The listener that the request came in on: `data` or `admin`.
    pub listener: &'static str,
    /// The request's id.
    pub request_id: &'a str,
    /// The address of the connected client.
    pub client: IpAddr,
    /// The method; `-` when the request could not be parsed.
    pub method: &'a str,
    /// The path, without the query, which may hold secrets; `-` when the request could not be parsed.
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
    /// What was captured, in cents.
    pub cost_cents: Option<i64>,
    /// Why the request was charged or not; `None` when nothing was held.
    pub settlement: Option<&'static str>,
    /// The charge, captured or released.
    pub charge_id: Option<i64>,
    /// Bytes of the request body that were received.
    pub request_bytes: u64,
    /// Bytes of the reply body that were sent.
    pub reply_bytes: u64,
    /// From the request's head to the end of the reply.
    pub duration: Duration,
    /// From forwarding the request to the head of the upstream's reply.
    pub upstream: Option<Duration>,
}

impl<'a> AccessLine<'a> {
    /// The line of a request of which nothing else is known.
    pub fn new(
        listener: &'static str,
        request_id: &'a str,
        client: IpAddr,
        method: &'a str,
        path: &'a str,
        status: u16,
    ) -> AccessLine<'a> {
        AccessLine {
            listener,
            request_id,
            client,
            method,
            path,
            api: None,
            user_id: None,
            key_id: None,
            status,
            problem: None,
            cost_cents: None,
            settlement: None,
            charge_id: None,
            request_bytes: 0,
            reply_bytes: 0,
            duration: Duration::ZERO,
            upstream: None,
        }
    }

    /// Logs the line, at level `info`. Costs a comparison when the log filter excludes it.
    pub fn emit(&self) {
        if !tracing::enabled!(target: TARGET, Level::INFO) {
            return;
        }
        tracing::info!(
            target: TARGET,
            listener = self.listener,
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
            settlement = self.settlement,
            charge_id = self.charge_id,
            request_bytes = self.request_bytes,
            reply_bytes = self.reply_bytes,
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
