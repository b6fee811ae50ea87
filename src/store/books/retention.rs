//! Old charges become usage: what was captured and released by user, key, route, status class and hour.
//!
//! Only charges that are in the sums already are moved, so that no book changes by it. Ids run with time within one
//! process, but blocks of several processes lie beside each other: each stretch of ids is looked at from its start to
//! the first charge that is not old, and the rest of the stretch is left out.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::failpoint;
use crate::model::ChargeState;
use crate::store::books::sums;
use crate::store::file::lock_file::{RollUpLock, RollUpLocked};

/// Charges that are moved in one transaction: about two milliseconds.
const PORTION: usize = if cfg!(test) { 3 } else { 1_000 };
/// Ids of one stretch.
const STRETCH: i64 = if cfg!(test) { 5 } else { 10_000 };
/// Milliseconds of an hour.
const HOUR_MS: i64 = 3_600_000;

/// How old charges become, and the lock under which they are moved.
pub(super) struct Retention {
    age_ms: i64,
    lock: RollUpLock,
}

impl Retention {
    pub(super) fn new(age: Duration, lock: RollUpLock) -> Retention {
        Retention { age_ms: i64::try_from(age.as_millis()).unwrap_or(i64::MAX), lock }
    }

    /// Begins a pass over all charges that are old by now.
    pub(super) fn begin(&self, now_unix_ms: i64) -> Cursor {
        Cursor { at: i64::MIN, held_before_unix_ms: now_unix_ms.saturating_sub(self.age_ms) }
    }

    /// Looks after the file of the lock.
    pub(super) fn keep_lock(&mut self) {
        self.lock.keep();
    }

    /// Keeps examinations of the file from counting while something moves. `None`: one is counting.
    pub(super) fn lock(&self) -> Option<RollUpLocked<'_>> {
        self.lock.take()
    }
}

/// Ids of old charges, both included, with nothing else in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Old {
    first: i64,
    last: i64,
}

/// A pass over the charges.
#[derive(Debug)]
pub(super) struct Cursor {
    at: i64,
    held_before_unix_ms: i64,
}

impl Cursor {
    /// The next few old charges; one short read. `None`: the pass is over.
    pub(super) fn next(&mut self, connection: &Connection) -> rusqlite::Result<Option<Old>> {
        let below = sums::marks(connection)?.charges_below;
        let mut select = connection.prepare_cached(
            "SELECT id, held_at FROM keytoll_charges WHERE id >= ?1 AND id < ?2 AND state <> 0 ORDER BY id",
        )?;
        while self.at < below {
            let mut rows = select.query([self.at, below])?;
            let mut old: Option<Old> = None;
            let mut count = 0;
            let mut young = None;
            while count < PORTION
                && let Some(row) = rows.next()?
            {
                let (id, held_at): (i64, i64) = (row.get(0)?, row.get(1)?);
                if held_at >= self.held_before_unix_ms {
                    young = Some(id);
                    break;
                }
                old = Some(Old { first: old.map_or(id, |old| old.first), last: id });
                count += 1;
            }
            self.at = match (young, old) {
                (Some(id), _) => (id.div_euclid(STRETCH) + 1).saturating_mul(STRETCH),
                (None, Some(old)) => old.last + 1,
                (None, None) => return Ok(None),
            };
            if old.is_some() {
                return Ok(old);
            }
        }
        Ok(None)
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

/// Moves charges into the usage table. How many there were: none, when another gateway was faster. One whose request is
/// being forwarded once more stays for a later pass: its price may have to be given back.
pub(super) fn roll_up(connection: &Connection, old: Old) -> rusqlite::Result<u64> {
    let (usage, count) = gather(connection, old)?;
    for (key, more) in usage {
        add(connection, key, more)?;
    }
    connection
        .prepare_cached(
            "DELETE FROM keytoll_charges WHERE id >= ?1 AND id <= ?2 AND state <> 0
             AND id NOT IN (SELECT charge_id FROM keytoll_requests WHERE again_by IS NOT NULL)",
        )?
        .execute([old.first, old.last])?;
    failpoint::reach("charges-rolled-up");
    Ok(count)
}

fn gather(connection: &Connection, old: Old) -> rusqlite::Result<(HashMap<UsageKey, Usage>, u64)> {
    let mut usage: HashMap<UsageKey, Usage> = HashMap::new();
    let mut select = connection.prepare_cached(
        "SELECT held_at, account_id, key_id, route_id, coalesce(status, 0), state, cents FROM keytoll_charges
         WHERE id >= ?1 AND id <= ?2 AND state <> 0
         AND id NOT IN (SELECT charge_id FROM keytoll_requests WHERE again_by IS NOT NULL)",
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
