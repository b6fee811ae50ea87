//! Removes Keytoll's tables and triggers from a database.

use rusqlite::Connection;

use crate::config::DatabaseConfig;
use crate::model::Cents;
use crate::store::books::wallets::Wallets;
use crate::store::books::{external, recovery};
use crate::store::error::OpenError;
use crate::store::file::instance::{self, ExpiredInstance};
use crate::store::file::lock_file::RollUpLock;
use crate::store::file::{open, schema, set_up, triggers};
use crate::store::writer::now_unix_ms;

/// What an uninstallation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uninstalled {
    /// There was nothing of Keytoll in the file, and nothing was changed.
    Nothing,
    /// The tables and triggers are gone, and the journal mode is the one that Keytoll found.
    Done,
    /// The same, but another program has the file open and so keeps it in WAL mode; Keytoll found a rollback journal.
    StillWal,
}

/// Removes Keytoll's triggers and tables from a shared file, and puts the journal mode back that Keytoll found; no gateway
/// may run on the file. What gateways that are gone have leased is returned first, to whom it belongs.
///
/// # Errors
/// A gateway runs, the file cannot be opened or written, or there is a lease that cannot be returned. Nothing was changed
/// then.
pub fn uninstall(database: &DatabaseConfig) -> Result<Uninstalled, OpenError> {
    let path = open::prepare_file(&database.path, None)?.path;
    let connection = open::read_write(&path)?;
    let error = |error| open::open_error(&path, error);
    if !schema::has_table(&connection, "keytoll_instances").map_err(error)? {
        return Ok(Uninstalled::Nothing);
    }
    let expired = instance::find_expired_patiently(&connection, &path).map_err(error)?;
    connection.execute_batch("BEGIN EXCLUSIVE").map_err(error)?;
    if expired.len() < instance::open_ids(&connection).map_err(error)?.len() {
        return Err(OpenError::InUse(path.clone()));
    }
    let found_rollback_journal = set_up::found_rollback_journal(&connection).map_err(error)?;
    schema::migrate(&connection, now_unix_ms()).map_err(|wrong| wrong.at(&path))?;
    let left = return_leases(&connection, &expired).map_err(error)?;
    if left.0 != 0 {
        return Err(OpenError::LeasesLeft(path, left));
    }
    schema::uninstall(&connection).map_err(error)?;
    connection.execute_batch("COMMIT").map_err(error)?;
    expired.into_iter().for_each(ExpiredInstance::remove_lock);
    RollUpLock::remove(&path);
    if found_rollback_journal && !leave_wal(&connection) {
        return Ok(Uninstalled::StillWal);
    }
    Ok(Uninstalled::Done)
}

/// Returns every lease to its account's wallet. Changes that the application made are entered first, because a wallet may have
/// been created for another user with the same id since. Gives the cents that could not be returned: their account is unknown.
fn return_leases(connection: &Connection, expired: &[ExpiredInstance]) -> rusqlite::Result<Cents> {
    let now_unix_ms = now_unix_ms();
    external::absorb(connection, now_unix_ms)?;
    if !triggers::in_place(connection)? {
        external::end_accounts_of_others(connection, now_unix_ms)?;
    }
    let mut wallets = Wallets::new(usize::MAX);
    recovery::recover(connection, &mut wallets, expired, now_unix_ms)?;
    recovery::return_leases_of_ended(connection, &mut wallets, now_unix_ms)?;
    connection.query_row("SELECT coalesce(sum(cents), 0) FROM keytoll_leases", [], |row| row.get(0).map(Cents))
}

/// Whether it could be done: every other program must have closed the file.
fn leave_wal(connection: &Connection) -> bool {
    let mode = connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get::<_, String>(0));
    mode.is_ok_and(|mode| mode.eq_ignore_ascii_case("delete"))
}
