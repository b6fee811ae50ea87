//! Charges and entries, row by row: is each well formed, and what do they come to for each account.
//!
//! Charges and entries never change. Those that are there at the beginning are added up in many short reads; only the few
//! rows that came later, and the leases, are read together with the wallets. On the way they are compared with the sums that
//! the gateway keeps of them.

use std::collections::{BTreeSet, HashMap};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use crate::model::{ChargeState, EntryKind};
use crate::store::books::leases;
use crate::store::books::sums::{self, Marks, Sum};
use crate::store::doctor::{Check, Finding, PAGE, REPAIR, Report, usage};

const DEFECT: &str =
    "another program wrote it, or the file was damaged: compare it with a backup, and correct it with sqlite3";

/// What a row does to the balance of an account, by the account's id. Wider than 64 bits: sums of tampered rows must not overflow.
pub(super) type Sums = HashMap<i64, i128>;

/// What was there at the beginning.
pub(super) struct Frozen {
    /// The last charge that is added up here.
    last_charge: i64,
    last_entry: i64,
    pub(super) sums: Sums,
    pub(super) charges: u64,
    /// Charges whose rows have become usage.
    pub(super) rolled_up: u64,
    /// How far the gateway has added up, and what it came to.
    marks: Marks,
    kept: HashMap<i64, Sum>,
    /// The same, as it is found here.
    found: HashMap<i64, Sum>,
}

impl Frozen {
    /// Where the line is now; one snapshot.
    pub(super) fn new(connection: &Connection) -> rusqlite::Result<Frozen> {
        let snapshot = connection.unchecked_transaction()?;
        let last_charge =
            snapshot.query_row("SELECT coalesce(max(position), 0) FROM keytoll_charges", [], |row| row.get(0))?;
        let last_entry =
            snapshot.query_row("SELECT coalesce(max(id), 0) FROM keytoll_entries", [], |row| row.get(0))?;
        let marks = sums::marks(&snapshot)?;
        let kept = {
            let mut select = snapshot.prepare("SELECT account_id, entered_cents, charged_cents FROM keytoll_sums")?;
            let rows = select.query_map([], |row| {
                Ok((row.get(0)?, Sum { entered_cents: row.get(1)?, charged_cents: row.get(2)? }))
            })?;
            rows.collect::<rusqlite::Result<HashMap<i64, Sum>>>()?
        };
        let (sums, found) = (Sums::new(), HashMap::new());
        Ok(Frozen { last_charge, last_entry, sums, charges: 0, rolled_up: 0, marks, kept, found })
    }

    /// Whether the sums that the gateway keeps are those of the rows.
    fn compare_sums(&self, report: &mut Report) {
        let accounts: BTreeSet<&i64> = self.kept.keys().chain(self.found.keys()).collect();
        for account in accounts {
            let of = |sums: &HashMap<i64, Sum>| sums.get(account).copied().unwrap_or_default();
            let (kept, found) = (of(&self.kept), of(&self.found));
            if kept != found {
                let message = format!("the sums that are kept of account {account} are not those of its rows");
                let difference = i128::from(kept.books()) - i128::from(found.books());
                report.add(Finding::wrong(Check::Sums, message, REPAIR).cents(difference));
                report.amends.sums.push((*account, found.minus(kept)));
            }
        }
    }
}

/// Reads what was there at the beginning, in short reads.
pub(super) fn frozen(connection: &Connection, frozen: &mut Frozen, report: &mut Report) -> rusqlite::Result<()> {
    let (sums, charges, found) = (&mut frozen.sums, &mut frozen.charges, &mut frozen.found);
    usage::each(connection, report, |used| {
        frozen.rolled_up += used.charges;
        *sums.entry(used.account).or_default() -= i128::from(used.captured_cents);
        found.entry(used.account).or_default().charge(used.captured_cents);
    })?;
    each_charge(connection, i64::MIN, frozen.last_charge, |charge| {
        *charges += 1;
        *sums.entry(charge.account).or_default() += charge.effect();
        if charge.position <= frozen.marks.charges_through {
            found.entry(charge.account).or_default().charge(charge.taken());
        }
        charge.judge(report);
    })?;
    each_entry(connection, i64::MIN, frozen.last_entry, |entry| {
        let cents = entry.cents.unwrap_or(0);
        *sums.entry(entry.account).or_default() += i128::from(cents);
        if entry.id <= frozen.marks.entries_through {
            found.entry(entry.account).or_default().enter(cents);
        }
        entry.judge(report);
    })?;
    frozen.compare_sums(report);
    Ok(())
}

/// Judges the rows that came later; how many charges there are among them.
pub(super) fn recent(connection: &Connection, frozen: &Frozen, report: &mut Report) -> rusqlite::Result<u64> {
    let mut charges = 0;
    each_charge(connection, frozen.last_charge.saturating_add(1), i64::MAX, |charge| {
        charges += 1;
        charge.judge(report);
    })?;
    each_entry(connection, frozen.last_entry.saturating_add(1), i64::MAX, |entry| entry.judge(report))?;
    Ok(charges)
}

/// The sums of what came later and of what is leased; in the caller's transaction.
pub(super) fn recent_sums(connection: &Connection, frozen: &Frozen) -> rusqlite::Result<Sums> {
    let mut sums = Sums::new();
    for (account, cents) in leases::by_account(connection)? {
        *sums.entry(account).or_default() -= i128::from(cents);
    }
    each_charge(connection, frozen.last_charge.saturating_add(1), i64::MAX, |charge| {
        *sums.entry(charge.account).or_default() += charge.effect();
    })?;
    each_entry(connection, frozen.last_entry.saturating_add(1), i64::MAX, |entry| {
        *sums.entry(entry.account).or_default() += i128::from(entry.cents.unwrap_or(0));
    })?;
    Ok(sums)
}

struct Charge {
    position: i64,
    id: i64,
    account: i64,
    cents: Option<i64>,
    state: Option<ChargeState>,
    is_settled: bool,
}

impl Charge {
    fn of(row: &Row<'_>) -> rusqlite::Result<Charge> {
        Ok(Charge {
            position: row.get(0)?,
            id: integer(row.get_ref(1)?).unwrap_or(0),
            account: integer(row.get_ref(2)?).unwrap_or(0),
            cents: integer(row.get_ref(3)?),
            state: integer(row.get_ref(4)?).and_then(ChargeState::from_code),
            is_settled: integer(row.get_ref(5)?).is_some(),
        })
    }

    /// What it did to the balance.
    fn effect(&self) -> i128 {
        -i128::from(self.taken())
    }

    /// What it took out of the wallet.
    fn taken(&self) -> i64 {
        if self.state == Some(ChargeState::Captured) { self.cents.unwrap_or(0) } else { 0 }
    }

    fn judge(&self, report: &mut Report) {
        let id = self.id;
        let mut wrong = |message: String| {
            report.add(Finding::wrong(Check::Rows, message, DEFECT).cents(self.cents.unwrap_or(0).into()));
        };
        if self.cents.is_none_or(|cents| cents <= 0) {
            wrong(format!("charge {id} is not over a positive number of cents"));
        }
        if self.state.is_none() {
            wrong(format!("charge {id} is in a state that is not known"));
        }
        if !self.is_settled {
            wrong(format!("charge {id} has no time of settlement"));
        }
    }
}

struct Entry {
    id: i64,
    account: i64,
    cents: Option<i64>,
    is_known: bool,
}

impl Entry {
    fn of(row: &Row<'_>) -> rusqlite::Result<Entry> {
        let kind = row.get_ref(3)?.as_str().ok().and_then(EntryKind::from_name);
        let account = integer(row.get_ref(1)?).unwrap_or(0);
        Ok(Entry { id: row.get(0)?, account, cents: integer(row.get_ref(2)?), is_known: kind.is_some() })
    }

    fn judge(&self, report: &mut Report) {
        if self.cents.is_none() || !self.is_known {
            let message = format!("entry {} has no whole number of cents, or a kind that is not known", self.id);
            report.add(Finding::wrong(Check::Rows, message, DEFECT));
        }
    }
}

/// Charges from one position to another, both included; each page is a read of its own, unless the caller has begun a
/// transaction.
fn each_charge(connection: &Connection, from: i64, to: i64, mut visit: impl FnMut(&Charge)) -> rusqlite::Result<()> {
    let sql = "SELECT position, id, account_id, cents, state, settled_at FROM keytoll_charges
               WHERE position >= ?1 AND position <= ?2 ORDER BY position LIMIT ?3";
    pages(connection, sql, from, to, |row| {
        let charge = Charge::of(row)?;
        visit(&charge);
        Ok(charge.position)
    })
}

/// Entries from one id to another, both included; pages as with charges.
fn each_entry(connection: &Connection, from: i64, to: i64, mut visit: impl FnMut(&Entry)) -> rusqlite::Result<()> {
    let sql = "SELECT id, account_id, amount_cents, kind FROM keytoll_entries WHERE id >= ?1 AND id <= ?2 ORDER BY id LIMIT ?3";
    pages(connection, sql, from, to, |row| {
        let entry = Entry::of(row)?;
        visit(&entry);
        Ok(entry.id)
    })
}

/// Runs a statement until its rows end, each time from the id after the last one that `visit` returned.
fn pages(
    connection: &Connection,
    sql: &str,
    mut from: i64,
    to: i64,
    mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<i64>,
) -> rusqlite::Result<()> {
    let mut select = connection.prepare_cached(sql)?;
    loop {
        let mut rows = select.query([from, to, PAGE])?;
        let (mut read, mut last) = (0, from);
        while let Some(row) = rows.next()? {
            last = visit(row)?;
            read += 1;
        }
        if read < PAGE || last == i64::MAX {
            return Ok(());
        }
        from = last + 1;
    }
}

fn integer(value: ValueRef<'_>) -> Option<i64> {
    value.as_i64().ok()
}
