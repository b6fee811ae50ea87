//! Time that goes by: charges and requests that were settled long ago, and what became of them.

use std::collections::{HashMap, HashSet};

use fastrand::Rng;
use rusqlite::Connection;

use crate::file::File;

/// A row of `keytoll_charges`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    position: i64,
    pub(crate) account: i64,
    pub(crate) user: i64,
    key: i64,
    route: i64,
    pub(crate) cents: i64,
    pub(crate) state: i64,
    pub(crate) status: Option<u16>,
    held_at: i64,
    settled_at: i64,
}

pub(crate) const CAPTURED: i64 = 1;
pub(crate) const RELEASED: i64 = 2;

const HOUR_MS: i64 = 3_600_000;
/// More than charges are kept, and far more than requests are remembered.
const AGE_MS: i64 = 200 * 24 * HOUR_MS;
/// So long ago there was nothing but what was made old here.
const OLD_MS: i64 = AGE_MS / 2;

/// How many charges are old and have a row. The last charge always has one.
pub(crate) const OLD: &str = "SELECT count(*) FROM keytoll_charges WHERE settled_at < 1000 * (CAST(strftime('%s', 'now') AS INTEGER) - 100 * 24 * 3600)
     AND position < (SELECT max(position) FROM keytoll_charges)";

/// All charges that there ever were in a file, as they were last seen.
#[derive(Default)]
pub(crate) struct Past {
    charges: HashMap<i64, Charge>,
    /// Those that have no row any more.
    gone: Vec<i64>,
    /// The last position that was seen.
    last: i64,
    /// Charges of requests that were in flight when their gateway died. They have no row, and never get one.
    lost: HashSet<i64>,
    /// The digests of the `Idempotency-Key`s that charges were recorded with.
    digests: HashMap<i64, Vec<u8>>,
}

/// Every row, by id.
pub(crate) fn rows(connection: &Connection) -> HashMap<i64, Charge> {
    let mut select = connection
        .prepare(
            "SELECT c.id, c.account_id, a.user_id, c.key_id, c.route_id, c.cents, c.state, c.status, c.held_at,
                 c.position, c.settled_at
             FROM keytoll_charges c JOIN keytoll_accounts a ON a.id = c.account_id",
        )
        .unwrap();
    let rows = select.query_map([], |row| {
        let charge = Charge {
            position: row.get(9)?,
            account: row.get(1)?,
            user: row.get(2)?,
            key: row.get(3)?,
            route: row.get(4)?,
            cents: row.get(5)?,
            state: row.get(6)?,
            status: row.get(7)?,
            held_at: row.get(8)?,
            settled_at: row.get(10)?,
        };
        Ok((row.get(0)?, charge))
    });
    rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

impl Past {
    /// How many have become usage.
    pub(crate) fn gone(&self) -> usize {
        self.gone.len()
    }

    /// Notes what a gateway that is gone has left unsettled. Nothing may have started since. `forwarded`: the charges of all
    /// requests that ever went upstream, each with its user and price.
    pub(crate) fn note_death(
        &mut self,
        connection: &Connection,
        forwarded: impl Iterator<Item = (i64, i64, i64)>,
        violated: &dyn Fn(String),
    ) {
        self.remember(rows(connection), violated);
        let mut unsettled: HashMap<i64, i64> = HashMap::new();
        for (id, user, cents) in forwarded {
            if !self.charges.contains_key(&id) && self.lost.insert(id) {
                *unsettled.entry(user).or_default() += cents;
            }
        }
        for (user, cents) in unsettled {
            let leased = leased(connection, user);
            if leased < cents {
                violated(format!("I7: user {user} had {cents} in flight when the gateway died, and {leased} leased"));
            }
        }
    }

    /// Notes under which keys requests are recorded.
    pub(crate) fn remember_digests(&mut self, connection: &Connection) -> HashMap<i64, Vec<u8>> {
        let mut select = connection.prepare("SELECT charge_id, key_digest FROM keytoll_requests").unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        self.digests.extend(rows.map(Result::unwrap));
        self.digests.clone()
    }

    pub(crate) fn all(&self) -> HashMap<i64, Charge> {
        self.charges.clone()
    }

    /// Takes in what is in the file now: charges are appended, stay as they are, and those that are gone were old.
    pub(crate) fn remember(&mut self, rows: HashMap<i64, Charge>, violated: &dyn Fn(String)) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let now = i64::try_from(now).unwrap();
        self.gone = self.charges.keys().filter(|id| !rows.contains_key(id)).copied().collect();
        for id in &self.gone {
            let charge = self.charges[id];
            if charge.settled_at > now - OLD_MS {
                violated(format!("I9: charge {id} is gone, and was {charge:?}"));
            }
        }
        let last = rows.values().map(|charge| charge.position).max();
        for (id, charge) in rows {
            match self.charges.insert(id, charge) {
                Some(before) if before != charge => {
                    violated(format!("I5: charge {id} was {before:?} and is {charge:?}"));
                }
                None if charge.position <= self.last => {
                    violated(format!("I5: charge {id} was not appended after position {}: {charge:?}", self.last));
                }
                Some(_) | None => {}
            }
            if self.lost.contains(&id) {
                violated(format!("I10: charge {id} was in flight when its gateway died, and is {charge:?}"));
            }
        }
        self.last = self.last.max(last.unwrap_or(0));
    }

    /// Takes in rows that were made old here.
    fn grow_old(&mut self, rows: HashMap<i64, Charge>) {
        self.charges.extend(rows);
    }

    /// I9: the usage is that of the charges that are gone.
    pub(crate) fn compare_usage(&self, connection: &Connection, violated: &dyn Fn(String)) {
        let mut expected: HashMap<[i64; 5], [i64; 4]> = HashMap::new();
        for id in &self.gone {
            let Charge { account, key, route, cents, state, status, held_at, .. } = self.charges[id];
            let class = i64::from(status.unwrap_or(0) / 100);
            let usage = expected.entry([held_at.div_euclid(HOUR_MS), account, key, route, class]).or_default();
            let place = if state == CAPTURED { 0 } else { 2 };
            usage[place] += 1;
            usage[place + 1] += cents;
        }
        let mut select = connection
            .prepare(
                "SELECT hour, account_id, key_id, route_id, status_class,
                     captured, captured_cents, released, released_cents FROM keytoll_usage",
            )
            .unwrap();
        let rows = select.query_map([], |row| {
            let number = |column: usize| row.get::<_, i64>(column);
            Ok((
                [number(0)?, number(1)?, number(2)?, number(3)?, number(4)?],
                [number(5)?, number(6)?, number(7)?, number(8)?],
            ))
        });
        let found: HashMap<_, _> = rows.unwrap().collect::<rusqlite::Result<_>>().unwrap();
        if found != expected {
            violated(format!("I9: the usage is {found:?}, and should be {expected:?}"));
        }
    }
}

/// What gateways lease of a user's accounts.
pub(crate) fn leased(connection: &Connection, user: i64) -> i64 {
    let select = "SELECT coalesce(sum(l.cents), 0) FROM keytoll_leases l JOIN keytoll_accounts a ON a.id = l.account_id
         WHERE a.user_id = ?1";
    connection.query_row(select, [user], |row| row.get(0)).unwrap()
}

/// Months go by while no gateway runs: most of what there is becomes old, and clients forget what they wanted to send
/// again. `all`: not just most of it. How many charges became old.
pub(crate) fn grow_old(file: &File, rng: &mut Rng, all: bool) -> usize {
    let draw = rng.i64(..1 << 40);
    let connection = file.database.open();
    let is_ready = "SELECT count(*) FROM sqlite_master WHERE name = 'keytoll_leases'";
    if connection.query_row(is_ready, [], |row| row.get::<_, i64>(0)).unwrap() == 0 {
        return 0;
    }
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    file.past.lock().unwrap().remember(rows(&connection), &|what| file.records.violated(what));
    let last = "SELECT coalesce(max(position), 0) FROM keytoll_charges";
    let last: i64 = connection.query_row(last, [], |row| row.get(0)).unwrap();
    let through = if all || draw % 2 == 0 { last } else { draw % (last + 1) };
    let charges =
        "UPDATE keytoll_charges SET held_at = held_at - ?1, settled_at = settled_at - ?1 WHERE position <= ?2";
    let old = connection.execute(charges, [AGE_MS, through]).unwrap();
    let requests = "UPDATE keytoll_requests SET created_at = created_at - ?1
         WHERE charge_id NOT IN (SELECT id FROM keytoll_charges WHERE position > ?2)";
    connection.execute(requests, [AGE_MS, through]).unwrap();
    let rows = rows(&connection);
    connection.execute_batch("COMMIT").unwrap();
    file.past.lock().unwrap().grow_old(rows);
    file.retries.lock().unwrap().clear();
    old
}
