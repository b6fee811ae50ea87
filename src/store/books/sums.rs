//! What the final charges and entries of every account come to.
//!
//! Charges below the mark of every living gateway are settled and never change again, and no entry ever changes. So
//! they are added up once, in the order of their ids, and a mark says how far; what came later is little, and is read
//! as it is. Sums wrap around at 64 bits: the books of an account are what is, or was, in a wallet, so that they come
//! out right whatever the sums went through.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::failpoint;
use crate::model::ChargeState;

/// Rows that are added up in one portion; few in tests, so that they cross from portion to portion.
const PORTION: i64 = if cfg!(test) { 3 } else { 50_000 };

/// How far the sums go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Marks {
    /// Charges with a lower id are in the sums, or have become usage.
    pub(in crate::store) charges_below: i64,
    /// Entries with this id or a lower one are in the sums.
    pub(in crate::store) entries_through: i64,
}

/// What rows come to for one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Sum {
    pub(in crate::store) entered: i64,
    pub(in crate::store) charged: i64,
}

impl Sum {
    /// What is left: what the wallet should hold.
    pub(in crate::store) fn books(self) -> i64 {
        self.entered.wrapping_sub(self.charged)
    }

    fn plus(self, other: Sum) -> Sum {
        Sum { entered: self.entered.wrapping_add(other.entered), charged: self.charged.wrapping_add(other.charged) }
    }
}

/// Sums by account.
pub(in crate::store) type Sums = HashMap<i64, Sum>;

/// Rows that became final, added up.
#[derive(Debug)]
pub(super) struct Portion {
    from: Marks,
    to: Marks,
    sums: Sums,
    /// Whether nothing more is final now.
    pub(super) is_last: bool,
}

/// How far the sums go, in the caller's snapshot.
pub(in crate::store) fn marks(connection: &Connection) -> rusqlite::Result<Marks> {
    let mut select = connection.prepare_cached("SELECT value FROM keytoll_meta WHERE name = ?1")?;
    Ok(Marks {
        charges_below: select.query_row(["summed_charges_below"], |row| row.get(0))?,
        entries_through: select.query_row(["summed_entries_through"], |row| row.get(0))?,
    })
}

/// The id below which every charge is settled, and none will come.
pub(in crate::store) fn final_below(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "SELECT min(value, coalesce((SELECT min(low_water) FROM keytoll_instances WHERE ended_at IS NULL), value))
             FROM keytoll_meta WHERE name = 'next_charge_id'",
        )?
        .query_row([], |row| row.get(0))
}

/// Adds up a portion of what has become final; one short read. `None`: nothing has.
pub(super) fn gather(connection: &Connection) -> rusqlite::Result<Option<Portion>> {
    let snapshot = connection.unchecked_transaction()?;
    let from = marks(&snapshot)?;
    let mut sums = Sums::new();
    let mut to = Marks { charges_below: final_below(&snapshot)?.max(from.charges_below), ..from };
    let mut last = from.charges_below;
    let charges = each_charge(&snapshot, from.charges_below, to.charges_below, PORTION, |id, account, cents| {
        last = id;
        let sum: &mut Sum = sums.entry(account).or_default();
        sum.charged = sum.charged.wrapping_add(cents);
    })?;
    if charges == PORTION {
        to.charges_below = last + 1;
    }
    let entries = each_entry(&snapshot, from.entries_through, PORTION, |id, account, cents| {
        to.entries_through = id;
        let sum: &mut Sum = sums.entry(account).or_default();
        sum.entered = sum.entered.wrapping_add(cents);
    })?;
    let is_last = charges < PORTION && entries < PORTION;
    Ok((to != from).then_some(Portion { from, to, sums, is_last }))
}

/// Writes a portion, unless another gateway has been faster.
pub(super) fn apply(connection: &Connection, portion: &Portion) -> rusqlite::Result<()> {
    if marks(connection)? != portion.from {
        return Ok(());
    }
    add(connection, &portion.sums)?;
    set_marks(connection, portion.to)?;
    failpoint::reach("sums-applied");
    Ok(())
}

fn add(connection: &Connection, sums: &Sums) -> rusqlite::Result<()> {
    let mut select =
        connection.prepare_cached("SELECT entered_cents, charged_cents FROM keytoll_sums WHERE account_id = ?1")?;
    let mut write = connection.prepare_cached(
        "INSERT OR REPLACE INTO keytoll_sums (account_id, entered_cents, charged_cents) VALUES (?1, ?2, ?3)",
    )?;
    for (account, more) in sums {
        let before = select.query_row([account], |row| Ok(Sum { entered: row.get(0)?, charged: row.get(1)? }));
        let sum = before.optional()?.unwrap_or_default().plus(*more);
        write.execute([*account, sum.entered, sum.charged])?;
    }
    Ok(())
}

/// Throws the sums away and adds everything up anew: reads every charge, every entry and all usage.
pub(in crate::store) fn rebuild(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM keytoll_sums", [])?;
    let mut to = Marks { charges_below: final_below(connection)?, entries_through: 0 };
    let mut sums = Sums::new();
    each_charge(connection, i64::MIN, to.charges_below, i64::MAX, |_, account, cents| {
        let sum: &mut Sum = sums.entry(account).or_default();
        sum.charged = sum.charged.wrapping_add(cents);
    })?;
    each_entry(connection, i64::MIN, i64::MAX, |id, account, cents| {
        to.entries_through = id;
        let sum: &mut Sum = sums.entry(account).or_default();
        sum.entered = sum.entered.wrapping_add(cents);
    })?;
    let mut usage = connection.prepare("SELECT account_id, captured_cents FROM keytoll_usage")?;
    let mut rows = usage.query([])?;
    while let Some(row) = rows.next()? {
        let sum = sums.entry(row.get(0)?).or_default();
        sum.charged = sum.charged.wrapping_add(row.get(1)?);
    }
    add(connection, &sums)?;
    set_marks(connection, to)
}

/// What came after the marks, by account; in the caller's snapshot.
pub(in crate::store) fn recent(connection: &Connection, marks: Marks) -> rusqlite::Result<Sums> {
    let mut sums = Sums::new();
    each_charge(connection, marks.charges_below, i64::MAX, i64::MAX, |_, account, cents| {
        let sum: &mut Sum = sums.entry(account).or_default();
        sum.charged = sum.charged.wrapping_add(cents);
    })?;
    each_entry(connection, marks.entries_through, i64::MAX, |_, account, cents| {
        let sum: &mut Sum = sums.entry(account).or_default();
        sum.entered = sum.entered.wrapping_add(cents);
    })?;
    Ok(sums)
}

/// Charges from one id up to, and without, another, at most so many; `visit` hears what each takes out of the wallet.
/// How many there were.
fn each_charge(
    connection: &Connection,
    from: i64,
    to: i64,
    most: i64,
    mut visit: impl FnMut(i64, i64, i64),
) -> rusqlite::Result<i64> {
    let mut select = connection.prepare_cached(
        "SELECT id, account_id, cents, state FROM keytoll_charges WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3",
    )?;
    let mut rows = select.query([from, to, most])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let is_taken = integer(row, 3)? != ChargeState::Released.code();
        visit(row.get(0)?, integer(row, 1)?, if is_taken { integer(row, 2)? } else { 0 });
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
    update.execute(params!["summed_charges_below", marks.charges_below])?;
    update.execute(params!["summed_entries_through", marks.entries_through])?;
    Ok(())
}
