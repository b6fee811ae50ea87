//! The header rules of both directions.
//!
//! Towards the upstream: what belongs to the client's connection, what could show the upstream another method, URL,
//! client or identity than Keytoll saw, and keys under another spelling of their header's name, is removed. What Keytoll
//! knows is set after that, so that nothing that a client lists in `Connection` can remove it. Towards the client: the
//! upstream's connection fields and all `keytoll-*` fields are removed, and the receipt is set.
//!
//! Names are compared as lax upstreams (CGI, WSGI, PHP) read them: every character but letters and digits is a dash.

mod client;
mod hop;
mod overrides;
mod spelling;
mod trace;
mod upstream;
mod via;

pub(super) use client::{Receipt, to_client};
pub(super) use hop::{clean_reply_trailers, clean_request_trailers, upgrade_granted, upgrade_requested};
pub(super) use spelling::CredentialHeaders;
pub(super) use upstream::{ForUpstream, Identity, Peer, to_upstream};
pub(super) use via::Via;

use http::{HeaderName, HeaderValue};

/// `Keytoll-User-Id`, to the upstream: whose wallet pays.
pub(super) const KEYTOLL_USER_ID: HeaderName = HeaderName::from_static("keytoll-user-id");
/// `Keytoll-Key-Id`, to the upstream.
pub(super) const KEYTOLL_KEY_ID: HeaderName = HeaderName::from_static("keytoll-key-id");
/// `Keytoll-Api`, to the upstream: the API's name.
pub(super) const KEYTOLL_API: HeaderName = HeaderName::from_static("keytoll-api");
/// `Keytoll-Charge-Id`, to the upstream and, in the receipt, to the client.
pub(super) const KEYTOLL_CHARGE_ID: HeaderName = HeaderName::from_static("keytoll-charge-id");
/// `Keytoll-Retry-Of`, to the upstream: the refunded charge of an earlier request with the same `Idempotency-Key`.
pub(super) const KEYTOLL_RETRY_OF: HeaderName = HeaderName::from_static("keytoll-retry-of");
/// `Keytoll-Cost-Cents`, to the client.
pub(super) const KEYTOLL_COST_CENTS: HeaderName = HeaderName::from_static("keytoll-cost-cents");
/// `Keytoll-Balance-Cents`, to the client.
pub(super) const KEYTOLL_BALANCE_CENTS: HeaderName = HeaderName::from_static("keytoll-balance-cents");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// A number in decimal digits; one allocation, where `HeaderValue::from` takes two.
fn number(number: i64) -> HeaderValue {
    HeaderValue::from_str(itoa::Buffer::new().format(number)).expect("digits and a sign are visible ASCII")
}

#[cfg(test)]
mod tests;
