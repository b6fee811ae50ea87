//! What can be put right of what an examination finds, in one transaction, by writing: nothing that stands in the books
//! is changed, but for a hold that nobody would settle, which is settled.

use rusqlite::{Connection, OptionalExtension};

use crate::config::DatabaseConfig;
use crate::model::{Cents, UserId};
use crate::store::books::external;
use crate::store::books::sums::{self, Sum};
use crate::store::doctor::{Amends, Report};
use crate::store::error::OpenError;
use crate::store::file::instance::{self, LeftOver};
use crate::store::file::{open, triggers};
use crate::store::writer::now_unix_ms;
use crate::store::writer::wallets::Wallets;

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

/// Puts right what can be: triggers that are missing, notes that nobody entered, holds that nobody will settle, sums
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
    let dead = instance::find_dead_for_sure(&connection, &path).map_err(error)?;
    connection.execute_batch("BEGIN IMMEDIATE").map_err(error)?;
    let done = inside(&connection, &dead, &report.amends).map_err(error)?;
    connection.execute_batch("COMMIT").map_err(error)?;
    dead.into_iter().for_each(instance::Dead::remove_lock);
    Ok(done)
}

fn inside(connection: &Connection, dead: &[instance::Dead], amends: &Amends) -> rusqlite::Result<Vec<Repaired>> {
    let now_unix_ms = now_unix_ms();
    let mut done = Vec::new();
    let noted = external::absorb(connection, now_unix_ms)?;
    if noted > 0 {
        done.push(said(format!("{noted} changes of balances by other programs were entered")));
    }
    if !triggers::in_place(connection)? {
        triggers::install(connection)?;
        external::end_accounts_of_others(connection, now_unix_ms)?;
        done.push(said("the triggers on wallets are in place again"));
    }
    let mut wallets = Wallets::new(usize::MAX);
    let recovered = instance::release_dead(connection, &mut wallets, dead, now_unix_ms)?;
    if recovered.charges > 0 {
        let message = format!("{} charges of gateways that were killed are released", recovered.charges);
        done.push(Repaired { cents: Some(Cents(recovered.cents)), ..said(message) });
    }
    sums::amend(connection, &amends.sums)?;
    if !amends.sums.is_empty() {
        done.push(said(format!(
            "the sums that are kept are those of the rows again, for {} accounts",
            amends.sums.len()
        )));
    }
    release_lost(connection, &mut wallets, &amends.lost, now_unix_ms, &mut done)?;
    wallets.flush(connection)?;
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

/// Releases charges that stand as held by gateways that have ended. One that is in the sums is taken out of them.
fn release_lost(
    connection: &Connection,
    wallets: &mut Wallets,
    lost: &[i64],
    now_unix_ms: i64,
    done: &mut Vec<Repaired>,
) -> rusqlite::Result<()> {
    let mut select = connection.prepare(
        "SELECT c.id, c.account_id, c.cents, a.user_id FROM keytoll_charges c
         JOIN keytoll_accounts a ON a.id = c.account_id
         LEFT JOIN keytoll_instances i ON i.id = c.instance_id
         WHERE c.id = ?1 AND c.state = 0 AND typeof(c.cents) = 'integer'
         AND (i.id IS NULL OR i.ended_at IS NOT NULL OR c.id < i.low_water)",
    )?;
    let summed_below = sums::marks(connection)?.charges_below;
    for id in lost {
        let Some(left_over) = select.query_row([id], LeftOver::of).optional()? else { continue };
        if *id < summed_below {
            let less = Sum { entered_cents: 0, charged_cents: left_over.cents.0.wrapping_neg() };
            sums::amend(connection, &[(left_over.account.0, less)])?;
        }
        left_over.release(connection, wallets, now_unix_ms)?;
        let message = format!("charge {}, held by a gateway that has ended, is released", left_over.charge);
        done.push(Repaired { user_id: Some(left_over.user), cents: Some(left_over.cents), message });
    }
    Ok(())
}

fn said(message: impl Into<String>) -> Repaired {
    Repaired { user_id: None, cents: None, message: message.into() }
}
