//! The first transaction on a file: tables, migrations, books, recovery. All of it or nothing.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::failpoint;
use crate::ledger::{Refund, Turn};
use crate::model::{AccountId, Cents, ChargeId, UserId};
use crate::store::books::external;
use crate::store::books::leases::Leases;
use crate::store::books::ledger_tables::LedgerTables;
use crate::store::books::recovery::{self, Recovered};
use crate::store::books::wallets::Wallets;
use crate::store::error::OpenError;
use crate::store::file::instance::{self, ExpiredInstance, Instance, RegisterError};
use crate::store::file::lock_file::Missing;
use crate::store::file::migrations::{LEDGER_ROWS, LEDGER_VERSION};
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
    let of_version_4 = instances_of_version_4(connection, path).map_err(error)?;
    connection.execute_batch("BEGIN IMMEDIATE").map_err(error)?;
    let mut opening = Opening::default();
    let found = schema::version(connection).map_err(|wrong| wrong.at(path))?;
    if found.is_some_and(|found| found < LEDGER_VERSION)
        && open_instances(connection).map_err(error)? > of_version_4.len()
    {
        return Err(OpenError::InUse(path.to_owned()));
    }
    let after_ledger = || {
        opening.recovered = settle_version_4(connection, &of_version_4, now_unix_ms)?;
        connection.execute_batch(LEDGER_ROWS)
    };
    opening.set_up = set_up::run(connection, file, now_unix_ms, after_ledger).map_err(|wrong| wrong.at(path))?;
    if opening.set_up.is_first {
        opening.adopted_wallets = external::adopt_all(connection, now_unix_ms).map_err(error)?;
        failpoint::reach("wallets-adopted");
        triggers::install(connection).map_err(error)?;
    } else {
        opening.external_entries = external::absorb(connection, now_unix_ms).map_err(error)?;
        if !triggers::in_place(connection).map_err(error)? {
            triggers::install(connection).map_err(error)?;
            external::end_accounts_of_others(connection, now_unix_ms).map_err(error)?;
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
        let recovered = recovery::recover(connection, &mut wallets, &expired, now_unix_ms).map_err(error)?;
        opening.recovered = opening.recovered.plus(recovered);
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
    of_version_4.into_iter().chain(expired).for_each(ExpiredInstance::remove_lock);
    Ok((instance, opening))
}

/// The directory in which lock files are made.
fn lock_hint(path: &Path) -> std::path::PathBuf {
    path.parent().map_or_else(|| path.to_owned(), Path::to_owned)
}

/// Gateways of an older version that are gone, with their locks, if the file was not migrated yet.
fn instances_of_version_4(connection: &Connection, path: &Path) -> rusqlite::Result<Vec<ExpiredInstance>> {
    let is_old = connection
        .query_row("SELECT 1 FROM pragma_table_info('keytoll_instances') WHERE name = 'low_water'", [], |_| Ok(()))
        .optional()?
        .is_some();
    if is_old { instance::find_expired_patiently(connection, path) } else { Ok(Vec::new()) }
}

/// Processes of an older version that have not said that they are done.
fn open_instances(connection: &Connection) -> rusqlite::Result<usize> {
    let count: i64 =
        connection.query_row("SELECT count(*) FROM keytoll_instances WHERE ended_at IS NULL", [], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Settles what gateways of version 4 left open: a held charge is released, and a request that was being forwarded again
/// for a captured charge is refunded.
fn settle_version_4(
    connection: &Connection,
    expired: &[ExpiredInstance],
    now_unix_ms: i64,
) -> rusqlite::Result<Recovered> {
    let mut wallets = Wallets::new(usize::MAX);
    let mut leases = Leases::new(0);
    let mut tables = LedgerTables::new(connection, &mut wallets, &mut leases, now_unix_ms);
    let mut recovered = Recovered { instances: expired.len() as u64, ..Recovered::default() };
    let held = open_of_version_4(
        connection,
        "SELECT c.id, c.account_id, c.cents, a.user_id FROM keytoll_charges_4 c
         JOIN keytoll_accounts a ON a.id = c.account_id WHERE c.state = 0 ORDER BY c.id",
    )?;
    for Refund { user, account, cents, .. } in held {
        Turn { tables: &mut tables }.pay_in(user, account, cents)?;
        recovered.cents = recovered.cents.saturating_add(cents.0);
        recovered.accounts += 1;
        failpoint::reach("old-hold-released");
    }
    let forwarded_again = open_of_version_4(
        connection,
        "SELECT c.id, c.account_id, c.cents, a.user_id FROM keytoll_requests_4 r
         JOIN keytoll_charges_4 c ON c.id = r.charge_id JOIN keytoll_accounts a ON a.id = c.account_id
         WHERE r.again_by IS NOT NULL AND r.is_given_back = 0 AND c.state = 1 ORDER BY c.id",
    )?;
    for refund in &forwarded_again {
        Turn { tables: &mut tables }.refund(refund)?;
        recovered.cents = recovered.cents.saturating_add(refund.cents.0);
        recovered.accounts += 1;
    }
    tables.flush()?;
    connection
        .execute("UPDATE keytoll_charges_4 SET state = 2, settled_at = ?1 WHERE state = 0", params![now_unix_ms])?;
    Ok(recovered)
}

fn open_of_version_4(connection: &Connection, select: &str) -> rusqlite::Result<Vec<Refund>> {
    let mut select = connection.prepare(select)?;
    let rows = select.query_map([], |row| {
        Ok(Refund {
            charge: ChargeId(row.get(0)?),
            account: AccountId(row.get(1)?),
            cents: Cents(row.get(2)?),
            user: UserId(row.get(3)?),
        })
    })?;
    rows.collect()
}
