//! How many requests are remembered: in all, and of each account, so that one user cannot take the room of the others.
//!
//! Both numbers stand in the file and are changed with the rows, because to count a full share's rows would take
//! milliseconds under the lock: a request with an `Idempotency-Key` costs one look at each number by its row id, and one
//! write of each when it is noted, some microseconds in all. Requests without one cost nothing.

use std::collections::HashMap;

use rusqlite::{Connection, Params};

use crate::failpoint;
use crate::model::AccountId;
use crate::store::books::requests::RequestLimits;

/// Rows deleted for one that needs the room: more than it takes, so that a full table is not full for long.
const MADE_ROOM: i64 = 16;

/// Whether another request of this account may be recorded. Deletes a few expired rows if the table is full.
pub(super) fn is_left(
    connection: &Connection,
    limits: &RequestLimits,
    account: AccountId,
    now_unix_ms: i64,
) -> rusqlite::Result<bool> {
    if is_below(connection, limits, account)? {
        return Ok(true);
    }
    delete_old(connection, limits, now_unix_ms, MADE_ROOM)?;
    is_below(connection, limits, account)
}

fn is_below(connection: &Connection, limits: &RequestLimits, account: AccountId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT (SELECT value FROM keytoll_meta WHERE name = 'requests') < ?1
                 AND (SELECT requests FROM keytoll_accounts WHERE id = ?2) < ?3",
        )?
        .query_row([limits.most, account.0, limits.most_of_one], |row| row.get(0))
}

/// Counts a request that is noted.
pub(super) fn take(connection: &Connection, account: AccountId) -> rusqlite::Result<()> {
    count(connection, account.0, 1)
}

/// Deletes up to `most` expired rows, the oldest first. Rows of requests in flight are kept.
pub(super) fn delete_old(
    connection: &Connection,
    limits: &RequestLimits,
    now_unix_ms: i64,
    most: i64,
) -> rusqlite::Result<()> {
    let delete = "DELETE FROM keytoll_requests WHERE charge_id IN (
             SELECT charge_id FROM keytoll_requests WHERE created_at <= ?1 AND state <> 0 ORDER BY created_at LIMIT ?2)
         RETURNING account_id";
    if delete_counted(connection, delete, [now_unix_ms.saturating_sub(limits.ttl_ms), most])? {
        failpoint::reach("requests-swept");
    }
    Ok(())
}

/// Runs a DELETE that returns the account of each row, and takes the rows off the counts. Whether there were any.
pub(super) fn delete_counted(connection: &Connection, delete: &str, values: impl Params) -> rusqlite::Result<bool> {
    let mut removed: HashMap<i64, i64> = HashMap::new();
    let mut delete = connection.prepare_cached(delete)?;
    let mut rows = delete.query(values)?;
    while let Some(row) = rows.next()? {
        *removed.entry(row.get(0)?).or_default() += 1;
    }
    for (account, rows) in &removed {
        count(connection, *account, -rows)?;
    }
    Ok(!removed.is_empty())
}

fn count(connection: &Connection, account: i64, more: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE keytoll_meta SET value = value + ?1 WHERE name = 'requests'")?.execute([more])?;
    connection
        .prepare_cached("UPDATE keytoll_accounts SET requests = requests + ?1 WHERE id = ?2")?
        .execute([more, account])?;
    Ok(())
}
