//! Leases: what this process has taken out of wallets and not settled, by account; one row each in `keytoll_leases`.
//!
//! Changed in memory and written once per transaction, like [wallets](super::wallets): every write compares the amount that
//! it replaces. After a rollback the rows are read again.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use rusqlite::{Connection, params};

use crate::model::{AccountId, Cents};

/// The lease of one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lease {
    /// Its row in `keytoll_leases`; `None` until it is written.
    row_id: Option<i64>,
    cents: i64,
}

/// The leases of one instance.
pub(in crate::store) struct Leases {
    instance: i64,
    leases: HashMap<AccountId, Lease, RandomState>,
    /// Accounts whose lease was changed, each with the amount that its row has.
    changed: HashMap<AccountId, i64, RandomState>,
    /// The sum of all.
    cents: i64,
    /// Whether the rows have to be read again before the next change.
    is_stale: bool,
}

impl Leases {
    /// Of an instance, which may have some already.
    pub(in crate::store) fn new(instance: i64) -> Leases {
        Leases { instance, leases: HashMap::default(), changed: HashMap::default(), cents: 0, is_stale: true }
    }

    /// Adds to a lease, or takes from it.
    ///
    /// # Errors
    /// The rows cannot be read, or less is leased than is taken: the books are damaged.
    pub(in crate::store) fn change(
        &mut self,
        connection: &Connection,
        account: AccountId,
        change: Cents,
    ) -> rusqlite::Result<()> {
        if self.is_stale {
            self.load(connection)?;
        }
        let lease = self.leases.entry(account).or_default();
        let sum = lease.cents.checked_add(change.0).filter(|sum| *sum >= 0);
        let sum = sum.ok_or(rusqlite::Error::IntegralValueOutOfRange(0, change.0))?;
        self.changed.entry(account).or_insert(lease.cents);
        lease.cents = sum;
        self.cents = self.cents.saturating_add(change.0);
        Ok(())
    }

    /// Accounts with a lease, and the cents of all leases.
    pub(in crate::store) fn total(&self) -> (usize, i64) {
        (self.leases.len(), self.cents)
    }

    /// Writes the leases that were changed.
    ///
    /// # Errors
    /// SQLite's, or a row that does not hold what it should.
    pub(in crate::store) fn flush(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for (account, written) in self.changed.drain() {
            let Some(lease) = self.leases.get_mut(&account) else { continue };
            let changed = match (lease.row_id, lease.cents) {
                (_, cents) if cents == written => 1,
                (None, cents) => {
                    let mut insert = connection
                        .prepare_cached("INSERT INTO keytoll_leases (instance_id, account_id, cents) VALUES (?1, ?2, ?3)")?;
                    lease.row_id = Some(insert.insert(params![self.instance, account.0, cents])?);
                    1
                }
                (Some(row_id), 0) => connection
                    .prepare_cached("DELETE FROM keytoll_leases WHERE id = ?1 AND instance_id = ?2 AND account_id = ?3 AND cents = ?4")?
                    .execute(params![row_id, self.instance, account.0, written])?,
                (Some(row_id), cents) => connection
                    .prepare_cached(
                        "UPDATE keytoll_leases SET cents = ?5 WHERE id = ?1 AND instance_id = ?2 AND account_id = ?3 AND cents = ?4",
                    )?
                    .execute(params![row_id, self.instance, account.0, written, cents])?,
            };
            if changed != 1 {
                return Err(rusqlite::Error::StatementChangedRows(changed));
            }
            if lease.cents == 0 {
                self.leases.remove(&account);
            }
        }
        Ok(())
    }

    /// Forgets what was changed, because the transaction was rolled back.
    pub(in crate::store) fn roll_back(&mut self) {
        self.is_stale = true;
        self.changed.clear();
    }

    fn load(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.leases.clear();
        self.cents = 0;
        let mut select =
            connection.prepare_cached("SELECT id, account_id, cents FROM keytoll_leases WHERE instance_id = ?1")?;
        let mut rows = select.query([self.instance])?;
        while let Some(row) = rows.next()? {
            let lease = Lease { row_id: Some(row.get(0)?), cents: row.get(2)? };
            self.cents = self.cents.saturating_add(lease.cents);
            self.leases.insert(AccountId(row.get(1)?), lease);
        }
        self.is_stale = false;
        Ok(())
    }
}

/// What all instances lease, by account, in the caller's transaction. What is not an integer counts as nothing; the doctor
/// finds it.
pub(in crate::store) fn by_account(connection: &Connection) -> rusqlite::Result<HashMap<i64, i64>> {
    let mut select = connection.prepare_cached("SELECT account_id, cents FROM keytoll_leases")?;
    let mut rows = select.query([])?;
    let mut leased: HashMap<i64, i64> = HashMap::new();
    while let Some(row) = rows.next()? {
        let sum = leased.entry(row.get_ref(0)?.as_i64().unwrap_or(0)).or_default();
        *sum = sum.wrapping_add(row.get_ref(1)?.as_i64().unwrap_or(0));
    }
    Ok(leased)
}
