//! What a problem says to the client's developer, and the JSON around it.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use super::{BadRequest, Problem};
use crate::gateway::credential::Malformed;
use crate::gateway::headers::RequestId;
use crate::model::{Cents, ChargeId};

/// RFC 9457 §3, with the members of Keytoll's own.
#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: Cow<'static, str>,
    code: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    price_cents: Option<Cents>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balance_cents: Option<Cents>,
    #[serde(skip_serializing_if = "Option::is_none")]
    charge_id: Option<ChargeId>,
}

pub(super) fn body(problem: &Problem, request_id: &RequestId) -> Bytes {
    let code = problem.code().as_str();
    let (price_cents, balance_cents, charge_id) = match problem {
        Problem::InsufficientFunds { price, balance } => (Some(*price), Some(*balance), None),
        Problem::AlreadyCharged { charge } => (None, None, Some(*charge)),
        Problem::MissingKey { .. }
        | Problem::MalformedKey(_)
        | Problem::InvalidKey
        | Problem::InactiveKey
        | Problem::AmbiguousKey
        | Problem::WrongApi { .. }
        | Problem::NoRoute
        | Problem::BadPath(_)
        | Problem::BadRequest(_)
        | Problem::BodyTooLarge { .. }
        | Problem::BodyTimeout
        | Problem::UpstreamUnreachable
        | Problem::UpstreamBroken
        | Problem::UpstreamTimeout
        | Problem::BillingUnavailable
        | Problem::BadIdempotencyKey
        | Problem::RequestInFlight
        | Problem::IdempotencyKeyReused
        | Problem::IdempotencyFull
        | Problem::LoopDetected
        | Problem::Overloaded
        | Problem::Internal => (None, None, None),
    };
    let body = Body {
        r#type: format!("urn:keytoll:problem:{code}"),
        title: problem.title(),
        status: problem.status().as_u16(),
        detail: problem.detail(),
        code,
        request_id: request_id.as_str(),
        price_cents,
        balance_cents,
        charge_id,
    };
    serde_json::to_vec(&body).expect("texts and numbers are JSON").into()
}

impl Problem {
    /// What happened this time, and what to do.
    pub(crate) fn detail(&self) -> Cow<'static, str> {
        let text = match self {
            Problem::MissingKey { where_to } => return format!("Send your API key {where_to}.").into(),
            Problem::WrongApi { api } => {
                return format!("This key is good for another API; use one that was issued for \"{api}\".").into();
            }
            Problem::InsufficientFunds { price, balance } => {
                let (price, balance) = (price.0, balance.0);
                return format!("This request costs {price} cents and the wallet holds {balance}; top it up.").into();
            }
            Problem::BodyTooLarge { limit_bytes } => {
                return format!("The request's body is limited to {limit_bytes} bytes.").into();
            }
            Problem::AlreadyCharged { charge } => {
                return format!(
                    "This request was paid for with charge {charge} and its reply was sent; replies are not kept. To get \
                     another, which costs again, use a new Idempotency-Key."
                )
                .into();
            }
            Problem::BadIdempotencyKey => {
                "Send one Idempotency-Key of 1 to 255 visible ASCII characters, in double quotes or without."
            }
            Problem::RequestInFlight => {
                "A request with this Idempotency-Key is under way; wait for it, then send it again."
            }
            Problem::IdempotencyKeyReused => {
                "This Idempotency-Key was used for another method, path, query, Content-Type, Content-Length or \
                 Content-Digest; make a new key for every request."
            }
            Problem::IdempotencyFull => {
                "No more requests with a new Idempotency-Key can be remembered now. Try again later, or send it without one: \
                 then a retry is charged again."
            }
            Problem::BadPath(bad) => bad.reason(),
            Problem::MalformedKey(Malformed::Empty) => "The API key is empty.",
            Problem::MalformedKey(Malformed::TooLong) => "The credential is longer than any API key is.",
            Problem::MalformedKey(Malformed::NotVisibleAscii) => {
                "The credential has a space or another character that no API key has."
            }
            Problem::MalformedKey(Malformed::Digest) => {
                "The credential is the stored form of a key; send the key itself."
            }
            Problem::InvalidKey => "No such API key; check it for typing mistakes.",
            Problem::InactiveKey => "This API key, or its user, has been switched off; ask the operator.",
            Problem::AmbiguousKey => "The request carries more than one API key, or one place of it twice; send one.",
            Problem::NoRoute => "No API is served at this path and host; check the beginning of the path.",
            Problem::BadRequest(BadRequest::Host) => "The request needs exactly one valid Host header.",
            Problem::BadRequest(BadRequest::Target) => {
                "Keytoll is no forward proxy: the request's target must be a path."
            }
            Problem::BadRequest(BadRequest::Method) => "Methods are case-sensitive; write the method in upper case.",
            Problem::BadRequest(BadRequest::Body) => "The request's body broke off or is not framed as HTTP asks.",
            Problem::BodyTimeout => "The request's body stopped coming; send it without long pauses.",
            Problem::UpstreamUnreachable => "The API behind the gateway cannot be reached; nothing was charged.",
            Problem::UpstreamBroken => "The API behind the gateway broke off its answer; nothing was charged.",
            Problem::UpstreamTimeout => "The API behind the gateway did not answer in time; nothing was charged.",
            Problem::BillingUnavailable => {
                "The price cannot be taken at the moment, so the request was not forwarded; try again."
            }
            Problem::LoopDetected => {
                "This request has been through the gateway before: the API's upstream leads back to it. Tell the operator."
            }
            Problem::Overloaded => "The gateway has as many requests under way as it takes; try again.",
            Problem::Internal => "The gateway failed; report the request_id to the operator. Nothing was charged.",
        };
        Cow::Borrowed(text)
    }
}
