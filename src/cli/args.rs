//! Arguments that several commands share, and what their values must look like.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::config::{Environment, Overrides};
use crate::model::{IdempotencyKey, UserId};

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

/// A text that is no new e-mail address, name, API name, note, actor or idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadText {
    Email,
    Name,
    Api,
    Note,
    Actor,
    IdempotencyKey,
}

impl fmt::Display for BadText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadText::Email => "write an address such as ada@example.com",
            BadText::Name => "write a name of 1 to 200 characters, without line breaks",
            BadText::Api => "write 1 to 128 printable ASCII characters, without spaces at the ends",
            BadText::Note => "write at most 500 characters, without line breaks",
            BadText::Actor => "write 1 to 128 characters, without line breaks",
            BadText::IdempotencyKey => "write 1 to 255 visible ASCII characters",
        })
    }
}

impl std::error::Error for BadText {}

/// A new user's address: something before and after one `@`, no spaces.
pub(super) fn email(text: &str) -> Result<String, BadText> {
    let is_whole = text.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    let fits = is_whole && text.matches('@').count() == 1 && text.len() <= 254;
    if fits && !has_breaks(text) && !text.contains(' ') { Ok(text.to_owned()) } else { Err(BadText::Email) }
}

/// A new user's name.
pub(super) fn name(text: &str) -> Result<String, BadText> {
    let fits = !text.trim().is_empty() && text.chars().count() <= 200 && !has_breaks(text);
    if fits { Ok(text.to_owned()) } else { Err(BadText::Name) }
}

/// The name of an API, as the configuration takes it.
pub(super) fn api(text: &str) -> Result<String, BadText> {
    let fits = (1..=128).contains(&text.len()) && text.trim() == text;
    let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if fits && printable { Ok(text.to_owned()) } else { Err(BadText::Api) }
}

/// The note of an entry.
pub(super) fn note(text: &str) -> Result<String, BadText> {
    if text.chars().count() <= 500 && !has_breaks(text) { Ok(text.to_owned()) } else { Err(BadText::Note) }
}

/// Who makes an entry.
pub(super) fn actor(text: &str) -> Result<String, BadText> {
    let fits = !text.trim().is_empty() && text.chars().count() <= 128 && !has_breaks(text);
    if fits { Ok(text.to_owned()) } else { Err(BadText::Actor) }
}

/// Who gives a command, as far as its environment says.
pub(super) fn own_actor(environment: &Environment) -> String {
    let named = environment.login().and_then(|name| actor(&format!("cli:{name}")).ok());
    named.unwrap_or_else(|| "cli".to_owned())
}

/// What makes a command the same as one before.
pub(super) fn idempotency_key(text: &str) -> Result<IdempotencyKey, BadText> {
    IdempotencyKey::parse(text.as_bytes()).ok_or(BadText::IdempotencyKey)
}

fn has_breaks(text: &str) -> bool {
    text.chars().any(char::is_control)
}
