//! Holds and captures through the ledger, by batch and durability: `cargo bench --bench writer`.
//!
//! One item is one request's money: a hold that is committed, then its capture. As many requests as a batch has
//! room for are under way at once, each on a wallet of its own.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use futures_util::future::join_all;
use keytoll::config::{DatabaseConfig, Durability, KeyStorage, Limits};
use keytoll::model::{Cents, KeyPrefix, Principal, RouteId};
use keytoll::store::{Found, HoldWish, Ledger, Role, Settled, Store};
use keytoll::telemetry::metrics::Metrics;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const BATCHES: [usize; 4] = [1, 16, 64, 256];
const WALLETS: usize = 256;
/// More than a run can spend.
const RICH: Cents = Cents(1 << 50);

struct Books {
    runtime: Runtime,
    store: Store,
    ledger: Ledger,
    principals: Vec<Arc<Principal>>,
    route: RouteId,
    _directory: TempDir,
}

impl Books {
    fn new(durability: Durability) -> Books {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let database =
            DatabaseConfig { path: directory.path().join("auth.db"), create: true, durability, keep_charges: None };
        let metrics = Metrics::new(&[], &[], None);
        let opened = Store::open(&database, &Limits::default(), Role::Gateway, Arc::clone(&metrics.store));
        let (store, _) = opened.expect("a new database");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (ledger, answers) = store.ledger();
        runtime.spawn(answers);
        let (principals, route) = runtime.block_on(async {
            let users = (0..WALLETS).map(|number| principal(&store, number));
            (join_all(users).await, store.route_id("bench", "/").await.expect("a route"))
        });
        Books { runtime, store, ledger, principals, route, _directory: directory }
    }

    /// Holds and captures once for each of the first `batch` wallets, all at once.
    fn round(&self, batch: usize) {
        let generation = self.store.generation();
        let requests = self.principals.iter().take(batch).map(async |principal| {
            let principal = Arc::clone(principal);
            let wish = HoldWish { principal, generation, route: self.route, price: Cents(2) };
            let held = self.ledger.hold(wish).await.expect("a hold");
            assert_eq!(held.charge.capture(200).await, Settled::Captured);
        });
        self.runtime.block_on(join_all(requests));
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        self.store.close();
    }
}

async fn principal(store: &Store, number: usize) -> Arc<Principal> {
    let prefix = KeyPrefix::new("kt").expect("a prefix");
    let user = store.add_user(&format!("user{number}@example.com"), "User", RICH).await.expect("a user");
    let issued = store.issue_key(user.id, "bench", KeyStorage::Sha256, &prefix).await.expect("a key");
    match store.find_key(issued.key).await.expect("a look-up") {
        Found::Active(principal) => principal,
        Found::Inactive | Found::Unknown => unreachable!("it was just issued"),
    }
}

#[divan::bench(args = BATCHES, min_time = 1, max_time = 3)]
fn full(bencher: Bencher<'_, '_>, batch: usize) {
    run(bencher, batch, Durability::Full);
}

#[divan::bench(args = BATCHES, min_time = 1, max_time = 3)]
fn normal(bencher: Bencher<'_, '_>, batch: usize) {
    run(bencher, batch, Durability::Normal);
}

fn run(bencher: Bencher<'_, '_>, batch: usize, durability: Durability) {
    let books = Books::new(durability);
    bencher.counter(ItemsCount::new(batch)).bench_local(|| books.round(batch));
}

fn main() {
    divan::main();
}
