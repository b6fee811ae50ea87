//! What the fields of bodies may hold.

use std::sync::Arc;

use serde_json::Value;

use super::fields::Read;
use crate::model::Cents;
use crate::model::input::{self, InputError};
use crate::store::Direction;

/// A user's e-mail address.
pub(super) fn email(value: &Value) -> Read<String> {
    text(value, input::email)
}

/// A person's or a company's name.
pub(super) fn name(value: &Value) -> Read<String> {
    text(value, input::name)
}

/// Why a wallet is credited or debited; `null` is none.
pub(super) fn note(value: &Value) -> Read<Option<String>> {
    if value.is_null() {
        return Ok(None);
    }
    text(value, input::note).map(Some)
}

/// Who credits or debits a wallet.
pub(super) fn actor(value: &Value) -> Read<String> {
    text(value, input::actor)
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value) -> Read<bool> {
    value.as_bool().ok_or("must be true or false".into())
}

/// What is put in or taken out.
pub(super) fn amount(value: &Value) -> Read<Cents> {
    cents(value, input::amount)
}

/// What a new wallet holds.
pub(super) fn opening_balance(value: &Value) -> Read<Cents> {
    cents(value, input::opening_balance)
}

/// `credit` or `debit`.
pub(super) fn direction(value: &Value) -> Read<Direction> {
    match value.as_str() {
        Some("credit") => Ok(Direction::In),
        Some("debit") => Ok(Direction::Out),
        Some(_) | None => Err("must be \"credit\" or \"debit\"".into()),
    }
}

/// How long the old secret of a key stays valid after it was replaced, in seconds. There are no such periods yet.
pub(super) fn grace_seconds(value: &Value) -> Read<()> {
    match value.as_i64() {
        Some(0) => Ok(()),
        Some(_) | None => Err("must be 0: only 0 is supported yet, which ends the old key at once".into()),
    }
}

/// The name of a configured API.
pub(super) fn api_name(value: &Value, apis: &[Arc<str>]) -> Read<String> {
    match value.as_str() {
        Some(name) if apis.iter().any(|api| **api == *name) => Ok(name.to_owned()),
        Some(_) => Err(format!("must be a configured API: {}", apis.join(", ")).into()),
        None => Err("must be a string".into()),
    }
}

/// A whole number that `check` accepts. What is not a whole number of 64 bits is refused as one out of range is.
fn cents(value: &Value, check: impl Fn(i64) -> Result<Cents, InputError>) -> Read<Cents> {
    check(value.as_i64().unwrap_or(i64::MIN)).map_err(|error| error.to_string().into())
}

fn text(value: &Value, check: impl Fn(&str) -> Result<String, InputError>) -> Read<String> {
    let Some(text) = value.as_str() else { return Err("must be a string".into()) };
    check(text).map_err(|error| error.to_string().into())
}
