//! Old charges become usage: what was captured and released by user, key, route, status class and hour.
//!
//! Only charges that are in the sums already are moved, so no book changes by it. Charges are in the order of their
//! settlement, so the old ones are the first. The last charge always stays: the next position follows from it.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::failpoint;
use crate::model::ChargeState;
use crate::store::books::sums;
use crate::store::file::lock_file::{RollUpLock, RollUpLocked};

/// Charges that are moved in one transaction: about two milliseconds.
const PORTION: i64 = if cfg!(test) { 3 } else { 1_000 };
/// Milliseconds of an hour.
const HOUR_MS: i64 = 3_600_000;

/// How old charges become, and the lock under which they are moved.
pub(in crate::store) struct Retention {
    age_ms: i64,
    lock: RollUpLock,
}

impl Retention {
    pub(in crate::store) fn new(age: Duration, lock: RollUpLock) -> Retention {
        Retention { age_ms: i64::try_from(age.as_millis()).unwrap_or(i64::MAX), lock }
    }

    /// Begins a pass over all charges that are old by now.
    pub(in crate::store) fn begin(&self, now_unix_ms: i64) -> Cursor {
        Cursor { after: i64::MIN, settled_before_unix_ms: now_unix_ms.saturating_sub(self.age_ms) }
    }

    /// Looks after the file of the lock.
    pub(in crate::store) fn keep_lock(&mut self) {
        self.lock.keep();
    }

    /// Keeps examinations of the file from counting while something moves. `None`: one is counting.
    pub(in crate::store) fn lock(&self) -> Option<RollUpLocked<'_>> {
        self.lock.take()
    }
}

/// Positions of old charges, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Old {
    first: i64,
    last: i64,
}

/// A pass over the charges.
#[derive(Debug)]
pub(in crate::store) struct Cursor {
    after: i64,
    settled_before_unix_ms: i64,
}

impl Cursor {
    /// The next few old charges; one short read. `None`: the pass is over.
    pub(in crate::store) fn next(&mut self, connection: &Connection) -> rusqlite::Result<Option<Old>> {
        let through = sums::marks(connection)?.charges_through;
        let mut select = connection.prepare_cached(
            "SELECT position, settled_at FROM keytoll_charges
             WHERE position > ?1 AND position <= ?2 AND position < (SELECT max(position) FROM keytoll_charges)
             ORDER BY position LIMIT ?3",
        )?;
        let mut rows = select.query([self.after, through, PORTION])?;
        let mut old: Option<Old> = None;
        while let Some(row) = rows.next()? {
            let (position, settled_at): (i64, i64) = (row.get(0)?, row.get(1)?);
            // Where the clock was set back, an old charge may stand behind a young one: it waits for its turn.
            if settled_at >= self.settled_before_unix_ms {
                break;
            }
            old = Some(Old { first: old.map_or(position, |old| old.first), last: position });
        }
        if let Some(old) = old {
            self.after = old.last;
        }
        Ok(old)
    }
}

/// A row of `keytoll_usage` that grows.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    captured: i64,
    captured_cents: i64,
    released: i64,
    released_cents: i64,
}

/// `hour, account_id, key_id, route_id, status_class`.
type UsageKey = [i64; 5];

/// Moves charges into the usage table. How many there were: none, when another gateway was faster.
pub(in crate::store) fn roll_up(connection: &Connection, old: Old) -> rusqlite::Result<u64> {
    let (usage, count) = gather(connection, old)?;
    for (key, more) in usage {
        add(connection, key, more)?;
    }
    connection
        .prepare_cached("DELETE FROM keytoll_charges WHERE position >= ?1 AND position <= ?2")?
        .execute([old.first, old.last])?;
    failpoint::reach("charges-rolled-up");
    Ok(count)
}

fn gather(connection: &Connection, old: Old) -> rusqlite::Result<(HashMap<UsageKey, Usage>, u64)> {
    let mut usage: HashMap<UsageKey, Usage> = HashMap::new();
    let mut select = connection.prepare_cached(
        "SELECT held_at, account_id, key_id, route_id, coalesce(status, 0), state, cents FROM keytoll_charges
         WHERE position >= ?1 AND position <= ?2",
    )?;
    let mut rows = select.query([old.first, old.last])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let hour = row.get::<_, i64>(0)?.div_euclid(HOUR_MS);
        let class = row.get::<_, i64>(4)? / 100;
        let usage = usage.entry([hour, row.get(1)?, row.get(2)?, row.get(3)?, class]).or_default();
        let cents: i64 = row.get(6)?;
        if row.get::<_, i64>(5)? == ChargeState::Captured.code() {
            usage.captured += 1;
            usage.captured_cents = usage.captured_cents.wrapping_add(cents);
        } else {
            usage.released += 1;
            usage.released_cents = usage.released_cents.wrapping_add(cents);
        }
        count += 1;
    }
    Ok((usage, count))
}

fn add(connection: &Connection, key: UsageKey, more: Usage) -> rusqlite::Result<()> {
    let [hour, account, api_key, route, class] = key;
    let mut select = connection.prepare_cached(
        "SELECT captured, captured_cents, released, released_cents FROM keytoll_usage
         WHERE hour = ?1 AND account_id = ?2 AND key_id = ?3 AND route_id = ?4 AND status_class = ?5",
    )?;
    let before = select
        .query_row(key, |row| {
            Ok(Usage {
                captured: row.get(0)?,
                captured_cents: row.get(1)?,
                released: row.get(2)?,
                released_cents: row.get(3)?,
            })
        })
        .optional()?
        .unwrap_or_default();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO keytoll_usage (hour, account_id, key_id, route_id, status_class,
                 captured, captured_cents, released, released_cents) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            hour,
            account,
            api_key,
            route,
            class,
            before.captured + more.captured,
            before.captured_cents.wrapping_add(more.captured_cents),
            before.released + more.released,
            before.released_cents.wrapping_add(more.released_cents),
        ])?;
    Ok(())
}
