//! Holds and captures through the ledger, by batch, by wallets and by durability: `cargo bench --bench writer`.
//!
//! One item is one request's money: a hold that is committed, then its capture. As many requests as a batch has
//! room for are under way at once, scattered over the wallets.

mod common;

use std::cell::Cell;

use divan::Bencher;
use divan::counter::ItemsCount;
use futures_util::future::join_all;
use keytoll::config::Durability;
use keytoll::model::{Cents, Principal, RouteId};
use keytoll::store::{HoldRequest, Ledger, Settled, Store};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const BATCHES: [usize; 4] = [1, 8, 64, 256];
const WALLETS: [usize; 3] = [1, 1_000, MANY_WALLETS];
/// As many as the writer remembers by default.
const MANY_WALLETS: usize = 100_000;
/// Wallets where batches are compared: one for each request.
const USUAL_WALLETS: usize = 256;
/// Requests at once where wallets are compared.
const USUAL_BATCH: usize = 64;
/// More than a run can spend.
const RICH: Cents = Cents(1 << 40);

struct Books {
    runtime: Runtime,
    store: Store,
    ledger: Ledger,
    principals: Vec<Principal>,
    turn: Cell<usize>,
    route: RouteId,
    _directory: TempDir,
}

impl Books {
    fn new(wallets: usize, durability: Durability) -> Books {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let keys = common::keys(wallets);
        let store = common::store(&directory.path().join("auth.db"), &keys, Some(RICH), durability);
        let principals = keys.iter().enumerate().map(|(index, key)| common::principal(index, key)).collect();
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (ledger, answers) = store.ledger();
        runtime.spawn(answers);
        let route = runtime.block_on(store.route_id(common::API, "/")).expect("a route");
        Books { runtime, store, ledger, principals, turn: Cell::new(0), route, _directory: directory }
    }

    /// Holds and captures once for each of the next `batch` turns, all at once.
    fn round(&self, batch: usize) {
        let generation = self.store.generation();
        let turns = self.turn.get()..self.turn.get() + batch;
        self.turn.set(turns.end);
        let requests = turns.map(async |turn| {
            let principal = self.principals[common::scattered(turn, self.principals.len())].clone();
            let wish = HoldRequest { principal, generation, route: self.route, price: Cents(2) };
            let held = self.ledger.hold(wish, None).await.expect("a hold");
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

/// Whether the writer has met the wallets before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    Before,
    Never,
}

fn run(bencher: Bencher<'_, '_>, batch: usize, wallets: usize, durability: Durability, met: Met) {
    let books = Books::new(wallets, durability);
    if met == Met::Before {
        (0..wallets.div_ceil(USUAL_WALLETS)).for_each(|_| books.round(USUAL_WALLETS));
    }
    bencher.counter(ItemsCount::new(batch)).bench_local(|| books.round(batch));
}

#[divan::bench_group(min_time = 1, max_time = 3)]
mod by_batch {
    use super::{BATCHES, Bencher, Durability, Met, USUAL_WALLETS, run};

    #[divan::bench(args = BATCHES)]
    fn full(bencher: Bencher<'_, '_>, batch: usize) {
        run(bencher, batch, USUAL_WALLETS, Durability::Full, Met::Before);
    }

    #[divan::bench(args = BATCHES)]
    fn normal(bencher: Bencher<'_, '_>, batch: usize) {
        run(bencher, batch, USUAL_WALLETS, Durability::Normal, Met::Before);
    }
}

#[divan::bench_group(min_time = 1, max_time = 3)]
mod by_wallets {
    use super::{Bencher, Durability, MANY_WALLETS, Met, USUAL_BATCH, WALLETS, run};

    #[divan::bench(args = WALLETS)]
    fn full(bencher: Bencher<'_, '_>, wallets: usize) {
        run(bencher, USUAL_BATCH, wallets, Durability::Full, Met::Before);
    }

    #[divan::bench(args = WALLETS)]
    fn normal(bencher: Bencher<'_, '_>, wallets: usize) {
        run(bencher, USUAL_BATCH, wallets, Durability::Normal, Met::Before);
    }

    /// Each wallet for the first time since the start: it is read from the file.
    #[divan::bench(args = [MANY_WALLETS], max_time = 1)]
    fn normal_first_met(bencher: Bencher<'_, '_>, wallets: usize) {
        run(bencher, USUAL_BATCH, wallets, Durability::Normal, Met::Never);
    }
}

fn main() {
    divan::main();
}
