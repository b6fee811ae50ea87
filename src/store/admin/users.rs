//! Users: made together with their wallet, read, changed.
//!
//! A user that Keytoll makes never gets the id of one that left a wallet, a key or an open account behind.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use crate::model::{Cents, EntryKind, UserId};
use crate::store::admin::page::{Page, PageRequest};
use crate::store::books::accounts;
use crate::store::writer::write::{WriteFault, WriteTx};
use crate::store::{Store, Unavailable, WriteError};

/// What a new wallet holds when nobody says otherwise, as the application's models have it.
pub const USUAL_OPENING_BALANCE: Cents = Cents(500);

/// A row of `users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UserRecord {
    /// `users.id`.
    pub id: UserId,
    /// The address, unique in the file.
    pub email: String,
    /// The name.
    pub name: String,
    /// Whether the user's keys are good; NULL in the file counts as not.
    pub is_active: bool,
}

/// What is to be changed of a user; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserChange {
    /// Another address.
    pub email: Option<String>,
    /// Another name.
    pub name: Option<String>,
    /// Switches all keys of the user on or off.
    pub is_active: Option<bool>,
}

/// Why a user was not made or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserRefused {
    /// No user with this id.
    NotFound,
    /// Another user has this e-mail address.
    DuplicateEmail,
    /// A wallet does not begin below zero.
    NegativeBalance,
}

impl Store {
    /// Makes a user, active, with a wallet and an `opening` entry of what is in it, all in one transaction.
    ///
    /// # Errors
    /// [`UserRefused::DuplicateEmail`], [`UserRefused::NegativeBalance`], or the file cannot be written now.
    pub async fn add_user(
        &self,
        email: &str,
        name: &str,
        opening_balance: Cents,
    ) -> Result<UserRecord, WriteError<UserRefused>> {
        let (email, name) = (email.to_owned(), name.to_owned());
        self.write(move |tx| add(tx, email, name, opening_balance)).await
    }

    /// The user with this id.
    ///
    /// # Errors
    /// The file cannot be read now.
    pub async fn user(&self, id: UserId) -> Result<Option<UserRecord>, Unavailable> {
        self.read(move |connection| get(connection, id)).await
    }

    /// The user with this address, letter for letter.
    ///
    /// # Errors
    /// The file cannot be read now.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<UserRecord>, Unavailable> {
        let email = email.to_owned();
        self.read(move |connection| {
            let mut select =
                connection.prepare_cached("SELECT id, email, name, is_active IS 1 FROM users WHERE email = ?1")?;
            select.query_row([email], record).optional()
        })
        .await
    }

    /// Users in the order of their ids.
    ///
    /// # Errors
    /// The file cannot be read now.
    pub async fn users(&self, wish: PageRequest) -> Result<Page<UserRecord>, Unavailable> {
        self.read(move |connection| {
            let mut select = connection.prepare_cached(
                "SELECT id, email, name, is_active IS 1 FROM users WHERE id > ?1 ORDER BY id LIMIT ?2",
            )?;
            let rows = select.query_map([wish.after(), wish.rows()], record)?;
            Ok(Page::of(rows.collect::<rusqlite::Result<_>>()?, wish, |user| user.id.0))
        })
        .await
    }

    /// Changes a user; answers with what it is then. In force for every hold that commits afterwards.
    ///
    /// # Errors
    /// A [`UserRefused`], or the file cannot be written now.
    pub async fn update_user(&self, id: UserId, change: UserChange) -> Result<UserRecord, WriteError<UserRefused>> {
        self.write(move |tx| update(tx, id, &change)).await
    }
}

fn add(
    tx: &mut WriteTx<'_>,
    email: String,
    name: String,
    opening_balance: Cents,
) -> Result<UserRecord, WriteFault<UserRefused>> {
    let connection = tx.connection();
    if opening_balance < Cents::ZERO {
        return Err(WriteFault::Refused(UserRefused::NegativeBalance));
    }
    refuse_taken(connection, &email, None)?;
    let id = unused_id(connection)?;
    connection
        .prepare_cached("INSERT INTO users (id, email, name, is_active) VALUES (?1, ?2, ?3, 1)")?
        .execute(params![id, email, name])?;
    let id = UserId(connection.last_insert_rowid());
    connection
        .prepare_cached("INSERT INTO wallets (user_id, balance) VALUES (?1, ?2)")?
        .execute([id.0, opening_balance.0])?;
    let account = accounts::open(connection, id, tx.now_unix_ms())?;
    accounts::enter(connection, account, EntryKind::Opening, opening_balance, None, tx.now_unix_ms())?;
    tx.wallet_changed(id);
    tx.keys_changed();
    Ok(UserRecord { id, email, name, is_active: true })
}

/// An id above all that left traces behind, so that a new user inherits nothing. `None`: SQLite chooses one.
fn unused_id(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let mut highest = 0;
    for select in [
        "SELECT id FROM users ORDER BY id DESC LIMIT 1",
        "SELECT user_id FROM wallets WHERE user_id <= 9223372036854775807 ORDER BY user_id DESC LIMIT 1",
        "SELECT user_id FROM api_keys WHERE user_id <= 9223372036854775807 ORDER BY user_id DESC LIMIT 1",
        "SELECT user_id FROM keytoll_accounts WHERE closed_at IS NULL ORDER BY user_id DESC LIMIT 1",
    ] {
        let found = connection.prepare_cached(select)?.query_row([], |row| Ok(row.get_ref(0)?.as_i64().unwrap_or(0)));
        highest = highest.max(found.optional()?.unwrap_or(0));
    }
    Ok(highest.checked_add(1))
}

fn update(tx: &mut WriteTx<'_>, id: UserId, change: &UserChange) -> Result<UserRecord, WriteFault<UserRefused>> {
    let connection = tx.connection();
    if !exists(connection, id)? {
        return Err(WriteFault::Refused(UserRefused::NotFound));
    }
    if let Some(email) = &change.email {
        refuse_taken(connection, email, Some(id))?;
        // A wallet that another program replaces is told from another person's by the address.
        connection
            .prepare_cached("UPDATE keytoll_accounts SET email = ?2 WHERE user_id = ?1 AND closed_at IS NULL")?
            .execute(params![id.0, email])?;
    }
    connection
        .prepare_cached(
            "UPDATE users SET email = coalesce(?2, email), name = coalesce(?3, name), is_active = coalesce(?4, is_active)
             WHERE id = ?1",
        )?
        .execute(params![id.0, change.email, change.name, change.is_active])?;
    let user = get(connection, id)?.ok_or(WriteFault::Refused(UserRefused::NotFound))?;
    tx.keys_changed();
    Ok(user)
}

fn refuse_taken(connection: &Connection, email: &str, but: Option<UserId>) -> Result<(), WriteFault<UserRefused>> {
    let mut select = connection.prepare_cached("SELECT 1 FROM users WHERE email = ?1 AND id IS NOT ?2")?;
    if select.exists(params![email, but.map(|id| id.0)])? {
        return Err(WriteFault::Refused(UserRefused::DuplicateEmail));
    }
    Ok(())
}

/// Whether there is such a user.
pub(in crate::store) fn exists(connection: &Connection, id: UserId) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM users WHERE id = ?1")?.exists([id.0])
}

fn get(connection: &Connection, id: UserId) -> rusqlite::Result<Option<UserRecord>> {
    let mut select = connection.prepare_cached("SELECT id, email, name, is_active IS 1 FROM users WHERE id = ?1")?;
    select.query_row([id.0], record).optional()
}

fn record(row: &Row<'_>) -> rusqlite::Result<UserRecord> {
    Ok(UserRecord {
        id: UserId(row.get(0)?),
        email: text(row.get_ref(1)?),
        name: text(row.get_ref(2)?),
        is_active: row.get(3)?,
    })
}

/// A text of a shared table. Other programs may leave anything there; one odd row must not make a list unreadable.
pub(in crate::store) fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
    }
}

#[cfg(test)]
mod tests;
