//! The file, as another program sees it: with SQLite's usual patience of 5 s, and no knowledge of Keytoll.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, Params};

use super::{Customer, program};

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    path: PathBuf,
}

impl Database {
    pub(crate) fn new(path: PathBuf) -> Database {
        Database { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A connection of another program.
    pub(crate) fn open(&self) -> Connection {
        let connection = Connection::open(&self.path).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection
    }

    /// Copies the log into the database, and removes it: what the last program does that closes the database.
    #[track_caller]
    pub(crate) fn leave_alone(&self) {
        self.number("SELECT count(*) FROM users");
    }

    /// One statement of another program.
    #[track_caller]
    pub(crate) fn execute(&self, sql: &str, values: impl Params) -> usize {
        self.open().execute(sql, values).unwrap()
    }

    /// A user with so much money and a key for the API, made by the application. The key stands in the file as it is.
    #[track_caller]
    pub(crate) fn customer(&self, api: &str, balance: i64) -> Customer {
        let connection = self.open();
        let email = format!("{}@example.com", fastrand::u64(..));
        let user = "INSERT INTO users (email, name, is_active) VALUES (?1, 'Somebody', 1)";
        connection.execute(user, [email]).unwrap();
        let id = connection.last_insert_rowid();
        connection.execute("INSERT INTO wallets (user_id, balance) VALUES (?1, ?2)", [id, balance]).unwrap();
        let key = format!("key-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let row = "INSERT INTO api_keys (\"key\", user_id, api_name, is_active) VALUES (?1, ?2, ?3, 1)";
        connection.execute(row, rusqlite::params![key, id, api]).unwrap();
        Customer { id, key_id: connection.last_insert_rowid(), key }
    }

    /// `keytoll doctor` finds nothing wrong.
    #[track_caller]
    pub(crate) fn assert_doctor(&self) {
        self.doctor().unwrap_or_else(|found| panic!("{found}"));
    }

    /// What `keytoll doctor` finds.
    pub(crate) fn doctor(&self) -> Result<(), String> {
        let output = program().arg("doctor").arg("--database").arg(&self.path).output().unwrap();
        let said = || String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
        if output.status.success() { Ok(()) } else { Err(said()) }
    }

    /// A number.
    #[track_caller]
    pub(crate) fn number(&self, select: &str) -> i64 {
        self.open().query_row(select, [], |row| row.get(0)).unwrap()
    }

    /// What stands in the wallet, whatever it is.
    pub(crate) fn balance_value(&self, user: i64) -> Value {
        self.open().query_row("SELECT balance FROM wallets WHERE user_id = ?1", [user], |row| row.get(0)).unwrap()
    }

    /// The money in the wallet.
    #[track_caller]
    pub(crate) fn balance(&self, user: i64) -> i64 {
        self.number(&format!("SELECT balance FROM wallets WHERE user_id = {user}"))
    }

    /// Charges in a state: 1 captured, refunded or not, 2 released.
    pub(crate) fn charges(&self, state: i64) -> i64 {
        self.number(&format!("SELECT count(*) FROM keytoll_charges WHERE state = {state}"))
    }

    /// Cents that gateways have taken out of wallets and not settled.
    #[track_caller]
    pub(crate) fn leased(&self) -> i64 {
        let (cents, wrong): (i64, i64) = self
            .open()
            .query_row("SELECT coalesce(sum(cents), 0), coalesce(sum(cents < 0), 0) FROM keytoll_leases", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(wrong, 0, "a lease is below zero");
        cents
    }

    /// Captured charges that were refunded.
    pub(crate) fn refunds(&self) -> i64 {
        self.number("SELECT count(*) FROM keytoll_entries WHERE kind = 'refund' AND charge_id IS NOT NULL")
    }

    /// State and cents of every charge; the state of one that was refunded is 3.
    pub(crate) fn charges_by_id(&self) -> HashMap<i64, (i64, i64)> {
        let connection = self.open();
        let select = "SELECT c.id, CASE WHEN e.id IS NULL THEN c.state ELSE 3 END, c.cents FROM keytoll_charges c
             LEFT JOIN keytoll_entries e ON e.charge_id = c.id";
        let mut select = connection.prepare(select).unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)))).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }

    /// SQLite finds no damage in it.
    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        let whole: String = self.open().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
    }

    /// The amounts of a user's entries of a kind, in order.
    pub(crate) fn entries(&self, user: i64, kind: &str) -> Vec<i64> {
        let connection = self.open();
        let mut select = connection
            .prepare(
                "SELECT e.amount_cents FROM keytoll_entries e JOIN keytoll_accounts a ON a.id = e.account_id
                 WHERE a.user_id = ?1 AND e.kind = ?2 ORDER BY e.id",
            )
            .unwrap();
        let rows = select.query_map(rusqlite::params![user, kind], |row| row.get(0)).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }

    /// The write lock, until it is dropped.
    pub(crate) fn lock(&self) -> Lock {
        let connection = self.open();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Lock { connection }
    }

    /// Asserts that for every user entries less captured charges and leases are the wallet's balance, that no balance is
    /// below zero, and that no lease is of a gateway that has ended.
    /// What others wrote must be on the books already.
    #[track_caller]
    pub(crate) fn assert_books(&self) {
        let connection = self.open();
        let mut select = connection
            .prepare(
                "SELECT a.user_id, a.closed_at IS NOT NULL,
                     (SELECT CASE WHEN typeof(w.balance) = 'integer' THEN w.balance ELSE 0 END
                      FROM wallets w WHERE w.user_id = a.user_id),
                     (SELECT coalesce(sum(amount_cents), 0) FROM keytoll_entries WHERE account_id = a.id),
                     (SELECT coalesce(sum(cents), 0) FROM keytoll_charges WHERE account_id = a.id AND state <> 2),
                     (SELECT coalesce(sum(cents), 0) FROM keytoll_leases WHERE account_id = a.id)
                 FROM keytoll_accounts a",
            )
            .unwrap();
        let mut rows = select.query([]).unwrap();
        let mut accounts = 0;
        while let Some(row) = rows.next().unwrap() {
            let (user, closed, balance): (i64, bool, Option<i64>) =
                (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap());
            let (entries, charges, leases): (i64, i64, i64) =
                (row.get(3).unwrap(), row.get(4).unwrap(), row.get(5).unwrap());
            let balance = if closed { 0 } else { balance.unwrap_or(0) };
            let books = entries - charges - leases;
            assert_eq!(books, balance, "user {user}: entries {entries}, charges {charges}, leases {leases}");
            assert!(balance >= 0, "user {user}: {balance}");
            accounts += 1;
        }
        let strays = "SELECT count(*) FROM keytoll_leases WHERE cents < 0
             OR instance_id NOT IN (SELECT id FROM keytoll_instances WHERE ended_at IS NULL)
             OR account_id NOT IN (SELECT id FROM keytoll_accounts)";
        let strays: i64 = connection.query_row(strays, [], |row| row.get(0)).unwrap();
        assert_eq!(strays, 0, "leases of a gateway that has ended, of no account, or below zero");
        let wallets: i64 = connection.query_row("SELECT count(*) FROM wallets", [], |row| row.get(0)).unwrap();
        assert!(accounts >= wallets, "a wallet is not on the books");
    }
}

/// The write lock in the hands of another program.
pub(crate) struct Lock {
    connection: Connection,
}

impl Lock {
    /// Lets it go, with nothing written.
    pub(crate) fn release(self) {
        self.connection.execute_batch("ROLLBACK").unwrap();
    }
}
