//! What can be put right of what an examination finds, in one transaction, by writing: nothing that stands in the books
//! is changed; leases that no gateway would return are returned.

use rusqlite::Connection;

use crate::config::DatabaseConfig;
use crate::model::{Cents, UserId};
use crate::store::books::external;
use crate::store::books::wallets::Wallets;
use crate::store::books::{recovery, sums};
use crate::store::doctor::{Amends, Report};
use crate::store::error::OpenError;
use crate::store::file::instance::{self, ExpiredInstance};
use crate::store::file::open;
use crate::store::writer::now_unix_ms;

/// The note of entries that accept what is in a wallet.
const ACCEPTED: &str = "accepted by keytoll doctor --repair";

/// One thing that was put right.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Repaired {
    /// Whom it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// How much it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cents: Option<Cents>,
    /// What was done.
    pub message: String,
}

/// Puts right what can be: triggers that are missing, notes that were not entered, leases that no gateway will return, sums
/// that are not those of their rows, and books that are not what is in the wallet, which get an `external` entry.
///
/// `report` is what the examination found: what only a look at every row tells is taken from there, so that the write lock
/// is held for no longer than it takes to compare all wallets with the sums.
///
/// # Errors
/// The file cannot be opened or written; nothing was changed then.
pub fn repair(database: &DatabaseConfig, report: &Report) -> Result<Vec<Repaired>, OpenError> {
    let path = open::prepare_file(&database.path, None)?.path;
    let connection = open::writer(&path)?;
    let error = |error| open::open_error(&path, error);
    let expired = instance::find_expired_patiently(&connection, &path).map_err(error)?;
    connection.execute_batch("BEGIN IMMEDIATE").map_err(error)?;
    let done = inside(&connection, &expired, &report.amends).map_err(error)?;
    connection.execute_batch("COMMIT").map_err(error)?;
    expired.into_iter().for_each(ExpiredInstance::remove_lock);
    Ok(done)
}

fn inside(connection: &Connection, expired: &[ExpiredInstance], amends: &Amends) -> rusqlite::Result<Vec<Repaired>> {
    let now_unix_ms = now_unix_ms();
    let mut done = Vec::new();
    let noted = external::absorb(connection, now_unix_ms)?;
    if noted > 0 {
        done.push(said(format!("{noted} changes of balances by other programs were entered")));
    }
    if external::restore_triggers(connection, now_unix_ms)? {
        done.push(said("the triggers on wallets are in place again"));
    }
    let mut wallets = Wallets::new(usize::MAX);
    let recovered = recovery::recover(connection, &mut wallets, expired, now_unix_ms)?;
    if recovered.accounts > 0 {
        let message = format!("what gateways that were killed leased of {} accounts was returned", recovered.accounts);
        done.push(Repaired { cents: Some(Cents(recovered.cents)), ..said(message) });
    }
    sums::amend(connection, &amends.sums)?;
    if !amends.sums.is_empty() {
        done.push(said(format!(
            "the sums that are kept are those of the rows again, for {} accounts",
            amends.sums.len()
        )));
    }
    let left_behind = recovery::return_leases_of_ended(connection, &mut wallets, now_unix_ms)?;
    if left_behind.accounts > 0 {
        let message = format!("what gateways that have ended leased of {} accounts was returned", left_behind.accounts);
        done.push(Repaired { cents: Some(Cents(left_behind.cents)), ..said(message) });
    }
    let last: i64 = connection.query_row("SELECT coalesce(max(id), 0) FROM keytoll_entries", [], |row| row.get(0))?;
    external::reconcile(connection, ACCEPTED, now_unix_ms)?;
    let mut entered = connection.prepare(
        "SELECT a.user_id, e.amount_cents FROM keytoll_entries e JOIN keytoll_accounts a ON a.id = e.account_id
         WHERE e.id > ?1 ORDER BY e.id",
    )?;
    let entered = entered.query_map([last], |row| Ok((UserId(row.get(0)?), Cents(row.get(1)?))))?;
    for entry in entered {
        let (user_id, cents) = entry?;
        let message = "what is in the wallet was accepted: entered as external".to_owned();
        done.push(Repaired { user_id: Some(user_id), cents: Some(cents), message });
    }
    Ok(done)
}

fn said(message: impl Into<String>) -> Repaired {
    Repaired { user_id: None, cents: None, message: message.into() }
}
