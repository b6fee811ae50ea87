//! How many requests are remembered: in all, and of each account, so that one user cannot take the room of the others.
//!
//! Both numbers stand in the file and are changed with the rows, because to count a full share's rows would take
//! milliseconds under the lock: a request with an `Idempotency-Key` costs one look at each number by its row id, and one
//! write of each when it is noted, some microseconds in all. Requests without one cost nothing.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use crate::failpoint;
use crate::model::{AccountId, ChargeId};
use crate::store::books::requests::RequestLimits;

/// Rows deleted for one that needs the room: more than it takes, so that a full table is not full for long.
const MADE_ROOM: i64 = 16;

/// Whether one more request of this account may be remembered; deletes a few whose time is over where that is needed.
pub(super) fn is_left(
    connection: &Connection,
    limits: &RequestLimits,
    account: AccountId,
    now_unix_ms: i64,
) -> rusqlite::Result<bool> {
    if !is_below(connection, limits, account)? {
        delete_old(connection, limits, now_unix_ms, MADE_ROOM)?;
    }
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

/// Forgets the request of a charge that cost nothing: nothing is owed for it, and it must not fill the table.
pub(in crate::store) fn forget(connection: &Connection, charge: ChargeId) -> rusqlite::Result<()> {
    let mut delete =
        connection.prepare_cached("DELETE FROM keytoll_requests WHERE charge_id = ?1 RETURNING account_id")?;
    match delete.query_row([charge.0], |row| row.get(0)).optional()? {
        Some(account) => count(connection, account, -1),
        None => Ok(()),
    }
}

/// Deletes rows whose time is over, the oldest first, no more than `most`. What is in flight stays, unless its charge is
/// gone from the books or cost nothing: then nobody ends it.
pub(super) fn delete_old(
    connection: &Connection,
    limits: &RequestLimits,
    now_unix_ms: i64,
    most: i64,
) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached(
        "DELETE FROM keytoll_requests WHERE charge_id IN (
             SELECT r.charge_id FROM keytoll_requests r LEFT JOIN keytoll_charges c ON c.id = r.charge_id
             WHERE r.created_at <= ?1 AND (r.again_by IS NULL OR c.state IS NOT 1) AND c.state IS NOT 0
             ORDER BY r.created_at LIMIT ?2)
         RETURNING account_id",
    )?;
    let mut gone: HashMap<i64, i64> = HashMap::new();
    let mut rows = delete.query([now_unix_ms.saturating_sub(limits.ttl_ms), most])?;
    while let Some(row) = rows.next()? {
        *gone.entry(row.get(0)?).or_default() += 1;
    }
    if gone.is_empty() {
        return Ok(());
    }
    for (account, rows) in gone {
        count(connection, account, -rows)?;
    }
    failpoint::reach("requests-swept");
    Ok(())
}

fn count(connection: &Connection, account: i64, more: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE keytoll_meta SET value = value + ?1 WHERE name = 'requests'")?.execute([more])?;
    connection
        .prepare_cached("UPDATE keytoll_accounts SET requests = requests + ?1 WHERE id = ?2")?
        .execute([more, account])?;
    Ok(())
}
