//! What the charges and entries of every account come to.
//!
//! Charges and entries are final, so they are added up once, in the order of their positions and ids, and two marks say how
//! far. What came later is little, and is read as it is, together with the leases. Sums wrap around at 64 bits: the books of
//! an account are what is, or was, in a wallet, so the result is right whatever the sums went through.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::failpoint;
use crate::model::ChargeState;
use crate::store::books::leases;

/// Rows that are added up in one portion; few in tests, so that they cross from portion to portion.
const PORTION: i64 = if cfg!(test) { 3 } else { 50_000 };

/// How far the sums go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Marks {
    /// Charges up to this position are in the sums, or have become usage.
    pub(in crate::store) charges_through: i64,
    /// Entries with this id or a lower one are in the sums.
    pub(in crate::store) entries_through: i64,
}

/// What rows come to for one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Sum {
    pub(in crate::store) entered_cents: i64,
    pub(in crate::store) charged_cents: i64,
}

impl Sum {
    /// What is left: what the wallet should hold.
    pub(in crate::store) fn books(self) -> i64 {
        self.entered_cents.wrapping_sub(self.charged_cents)
    }

    /// Adds what a charge took out of the wallet.
    pub(in crate::store) fn charge(&mut self, cents: i64) {
        self.charged_cents = self.charged_cents.wrapping_add(cents);
    }

    /// Adds what an entry changed the balance by.
    pub(in crate::store) fn enter(&mut self, cents: i64) {
        self.entered_cents = self.entered_cents.wrapping_add(cents);
    }

    /// What it has more than another.
    pub(in crate::store) fn minus(mut self, other: Sum) -> Sum {
        self.enter(other.entered_cents.wrapping_neg());
        self.charge(other.charged_cents.wrapping_neg());
        self
    }

    fn plus(mut self, other: Sum) -> Sum {
        self.enter(other.entered_cents);
        self.charge(other.charged_cents);
        self
    }
}

/// Sums by account.
pub(in crate::store) type Sums = HashMap<i64, Sum>;

/// Rows that became final, added up.
#[derive(Debug)]
pub(in crate::store) struct Portion {
    from: Marks,
    to: Marks,
    sums: Sums,
    /// Whether nothing more is final now.
    pub(in crate::store) is_last: bool,
}

/// How far the sums go, in the caller's snapshot.
pub(in crate::store) fn marks(connection: &Connection) -> rusqlite::Result<Marks> {
    let mut select = connection.prepare_cached("SELECT value FROM keytoll_meta WHERE name = ?1")?;
    Ok(Marks {
        charges_through: select.query_row(["summed_charges_through"], |row| row.get(0))?,
        entries_through: select.query_row(["summed_entries_through"], |row| row.get(0))?,
    })
}

/// Adds up a portion of what has become final; one short read. `None`: nothing has.
pub(in crate::store) fn gather(connection: &Connection) -> rusqlite::Result<Option<Portion>> {
    let snapshot = connection.unchecked_transaction()?;
    let from = marks(&snapshot)?;
    let mut sums = Sums::new();
    let mut to = from;
    let charges = each_charge(&snapshot, from.charges_through, PORTION, |position, account, cents| {
        to.charges_through = position;
        sums.entry(account).or_default().charge(cents);
    })?;
    let entries = each_entry(&snapshot, from.entries_through, PORTION, |id, account, cents| {
        to.entries_through = id;
        sums.entry(account).or_default().enter(cents);
    })?;
    let is_last = charges < PORTION && entries < PORTION;
    Ok((to != from).then_some(Portion { from, to, sums, is_last }))
}

/// Writes a portion, unless another gateway has been faster.
pub(in crate::store) fn apply(connection: &Connection, portion: &Portion) -> rusqlite::Result<()> {
    if marks(connection)? != portion.from {
        return Ok(());
    }
    add(connection, portion.sums.iter().map(|(account, more)| (*account, *more)))?;
    set_marks(connection, portion.to)?;
    failpoint::reach("sums-applied");
    Ok(())
}

fn add(connection: &Connection, sums: impl IntoIterator<Item = (i64, Sum)>) -> rusqlite::Result<()> {
    let mut select =
        connection.prepare_cached("SELECT entered_cents, charged_cents FROM keytoll_sums WHERE account_id = ?1")?;
    let mut write = connection.prepare_cached(
        "INSERT OR REPLACE INTO keytoll_sums (account_id, entered_cents, charged_cents) VALUES (?1, ?2, ?3)",
    )?;
    for (account, more) in sums {
        let before =
            select.query_row([account], |row| Ok(Sum { entered_cents: row.get(0)?, charged_cents: row.get(1)? }));
        let sum = before.optional()?.unwrap_or_default().plus(more);
        write.execute([account, sum.entered_cents, sum.charged_cents])?;
    }
    Ok(())
}

/// Puts sums right by what they lack; that stays so whatever portions are added meanwhile.
pub(in crate::store) fn amend(connection: &Connection, lacks: &[(i64, Sum)]) -> rusqlite::Result<()> {
    add(connection, lacks.iter().copied())
}

/// What came after the marks, and what is leased, by account; in the caller's snapshot.
pub(in crate::store) fn recent(connection: &Connection, marks: Marks) -> rusqlite::Result<Sums> {
    let mut sums = Sums::new();
    for (account, cents) in leases::by_account(connection)? {
        sums.entry(account).or_default().charge(cents);
    }
    each_charge(connection, marks.charges_through, i64::MAX, |_, account, cents| {
        sums.entry(account).or_default().charge(cents);
    })?;
    each_entry(connection, marks.entries_through, i64::MAX, |_, account, cents| {
        sums.entry(account).or_default().enter(cents);
    })?;
    Ok(sums)
}

/// Charges after a position, at most so many; `visit` gets the position, the account and what it took out of the wallet.
/// How many there were.
fn each_charge(
    connection: &Connection,
    after: i64,
    most: i64,
    mut visit: impl FnMut(i64, i64, i64),
) -> rusqlite::Result<i64> {
    let mut select = connection.prepare_cached(
        "SELECT position, account_id, cents, state FROM keytoll_charges WHERE position > ?1 ORDER BY position LIMIT ?2",
    )?;
    let mut rows = select.query([after, most])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        // An unknown state counts as nothing; the doctor finds it.
        let is_captured = row.get_ref(3)?.as_i64() == Ok(ChargeState::Captured.code());
        visit(row.get(0)?, integer(row, 1)?, if is_captured { integer(row, 2)? } else { 0 });
        count += 1;
    }
    Ok(count)
}

/// Entries after an id, at most so many. How many there were.
fn each_entry(
    connection: &Connection,
    after: i64,
    most: i64,
    mut visit: impl FnMut(i64, i64, i64),
) -> rusqlite::Result<i64> {
    let mut select = connection.prepare_cached(
        "SELECT id, account_id, amount_cents FROM keytoll_entries WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = select.query([after, most])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        visit(row.get(0)?, integer(row, 1)?, integer(row, 2)?);
        count += 1;
    }
    Ok(count)
}

/// A number; what another program put in its place counts as nothing, and is the doctor's to find.
fn integer(row: &Row<'_>, column: usize) -> rusqlite::Result<i64> {
    Ok(row.get_ref(column)?.as_i64().unwrap_or(0))
}

fn set_marks(connection: &Connection, marks: Marks) -> rusqlite::Result<()> {
    let mut update = connection.prepare_cached("UPDATE keytoll_meta SET value = ?2 WHERE name = ?1")?;
    update.execute(params!["summed_charges_through", marks.charges_through])?;
    update.execute(params!["summed_entries_through", marks.entries_through])?;
    Ok(())
}
