//! The answers of the admin plane that are refusals: problems as RFC 9457 has them, in the shape of the data plane's.
//!
//! The only place of the plane where refusals become statuses. A handler returns a [`Problem`]; the frame around all
//! handlers, which knows the request's id, writes it out.

use std::borrow::Cow;
use std::fmt;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::request_id::RequestId;
use crate::model::Cents;
use crate::store::{KeyRefused, Unavailable, UserRefused, WalletRefused, WriteError};

/// Why a request is refused.
#[derive(Clone, Debug)]
pub(super) enum Problem {
    /// No token is configured.
    AdminDisabled,
    /// The request carries no bearer token.
    MissingToken,
    /// The request carries another token.
    InvalidToken,
    /// Nothing at this path.
    NoRoute,
    /// The path names something that is not there.
    NotFound(Resource),
    /// `Host` is neither an address nor a name of this listener.
    Misdirected,
    /// The path takes other methods; they are in `Allow`.
    WrongMethod,
    /// The body is not JSON.
    BadJson(String),
    /// One object of the body has this key more than once.
    RepeatedJsonKey(String),
    /// The body broke off.
    BrokenBody,
    /// The body did not come in time.
    BodyTimeout,
    /// More body than is taken.
    BodyTooLarge { limit_bytes: usize },
    /// The body does not say that it is JSON.
    WrongType,
    /// Fields or parameters that are missing, unknown or wrong.
    Invalid(Vec<Mistake>),
    /// An `Idempotency-Key` that is none, or more than one.
    BadIdempotencyKey,
    /// The entry that was made with this key has other values in these fields.
    IdempotencyKeyReused(Vec<Mistake>),
    /// Something with this value is there already.
    Duplicate { field: &'static str },
    /// Charges point to the key.
    HasCharges,
    /// A debit of more than there is.
    Overdrawn { balance: Cents },
    /// The wallet holds NULL, a text or a real.
    NotMoney,
    /// The balance would be too large.
    Overflow,
    /// The database cannot be used now.
    Unavailable(Unavailable),
    /// The operating system failed.
    Internal,
}

/// What can be asked for by its id.
#[derive(Clone, Copy, Debug)]
pub(super) enum Resource {
    User,
    Key,
    Entry,
    Charge,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Resource::User => "user",
            Resource::Key => "key",
            Resource::Entry => "entry",
            Resource::Charge => "charge",
        })
    }
}

/// What is wrong with one field of a body or one parameter of a query.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Mistake {
    pub(super) field: String,
    pub(super) message: Cow<'static, str>,
}

/// RFC 9457 §3, with the members of Keytoll's own.
#[derive(Serialize)]
struct Written<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: Cow<'a, str>,
    code: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    balance_cents: Option<Cents>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<&'a [Mistake]>,
}

impl Problem {
    /// Status, code and title: the same for every occurrence of the problem.
    fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Problem::AdminDisabled => (StatusCode::FORBIDDEN, "admin-disabled", "Admin API switched off"),
            Problem::MissingToken => (StatusCode::UNAUTHORIZED, "missing-token", "No admin token"),
            Problem::InvalidToken => (StatusCode::UNAUTHORIZED, "invalid-token", "Not the admin token"),
            Problem::NoRoute => (StatusCode::NOT_FOUND, "no-route", "Nothing at this path"),
            Problem::NotFound(_) => (StatusCode::NOT_FOUND, "not-found", "Not there"),
            Problem::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "misdirected-request", "Not a name of this host"),
            Problem::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "wrong-method", "Method not allowed"),
            Problem::BadJson(_) | Problem::RepeatedJsonKey(_) => (StatusCode::BAD_REQUEST, "bad-json", "Unusable JSON"),
            Problem::BrokenBody => (StatusCode::BAD_REQUEST, "bad-request", "Request body broke off"),
            Problem::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body-timeout", "Request body too slow"),
            Problem::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Request body too large"),
            Problem::WrongType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong-type", "Body is not JSON"),
            Problem::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Invalid request"),
            Problem::BadIdempotencyKey => {
                (StatusCode::BAD_REQUEST, "bad-idempotency-key", "Not a usable Idempotency-Key")
            }
            Problem::IdempotencyKeyReused(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", "Idempotency-Key of another request")
            }
            Problem::Duplicate { .. } => (StatusCode::CONFLICT, "duplicate", "Already there"),
            Problem::HasCharges => (StatusCode::CONFLICT, "has-charges", "Charges point to the key"),
            Problem::Overdrawn { .. } => (StatusCode::CONFLICT, "overdrawn", "Not enough money in the wallet"),
            Problem::NotMoney => (StatusCode::CONFLICT, "not-money", "No money in the wallet's row"),
            Problem::Overflow => (StatusCode::CONFLICT, "overflow", "Balance too large"),
            Problem::Unavailable(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "database-unavailable", "Database not available")
            }
            Problem::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        }
    }

    /// What happened this time, and what to do.
    fn detail(&self) -> Cow<'_, str> {
        let text = match self {
            Problem::NotFound(resource) => return format!("There is no such {resource}.").into(),
            Problem::BadJson(error) => return format!("The request's body is not JSON: {error}.").into(),
            Problem::RepeatedJsonKey(key) => {
                return format!("An object in the request's body has the key {key:?} more than once; write it once.")
                    .into();
            }
            Problem::BodyTooLarge { limit_bytes } => {
                return format!("The request's body is limited to {limit_bytes} bytes.").into();
            }
            Problem::Duplicate { field } => return format!("Another one has the same {field}.").into(),
            Problem::Overdrawn { balance } => {
                return format!("The wallet holds {} cents; a debit cannot take more.", balance.0).into();
            }
            Problem::Unavailable(reason) => return format!("Nothing was changed: {reason}; try again.").into(),
            Problem::AdminDisabled => {
                "No admin token is configured; set KEYTOLL_ADMIN_TOKEN or admin.token_file and start again."
            }
            Problem::MissingToken => "Send the admin token as \"Authorization: Bearer TOKEN\".",
            Problem::InvalidToken => "This is not the configured admin token.",
            Problem::NoRoute => "The admin API has nothing at this path.",
            Problem::Misdirected => {
                "Host must be an IP address, localhost, or a name in admin.hosts of the configuration."
            }
            Problem::WrongMethod => "This path does not take that method; those it takes are in Allow.",
            Problem::BrokenBody => "The request's body broke off.",
            Problem::BodyTimeout => "The request's body did not come in time.",
            Problem::WrongType => "Send the body as JSON, with \"Content-Type: application/json\".",
            Problem::Invalid(_) => "Fields or parameters are missing, unknown or wrong: see errors.",
            Problem::BadIdempotencyKey => {
                "Send one Idempotency-Key of 1 to 255 visible ASCII characters, in double quotes or without."
            }
            Problem::IdempotencyKeyReused(_) => {
                "Another entry was made with this Idempotency-Key: see errors. Make a new key for every entry."
            }
            Problem::HasCharges => {
                "Charges were made with this key: switch it off with is_active = false, or replace it with POST /v1/keys/{id}/rotate."
            }
            Problem::NotMoney => {
                "The balance in the database is no whole number; whoever wrote it has to put it right first."
            }
            Problem::Overflow => "The balance would not fit 64 bits of cents.",
            Problem::Internal => "Keytoll failed; its log says more.",
        };
        Cow::Borrowed(text)
    }

    /// The problem as an answer's body.
    pub(super) fn write(&self, request_id: &RequestId) -> Vec<u8> {
        let (status, code, title) = self.kind();
        let balance_cents = if let Problem::Overdrawn { balance } = self { Some(*balance) } else { None };
        let errors = if let Problem::Invalid(mistakes) | Problem::IdempotencyKeyReused(mistakes) = self {
            Some(mistakes.as_slice())
        } else {
            None
        };
        let written = Written {
            r#type: format!("urn:keytoll:problem:{code}"),
            title,
            status: status.as_u16(),
            detail: self.detail(),
            code,
            request_id: request_id.as_str(),
            balance_cents,
            errors,
        };
        serde_json::to_vec(&written).expect("texts and numbers are JSON")
    }
}

/// Status and headers; the body is written by the frame, which finds the problem among the extensions.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, ..) = self.kind();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // RFC 6750 §3: the challenge of a request without a token says no error.
        if matches!(self, Problem::MissingToken) {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"keytoll-admin\""));
        }
        if matches!(self, Problem::InvalidToken) {
            let challenge = HeaderValue::from_static("Bearer realm=\"keytoll-admin\", error=\"invalid_token\"");
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Unavailable> for Problem {
    fn from(reason: Unavailable) -> Problem {
        Problem::Unavailable(reason)
    }
}

impl<E: Into<Problem>> From<WriteError<E>> for Problem {
    fn from(error: WriteError<E>) -> Problem {
        match error {
            WriteError::Refused(refused) => refused.into(),
            WriteError::Unavailable(reason) => Problem::Unavailable(reason),
        }
    }
}

impl From<UserRefused> for Problem {
    fn from(refused: UserRefused) -> Problem {
        match refused {
            UserRefused::NotFound => Problem::NotFound(Resource::User),
            UserRefused::DuplicateEmail => Problem::Duplicate { field: "email" },
            UserRefused::NegativeBalance => invalid("opening_balance_cents", "must not be negative"),
        }
    }
}

impl From<KeyRefused> for Problem {
    fn from(refused: KeyRefused) -> Problem {
        match refused {
            KeyRefused::NotFound => Problem::NotFound(Resource::Key),
            KeyRefused::NoUser => Problem::NotFound(Resource::User),
            KeyRefused::Duplicate => Problem::Duplicate { field: "api_name" },
            KeyRefused::HasCharges => Problem::HasCharges,
            KeyRefused::NoRandomness => Problem::Internal,
        }
    }
}

impl From<WalletRefused> for Problem {
    fn from(refused: WalletRefused) -> Problem {
        match refused {
            WalletRefused::NoUser => Problem::NotFound(Resource::User),
            WalletRefused::NotPositive => invalid("amount_cents", "must be positive"),
            WalletRefused::NotMoney => Problem::NotMoney,
            WalletRefused::Overdrawn { balance } => Problem::Overdrawn { balance },
            WalletRefused::Overflow => Problem::Overflow,
            WalletRefused::KeyReused { kind, amount, note } => {
                let fields = [(kind, "kind"), (amount, "amount_cents"), (note, "note")];
                let differing = fields.into_iter().filter_map(|(differs, field)| differs.then_some(field));
                let message = "is not what the entry with this key has";
                let mistake = |field: &str| Mistake { field: field.to_owned(), message: message.into() };
                Problem::IdempotencyKeyReused(differing.map(mistake).collect())
            }
        }
    }
}

/// One mistake in one field.
pub(super) fn invalid(field: &str, message: &'static str) -> Problem {
    Problem::Invalid(vec![Mistake { field: field.to_owned(), message: message.into() }])
}
