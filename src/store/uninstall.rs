//! The way out: a shared file as if Keytoll had never been there.

use rusqlite::OptionalExtension;

use crate::config::DatabaseConfig;
use crate::store::error::OpenError;
use crate::store::file::lock_file::RollUpLock;
use crate::store::file::{instance, open, schema};
use crate::store::writer::now_unix_ms;
use crate::store::writer::wallets::Wallets;

/// Takes Keytoll's triggers and tables out of a shared file; no gateway may run on it.
///
/// # Errors
/// A gateway runs, or the file cannot be opened or written.
pub fn uninstall(database: &DatabaseConfig) -> Result<bool, OpenError> {
    let path = open::prepare_file(&database.path, None)?;
    let connection = open::writer(&path)?;
    let error = |error| open::open_error(&path, error);
    let installed: Option<i64> = connection
        .query_row("SELECT 1 FROM sqlite_master WHERE name = 'keytoll_instances'", [], |row| row.get(0))
        .optional()
        .map_err(error)?;
    if installed.is_none() {
        return Ok(false);
    }
    let dead = instance::find_dead_for_sure(&connection, &path).map_err(error)?;
    connection.execute_batch("BEGIN EXCLUSIVE").map_err(error)?;
    let open: i64 = connection
        .query_row("SELECT count(*) FROM keytoll_instances WHERE ended_at IS NULL", [], |row| row.get(0))
        .map_err(error)?;
    if i64::try_from(dead.len()).unwrap_or(i64::MAX) < open {
        return Err(OpenError::InUse(path.clone()));
    }
    let mut wallets = Wallets::new(usize::MAX);
    instance::release_dead(&connection, &mut wallets, &dead, now_unix_ms()).map_err(error)?;
    wallets.flush(&connection).map_err(error)?;
    schema::uninstall(&connection).map_err(error)?;
    connection.execute_batch("COMMIT").map_err(error)?;
    dead.into_iter().for_each(instance::Dead::remove_lock);
    RollUpLock::remove(&path);
    Ok(true)
}
