//! Leases, and the gateways that have them.

use std::path::Path;

use rusqlite::Connection;

use crate::model::{Cents, UserId};
use crate::store::doctor::{Check, Finding, REPAIR, Report};
use crate::store::file::instance;

/// The gateways that have not said that they are done.
pub(super) struct Gateways {
    running: u64,
    gone: Vec<i64>,
}

impl Gateways {
    pub(super) fn find(connection: &Connection, database: &Path) -> rusqlite::Result<Gateways> {
        let open = instance::open_ids(connection)?;
        let (living, gone): (Vec<_>, Vec<_>) = open.into_iter().partition(|id| instance::lives(database, *id));
        Ok(Gateways { running: u64::try_from(living.len()).unwrap_or(u64::MAX), gone })
    }

    /// How many run.
    pub(super) fn running(&self) -> u64 {
        self.running
    }
}

/// Adds up what is leased, and reports leases that no gateway will return. The accounts with a lease, and the cents of all.
///
/// Which gateways are gone was found before: a lock that was free once is never held again, so what stands as leased by it
/// now, with no end noted, is really left over.
pub(super) fn examine(
    connection: &Connection,
    gateways: &Gateways,
    report: &mut Report,
) -> rusqlite::Result<(u64, Cents)> {
    let mut select = connection.prepare(
        "SELECT a.user_id, l.instance_id, i.id IS NULL OR i.ended_at IS NOT NULL, l.cents, l.account_id
         FROM keytoll_leases l LEFT JOIN keytoll_instances i ON i.id = l.instance_id
         LEFT JOIN keytoll_accounts a ON a.id = l.account_id ORDER BY l.account_id, l.instance_id",
    )?;
    let mut rows = select.query([])?;
    let (mut count, mut leased) = (0_u64, 0_i128);
    while let Some(row) = rows.next()? {
        let (user, instance, has_ended): (Option<i64>, i64, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let cents = row.get_ref(3)?.as_i64().unwrap_or(0);
        leased += i128::from(cents);
        // A row over nothing is kept for the next lease of its account.
        if cents == 0 && row.get_ref(3)?.as_i64().is_ok() {
            continue;
        }
        count += 1;
        let finding = if cents <= 0 {
            let message =
                format!("the lease of account {} is not over a positive number of cents", row.get::<_, i64>(4)?);
            Finding::wrong(
                Check::Leases,
                message,
                "another program wrote it, or the file was damaged: compare it with a backup",
            )
        } else if has_ended && user.is_some() {
            let message = "money is leased by a gateway that has ended; no gateway will return it";
            Finding::wrong(Check::Leases, message, REPAIR)
        } else if has_ended {
            let message = "money is leased for an account that does not exist, by a gateway that has ended";
            Finding::wrong(Check::Leases, message, "compare the file with a backup")
        } else if gateways.gone.contains(&instance) {
            let remedy = if gateways.running > 0 {
                "none: the running gateway returns it within seconds"
            } else {
                "start the gateway: it returns what was leased"
            };
            Finding::note(Check::Leases, "money is leased by a gateway that was killed", remedy)
        } else {
            continue;
        };
        let finding = finding.cents(cents.into());
        report.add(match user {
            Some(user) => finding.of(UserId(user)),
            None => finding,
        });
    }
    Ok((count, Cents(i64::try_from(leased).unwrap_or(i64::MAX))))
}
