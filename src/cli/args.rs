//! Arguments that several commands share, and what their values must look like.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::config::{Environment, Overrides};
use crate::model::input::{self, InputError};
use crate::model::{Cents, IdempotencyKey, UserId};

/// Where the configuration and the database are; on every command.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Common {
    /// Configuration file [default: $KEYTOLL_CONFIG, ./keytoll.toml, /etc/keytoll/keytoll.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// SQLite database with users, api_keys and wallets [default: database.path, auth.db]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) database: Option<PathBuf>,
}

impl Common {
    /// As the configuration takes it.
    pub(super) fn overrides(self) -> Overrides {
        Overrides { config: self.config, database: self.database, ..Overrides::default() }
    }
}

/// How the answer is wanted.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct Format {
    /// Answer in JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A user, as named on the command line: all digits are an id, a text with `@` is an e-mail address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UserRef {
    Id(UserId),
    Email(String),
}

/// What names no user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoUserRef;

impl fmt::Display for NoUserRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write the id of a user, such as 7, or an e-mail address")
    }
}

impl std::error::Error for NoUserRef {}

impl FromStr for UserRef {
    type Err = NoUserRef;

    fn from_str(text: &str) -> Result<UserRef, NoUserRef> {
        if let Ok(id) = text.parse() {
            return Ok(UserRef::Id(UserId(id)));
        }
        // Other programs may have written any address; it only has to be told from an id.
        if text.contains('@') { Ok(UserRef::Email(text.to_owned())) } else { Err(NoUserRef) }
    }
}

impl fmt::Display for UserRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserRef::Id(id) => id.fmt(f),
            UserRef::Email(email) => f.write_str(email),
        }
    }
}

/// A text that is not an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadIdempotencyKey;

impl fmt::Display for BadIdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write 1 to 255 visible ASCII characters")
    }
}

impl std::error::Error for BadIdempotencyKey {}

/// A credit or debit, in cents.
pub(super) fn amount(text: &str) -> Result<Cents, InputError> {
    input::amount(whole_number(text))
}

/// What a new wallet holds, in cents.
pub(super) fn opening_balance(text: &str) -> Result<Cents, InputError> {
    input::opening_balance(whole_number(text))
}

/// What is not a whole number of 64 bits is refused as one out of range is.
fn whole_number(text: &str) -> i64 {
    text.parse().unwrap_or(i64::MIN)
}

/// Who gives a command, as far as its environment says.
pub(super) fn own_actor(environment: &Environment) -> String {
    let named = environment.login().and_then(|name| input::actor(&format!("cli:{name}")).ok());
    named.unwrap_or_else(|| "cli".to_owned())
}

/// What makes a command the same as one before.
pub(super) fn idempotency_key(text: &str) -> Result<IdempotencyKey, BadIdempotencyKey> {
    IdempotencyKey::parse(text.as_bytes()).ok_or(BadIdempotencyKey)
}
