//! The examination of a database file: do the books balance, is the file whole, is anything stuck.
//!
//! [`examine`] reads only, over a connection of its own, whether or not a gateway runs: every check is a short read, so that the
//! write-ahead log can start over in between. What is compared with each other is read in one snapshot. [`repair()`] writes what
//! puts right what can be. For the command line alone.

mod books;
mod file;
mod leases;
mod repair;
mod rows;
mod usage;
mod wallets;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;

use rusqlite::Connection;

use crate::config::DatabaseConfig;
use crate::model::{Cents, UserId};
use crate::store::books::sums::Sum;
use crate::store::error::OpenError;
use crate::store::file::lock_file::RollUpLock;
use crate::store::file::open;

pub use crate::store::doctor::repair::{Repaired, repair};

/// The remedy of what [`repair()`] puts right.
const REPAIR: &str = "run `keytoll doctor --repair`";
/// Rows of one read; few in tests, so that they cross from page to page.
const PAGE: i64 = if cfg!(test) { 3 } else { 50_000 };
/// Findings of one check that are listed; the rest is counted.
const LISTED: u64 = 100;

/// What an examination looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The journal mode.
    Journal,
    /// The tables and their version.
    Tables,
    /// The SQLite that wrote the file last.
    Sqlite,
    /// SQLite's own check of the file.
    Integrity,
    /// References from table to table.
    ForeignKeys,
    /// The triggers on `wallets`, Keytoll's and others.
    Triggers,
    /// Rows of charges and entries, each by itself.
    Rows,
    /// The sums that the gateway keeps of them.
    Sums,
    /// Money that gateways have taken out of wallets to hold prices from.
    Leases,
    /// Each wallet against its entries and charges.
    Books,
    /// Changes by other programs that are not on the books yet.
    Pending,
    /// Wallets by themselves: no money in them, no user, a negative balance.
    Wallets,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not hold.
    Wrong,
    /// Worth knowing; nothing is wrong.
    Note,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How bad it is.
    pub severity: Severity,
    /// Whom it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// How much it is about; of a difference, what the wallet has more than the books.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cents: Option<Cents>,
    /// What is so.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    fn new(check: Check, severity: Severity, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { check, severity, user_id: None, cents: None, message: message.into(), remedy: remedy.into() }
    }

    fn wrong(check: Check, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::new(check, Severity::Wrong, message, remedy)
    }

    fn note(check: Check, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::new(check, Severity::Note, message, remedy)
    }

    fn of(mut self, user_id: UserId) -> Finding {
        self.user_id = Some(user_id);
        self
    }

    /// Amounts beyond 64 bits stay in the message only.
    fn cents(mut self, cents: i128) -> Finding {
        self.cents = i64::try_from(cents).ok().map(Cents);
        self
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Users with an account or a wallet.
    pub users: u64,
    /// Those whose wallet is not what the books say.
    pub unbalanced: u64,
    /// Settled charges.
    pub charges: u64,
    /// Old charges, whose rows have become usage.
    pub rolled_up: u64,
    /// Accounts of which gateways lease money now.
    pub leased: u64,
    /// How much.
    pub leased_cents: Cents,
    /// Gateways that run on the file.
    pub gateways: u64,
}

/// The outcome of an examination.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// What was found, at most some hundred of a kind.
    pub findings: Vec<Finding>,
    /// What was found beyond that.
    pub unlisted: u64,
    /// What was counted; `None` when the file is in no state to be counted.
    pub summary: Option<Summary>,
    #[serde(skip)]
    counts: BTreeMap<Check, u64>,
    #[serde(skip)]
    wrong: u64,
    #[serde(skip)]
    amends: Amends,
}

/// What a repair has to do and could only find by reading everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Amends {
    /// By account, what the sums that are kept lack.
    sums: Vec<(i64, Sum)>,
}

impl Report {
    /// Whether everything holds; notes do not count.
    pub fn holds(&self) -> bool {
        self.wrong == 0
    }

    fn add(&mut self, finding: Finding) {
        if finding.severity == Severity::Wrong {
            self.wrong += 1;
        }
        let count = self.counts.entry(finding.check).or_default();
        *count += 1;
        if *count <= LISTED {
            self.findings.push(finding);
        } else {
            self.unlisted += 1;
        }
    }
}

/// Examines a database. Changes nothing in it.
///
/// # Errors
/// The file is missing, no SQLite database, newer than this program, or cannot be read.
pub fn examine(database: &DatabaseConfig) -> Result<Report, OpenError> {
    let file = open::prepare_file(&database.path, None)?;
    let path = &file.path;
    let mut report = Report::default();
    // Before the file is opened: closing the descriptor later would drop SQLite's locks.
    file::written_by(path, &mut report).map_err(|found| OpenError::Io(path.clone(), found))?;
    let connection = open::observer(&file)?;
    let error = |error| open::open_error(path, error);
    if !file::tables(&connection, file.journal, &mut report).map_err(|wrong| wrong.at(path))? {
        return Ok(report);
    }
    let gateways = leases::Gateways::find(&connection, path).map_err(error)?;
    if !file::integrity(&connection, gateways.running() > 0, &mut report).map_err(error)? {
        return Ok(report);
    }
    // Nothing moves charges where no gateway runs, and the lock's file is not made for the sake of an examination.
    let stay = if gateways.running() > 0 { RollUpLock::stay(path) } else { Ok(None) };
    let stay = stay.map_err(|found| OpenError::Io(path.clone(), found))?;
    let summary = examine_money(&connection, &gateways, stay, &mut report).map_err(error)?;
    report.summary = Some(summary);
    Ok(report)
}

fn examine_money(
    connection: &Connection,
    gateways: &leases::Gateways,
    stay: Option<fs::File>,
    report: &mut Report,
) -> rusqlite::Result<Summary> {
    file::foreign_keys(connection, report)?;
    file::triggers(connection, report)?;
    let mut frozen = rows::Frozen::new(connection)?;
    rows::frozen(connection, &mut frozen, report)?;
    drop(stay);
    let recent = rows::recent(connection, &frozen, report)?;
    let (leased, leased_cents) = leases::examine(connection, gateways, report)?;
    let counted = books::examine(connection, &frozen, gateways.running() > 0, report)?;
    wallets::examine(connection, report)?;
    Ok(Summary {
        users: counted.users,
        unbalanced: counted.unbalanced,
        charges: frozen.charges + recent,
        rolled_up: frozen.rolled_up,
        leased,
        leased_cents,
        gateways: gateways.running(),
    })
}
