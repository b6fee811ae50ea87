//! Problem documents (RFC 9457): every error that Keytoll itself answers, on the data and the admin listener.
//!
//! [`ProblemKind`] is one table. A new kind is one row of it: name, status, code, title and default detail. A
//! [`Problem`] is one occurrence of a kind, with a detail of its own where the default does not say enough, and with
//! extension members. The text is for the developer of the client: it names the limit that was hit and what to do. It
//! never contains a key, and nothing that only the operator should know.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

use super::request_id::{RequestId, X_REQUEST_ID};
use crate::model::NoKey;

/// The media type of a problem document.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

macro_rules! problem_kinds {
    ($($kind:ident: $status:ident, $code:literal, $title:literal, $detail:literal;)*) => {
        /// The kinds of problems. `code` is in the document, in logs and in metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ProblemKind {
            $(
                #[doc = concat!("`", $code, "`: ", $detail)]
                $kind,
            )*
        }

        impl ProblemKind {
            /// Every kind, in the order of the table; the index of a kind is `kind as usize`.
            pub const ALL: &[ProblemKind] = &[$(ProblemKind::$kind,)*];
            /// The code of every kind, by index.
            pub const CODES: &[&'static str] = &[$($code,)*];

            fn row(self) -> Row {
                match self {
                    $(ProblemKind::$kind => Row {
                        status: StatusCode::$status,
                        code: $code,
                        title: $title,
                        detail: $detail,
                    },)*
                }
            }
        }
    };
}

struct Row {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: &'static str,
}

problem_kinds! {
    // Authentication and money, on the data listener.
    MissingKey: UNAUTHORIZED, "missing-key", "No API key", "Send your API key.";
    InvalidKey: UNAUTHORIZED, "invalid-key", "Not a valid API key", "There is no such API key; check it for typing errors.";
    InactiveKey: UNAUTHORIZED, "inactive-key", "Inactive API key",
        "This API key, or its user, has been disabled; ask the operator.";
    AmbiguousKey: BAD_REQUEST, "ambiguous-key", "More than one API key",
        "The request carries more than one API key, or the same source twice; send one key.";
    WrongApi: FORBIDDEN, "wrong-api", "API key for another API", "This key was issued for another API.";
    InsufficientFunds: PAYMENT_REQUIRED, "insufficient-funds", "Not enough money in the wallet",
        "The wallet holds less than the price of this request; top it up.";
    BillingUnavailable: SERVICE_UNAVAILABLE, "billing-unavailable", "Billing not available",
        "The price cannot be taken at the moment, so the request was not forwarded; try again.";
    RateLimited: TOO_MANY_REQUESTS, "rate-limited", "Too many requests at once",
        "Too many of your requests are in flight; wait for one to end.";

    // Retries with an Idempotency-Key.
    BadIdempotencyKey: BAD_REQUEST, "bad-idempotency-key", "Not a usable Idempotency-Key",
        "Send one Idempotency-Key of 1 to 255 visible ASCII characters, in double quotes or without.";
    RequestInFlight: CONFLICT, "request-in-flight", "Request in flight",
        "A request with this Idempotency-Key is in flight; wait for it, then send it again.";
    AlreadyCharged: CONFLICT, "already-charged", "Already charged",
        "This request was paid for and its reply was sent; replies are not kept.";
    IdempotencyKeyReused: UNPROCESSABLE_ENTITY, "idempotency-key-reused", "Idempotency-Key of another request",
        "This Idempotency-Key was used for another method, path, query, Content-Type, Content-Length or Content-Digest; use a new key for every request.";
    IdempotencyFull: SERVICE_UNAVAILABLE, "idempotency-full", "Too many requests with an Idempotency-Key",
        "A new Idempotency-Key cannot be recorded at the moment. Try again later, or send the request without one; a retry is then charged again.";

    // The request itself.
    NoRoute: NOT_FOUND, "no-route", "Nothing at this path",
        "No API is served at this path and host; check the beginning of the path.";
    BadPath: BAD_REQUEST, "bad-path", "Ambiguous path", "The path can be read in more than one way.";
    BadRequest: BAD_REQUEST, "bad-request", "Bad request", "The request is not valid HTTP.";
    UriTooLong: URI_TOO_LONG, "uri-too-long", "Request target too long", "The request target is too long.";
    HeaderTooLarge: REQUEST_HEADER_FIELDS_TOO_LARGE, "header-too-large", "Request header too large",
        "The header section has too many fields or is too large.";
    HeaderTimeout: REQUEST_TIMEOUT, "header-timeout", "Request header too slow",
        "The header section did not arrive in time.";
    BodyTooLarge: PAYLOAD_TOO_LARGE, "body-too-large", "Request body too large", "The request body is too large.";
    BodyTimeout: REQUEST_TIMEOUT, "body-timeout", "Request body too slow",
        "The request body did not arrive in time; send it without long pauses.";

    // The upstream.
    UpstreamUnreachable: BAD_GATEWAY, "upstream-unreachable", "API not reachable",
        "The API behind the gateway cannot be reached; nothing was charged.";
    UpstreamBroken: BAD_GATEWAY, "upstream-broken", "API reply broken off",
        "The API behind the gateway broke off its reply; nothing was charged.";
    UpstreamTimeout: GATEWAY_TIMEOUT, "upstream-timeout", "API too slow",
        "The API behind the gateway did not answer in time; nothing was charged.";

    // Keytoll itself.
    LoopDetected: LOOP_DETECTED, "loop-detected", "Request loop",
        "This request has already passed through this gateway: the upstream of the API routes back to it. Report this to the operator.";
    Overloaded: SERVICE_UNAVAILABLE, "overloaded", "Gateway at its limit", "The gateway is at its limit; try again shortly.";
    Internal: INTERNAL_SERVER_ERROR, "internal", "Internal error",
        "The gateway failed; report the request_id to the operator. Nothing was charged.";

    // The admin listener.
    AdminDisabled: FORBIDDEN, "admin-disabled", "Admin API disabled",
        "No admin token is configured; set KEYTOLL_ADMIN_TOKEN or admin.token_file and restart.";
    MissingToken: UNAUTHORIZED, "missing-token", "No admin token",
        "Send the admin token as \"Authorization: Bearer TOKEN\".";
    InvalidToken: UNAUTHORIZED, "invalid-token", "Not the admin token", "This is not the configured admin token.";
    NotFound: NOT_FOUND, "not-found", "Not found", "There is no such resource.";
    WrongMethod: METHOD_NOT_ALLOWED, "wrong-method", "Method not allowed",
        "This path does not accept that method; Allow lists those that it accepts.";
    Misdirected: MISDIRECTED_REQUEST, "misdirected-request", "Host not served by this listener",
        "Host must be an IP address, localhost, or a name in admin.hosts of the configuration.";
    BadJson: BAD_REQUEST, "bad-json", "Unusable JSON", "The request body is not JSON.";
    WrongType: UNSUPPORTED_MEDIA_TYPE, "wrong-type", "Body is not JSON",
        "Send the body as JSON, with \"Content-Type: application/json\".";
    Invalid: UNPROCESSABLE_ENTITY, "invalid", "Invalid request",
        "Fields or parameters are missing, unknown or wrong: see errors.";
    Duplicate: CONFLICT, "duplicate", "Already exists", "Another resource has the same value.";
    ConstraintFailed: CONFLICT, "constraint-failed", "A constraint refuses the row",
        "A constraint of the application's tables refuses the row.";
    HasCharges: CONFLICT, "has-charges", "Charges refer to the key",
        "Charges were made with this key: disable it with is_active = false, or replace it with POST /v1/keys/{id}/rotate.";
    Overdrawn: CONFLICT, "overdrawn", "Not enough money in the wallet",
        "The wallet holds less than the debit.";
    NotMoney: CONFLICT, "not-money", "The balance is not an integer",
        "The balance in the database is not an integer; the program that wrote it must correct it first.";
    Overflow: CONFLICT, "overflow", "Balance too large", "The balance would not fit 64 bits of cents.";
    DatabaseUnavailable: SERVICE_UNAVAILABLE, "database-unavailable", "Database not available",
        "Nothing was changed; try again.";
}

impl ProblemKind {
    /// The code, such as `missing-key`.
    pub fn code(self) -> &'static str {
        self.row().code
    }

    /// The status of the reply.
    pub fn status(self) -> StatusCode {
        self.row().status
    }

    /// A problem of this kind with a detail of its own.
    pub fn with_detail(self, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem(Box::new(Occurrence { kind: self, detail: Some(detail.into()), members: Vec::new() }))
    }

    /// The challenge that goes with a 401 (RFC 6750 §3).
    fn challenge(self) -> Option<&'static str> {
        match self {
            ProblemKind::MissingToken => Some("Bearer realm=\"keytoll-admin\""),
            ProblemKind::InvalidToken => Some("Bearer realm=\"keytoll-admin\", error=\"invalid_token\""),
            kind => (kind.status() == StatusCode::UNAUTHORIZED).then_some("Bearer realm=\"keytoll\""),
        }
    }

    /// Whether the same request can succeed a second later.
    fn is_transient(self) -> bool {
        self == ProblemKind::RequestInFlight
            || matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }
}

/// One error, before it is written as a reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem(Box<Occurrence>);

#[derive(Clone, Debug, PartialEq)]
struct Occurrence {
    kind: ProblemKind,
    detail: Option<Cow<'static, str>>,
    members: Vec<(&'static str, Value)>,
}

impl From<ProblemKind> for Problem {
    fn from(kind: ProblemKind) -> Problem {
        Problem(Box::new(Occurrence { kind, detail: None, members: Vec::new() }))
    }
}

/// A request body that is longer than this limit.
pub fn body_too_large(limit_bytes: u64) -> Problem {
    ProblemKind::BodyTooLarge.with_detail(format!("The request body is limited to {limit_bytes} bytes."))
}

impl From<NoKey> for Problem {
    fn from(NoKey: NoKey) -> Problem {
        ProblemKind::BadIdempotencyKey.into()
    }
}

impl Problem {
    /// Its kind.
    pub fn kind(&self) -> ProblemKind {
        self.0.kind
    }

    /// What happened this time, and what to do.
    pub fn detail(&self) -> &str {
        self.0.detail.as_deref().unwrap_or(self.0.kind.row().detail)
    }

    /// Adds an extension member (RFC 9457 §3.2). `value` must serialize to JSON, as texts, numbers and lists of them do.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Serialize) -> Problem {
        self.0.members.push((name, serde_json::to_value(value).expect("texts, numbers and lists of them are JSON")));
        self
    }

    /// The document, as JSON.
    pub fn document(&self, request_id: &RequestId) -> Bytes {
        serde_json::to_vec(&Document { problem: self, request_id }).expect("texts and numbers are JSON").into()
    }

    /// The reply.
    pub fn into_response<B: From<Bytes>>(self, request_id: &RequestId) -> Response<B> {
        let mut response = Response::new(B::from(self.document(request_id)));
        *response.status_mut() = self.kind().status();
        self.set_headers(response.headers_mut());
        response.headers_mut().insert(X_REQUEST_ID, request_id.header().clone());
        response
    }

    /// Sets the header fields of the reply, except its request id.
    pub fn set_headers(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.kind().challenge() {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self.kind().is_transient() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
    }
}

/// A problem as RFC 9457 §3 writes it. `message` repeats `detail`, because widespread SDKs show their users nothing else.
struct Document<'a> {
    problem: &'a Problem,
    request_id: &'a RequestId,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Row { status, code, title, .. } = self.problem.kind().row();
        let detail = self.problem.detail();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("urn:keytoll:problem:{code}"))?;
        map.serialize_entry("title", title)?;
        map.serialize_entry("status", &status.as_u16())?;
        map.serialize_entry("detail", detail)?;
        map.serialize_entry("message", detail)?;
        map.serialize_entry("code", code)?;
        map.serialize_entry("request_id", self.request_id.as_str())?;
        for (name, value) in &self.problem.0.members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_is_written_as_rfc_9457_asks() {
        let id = RequestId::of(&HeaderMap::new());
        let mut codes = HashSet::new();
        for (index, kind) in ProblemKind::ALL.iter().enumerate() {
            assert_eq!((*kind as usize, ProblemKind::CODES[index]), (index, kind.code()));
            assert!(codes.insert(kind.code()), "{} is there twice", kind.code());
            let response = Problem::from(*kind).into_response::<Bytes>(&id);
            let status = response.status().as_u16();
            assert!((400..600).contains(&status), "{}", kind.code());
            let headers = response.headers();
            assert_eq!(headers["content-type"], "application/problem+json");
            assert_eq!(headers["cache-control"], "no-store");
            assert_eq!(headers["x-request-id"], id.as_str());
            assert_eq!(headers.contains_key("www-authenticate"), status == 401, "{}", kind.code());
            let is_transient = matches!(status, 429 | 503) || *kind == ProblemKind::RequestInFlight;
            assert_eq!(headers.contains_key("retry-after"), is_transient, "{}", kind.code());
            let detail = kind.row().detail;
            let expected = serde_json::json!({
                "type": format!("urn:keytoll:problem:{}", kind.code()), "title": kind.row().title, "status": status,
                "detail": detail, "message": detail, "code": kind.code(), "request_id": id.as_str(),
            });
            assert_eq!(serde_json::from_slice::<Value>(response.body()).unwrap(), expected);
        }
    }

    #[test]
    fn a_detail_and_members_of_its_own_are_in_the_document() {
        let problem = ProblemKind::Overdrawn.with_detail("The wallet holds 3 cents.").with("balance_cents", 3);
        let document: Value = serde_json::from_slice(&problem.document(&RequestId::generate())).unwrap();
        assert_eq!(document["detail"], "The wallet holds 3 cents.");
        assert_eq!(document["message"], document["detail"]);
        assert_eq!(document["balance_cents"], 3);
    }
}
