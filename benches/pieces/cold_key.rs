//! A key that is not in memory, looked up in the file, which the operating system has in memory. One at a time: most of it
//! is the way to a reading thread and back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use divan::Bencher;
use keytoll::auth::{Auth, AuthRefused};
use keytoll::config::{Durability, Limits};
use keytoll::model::ApiKey;
use keytoll::store::{Found, Store};
use keytoll::telemetry::metrics::{MetricNames, Metrics};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::common;
use super::credential::keys_config;

/// Keys in the file.
const COUNTS: [usize; 2] = [1_000, 1_000_000];

/// By the number of keys: a large one takes seconds to make, and serves all benches.
static FILES: Mutex<BTreeMap<usize, Arc<Keys>>> = Mutex::new(BTreeMap::new());

/// A file with keys, and a view of it.
struct Keys {
    keys: Vec<ApiKey>,
    store: Store,
    runtime: Runtime,
    _directory: TempDir,
}

impl Keys {
    fn new(count: usize) -> Keys {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let keys = common::keys(count);
        let store = common::store(&directory.path().join("auth.db"), &keys, None, Durability::Normal);
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        Keys { keys, store, runtime, _directory: directory }
    }

    /// The file with so many keys.
    fn of(count: usize) -> Arc<Keys> {
        let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(files.entry(count).or_insert_with(|| Arc::new(Keys::new(count))))
    }

    /// A view that remembers nothing yet.
    fn auth(&self) -> Auth {
        let apis = [common::API.into()];
        Auth::new(
            self.store.clone(),
            &keys_config(),
            &Limits::default(),
            &apis,
            Metrics::new(&MetricNames::default(), None).auth,
        )
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.store.close();
    }
}

/// What is in a static is not dropped by itself.
pub(crate) fn remove_files() {
    FILES.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Keys in a scattered order; each comes again only after all the others.
fn scattered(keys: &Keys) -> impl FnMut() -> ApiKey {
    let mut turn = 0;
    move || {
        turn += 1;
        keys.keys[common::scattered(turn, keys.keys.len())].clone()
    }
}

/// The look-up in the file alone.
#[divan::bench(args = COUNTS, min_time = 1, max_time = 3)]
fn look_up(bencher: Bencher<'_, '_>, count: usize) {
    let keys = Keys::of(count);
    bencher.with_inputs(scattered(&keys)).bench_local_values(|key| {
        let found = keys.runtime.block_on(keys.store.find_key(key)).expect("a look-up");
        assert!(matches!(found, Found::Active { .. }));
        found
    });
}

/// With all that the view does: refusals first, a shared look-up, and what it found put into memory.
#[divan::bench(args = [1_000_000], min_time = 1, max_time = 3)]
fn authenticate(bencher: Bencher<'_, '_>, count: usize) {
    let keys = Keys::of(count);
    let auth = keys.auth();
    bencher
        .with_inputs(scattered(&keys))
        .bench_local_values(|key| keys.runtime.block_on(auth.authenticate(&key)).expect("a good key"));
}

/// A key that nobody has.
#[divan::bench(args = [1_000_000], min_time = 1, max_time = 3)]
fn unknown(bencher: Bencher<'_, '_>, count: usize) {
    let keys = Keys::of(count);
    let auth = keys.auth();
    let mut number = 0;
    let made_up = || {
        number += 1;
        ApiKey::new(&format!("a-key-that-nobody-has-{number}")).expect("not empty")
    };
    bencher.with_inputs(made_up).bench_local_values(|key| {
        let refused = keys.runtime.block_on(auth.authenticate(&key)).map(drop);
        assert_eq!(refused, Err(AuthRefused::Unknown));
    });
}
