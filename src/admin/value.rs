//! What the fields of bodies may hold.

use std::sync::Arc;

use serde_json::Value;

use super::fields::Read;
use crate::model::Cents;
use crate::store::Direction;

/// A credit or debit at most: more is a slip of the finger.
const MOST_CENTS: i64 = 1_000_000_000_000;
const EMAIL_CHARS: usize = 320;
const NAME_CHARS: usize = 200;
const NOTE_CHARS: usize = 500;
const ACTOR_CHARS: usize = 128;

/// An e-mail address, as far as it can be told without sending a letter.
pub(super) fn email(value: &Value) -> Read<String> {
    let text = text(value, 1, EMAIL_CHARS)?;
    if text.contains('@') { Ok(text) } else { Err("must be an e-mail address, with an @".into()) }
}

/// A person's or a company's name.
pub(super) fn name(value: &Value) -> Read<String> {
    text(value, 1, NAME_CHARS)
}

/// Why a wallet is credited or debited; `null` is none.
pub(super) fn note(value: &Value) -> Read<Option<String>> {
    if value.is_null() {
        return Ok(None);
    }
    text(value, 0, NOTE_CHARS).map(Some)
}

/// Who credits or debits a wallet.
pub(super) fn actor(value: &Value) -> Read<String> {
    text(value, 1, ACTOR_CHARS)
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value) -> Read<bool> {
    value.as_bool().ok_or("must be true or false".into())
}

/// What is put in or taken out.
pub(super) fn amount(value: &Value) -> Read<Cents> {
    cents(value, 1)
}

/// What a new wallet holds.
pub(super) fn opening_balance(value: &Value) -> Read<Cents> {
    cents(value, 0)
}

/// `credit` or `debit`.
pub(super) fn direction(value: &Value) -> Read<Direction> {
    match value.as_str() {
        Some("credit") => Ok(Direction::In),
        Some("debit") => Ok(Direction::Out),
        Some(_) | None => Err("must be \"credit\" or \"debit\"".into()),
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

fn cents(value: &Value, least: i64) -> Read<Cents> {
    match value.as_i64() {
        Some(cents) if (least..=MOST_CENTS).contains(&cents) => Ok(Cents(cents)),
        Some(_) | None => Err(format!("must be a whole number of cents, from {least} to {MOST_CENTS}").into()),
    }
}

fn text(value: &Value, least: usize, most: usize) -> Read<String> {
    let Some(text) = value.as_str() else { return Err("must be a string".into()) };
    let chars = text.chars().count();
    if chars < least || text.trim().len() < least {
        return Err("must not be empty".into());
    }
    if chars > most {
        return Err(format!("must not be longer than {most} characters").into());
    }
    if text.chars().any(char::is_control) {
        return Err("must not have control characters".into());
    }
    Ok(text.to_owned())
}
