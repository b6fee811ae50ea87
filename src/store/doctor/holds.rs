//! Charges that are held, and the gateways that hold them.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use crate::model::{Cents, UserId};
use crate::store::doctor::rows::Frozen;
use crate::store::doctor::{Check, Finding, Report};
use crate::store::file::instance;

/// Charge ids that are named in one finding.
const NAMED: usize = 20;

/// The gateways that have not said that they are done.
pub(super) struct Gateways {
    running: u64,
    gone: Vec<i64>,
}

impl Gateways {
    pub(super) fn find(connection: &Connection, database: &Path) -> rusqlite::Result<Gateways> {
        let mut select = connection.prepare("SELECT id FROM keytoll_instances WHERE ended_at IS NULL")?;
        let open = select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
        let (living, gone): (Vec<_>, Vec<_>) = open.into_iter().partition(|id| instance::lives(database, *id));
        Ok(Gateways { running: u64::try_from(living.len()).unwrap_or(u64::MAX), gone })
    }

    /// How many run.
    pub(super) fn running(&self) -> u64 {
        self.running
    }
}

/// Held charges of one user that nobody can settle as they are.
struct Stuck {
    ids: Vec<i64>,
    count: usize,
    cents: i128,
}

/// Counts what is held, and reports what its gateway will not settle. The count and the cents of all that is held.
///
/// Which gateways are gone was found before: a lock that was free once is never held again, so that what stands as
/// held by it now, with no end noted, is really left over.
pub(super) fn examine(
    connection: &Connection,
    frozen: &Frozen,
    gateways: &Gateways,
    report: &mut Report,
) -> rusqlite::Result<(u64, Cents)> {
    // Which they are was found on the way through all rows; most are settled by now.
    let mut select = connection.prepare(
        "SELECT c.cents, c.instance_id, a.user_id, i.id IS NULL OR i.ended_at IS NOT NULL
         FROM keytoll_charges c
         LEFT JOIN keytoll_instances i ON i.id = c.instance_id
         LEFT JOIN keytoll_accounts a ON a.id = c.account_id
         WHERE c.id = ?1 AND c.state = 0 AND typeof(c.cents) = 'integer'",
    )?;
    let (mut count, mut held) = (0_u64, 0_i128);
    let mut stuck: BTreeMap<(bool, Option<i64>), Stuck> = BTreeMap::new();
    for &id in &frozen.held {
        let found =
            select.query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).optional()?;
        let Some((cents, instance, user, has_ended)): Option<(i64, i64, Option<i64>, bool)> = found else { continue };
        count += 1;
        held += i128::from(cents);
        let is_lost = has_ended || id < frozen.first_open_charge;
        if is_lost {
            report.amends.lost.push(id);
        }
        if !is_lost && !gateways.gone.contains(&instance) {
            continue;
        }
        let stuck = stuck.entry((is_lost, user)).or_insert(Stuck { ids: Vec::new(), count: 0, cents: 0 });
        stuck.count += 1;
        stuck.cents += i128::from(cents);
        if stuck.ids.len() < NAMED {
            stuck.ids.push(id);
        }
    }
    for ((is_lost, user), stuck) in stuck {
        let finding = if is_lost { lost(&stuck, user) } else { left_over(&stuck, gateways.running > 0) };
        let finding = finding.cents(stuck.cents);
        report.add(match user {
            Some(user) => finding.of(UserId(user)),
            None => finding,
        });
    }
    Ok((count, Cents(i64::try_from(held).unwrap_or(i64::MAX))))
}

/// Whose gateway has ended: no gateway looks for it any more.
fn lost(stuck: &Stuck, user: Option<i64>) -> Finding {
    let message = format!("{} held by a gateway that has ended; no gateway will settle it", stuck.name());
    let remedy = match user {
        Some(_) => "run `keytoll doctor --repair`: it is released",
        None => "its account is not on the books: compare the file with a backup",
    };
    Finding::wrong(Check::Holds, message, remedy)
}

/// Whose gateway was killed: the books balance, and the next one to look gives it back.
fn left_over(stuck: &Stuck, gateway_runs: bool) -> Finding {
    let message = format!("{} held by a gateway that was killed", stuck.name());
    let remedy = if gateway_runs {
        "none: the running gateway releases it within seconds"
    } else {
        "start the gateway: it releases what was held"
    };
    Finding::note(Check::Holds, message, remedy)
}

impl Stuck {
    fn name(&self) -> String {
        let ids: Vec<String> = self.ids.iter().map(ToString::to_string).collect();
        let (noun, verb) = if self.count == 1 { ("charge", "is") } else { ("charges", "are") };
        match self.count - self.ids.len() {
            0 => format!("{noun} {} {verb}", ids.join(", ")),
            more => format!("{noun} {} and {more} more {verb}", ids.join(", ")),
        }
    }
}
