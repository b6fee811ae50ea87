//! For tests: a store on a file of its own, a second program on the same file, and charges made like a gateway makes them.

use std::sync::Arc;

use rusqlite::Connection;
use tempfile::TempDir;

use super::{Found, Held, HoldWish, Ledger, Role, Store};
use crate::config::{DatabaseConfig, Durability, KeyStorage, Limits};
use crate::model::{ApiKey, Cents, KeyPrefix, UserId};
use crate::telemetry::metrics::Metrics;

/// A store, and the directory that its file is in.
pub(super) struct Sample {
    pub(super) store: Store,
    directory: TempDir,
}

impl Sample {
    pub(super) fn open(role: Role) -> Sample {
        let directory = tempfile::tempdir().unwrap();
        let database =
            DatabaseConfig { path: directory.path().join("auth.db"), create: true, durability: Durability::Normal };
        let metrics = Metrics::new(&[], &[], None);
        let (store, _) = Store::open(&database, &Limits::default(), role, Arc::clone(&metrics.store)).unwrap();
        Sample { store, directory }
    }

    /// The application that owns the file.
    pub(super) fn application(&self) -> Connection {
        Connection::open(self.directory.path().join("auth.db")).unwrap()
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

    /// A worker's ledger, its mailbox running.
    pub(super) fn ledger(&self) -> Ledger {
        let (ledger, answers) = self.store.ledger();
        tokio::spawn(answers);
        ledger
    }

    /// A committed hold, with this key and on its API.
    pub(super) async fn hold(&self, ledger: &Ledger, key: &ApiKey, cents: i64) -> Held {
        let generation = self.store.generation();
        let Found::Active(principal) = self.store.find_key(key.clone()).await.unwrap() else { panic!("no such key") };
        let route = self.store.route_id(&principal.api_name, "/").await.unwrap();
        ledger.hold(HoldWish { principal, generation, route, price: Cents(cents) }).await.unwrap()
    }

    /// What the books say that the user has: entries less charges.
    pub(super) fn books(&self, user: UserId) -> i64 {
        self.number(&format!(
            "SELECT coalesce((SELECT sum(amount_cents) FROM keytoll_entries e JOIN keytoll_accounts a ON a.id = e.account_id
                 WHERE a.user_id = {user} AND a.closed_at IS NULL), 0)
             - coalesce((SELECT sum(cents) FROM keytoll_charges c JOIN keytoll_accounts a ON a.id = c.account_id
                 WHERE a.user_id = {user} AND a.closed_at IS NULL AND c.state <> 2), 0)"
        ))
    }
}
