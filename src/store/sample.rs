//! For tests: a store on a file of its own, a second program on the same file, and charges made like a gateway makes them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::config::{DatabaseConfig, Durability, KeyStorage, Limits};
use crate::model::{ApiKey, Cents, KeyPrefix, UserId};
use crate::store::{
    Booked, Booking, Direction, Found, Held, HoldRefused, HoldRequest, Ledger, OpenError, Opening, Role, Store,
    WalletRefused, WriteError,
};
use crate::telemetry::metrics::{MetricNames, Metrics};

/// A store, and the directory that its file is in.
pub(super) struct Sample {
    pub(super) store: Store,
    directory: TempDir,
}

fn open(path: &Path, create: bool, role: Role, limits: &Limits) -> Result<(Store, Opening), OpenError> {
    let database = DatabaseConfig {
        path: path.to_owned(),
        create,
        file_mode: 0o600,
        durability: Durability::Normal,
        keep_charges: None,
    };
    open_as(&database, role, limits)
}

fn open_as(database: &DatabaseConfig, role: Role, limits: &Limits) -> Result<(Store, Opening), OpenError> {
    let metrics = Metrics::new(&MetricNames::default(), None);
    Store::open(database, limits, role, Arc::clone(&metrics.store))
}

/// What operators do, without a key and in nobody's name.
impl Store {
    pub(super) async fn credit(
        &self,
        user_id: UserId,
        amount: Cents,
        note: Option<String>,
    ) -> Result<Booked, WriteError<WalletRefused>> {
        self.book(user_id, Booking { direction: Direction::In, amount, note, actor: None, key: None }).await
    }

    pub(super) async fn debit(
        &self,
        user_id: UserId,
        amount: Cents,
        note: Option<String>,
    ) -> Result<Booked, WriteError<WalletRefused>> {
        self.book(user_id, Booking { direction: Direction::Out, amount, note, actor: None, key: None }).await
    }
}

impl Sample {
    pub(super) fn open(role: Role) -> Sample {
        Sample::open_with(role, &Limits::default())
    }

    pub(super) fn open_with(role: Role, limits: &Limits) -> Sample {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open(&directory.path().join("auth.db"), true, role, limits).unwrap();
        Sample { store, directory }
    }

    /// Opens any file.
    pub(super) fn try_open(path: &Path, create: bool) -> Result<Store, OpenError> {
        open(path, create, Role::Gateway, &Limits::default()).map(|(store, _)| store)
    }

    /// Another process on the same file.
    pub(super) fn open_another(&self, role: Role) -> (Store, Opening) {
        open(&self.path(), false, role, &Limits::default()).unwrap()
    }

    /// Closes the store, and opens the file anew.
    pub(super) fn reopen(&mut self, role: Role) -> Opening {
        self.store.close();
        let (store, opening) = self.open_another(role);
        self.store = store;
        opening
    }

    /// As a gateway that keeps charges for no longer than this.
    pub(super) fn reopen_keeping(&mut self, keep_charges: Option<Duration>) {
        self.store.close();
        let (path, durability) = (self.path(), Durability::Normal);
        let database = DatabaseConfig { path, create: false, file_mode: 0o600, durability, keep_charges };
        self.store = open_as(&database, Role::Gateway, &Limits::default()).unwrap().0;
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("auth.db")
    }

    /// The application that owns the file.
    pub(super) fn application(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    /// A number that the application reads.
    pub(super) fn number(&self, select: &str) -> i64 {
        self.application().query_row(select, [], |row| row.get(0)).unwrap()
    }

    pub(super) async fn user(&self, email: &str) -> UserId {
        self.store.add_user(email, "Somebody", Cents(500)).await.unwrap().id
    }

    pub(super) async fn issue(&self, user: UserId, api: &str) -> super::NewKey {
        self.store.issue_key(user, api, KeyStorage::Sha256, &KeyPrefix::new("kt").unwrap()).await.unwrap()
    }

    /// A user with 500 cents and a key, and a worker's ledger.
    pub(super) async fn customer(&self) -> (UserId, ApiKey, Ledger) {
        let user = self.user("a@example.com").await;
        (user, self.issue(user, "weather").await.key, self.ledger())
    }

    /// A worker's ledger, its mailbox running.
    pub(super) fn ledger(&self) -> Ledger {
        let (ledger, answers) = self.store.ledger();
        tokio::spawn(answers);
        ledger
    }

    /// A committed hold, with this key and on its API.
    pub(super) async fn hold(&self, ledger: &Ledger, key: &ApiKey, cents: i64) -> Held {
        self.try_hold(ledger, key, cents).await.unwrap()
    }

    /// The same, which may be refused.
    pub(super) async fn try_hold(&self, ledger: &Ledger, key: &ApiKey, cents: i64) -> Result<Held, HoldRefused> {
        ledger.hold(self.wish(key, cents).await, None).await
    }

    /// What such a hold is wished with, as loaded now.
    pub(super) async fn wish(&self, key: &ApiKey, cents: i64) -> HoldRequest {
        let route = self.store.route_id("weather", "/").await.unwrap();
        let generation = self.store.generation();
        let found = self.store.find_key(key.clone()).await.unwrap();
        let Found::Active { principal, .. } = found else { panic!("no such key") };
        HoldRequest { principal, generation, route, price: Cents(cents) }
    }

    /// What the books say that the user has: entries less captured charges and leases.
    pub(super) fn books(&self, user: UserId) -> i64 {
        self.number(&format!(
            "SELECT coalesce((SELECT sum(amount_cents) FROM keytoll_entries e JOIN keytoll_accounts a ON a.id = e.account_id
                 WHERE a.user_id = {user} AND a.closed_at IS NULL), 0)
             - coalesce((SELECT sum(cents) FROM keytoll_charges c JOIN keytoll_accounts a ON a.id = c.account_id
                 WHERE a.user_id = {user} AND a.closed_at IS NULL AND c.state = 1), 0)
             - coalesce((SELECT sum(cents) FROM keytoll_leases l JOIN keytoll_accounts a ON a.id = l.account_id
                 WHERE a.user_id = {user} AND a.closed_at IS NULL), 0)"
        ))
    }
}
