//! What a process that is gone has left in the database: its leases go back into the wallets.

use rusqlite::Connection;

use crate::failpoint;
use crate::ledger::Turn;
use crate::model::{AccountId, Cents, UserId};
use crate::store::books::leases::Leases;
use crate::store::books::ledger_tables::LedgerTables;
use crate::store::books::requests;
use crate::store::books::wallets::Wallets;
use crate::store::file::instance::{self, ExpiredInstance};

/// What was found of processes that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Processes that ended without returning their leases.
    pub instances: u64,
    /// Accounts that got money back.
    pub accounts: u64,
    /// How much.
    pub cents: i64,
}

impl Recovered {
    /// Both together.
    pub(in crate::store) fn plus(self, other: Recovered) -> Recovered {
        Recovered {
            instances: self.instances + other.instances,
            accounts: self.accounts + other.accounts,
            cents: self.cents.saturating_add(other.cents),
        }
    }

    /// Logs what was found, if anything was.
    pub fn log(self) {
        if self.instances > 0 {
            tracing::warn!(
                instances = self.instances,
                accounts = self.accounts,
                cents = self.cents,
                "a gateway ended unexpectedly: requests that it had not charged are free, and what it held was returned"
            );
        }
    }
}

/// Returns the leases of instances that are gone, and ends them, inside of a transaction. Wallets are written.
pub(in crate::store) fn recover(
    connection: &Connection,
    wallets: &mut Wallets,
    expired: &[ExpiredInstance],
    now_unix_ms: i64,
) -> rusqlite::Result<Recovered> {
    let mut recovered = Recovered::default();
    for instance in expired {
        // Another process may have been faster.
        if !instance::end(connection, instance.id(), now_unix_ms)? {
            continue;
        }
        recovered.instances += 1;
        recovered = recovered.plus(return_leases(connection, wallets, instance.id(), now_unix_ms)?);
        requests::forget_in_flight(connection, instance.id())?;
    }
    wallets.flush(connection, now_unix_ms)?;
    Ok(recovered)
}

/// Returns leases that were left by instances which have ended, or which are not known; there are none unless another program
/// changed Keytoll's tables.
pub(in crate::store) fn return_leases_of_ended(
    connection: &Connection,
    wallets: &mut Wallets,
    now_unix_ms: i64,
) -> rusqlite::Result<Recovered> {
    let instances = {
        let mut select = connection.prepare(
            "SELECT DISTINCT instance_id FROM keytoll_leases
             WHERE cents <> 0 AND instance_id NOT IN (SELECT id FROM keytoll_instances WHERE ended_at IS NULL)",
        )?;
        select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?
    };
    let mut recovered = Recovered::default();
    for instance in instances {
        recovered = recovered.plus(return_leases(connection, wallets, instance, now_unix_ms)?);
    }
    wallets.flush(connection, now_unix_ms)?;
    Ok(recovered)
}

fn return_leases(
    connection: &Connection,
    wallets: &mut Wallets,
    instance: i64,
    now_unix_ms: i64,
) -> rusqlite::Result<Recovered> {
    let mut recovered = Recovered::default();
    let returned = leases_of(connection, instance)?;
    let mut leases = Leases::new(instance);
    let mut tables = LedgerTables::new(connection, wallets, &mut leases, now_unix_ms);
    for (account, user, cents) in returned {
        Turn { tables: &mut tables }.pay_in(user, account, cents)?;
        failpoint::reach("lease-recovered");
        recovered.accounts += 1;
        recovered.cents = recovered.cents.saturating_add(cents.0);
    }
    connection
        .prepare_cached(
            "DELETE FROM keytoll_leases WHERE instance_id = ?1 AND account_id IN (SELECT id FROM keytoll_accounts)",
        )?
        .execute([instance])?;
    Ok(recovered)
}

fn leases_of(connection: &Connection, instance: i64) -> rusqlite::Result<Vec<(AccountId, UserId, Cents)>> {
    let mut select = connection.prepare_cached(
        "SELECT l.account_id, a.user_id, sum(l.cents) FROM keytoll_leases l JOIN keytoll_accounts a ON a.id = l.account_id
         WHERE l.instance_id = ?1 AND l.cents <> 0 GROUP BY l.account_id ORDER BY l.account_id",
    )?;
    let rows =
        select.query_map([instance], |row| Ok((AccountId(row.get(0)?), UserId(row.get(1)?), Cents(row.get(2)?))))?;
    rows.collect()
}
