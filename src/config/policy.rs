//! What can be set for all APIs, for one API and for one route: how long the exchange with the upstream may take, how large
//! a request may be, and what is charged when an exchange is broken off. A route's value beats its API's, which beats
//! `[limits]`. The two charge rules have no key in `[limits]`; by default they are on.

use std::time::Duration;

use super::Limits;
use super::given::{DAY_MS, Given};

/// The largest request body that can be allowed, in bytes.
const MOST_BODY_BYTES: i64 = 1 << 50;

/// The rules of one route's exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangePolicy {
    /// From the request sent to the upstream's reply head; then 504.
    pub head_timeout: Duration,
    /// Between two pieces of the reply's body, or of a request's body that is still on its way; then the reply is broken off.
    pub body_idle: Duration,
    /// The same for a reply of type `text/event-stream`.
    pub event_stream_idle: Duration,
    /// From the request sent to the end of the reply; then 504, or the reply is broken off. `None`: no limit.
    pub total_timeout: Option<Duration>,
    /// Bytes of a request's body; past it 413.
    pub request_body_bytes: u64,
    /// Whether a request is charged that its client broke off after its head was forwarded and before a reply came.
    pub charge_on_abort: bool,
    /// Whether an event stream is charged that was broken off for silence after some of it was delivered.
    pub charge_idle_cut: bool,
}

impl From<&Limits> for ExchangePolicy {
    fn from(limits: &Limits) -> ExchangePolicy {
        ExchangePolicy {
            head_timeout: limits.upstream_head_timeout,
            body_idle: limits.upstream_body_idle,
            event_stream_idle: limits.event_stream_idle,
            total_timeout: limits.total_timeout,
            request_body_bytes: limits.request_body_bytes,
            charge_on_abort: true,
            charge_idle_cut: true,
        }
    }
}

impl Default for ExchangePolicy {
    fn default() -> ExchangePolicy {
        ExchangePolicy::from(&Limits::default())
    }
}

/// What an `[[api]]` or an `[[api.route]]` says itself.
#[derive(Default)]
pub(super) struct PolicyOverrides {
    pub(super) head_timeout: Option<Duration>,
    pub(super) body_idle: Option<Duration>,
    pub(super) event_stream_idle: Option<Duration>,
    /// `Some(None)`: no limit.
    pub(super) total_timeout: Option<Option<Duration>>,
    pub(super) request_body_bytes: Option<u64>,
    pub(super) charge_on_abort: Option<bool>,
    pub(super) charge_idle_cut: Option<bool>,
}

impl PolicyOverrides {
    /// `base` with what is said here in its place.
    pub(super) fn over(&self, base: &ExchangePolicy) -> ExchangePolicy {
        ExchangePolicy {
            head_timeout: self.head_timeout.unwrap_or(base.head_timeout),
            body_idle: self.body_idle.unwrap_or(base.body_idle),
            event_stream_idle: self.event_stream_idle.unwrap_or(base.event_stream_idle),
            total_timeout: self.total_timeout.unwrap_or(base.total_timeout),
            request_body_bytes: self.request_body_bytes.unwrap_or(base.request_body_bytes),
            charge_on_abort: self.charge_on_abort.unwrap_or(base.charge_on_abort),
            charge_idle_cut: self.charge_idle_cut.unwrap_or(base.charge_idle_cut),
        }
    }
}

/// A wait for the upstream.
pub(super) fn wait(given: &mut Given<'_>) -> Option<Duration> {
    given.millis(1..=DAY_MS)
}

/// A timeout of a whole exchange, where 0 is no limit.
pub(super) fn total_timeout(given: &mut Given<'_>) -> Option<Option<Duration>> {
    given.millis(0..=DAY_MS).map(|timeout| (!timeout.is_zero()).then_some(timeout))
}

/// The largest body of a request.
pub(super) fn request_body_bytes(given: &mut Given<'_>) -> Option<u64> {
    given.large(0..=MOST_BODY_BYTES)
}
