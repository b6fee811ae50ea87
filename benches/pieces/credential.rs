//! From the credential in a request to its principal, with the key in memory.

use divan::Bencher;
use futures_util::FutureExt;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use keytoll::auth::Auth;
use keytoll::config::{CredentialSource, Durability, KeyStorage, KeysConfig, Limits};
use keytoll::gateway::pieces::take_key;
use keytoll::model::{ApiKey, Cents, IssuedKey, KeyPrefix};
use keytoll::store::Store;
use keytoll::telemetry::metrics::{MetricNames, Metrics};
use tempfile::TempDir;
use tokio::runtime::Builder;

use super::sections::{SIZES, Size, parsed, request};
use super::{SAMPLE_SIZE, SAMPLES, common};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Keys as they are by default.
pub(crate) fn keys_config() -> KeysConfig {
    KeysConfig {
        sources: vec![CredentialSource::Header(X_API_KEY), CredentialSource::AuthorizationBearer],
        storage: KeyStorage::Sha256,
        storage_is_explicit: false,
        prefix: KeyPrefix::new("kt").expect("a prefix"),
    }
}

/// A view that knows one issued key.
struct Warm {
    auth: Auth,
    key: ApiKey,
    config: KeysConfig,
    key_bytes: usize,
    store: Store,
    _directory: TempDir,
}

impl Warm {
    fn new() -> Warm {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = common::store(&directory.path().join("auth.db"), &[], None, Durability::Normal);
        let (config, limits) = (keys_config(), Limits::default());
        let apis = [common::API.into()];
        let auth = Auth::new(store.clone(), &config, &limits, &apis, Metrics::new(&MetricNames::default(), None).auth);
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let key = runtime.block_on(async {
            let user = store.add_user("ada@example.com", "Ada", Cents(500)).await.expect("a user");
            let issued = store.issue_key(user.id, common::API, config.storage, &config.prefix).await.expect("a key");
            auth.authenticate(&issued.key).await.expect("a good key");
            issued.key
        });
        Warm { auth, key, config, key_bytes: limits.key_bytes, store, _directory: directory }
    }

    fn take(&self, headers: &mut HeaderMap) -> ApiKey {
        take_key(headers, &self.config.sources, self.key_bytes).expect("a key")
    }

    /// Without a runtime, which has nothing to do when the key is in memory.
    fn authenticate(&self, key: &ApiKey) -> i64 {
        let known = self.auth.authenticate(key).now_or_never().expect("no wait").expect("a good key");
        known.user_id().0
    }

    fn with_header(&self, size: Size) -> HeaderMap {
        let mut headers = parsed(request(size));
        headers.insert(X_API_KEY, HeaderValue::from_str(self.key.expose()).expect("visible ASCII"));
        headers
    }

    fn with_bearer(&self, size: Size) -> HeaderMap {
        let mut headers = parsed(request(size));
        let line = format!("Bearer {}", self.key.expose());
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&line).expect("visible ASCII"));
        headers
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        self.store.close();
    }
}

/// Taken out of the header section.
#[divan::bench(args = SIZES, sample_size = SAMPLE_SIZE, sample_count = SAMPLES)]
fn take_header(bencher: Bencher<'_, '_>, size: Size) {
    let warm = Warm::new();
    bencher.with_inputs(|| warm.with_header(size)).bench_local_values(|mut headers| (warm.take(&mut headers), headers));
}

/// The same for the second source.
#[divan::bench(args = SIZES, sample_size = SAMPLE_SIZE, sample_count = SAMPLES)]
fn take_bearer(bencher: Bencher<'_, '_>, size: Size) {
    let warm = Warm::new();
    bencher.with_inputs(|| warm.with_bearer(size)).bench_local_values(|mut headers| (warm.take(&mut headers), headers));
}

/// SHA-256 and the copy of the key that it is made with.
#[divan::bench(sample_size = SAMPLE_SIZE, sample_count = SAMPLES)]
fn digest(bencher: Bencher<'_, '_>) {
    let key = IssuedKey::generate(&keys_config().prefix).expect("randomness").key;
    bencher.bench_local(|| ApiKey::new(divan::black_box(key.expose())));
}

/// Look-up in memory.
#[divan::bench(sample_size = SAMPLE_SIZE, sample_count = SAMPLES)]
fn authenticate(bencher: Bencher<'_, '_>) {
    let warm = Warm::new();
    bencher.bench_local(|| warm.authenticate(divan::black_box(&warm.key)));
}

/// All of it.
#[divan::bench(args = SIZES, sample_size = SAMPLE_SIZE, sample_count = SAMPLES)]
fn whole(bencher: Bencher<'_, '_>, size: Size) {
    let warm = Warm::new();
    bencher.with_inputs(|| warm.with_header(size)).bench_local_values(|mut headers| {
        let key = warm.take(&mut headers);
        (warm.authenticate(&key), key, headers)
    });
}
