//! The problems of the admin API: how refusals of the store and mistakes in requests become problem documents.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::{Problem, ProblemKind};
use crate::model::Cents;
use crate::store::{KeyRefused, Unavailable, UserRefused, WalletRefused, WriteError};

/// What is wrong with one field of a body or one parameter of a query.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FieldError {
    pub(super) field: String,
    pub(super) message: Cow<'static, str>,
}

/// Fields or parameters that are missing, unknown or wrong.
pub(super) fn invalid_fields(errors: &[FieldError]) -> Problem {
    Problem::from(ProblemKind::Invalid).with("errors", errors)
}

/// One mistake in one field.
pub(super) fn invalid(field: &str, message: &'static str) -> Problem {
    invalid_fields(&[FieldError { field: field.to_owned(), message: message.into() }])
}

/// The path names something that does not exist, such as a "user".
pub(super) fn not_found(what: &str) -> Problem {
    ProblemKind::NotFound.with_detail(format!("There is no such {what}."))
}

/// Nothing is served at this path.
pub(super) fn no_route() -> Problem {
    ProblemKind::NoRoute.with_detail("The admin API has nothing at this path.")
}

/// An object of the body has this key more than once.
pub(super) fn repeated_key(key: &str) -> Problem {
    let detail = format!("An object in the request body has the key {key:?} more than once; write it once.");
    ProblemKind::BadJson.with_detail(detail)
}

fn duplicate(field: &str) -> Problem {
    ProblemKind::Duplicate.with_detail(format!("Another one has the same {field}."))
}

fn overdrawn(balance: Cents) -> Problem {
    let detail = format!("The wallet holds {} cents; a debit cannot take more.", balance.0);
    ProblemKind::Overdrawn.with_detail(detail).with("balance_cents", balance)
}

fn internal() -> Problem {
    ProblemKind::Internal.with_detail("Keytoll failed; its log says more.")
}

/// Status and headers. The body is written by the outermost layer of the router, which knows the request id and finds the
/// problem among the extensions.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.kind().status();
        self.set_headers(response.headers_mut());
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for ProblemKind {
    fn into_response(self) -> Response {
        IntoResponse::into_response(Problem::from(self))
    }
}

impl From<Unavailable> for Problem {
    fn from(reason: Unavailable) -> Problem {
        ProblemKind::DatabaseUnavailable.with_detail(format!("Nothing was changed: {reason}; try again."))
    }
}

impl<E: Into<Problem>> From<WriteError<E>> for Problem {
    fn from(error: WriteError<E>) -> Problem {
        match error {
            WriteError::Refused(refused) => refused.into(),
            WriteError::Constraint(error) => {
                ProblemKind::ConstraintFailed.with_detail(format!("Nothing was changed: {error}."))
            }
            WriteError::Unavailable(reason) => reason.into(),
        }
    }
}

impl From<UserRefused> for Problem {
    fn from(refused: UserRefused) -> Problem {
        match refused {
            UserRefused::NotFound => not_found("user"),
            UserRefused::DuplicateEmail => duplicate("email"),
            UserRefused::NegativeBalance => invalid("opening_balance_cents", "must not be negative"),
        }
    }
}

impl From<KeyRefused> for Problem {
    fn from(refused: KeyRefused) -> Problem {
        match refused {
            KeyRefused::NotFound => not_found("key"),
            KeyRefused::NoUser => not_found("user"),
            KeyRefused::Duplicate => duplicate("api_name"),
            KeyRefused::HasCharges => ProblemKind::HasCharges.into(),
            KeyRefused::NoRandomness => internal(),
        }
    }
}

impl From<WalletRefused> for Problem {
    fn from(refused: WalletRefused) -> Problem {
        match refused {
            WalletRefused::NoUser => not_found("user"),
            WalletRefused::NotPositive => invalid("amount_cents", "must be positive"),
            WalletRefused::NotMoney => ProblemKind::NotMoney.into(),
            WalletRefused::Overdrawn { balance } => overdrawn(balance),
            WalletRefused::Overflow => ProblemKind::Overflow.into(),
            WalletRefused::KeyReused { kind, amount, note } => {
                let fields = [(kind, "kind"), (amount, "amount_cents"), (note, "note")];
                let differing = fields.into_iter().filter_map(|(differs, field)| differs.then_some(field));
                let message = "is not what the entry with this key has";
                let error = |field: &str| FieldError { field: field.to_owned(), message: message.into() };
                let errors: Vec<FieldError> = differing.map(error).collect();
                let detail =
                    "Another entry was made with this Idempotency-Key: see errors. Use a new key for every entry.";
                ProblemKind::IdempotencyKeyReused.with_detail(detail).with("errors", errors)
            }
        }
    }
}
