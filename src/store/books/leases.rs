//! Leases: what this process has taken out of wallets and not settled, by account; one row each in `keytoll_leases`.
//!
//! A row that comes down to nothing is deleted, but for a few: customers whose requests follow each other closely would have
//! theirs inserted and deleted all the time. Leases are changed in memory and written once per transaction, like [wallets](super::wallets): every write compares the amount that
//! it replaces. After a rollback the rows are read again.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use rusqlite::{Connection, params};

use crate::model::{AccountId, Cents};

const INSERT: &str = "INSERT INTO keytoll_leases (instance_id, account_id, cents) VALUES (?1, ?2, ?3)";
const DELETE: &str = "DELETE FROM keytoll_leases WHERE id = ?1 AND instance_id = ?2 AND account_id = ?3 AND cents = ?4";
const UPDATE: &str = "
UPDATE keytoll_leases SET cents = ?5 WHERE id = ?1 AND instance_id = ?2 AND account_id = ?3 AND cents = ?4";

/// Rows over nothing that are kept.
const KEPT_ROWS: usize = 64;

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
    /// Rows over nothing.
    kept_rows: usize,
    /// The sum of all leases.
    cents: i64,
    /// Whether the rows have to be read again before the next change.
    is_stale: bool,
}

impl Leases {
    /// Of an instance, which may have some already.
    pub(in crate::store) fn new(instance: i64) -> Leases {
        Leases {
            instance,
            leases: HashMap::default(),
            changed: HashMap::default(),
            kept_rows: 0,
            cents: 0,
            is_stale: true,
        }
    }

    /// Whether so much is leased of an account.
    ///
    /// # Errors
    /// The rows cannot be read.
    pub(in crate::store) fn covers(
        &mut self,
        connection: &Connection,
        account: AccountId,
        cents: Cents,
    ) -> rusqlite::Result<bool> {
        if self.is_stale {
            self.load(connection)?;
        }
        Ok(self.leases.get(&account).is_some_and(|lease| lease.cents >= cents.0))
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
        (self.leases.len().saturating_sub(self.kept_rows), self.cents)
    }

    /// Writes the leases that were changed.
    ///
    /// # Errors
    /// SQLite's, or a row that does not hold what it should.
    pub(in crate::store) fn flush(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for (account, written) in self.changed.drain() {
            let Some(lease) = self.leases.get_mut(&account) else { continue };
            let values = params![lease.row_id, self.instance, account.0, written, lease.cents];
            let changed = match (lease.row_id, lease.cents) {
                (None, 0) => {
                    self.leases.remove(&account);
                    continue;
                }
                (_, cents) if cents == written => continue,
                (None, cents) => {
                    let mut insert = connection.prepare_cached(INSERT)?;
                    lease.row_id = Some(insert.insert(params![self.instance, account.0, cents])?);
                    continue;
                }
                (Some(_), 0) if self.kept_rows >= KEPT_ROWS => {
                    let changed = connection.prepare_cached(DELETE)?.execute(&values[..4])?;
                    self.leases.remove(&account);
                    changed
                }
                (Some(_), cents) => {
                    if cents == 0 {
                        self.kept_rows += 1;
                    } else if written == 0 {
                        self.kept_rows -= 1;
                    }
                    connection.prepare_cached(UPDATE)?.execute(values)?
                }
            };
            if changed != 1 {
                return Err(rusqlite::Error::StatementChangedRows(changed));
            }
        }
        Ok(())
    }

    /// Deletes the rows over nothing, at the end of the instance.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::store) fn delete_kept(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.execute("DELETE FROM keytoll_leases WHERE instance_id = ?1 AND cents = 0", [self.instance])?;
        Ok(())
    }

    /// Forgets what was changed, because the transaction was rolled back.
    pub(in crate::store) fn roll_back(&mut self) {
        self.is_stale = true;
        self.changed.clear();
    }

    fn load(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.leases.clear();
        (self.cents, self.kept_rows) = (0, 0);
        let mut select =
            connection.prepare_cached("SELECT id, account_id, cents FROM keytoll_leases WHERE instance_id = ?1")?;
        let mut rows = select.query([self.instance])?;
        while let Some(row) = rows.next()? {
            let lease = Lease { row_id: Some(row.get(0)?), cents: row.get(2)? };
            self.cents = self.cents.saturating_add(lease.cents);
            self.kept_rows += usize::from(lease.cents == 0);
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

#[cfg(test)]
mod tests {
    use crate::store::books::leases::*;

    fn table() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        let table = "CREATE TABLE keytoll_leases (id INTEGER PRIMARY KEY, instance_id, account_id, cents)";
        connection.execute_batch(table).unwrap();
        connection
    }

    fn rows(connection: &Connection) -> (i64, i64) {
        let select = "SELECT count(*), coalesce(sum(cents), 0) FROM keytoll_leases";
        connection.query_row(select, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }

    #[test]
    fn a_lease_has_one_row_and_few_rows_over_nothing_are_kept() {
        let (connection, mut leases) = (table(), Leases::new(7));
        let accounts = i64::try_from(KEPT_ROWS).unwrap() + 10;
        for account in 0..accounts {
            leases.change(&connection, AccountId(account), Cents(3)).unwrap();
            leases.change(&connection, AccountId(account), Cents(2)).unwrap();
        }
        leases.flush(&connection).unwrap();
        assert_eq!((rows(&connection), leases.total()), ((accounts, 5 * accounts), (KEPT_ROWS + 10, 5 * accounts)));
        for account in 0..accounts {
            leases.change(&connection, AccountId(account), Cents(-5)).unwrap();
        }
        leases.flush(&connection).unwrap();
        assert_eq!((rows(&connection), leases.total()), ((accounts - 10, 0), (0, 0)));
        // The rows that are kept are used again, and then others are kept.
        for turn in 1..=3 {
            for account in 0..accounts {
                leases.change(&connection, AccountId(account), Cents(turn)).unwrap();
            }
            leases.flush(&connection).unwrap();
            assert_eq!(rows(&connection), (accounts, turn * accounts));
            for account in 0..accounts {
                leases.change(&connection, AccountId(account), Cents(-turn)).unwrap();
            }
            leases.flush(&connection).unwrap();
            assert_eq!(rows(&connection), (accounts - 10, 0));
        }
        leases.delete_kept(&connection).unwrap();
        assert_eq!(rows(&connection), (0, 0));
    }

    #[test]
    fn a_change_that_comes_to_nothing_in_its_transaction_leaves_no_row() {
        let (connection, mut leases) = (table(), Leases::new(7));
        leases.change(&connection, AccountId(1), Cents(5)).unwrap();
        leases.change(&connection, AccountId(1), Cents(-5)).unwrap();
        leases.flush(&connection).unwrap();
        assert_eq!((rows(&connection), leases.total()), ((0, 0), (0, 0)));
        assert!(leases.change(&connection, AccountId(1), Cents(-1)).is_err(), "nothing is leased");
    }

    #[test]
    fn after_a_rollback_the_rows_count() {
        let (connection, mut leases) = (table(), Leases::new(7));
        leases.change(&connection, AccountId(1), Cents(5)).unwrap();
        leases.flush(&connection).unwrap();
        connection.execute_batch("BEGIN").unwrap();
        leases.change(&connection, AccountId(1), Cents(-5)).unwrap();
        leases.change(&connection, AccountId(2), Cents(9)).unwrap();
        leases.flush(&connection).unwrap();
        connection.execute_batch("ROLLBACK").unwrap();
        leases.roll_back();
        leases.change(&connection, AccountId(1), Cents(1)).unwrap();
        leases.flush(&connection).unwrap();
        assert_eq!((rows(&connection), leases.total()), ((1, 6), (1, 6)));
        assert!(leases.change(&connection, AccountId(2), Cents(-9)).is_err());
    }

    #[test]
    fn a_row_that_another_program_changed_fails_the_transaction() {
        let (connection, mut leases) = (table(), Leases::new(7));
        leases.change(&connection, AccountId(1), Cents(5)).unwrap();
        leases.flush(&connection).unwrap();
        connection.execute("UPDATE keytoll_leases SET cents = 6", []).unwrap();
        leases.change(&connection, AccountId(1), Cents(-2)).unwrap();
        assert!(leases.flush(&connection).is_err());
    }
}
