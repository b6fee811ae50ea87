//! The first transaction on a file: tables, migrations, books, recovery. All of it or nothing.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use crate::failpoint;
use crate::store::books::external;
use crate::store::books::recovery;
use crate::store::books::wallets::Wallets;
use crate::store::error::OpenError;
use crate::store::file::instance::{self, ExpiredInstance, Instance, RegisterError};
use crate::store::file::lock_file::Missing;
use crate::store::file::migrations::LEDGER_VERSION;
use crate::store::file::open::DatabaseFile;
use crate::store::file::{contents, open, schema, set_up, triggers};
use crate::store::writer::now_unix_ms;
use crate::store::{Opening, Role};

/// Prepares the file. `Instance`: this process, if it is a gateway.
///
/// # Errors
/// What is wrong with the file and what to do about it; nothing was changed then.
pub(super) fn start(
    connection: &Connection,
    file: &DatabaseFile,
    role: Role,
    instance_timeout: Duration,
) -> Result<(Option<Instance>, Opening), OpenError> {
    let path = &file.path;
    let error = |error| open::open_error(path, error);
    let now_unix_ms = now_unix_ms();
    let is_older = || -> Result<bool, OpenError> {
        let found = schema::version(connection).map_err(|wrong| wrong.at(path))?;
        Ok(found.is_some_and(|found| found < LEDGER_VERSION))
    };
    if is_older()? {
        // A gateway whose lock file was removed has the time to put it back.
        drop(instance::find_expired_patiently(connection, path).map_err(error)?);
    }
    connection.execute_batch("BEGIN IMMEDIATE").map_err(error)?;
    let mut opening = Opening::default();
    if is_older()? && instance::any_lives(connection, path).map_err(error)? {
        return Err(OpenError::InUse(path.to_owned()));
    }
    opening.set_up = set_up::run(connection, file, now_unix_ms).map_err(|wrong| wrong.at(path))?;
    if opening.set_up.is_first {
        opening.adopted_wallets = external::adopt_all(connection, now_unix_ms).map_err(error)?;
        failpoint::reach("wallets-adopted");
        triggers::install(connection).map_err(error)?;
    } else {
        opening.external_entries = external::absorb(connection, now_unix_ms).map_err(error)?;
        if external::restore_triggers(connection, now_unix_ms).map_err(error)? {
            let compared = external::reconcile(connection, external::COMPARED, now_unix_ms);
            opening.external_entries += compared.map_err(error)?;
        }
    }
    let mut expired = Vec::new();
    let mut instance = None;
    if role == Role::Gateway {
        contents::ensure_stamp(connection).map_err(error)?;
        instance::forget_old(connection, now_unix_ms).map_err(error)?;
        let mut wallets = Wallets::new(usize::MAX);
        expired = instance::find_expired(connection, path, None, &mut Missing::default(), None).map_err(error)?.expired;
        opening.recovered = recovery::recover(connection, &mut wallets, &expired, now_unix_ms).map_err(error)?;
        let registered = Instance::register(connection, path, instance_timeout, now_unix_ms);
        instance = Some(registered.map_err(|found| match found {
            RegisterError::Sqlite(found) => error(found),
            RegisterError::Lock(found) => OpenError::Io(lock_hint(path), found),
        })?);
    }
    opening.foreign_triggers = schema::foreign_triggers(connection).map_err(error)?;
    opening.required_columns = schema::required_columns(connection).map_err(error)?;
    opening.has_plain_keys = schema::has_plain_keys(connection).map_err(error)?;
    connection.execute_batch("COMMIT").map_err(error)?;
    failpoint::reach("start-committed");
    expired.into_iter().for_each(ExpiredInstance::remove_lock);
    Ok((instance, opening))
}

/// The directory in which lock files are made.
fn lock_hint(path: &Path) -> std::path::PathBuf {
    path.parent().map_or_else(|| path.to_owned(), Path::to_owned)
}
