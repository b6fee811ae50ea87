//! Wallets as operators see them: what is in one, what is put in and taken out, and the entries that tell of it.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use crate::ledger::Balance;
use crate::model::{AccountId, Cents, EntryId, EntryKind, IdempotencyKey, Timestamp, UserId};
use crate::store::admin::page::{Page, PageRequest};
use crate::store::admin::users;
use crate::store::books::accounts::{self, NewEntry};
use crate::store::books::wallets::money;
use crate::store::writer::write::{WriteFault, WriteTx};
use crate::store::{Store, Unavailable, WriteError};

/// What is in a user's wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WalletRecord {
    /// The owner.
    pub user_id: UserId,
    /// The money; zero when there is no wallet, or no integer in it.
    pub balance_cents: Cents,
}

/// A change of a balance that is no charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntryRecord {
    /// `keytoll_entries.id`.
    pub id: EntryId,
    /// The owner of the wallet.
    pub user_id: UserId,
    /// What kind of change.
    pub kind: EntryKind,
    /// Positive for a credit and a debit; for an opening and an external change, what the balance changed by.
    pub amount_cents: Cents,
    /// Why.
    pub note: Option<String>,
    /// Who; `None` where Keytoll found a balance or a change.
    pub actor: Option<String>,
    /// When it was entered.
    pub created_at: Timestamp,
}

/// Which way the money goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A credit: into the wallet; one that is missing is made, with exactly that amount.
    In,
    /// A debit: out of the wallet, never more than there is.
    Out,
}

/// A credit or debit that is wanted.
#[derive(Clone, Debug)]
pub struct Booking {
    /// Credit or debit.
    pub direction: Direction,
    /// How much; positive.
    pub amount: Cents,
    /// Why.
    pub note: Option<String>,
    /// Who wants it.
    pub actor: Option<String>,
    /// The same key for the same user is the same booking, as long as the entry is there.
    pub key: Option<IdempotencyKey>,
}

/// A credit or debit that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booked {
    /// Its entry.
    pub entry: EntryRecord,
    /// What the wallet holds now.
    pub balance: Cents,
    /// Whether it was made now, and not by an earlier booking with the same key.
    pub is_new: bool,
}

/// Why a credit or debit was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalletRefused {
    /// No user with this id.
    NoUser,
    /// The amount is zero or negative.
    NotPositive,
    /// The wallet holds NULL, a text or a real: another program has to put that right.
    NotMoney,
    /// A debit of more than there is.
    Overdrawn {
        /// What the wallet holds.
        balance: Cents,
    },
    /// The balance would not fit 64 bits.
    Overflow,
    /// An earlier booking with the same key had another kind, amount or note.
    KeyReused {
        /// Whether the kind differs.
        kind: bool,
        /// Whether the amount does.
        amount: bool,
        /// Whether the note does.
        note: bool,
    },
}

impl Store {
    /// The user's wallet. `None`: no such user.
    ///
    /// # Errors
    /// The file cannot be read now.
    pub async fn wallet(&self, user_id: UserId) -> Result<Option<WalletRecord>, Unavailable> {
        self.read(move |connection| {
            let mut select = connection.prepare_cached(
                "SELECT w.balance FROM users u LEFT JOIN wallets w ON w.user_id = u.id WHERE u.id = ?1",
            )?;
            let balance = select.query_row([user_id.0], |row| Ok(money(row.get_ref(0)?))).optional()?;
            Ok(balance.map(|balance| WalletRecord { user_id, balance_cents: balance.cents() }))
        })
        .await
    }

    /// Credits or debits a wallet. A key that the same user's wallet was booked with before gives the entry that was made
    /// then, and books nothing.
    ///
    /// # Errors
    /// A [`WalletRefused`], or the file cannot be written now.
    pub async fn book(&self, user_id: UserId, booking: Booking) -> Result<Booked, WriteError<WalletRefused>> {
        self.write(move |tx| book(tx, user_id, booking)).await
    }

    /// Entries of the user's account, oldest first. An earlier user with the same id had another account, and is not
    /// shown. `None`: no such user.
    ///
    /// # Errors
    /// The file cannot be read now.
    pub async fn entries(&self, user_id: UserId, wish: PageRequest) -> Result<Option<Page<EntryRecord>>, Unavailable> {
        self.read(move |connection| {
            if !users::exists(connection, user_id)? {
                return Ok(None);
            }
            let Some((account, _)) = accounts::open_account(connection, user_id)? else {
                return Ok(Some(Page { data: Vec::new(), next_cursor: None }));
            };
            let mut select = connection.prepare_cached(
                "SELECT id, kind, amount_cents, note, created_at, actor FROM keytoll_entries
                 WHERE account_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
            )?;
            let rows = select.query_map([account.0, wish.after(), wish.rows()], |row| record(row, user_id))?;
            Ok(Some(Page::of(rows.collect::<rusqlite::Result<_>>()?, wish, |entry| entry.id.0)))
        })
        .await
    }

    /// One entry of the user's account.
    ///
    /// # Errors
    /// The file cannot be read now.
    pub async fn entry(&self, user_id: UserId, id: EntryId) -> Result<Option<EntryRecord>, Unavailable> {
        self.read(move |connection| {
            let Some((account, _)) = accounts::open_account(connection, user_id)? else { return Ok(None) };
            let mut select = connection.prepare_cached(
                "SELECT id, kind, amount_cents, note, created_at, actor FROM keytoll_entries
                 WHERE account_id = ?1 AND id = ?2",
            )?;
            select.query_row([account.0, id.0], |row| record(row, user_id)).optional()
        })
        .await
    }
}

fn book(tx: &mut WriteTx<'_>, user_id: UserId, booking: Booking) -> Result<Booked, WriteFault<WalletRefused>> {
    let Booking { direction, amount, .. } = booking;
    let refuse = |refused| Err(WriteFault::Refused(refused));
    let (connection, now_unix_ms) = (tx.connection(), tx.now_unix_ms());
    if amount <= Cents::ZERO {
        return refuse(WalletRefused::NotPositive);
    }
    if !users::exists(connection, user_id)? {
        return refuse(WalletRefused::NoUser);
    }
    let found = connection
        .prepare_cached("SELECT balance FROM wallets WHERE user_id = ?1")?
        .query_row([user_id.0], |row| Ok(money(row.get_ref(0)?)))
        .optional()?;
    if let Some(booked) = booked_before(connection, user_id, &booking, found)? {
        return booked.map_err(WriteFault::Refused);
    }
    let before = match found {
        Some(Balance::Money(balance)) => balance,
        Some(Balance::NotAnInteger) => return refuse(WalletRefused::NotMoney),
        None => Cents::ZERO,
    };
    let (kind, change, after) = match direction {
        Direction::In => (EntryKind::Credit, amount, before.checked_add(amount)),
        Direction::Out => (EntryKind::Debit, Cents(-amount.0), before.checked_sub(amount)),
    };
    let balance = match (after, direction) {
        (Ok(rest), Direction::Out) if rest < Cents::ZERO => {
            return refuse(WalletRefused::Overdrawn { balance: before });
        }
        (Ok(balance), Direction::In | Direction::Out) => balance,
        (Err(_), Direction::In) => return refuse(WalletRefused::Overflow),
        (Err(_), Direction::Out) => return refuse(WalletRefused::Overdrawn { balance: before }),
    };
    let account = account(connection, user_id, before, found.is_some(), now_unix_ms)?;
    let write = if found.is_some() {
        "UPDATE wallets SET balance = ?2 WHERE user_id = ?1"
    } else {
        "INSERT INTO wallets (user_id, balance) VALUES (?1, ?2)"
    };
    connection.prepare_cached(write)?.execute(params![user_id.0, balance.0])?;
    let Booking { note, actor, key, .. } = booking;
    let entry = NewEntry {
        kind,
        amount: change,
        note: note.as_deref(),
        actor: actor.as_deref(),
        key: key.as_ref(),
        charge: None,
    };
    let id = accounts::write_entry(connection, account, &entry, now_unix_ms)?;
    tx.wallet_changed(user_id);
    let created_at = Timestamp::from_unix_ms(now_unix_ms);
    let entry = EntryRecord { id, user_id, kind, amount_cents: amount, note, actor, created_at };
    Ok(Booked { entry, balance, is_new: true })
}

/// What an earlier booking with the same key made. `None`: there was none.
fn booked_before(
    connection: &Connection,
    user_id: UserId,
    booking: &Booking,
    wallet: Option<Balance>,
) -> rusqlite::Result<Option<Result<Booked, WalletRefused>>> {
    let Some(key) = &booking.key else { return Ok(None) };
    let Some((account, _)) = accounts::open_account(connection, user_id)? else { return Ok(None) };
    let mut select = connection.prepare_cached(
        "SELECT id, kind, amount_cents, note, created_at, actor FROM keytoll_entries
         WHERE account_id = ?1 AND key_digest = ?2",
    )?;
    let found = select.query_row(params![account.0, key.digest()], |row| record(row, user_id)).optional()?;
    let Some(entry) = found else { return Ok(None) };
    let kind = match booking.direction {
        Direction::In => EntryKind::Credit,
        Direction::Out => EntryKind::Debit,
    };
    let differs = (entry.kind != kind, entry.amount_cents != booking.amount, entry.note != booking.note);
    Ok(Some(match differs {
        (false, false, false) => {
            Ok(Booked { entry, balance: wallet.map_or(Cents::ZERO, Balance::cents), is_new: false })
        }
        (kind, amount, note) => Err(WalletRefused::KeyReused { kind, amount, note }),
    }))
}

/// The user's account; one that is missing is opened with what is in the wallet already.
fn account(
    connection: &Connection,
    user_id: UserId,
    before: Cents,
    has_wallet: bool,
    now_unix_ms: i64,
) -> rusqlite::Result<AccountId> {
    match accounts::open_account(connection, user_id)? {
        Some((account, _)) => Ok(account),
        None if has_wallet => accounts::adopt(connection, user_id, before, now_unix_ms),
        None => accounts::open(connection, user_id, now_unix_ms),
    }
}

fn record(row: &Row<'_>, user_id: UserId) -> rusqlite::Result<EntryRecord> {
    let kind = EntryKind::from_name(&row.get::<_, String>(1)?).ok_or(rusqlite::Error::InvalidQuery)?;
    let change: i64 = row.get(2)?;
    Ok(EntryRecord {
        id: EntryId(row.get(0)?),
        user_id,
        kind,
        amount_cents: Cents(match kind {
            EntryKind::Debit => change.saturating_neg(),
            EntryKind::Credit | EntryKind::Opening | EntryKind::External | EntryKind::Refund => change,
        }),
        note: row.get(3)?,
        actor: row.get(5)?,
        created_at: Timestamp::from_unix_ms(row.get(4)?),
    })
}

#[cfg(test)]
mod tests;
