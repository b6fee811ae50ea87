//! The problems of the request path: how its refusals become problem documents.

use crate::auth::AuthRefused;
use crate::http::{Problem, ProblemKind, body_too_large};
use crate::model::Cents;
use crate::store::HoldRefused;
use crate::upstream::SendError;

use super::bad_request::BadRequest;
use super::credential::{Malformed, Refusal};
use super::path::BadPath;
use super::request_body::BodyError;

impl From<BadPath> for Problem {
    fn from(bad: BadPath) -> Problem {
        ProblemKind::BadPath.with_detail(bad.reason())
    }
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Problem {
        ProblemKind::InvalidKey.with_detail(match malformed {
            Malformed::Empty => "The API key is empty.",
            Malformed::TooLong => "The credential is longer than any API key.",
            Malformed::NotVisibleAscii => "The credential contains a space or another character that no API key has.",
            Malformed::Digest => "The credential is the stored form of a key; send the key itself.",
        })
    }
}

impl From<AuthRefused> for Problem {
    fn from(refused: AuthRefused) -> Problem {
        match refused {
            AuthRefused::Unknown => ProblemKind::InvalidKey.into(),
            AuthRefused::Inactive => ProblemKind::InactiveKey.into(),
            AuthRefused::Unavailable(_) => ProblemKind::BillingUnavailable.into(),
        }
    }
}

impl From<&SendError> for Problem {
    fn from(error: &SendError) -> Problem {
        match error {
            SendError::Unreachable { .. } => ProblemKind::UpstreamUnreachable.into(),
            SendError::PassageExpired => ProblemKind::BillingUnavailable.into(),
            SendError::HeadTimeout => ProblemKind::UpstreamTimeout.into(),
            SendError::Broken { .. } => ProblemKind::UpstreamBroken.into(),
            SendError::BadReply { reason } => ProblemKind::UpstreamBroken.with_detail(format!(
                "The API behind the gateway sent a reply that cannot be handed on: {reason}. Nothing was charged."
            )),
            SendError::RequestStalled => ProblemKind::BodyTimeout.into(),
            SendError::RequestBody { .. } => match error.request_body_cause::<BodyError>() {
                Some(cause) => cause.into(),
                None => BadRequest::Body.into(),
            },
        }
    }
}

impl From<&BodyError> for Problem {
    fn from(error: &BodyError) -> Problem {
        match error {
            BodyError::TooLarge { limit_bytes } => body_too_large(*limit_bytes),
            BodyError::Idle | BodyError::TooSlow => ProblemKind::BodyTimeout.into(),
            BodyError::Broken(_) => BadRequest::Body.into(),
        }
    }
}

/// A credential that is missing, malformed or ambiguous. `credential_hint`: where a key is looked for, in words.
pub(super) fn no_credential(refusal: Refusal, credential_hint: &str) -> Problem {
    match refusal {
        Refusal::Missing => ProblemKind::MissingKey.with_detail(format!("Send your API key {credential_hint}.")),
        Refusal::Malformed(malformed) => malformed.into(),
        Refusal::Ambiguous => ProblemKind::AmbiguousKey.into(),
    }
}

/// A key of another API.
pub(super) fn wrong_api(api: &str) -> Problem {
    ProblemKind::WrongApi.with_detail(format!("This key was issued for another API; use one for \"{api}\"."))
}

/// Why `price` could not be held.
pub(super) fn no_hold(refused: &HoldRefused, price: Cents) -> Problem {
    match refused {
        HoldRefused::Insufficient { balance } => {
            let (price_cents, cents) = (price.0, balance.0);
            let detail =
                format!("This request costs {price_cents} cents and the wallet holds {cents} cents; top it up.");
            insufficient_funds(detail, price, *balance)
        }
        HoldRefused::NotAnInteger => {
            let detail = format!(
                "This request costs {} cents, and the balance of the wallet is not an integer, so that it counts as no \
                 money; the operator has to correct it.",
                price.0
            );
            insufficient_funds(detail, price, Cents::ZERO)
        }
        HoldRefused::InFlight => ProblemKind::RequestInFlight.into(),
        HoldRefused::AlreadyCharged { charge } => ProblemKind::AlreadyCharged
            .with_detail(format!(
                "This request was paid for with charge {charge} and its reply was sent; replies are not kept. To get \
                 another, which is charged again, use a new Idempotency-Key."
            ))
            .with("charge_id", charge),
        HoldRefused::IdempotencyKeyReused => ProblemKind::IdempotencyKeyReused.into(),
        HoldRefused::IdempotencyFull => ProblemKind::IdempotencyFull.into(),
        HoldRefused::Unavailable(_) | HoldRefused::KeyChanged => ProblemKind::BillingUnavailable.into(),
    }
}

fn insufficient_funds(detail: String, price: Cents, balance: Cents) -> Problem {
    ProblemKind::InsufficientFunds.with_detail(detail).with("price_cents", price).with("balance_cents", balance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::RequestId;
    use crate::model::ChargeId;

    fn document(problem: &Problem) -> serde_json::Value {
        serde_json::from_slice(&problem.document(&RequestId::generate())).unwrap()
    }

    #[test]
    fn insufficient_funds_names_price_and_balance() {
        let problem = no_hold(&HoldRefused::Insufficient { balance: Cents(3) }, Cents(25));
        let document = document(&problem);
        assert_eq!(document["detail"], "This request costs 25 cents and the wallet holds 3 cents; top it up.");
        assert_eq!((&document["price_cents"], &document["balance_cents"]), (&25.into(), &3.into()));
    }

    #[test]
    fn a_balance_that_is_not_an_integer_is_said() {
        let document = document(&no_hold(&HoldRefused::NotAnInteger, Cents(25)));
        assert!(
            document["detail"]
                .as_str()
                .unwrap()
                .contains("costs 25 cents, and the balance of the wallet is not an integer")
        );
        assert_eq!((&document["price_cents"], &document["balance_cents"]), (&25.into(), &0.into()));
    }

    #[test]
    fn a_retry_of_a_charged_request_names_the_charge() {
        let document = document(&no_hold(&HoldRefused::AlreadyCharged { charge: ChargeId(7) }, Cents(1)));
        assert_eq!(document["charge_id"], 7);
    }

    #[test]
    fn a_missing_key_says_where_to_send_it_and_a_limit_is_named() {
        let missing = no_credential(Refusal::Missing, "in the header \"x-api-key\"");
        assert_eq!(missing.detail(), "Send your API key in the header \"x-api-key\".");
        assert_eq!(body_too_large(10).detail(), "The request body is limited to 10 bytes.");
    }
}
