//! The answers that Keytoll itself gives on the data listener: problems as RFC 9457 has them.
//!
//! The only place of the request path where refusals become statuses. The text is for the client's developer: which
//! limit was hit, what to do. It never holds a key, and never what only the operator should know.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::credential::Malformed;
use super::headers::{RequestId, X_REQUEST_ID};
use super::path::BadPath;
use crate::model::{Cents, ChargeId};

/// The media type of every problem.
pub(super) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// The challenge that goes with every 401 (RFC 6750 §3).
pub(super) const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"keytoll\"");

/// Why a request is refused or a reply cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// No credential. `where_to`: as [`super::credential::describe`] says it.
    MissingKey {
        /// Where a key is looked for.
        where_to: Arc<str>,
    },
    /// A credential that can be no key, by its form.
    MalformedKey(Malformed),
    /// A credential that is no key.
    InvalidKey,
    /// A key that was switched off, or whose user was.
    InactiveKey,
    /// More than one credential.
    AmbiguousKey,
    /// A good key for another API.
    WrongApi {
        /// The API that was asked for.
        api: Arc<str>,
    },
    /// The wallet holds less than the price.
    InsufficientFunds {
        /// What the request costs.
        price: Cents,
        /// What the wallet holds.
        balance: Cents,
    },
    /// No API begins at this path.
    NoRoute,
    /// A path that can be read in two ways.
    BadPath(BadPath),
    /// A request that is HTTP but not for a gateway.
    BadRequest(BadRequest),
    /// More body than is taken.
    BodyTooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The body stopped coming.
    BodyTimeout,
    /// No upstream could be connected.
    UpstreamUnreachable,
    /// The upstream's answer was no HTTP, or broke off before its head was whole.
    UpstreamBroken,
    /// The upstream sent no head in time.
    UpstreamTimeout,
    /// The price cannot be taken now.
    BillingUnavailable,
    /// An `Idempotency-Key` that is none, or more than one.
    BadIdempotencyKey,
    /// A request with the same `Idempotency-Key` is under way.
    RequestInFlight,
    /// The request was paid for and answered before.
    AlreadyCharged {
        /// With this charge.
        charge: ChargeId,
    },
    /// Another request has the same `Idempotency-Key`.
    IdempotencyKeyReused,
    /// As many requests with an `Idempotency-Key` are remembered as may be.
    IdempotencyFull,
    /// The request has been through this gateway before.
    LoopDetected,
    /// Too much at once.
    Overloaded,
    /// A defect of Keytoll.
    Internal,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadRequest {
    /// No `Host`, more than one, or one that is no host (RFC 9112 §3.2).
    Host,
    /// `CONNECT`, or the target `*`.
    Target,
    /// A method in lower case.
    Method,
    /// A body that does not follow HTTP's framing, or broke off.
    Body,
}

/// The name of a problem: `code` in the answer, a label in metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    index: usize,
    name: &'static str,
}

impl Code {
    /// Every code, by [`Code::index`].
    pub const NAMES: [&'static str; 23] = [
        "missing-key",
        "invalid-key",
        "inactive-key",
        "ambiguous-key",
        "wrong-api",
        "insufficient-funds",
        "no-route",
        "bad-path",
        "bad-request",
        "body-too-large",
        "body-timeout",
        "upstream-unreachable",
        "upstream-broken",
        "upstream-timeout",
        "billing-unavailable",
        "overloaded",
        "internal",
        "bad-idempotency-key",
        "request-in-flight",
        "already-charged",
        "idempotency-key-reused",
        "idempotency-full",
        "loop-detected",
    ];

    const fn at(index: usize) -> Code {
        Code { index, name: Code::NAMES[index] }
    }

    /// Dense from 0, for arrays kept per code.
    pub fn index(self) -> usize {
        self.index
    }

    /// `missing-key`.
    pub fn as_str(self) -> &'static str {
        self.name
    }
}

impl Problem {
    /// The problem's name.
    pub(super) fn code(&self) -> Code {
        match self {
            Problem::MissingKey { .. } => const { Code::at(0) },
            Problem::MalformedKey(_) | Problem::InvalidKey => const { Code::at(1) },
            Problem::InactiveKey => const { Code::at(2) },
            Problem::AmbiguousKey => const { Code::at(3) },
            Problem::WrongApi { .. } => const { Code::at(4) },
            Problem::InsufficientFunds { .. } => const { Code::at(5) },
            Problem::NoRoute => const { Code::at(6) },
            Problem::BadPath(_) => const { Code::at(7) },
            Problem::BadRequest(_) => const { Code::at(8) },
            Problem::BodyTooLarge { .. } => const { Code::at(9) },
            Problem::BodyTimeout => const { Code::at(10) },
            Problem::UpstreamUnreachable => const { Code::at(11) },
            Problem::UpstreamBroken => const { Code::at(12) },
            Problem::UpstreamTimeout => const { Code::at(13) },
            Problem::BillingUnavailable => const { Code::at(14) },
            Problem::Overloaded => const { Code::at(15) },
            Problem::Internal => const { Code::at(16) },
            Problem::BadIdempotencyKey => const { Code::at(17) },
            Problem::RequestInFlight => const { Code::at(18) },
            Problem::AlreadyCharged { .. } => const { Code::at(19) },
            Problem::IdempotencyKeyReused => const { Code::at(20) },
            Problem::IdempotencyFull => const { Code::at(21) },
            Problem::LoopDetected => const { Code::at(22) },
        }
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Problem::MissingKey { .. } | Problem::MalformedKey(_) | Problem::InvalidKey | Problem::InactiveKey => {
                StatusCode::UNAUTHORIZED
            }
            Problem::AmbiguousKey | Problem::BadPath(_) | Problem::BadRequest(_) | Problem::BadIdempotencyKey => {
                StatusCode::BAD_REQUEST
            }
            Problem::WrongApi { .. } => StatusCode::FORBIDDEN,
            Problem::InsufficientFunds { .. } => StatusCode::PAYMENT_REQUIRED,
            Problem::NoRoute => StatusCode::NOT_FOUND,
            Problem::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Problem::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Problem::UpstreamUnreachable | Problem::UpstreamBroken => StatusCode::BAD_GATEWAY,
            Problem::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Problem::RequestInFlight | Problem::AlreadyCharged { .. } => StatusCode::CONFLICT,
            Problem::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Problem::BillingUnavailable | Problem::IdempotencyFull | Problem::Overloaded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Problem::LoopDetected => StatusCode::LOOP_DETECTED,
            Problem::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The same for every occurrence of the problem.
    pub(super) fn title(&self) -> &'static str {
        match self {
            Problem::MissingKey { .. } => "No API key",
            Problem::MalformedKey(_) | Problem::InvalidKey => "Not a valid API key",
            Problem::InactiveKey => "Inactive API key",
            Problem::AmbiguousKey => "More than one API key",
            Problem::WrongApi { .. } => "API key for another API",
            Problem::InsufficientFunds { .. } => "Not enough money in the wallet",
            Problem::NoRoute => "No API at this path",
            Problem::BadPath(_) => "Ambiguous path",
            Problem::BadRequest(_) => "Not a request for a gateway",
            Problem::BodyTooLarge { .. } => "Request body too large",
            Problem::BodyTimeout => "Request body too slow",
            Problem::UpstreamUnreachable => "API not reachable",
            Problem::UpstreamBroken => "API broke off",
            Problem::UpstreamTimeout => "API too slow",
            Problem::BillingUnavailable => "Billing not available",
            Problem::BadIdempotencyKey => "Not a usable Idempotency-Key",
            Problem::RequestInFlight => "Request under way",
            Problem::AlreadyCharged { .. } => "Charged already",
            Problem::IdempotencyKeyReused => "Idempotency-Key of another request",
            Problem::IdempotencyFull => "Too many requests with an Idempotency-Key",
            Problem::LoopDetected => "Request loop",
            Problem::Overloaded => "Too many requests under way",
            Problem::Internal => "Internal error",
        }
    }

    /// The answer. Priced requests that are answered so cost nothing.
    pub(super) fn into_response(self, request_id: &RequestId) -> Response<Full<Bytes>> {
        let status = self.status();
        let body = detail::body(&self, request_id);
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_REQUEST_ID, request_id.header().clone());
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE || self == Problem::RequestInFlight {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

mod detail;

#[cfg(test)]
mod tests;
