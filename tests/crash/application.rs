//! The application: a second program on the file, which does with wallets, users and keys what applications do, and
//! keeps count of the money that it moves.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use rusqlite::{Connection, OptionalExtension, params};

use crate::file::File;
use crate::records::{Treatment, User};

/// Users in a file at most.
const MOST_USERS: usize = 12;
/// What a key that was switched off is off until, as long as it is.
const STILL_OFF: u64 = u64::MAX;

/// The application's own connection.
pub(crate) struct Application {
    connection: Connection,
}

impl Application {
    pub(crate) fn open(file: &File) -> Application {
        let connection = file.database.open();
        // As other programs have it unless they say otherwise; rusqlite does.
        connection.pragma_update(None, "foreign_keys", false).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        Application { connection }
    }

    /// Does one thing.
    pub(crate) fn act(&self, file: &File, rng: &mut Rng) {
        match rng.u8(..40) {
            0 if file.users() < MOST_USERS => self.add_user(file, rng),
            1 => self.rebuild(),
            _ => {
                let user = file.user(rng.usize(..file.users()));
                self.treat(file, &user, rng);
            }
        }
    }

    /// A user who is treated well, with a wallet and a key.
    fn add_user(&self, file: &File, rng: &mut Rng) {
        let cents = rng.i64(0..100);
        file.add(self.insert_user(Treatment::Adds, cents, false));
    }

    pub(crate) fn insert_user(&self, treatment: Treatment, cents: i64, was_adopted: bool) -> User {
        let email = format!("{:016x}@example.com", fastrand::u64(..));
        self.begin();
        self.do_with("INSERT INTO users (email, name, is_active) VALUES (?1, 'Somebody', 1)", params![email]);
        let id = self.connection.last_insert_rowid();
        self.do_with("INSERT INTO wallets (user_id, balance) VALUES (?1, ?2)", params![id, cents]);
        let key = format!("key-{:016x}", fastrand::u64(..));
        let row = "INSERT INTO api_keys (\"key\", user_id, api_name, is_active) VALUES (?1, ?2, 'weather', 1)";
        self.do_with(row, params![key, id]);
        self.commit();
        User { id, key, treatment, was_adopted, put_in: cents.into(), off: Vec::new().into() }
    }

    /// Alembic's batch mode: the table is copied, dropped and renamed, and its triggers are gone.
    fn rebuild(&self) {
        self.begin();
        let rebuild = "CREATE TABLE _alembic_tmp_wallets (id INTEGER NOT NULL PRIMARY KEY, user_id INTEGER NOT NULL UNIQUE, balance INTEGER);
             INSERT INTO _alembic_tmp_wallets SELECT id, user_id, balance FROM wallets;
             DROP TABLE wallets;
             ALTER TABLE _alembic_tmp_wallets RENAME TO wallets";
        self.connection.execute_batch(rebuild).unwrap();
        self.commit();
    }

    fn treat(&self, file: &File, user: &User, rng: &mut Rng) {
        match user.treatment {
            Treatment::Adds => {
                let cents = rng.i64(0..60);
                self.do_with("UPDATE wallets SET balance = balance + ?2 WHERE user_id = ?1", params![user.id, cents]);
                user.put_in.fetch_add(cents, Ordering::SeqCst);
            }
            Treatment::Overwrites => self.change(user, rng, |user, cents| {
                self.do_with("UPDATE wallets SET balance = ?2 WHERE user_id = ?1", params![user, cents]);
            }),
            Treatment::Replaces => self.change(user, rng, |user, cents| {
                self.do_with("REPLACE INTO wallets (user_id, balance) VALUES (?1, ?2)", params![user, cents]);
            }),
            Treatment::MakesAnew => self.change(user, rng, |user, cents| {
                self.do_with("DELETE FROM wallets WHERE user_id = ?1", params![user]);
                self.do_with("INSERT INTO wallets (user_id, balance) VALUES (?1, ?2)", params![user, cents]);
            }),
            Treatment::Revokes => self.switch(file, user),
            Treatment::Anything => self.anything(user, rng),
        }
    }

    /// Sets the balance to something else, within one transaction, and notes by how much that changed it.
    fn change(&self, user: &User, rng: &mut Rng, write: impl FnOnce(i64, i64)) {
        let cents = rng.i64(0..150);
        self.begin();
        let before: i64 = self
            .connection
            .query_row("SELECT balance FROM wallets WHERE user_id = ?1", [user.id], |row| row.get(0))
            .unwrap();
        write(user.id, cents);
        self.commit();
        user.put_in.fetch_add(cents - before, Ordering::SeqCst);
    }

    /// Switches the key off, or on again; and gives some money, so that it is worth trying.
    fn switch(&self, file: &File, user: &User) {
        let is_off = user.off.lock().unwrap().last().is_some_and(|(_, until)| *until == STILL_OFF);
        if is_off {
            // Before the key can be on again.
            let now = file.records.now();
            if let Some(last) = user.off.lock().unwrap().last_mut() {
                last.1 = now;
            }
            self.do_with("UPDATE api_keys SET is_active = 1 WHERE user_id = ?1", params![user.id]);
        } else {
            self.do_with("UPDATE wallets SET balance = balance + 20 WHERE user_id = ?1", params![user.id]);
            user.put_in.fetch_add(20, Ordering::SeqCst);
            self.do_with("UPDATE api_keys SET is_active = 0 WHERE user_id = ?1", params![user.id]);
            user.off.lock().unwrap().push((file.records.now(), STILL_OFF));
        }
    }

    fn anything(&self, user: &User, rng: &mut Rng) {
        let (id, cents) = (user.id, rng.i64(0..150));
        let wallet: Option<i64> = self
            .connection
            .query_row("SELECT id FROM wallets WHERE user_id = ?1", [id], |row| row.get(0))
            .optional()
            .unwrap();
        match rng.u8(..8) {
            _ if wallet.is_none() => {
                self.do_with("INSERT INTO wallets (user_id, balance) VALUES (?1, ?2)", params![id, cents]);
            }
            0 => self.do_with("DELETE FROM wallets WHERE user_id = ?1", params![id]),
            1 => self.do_with("UPDATE wallets SET balance = 'abc' WHERE user_id = ?1", params![id]),
            2 => self.do_with("UPDATE wallets SET balance = NULL WHERE user_id = ?1", params![id]),
            3 => self.do_with("UPDATE wallets SET id = id + 1000 WHERE user_id = ?1", params![id]),
            4 => {
                // Another person, with the same id and the same key.
                let email = format!("{:016x}@example.com", fastrand::u64(..));
                self.begin();
                self.do_with("DELETE FROM wallets WHERE user_id = ?1", params![id]);
                self.do_with("DELETE FROM users WHERE id = ?1", params![id]);
                let row = "INSERT INTO users (id, email, name, is_active) VALUES (?1, ?2, 'Another', 1)";
                self.do_with(row, params![id, email]);
                self.do_with("INSERT INTO wallets (user_id, balance) VALUES (?1, ?2)", params![id, cents]);
                self.commit();
            }
            5 => {
                // The wallet goes to nobody, and comes back.
                self.do_with("UPDATE wallets SET user_id = 1000000 + ?1 WHERE user_id = ?1", params![id]);
                self.do_with("UPDATE OR REPLACE wallets SET user_id = ?1 WHERE user_id = 1000000 + ?1", params![id]);
            }
            6 => self.do_with("INSERT OR IGNORE INTO wallets (user_id, balance) VALUES (?1, 9999)", params![id]),
            _ => self.do_with("UPDATE wallets SET balance = ?2 WHERE user_id = ?1", params![id, cents]),
        }
    }

    /// What is no money would be a finding of the doctor's.
    pub(crate) fn put_right(&self) {
        self.do_with("UPDATE wallets SET balance = 5 WHERE typeof(balance) <> 'integer'", params![]);
    }

    fn begin(&self) {
        self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    }

    fn commit(&self) {
        self.connection.execute_batch("COMMIT").unwrap();
    }

    #[track_caller]
    fn do_with(&self, sql: &str, values: impl rusqlite::Params) {
        self.connection.execute(sql, values).unwrap();
    }
}
