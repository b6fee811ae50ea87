//! Accounts and their entries: one account for each life of a user, and every change of its balance that is no charge.

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::{AccountId, Cents, ChargeId, EntryId, EntryKind, IdempotencyKey, UserId};

/// The user's open account and the e-mail address it was opened for.
pub(in crate::store) fn open_account(
    connection: &Connection,
    user_id: UserId,
) -> rusqlite::Result<Option<(AccountId, Option<String>)>> {
    connection
        .prepare_cached("SELECT id, email FROM keytoll_accounts WHERE user_id = ?1 AND closed_at IS NULL")?
        .query_row([user_id.0], |row| Ok((AccountId(row.get(0)?), row.get(1)?)))
        .optional()
}

/// The address of the user as the shared table has it now.
pub(in crate::store) fn email(connection: &Connection, user_id: UserId) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT email FROM users WHERE id = ?1")?
        .query_row([user_id.0], |row| row.get(0))
        .optional()
}

/// Opens an account for a user that has none.
pub(in crate::store) fn open(
    connection: &Connection,
    user_id: UserId,
    now_unix_ms: i64,
) -> rusqlite::Result<AccountId> {
    connection
        .prepare_cached(
            "INSERT INTO keytoll_accounts (user_id, email, opened_at) VALUES (?1, (SELECT email FROM users WHERE id = ?1), ?2)",
        )?
        .execute(params![user_id.0, now_unix_ms])?;
    Ok(AccountId(connection.last_insert_rowid()))
}

/// Ends an account: a later user with the same id gets another.
pub(in crate::store) fn close(connection: &Connection, account: AccountId, now_unix_ms: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE keytoll_accounts SET closed_at = ?2 WHERE id = ?1")?
        .execute(params![account.0, now_unix_ms])?;
    Ok(())
}

/// Opens an account for a wallet that another program made, with what is in it.
pub(in crate::store) fn adopt(
    connection: &Connection,
    user_id: UserId,
    balance: Cents,
    now_unix_ms: i64,
) -> rusqlite::Result<AccountId> {
    let account = open(connection, user_id, now_unix_ms)?;
    if !balance.is_zero() {
        enter(connection, account, EntryKind::External, balance, Some("wallet made by another program"), now_unix_ms)?;
    }
    Ok(account)
}

/// An entry to be written.
pub(in crate::store) struct NewEntry<'a> {
    pub(in crate::store) kind: EntryKind,
    /// Signed: what the balance changed by.
    pub(in crate::store) amount: Cents,
    /// Why.
    pub(in crate::store) note: Option<&'a str>,
    /// Who made the change; `None` for a change that was found.
    pub(in crate::store) actor: Option<&'a str>,
    /// The idempotency key, if the caller gave one.
    pub(in crate::store) key: Option<&'a IdempotencyKey>,
    /// The charge that a refund gives back.
    pub(in crate::store) charge: Option<ChargeId>,
}

/// Writes an entry that has no actor; `amount` is signed: what the balance changed by.
pub(in crate::store) fn enter(
    connection: &Connection,
    account: AccountId,
    kind: EntryKind,
    amount: Cents,
    note: Option<&str>,
    now_unix_ms: i64,
) -> rusqlite::Result<()> {
    write_entry(
        connection,
        account,
        &NewEntry { kind, amount, note, actor: None, key: None, charge: None },
        now_unix_ms,
    )
    .map(drop)
}

/// Writes an entry.
pub(in crate::store) fn write_entry(
    connection: &Connection,
    account: AccountId,
    entry: &NewEntry<'_>,
    now_unix_ms: i64,
) -> rusqlite::Result<EntryId> {
    let NewEntry { kind, amount, note, actor, key, charge } = entry;
    connection
        .prepare_cached(
            "INSERT INTO keytoll_entries (account_id, kind, amount_cents, note, created_at, actor, key_digest, charge_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            account.0,
            kind.as_str(),
            amount.0,
            note,
            now_unix_ms,
            actor,
            key.map(IdempotencyKey::digest),
            charge.map(|charge| charge.0)
        ])?;
    Ok(EntryId(connection.last_insert_rowid()))
}
