//! The view of `api_keys`: a presented key to its principal, from memory when it can be.
//!
//! Two bounded caches, so that unknown keys cannot push out good ones. Loading is shared: a cold key that a thousand
//! clients present at once costs one look-up. What is remembered carries the generation of the view under which it
//! was loaded; a hold compares that exactly, so that a stale entry is never wrong, only slower. Where nothing is held
//! (free routes, refusals) an entry must be fresh: of the generation of now.
//!
//! Many keys are remembered, so that little is kept of each: not its digest, which the cache has, and not the name of its
//! API, which many share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use moka::future::Cache;

use crate::config::{KeysConfig, Limits};
use crate::model::{ApiKey, KeyDigest, KeyId, KeyPrefix, KeyShape, Principal, UserId};
use crate::store::{Found, Generation, Store, Unavailable};
use crate::telemetry::metrics::AuthMetrics;

#[cfg(test)]
mod tests;

/// How long ago the file may have been compared for other programs' commits, for the generation alone to count. Below
/// the 100 ms within which free routes follow them.
const WATCHED: Duration = Duration::from_millis(70);
/// When the file was not compared of late, as while the writer waits for a disk: how old what was loaded may be.
const FRESH: Duration = Duration::from_millis(40);

/// Why a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthRefused {
    /// No such key.
    Unknown,
    /// The key, or its user, is switched off.
    Inactive,
    /// The database cannot be read now.
    Unavailable(Unavailable),
}

/// What a key stands for, as it was loaded, and the view that this belongs to.
#[derive(Debug)]
pub struct Known {
    user_id: UserId,
    key_id: KeyId,
    generation: AtomicU64,
    /// Since [`Auth::started`]: half as long as an `Instant`.
    loaded_us: u64,
    /// The place of its API in the configuration; `None` for one that is not there.
    api: Option<u32>,
    /// Whether its row holds the key itself, not its digest.
    is_plain: bool,
}

impl Known {
    /// The owner.
    pub fn user_id(&self) -> UserId {
        self.user_id
    }

    /// The row of the key.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The only API that the key is good for, by its place in the configuration; `None` when it is not there.
    pub fn api(&self) -> Option<usize> {
        self.api.and_then(|place| usize::try_from(place).ok())
    }

    /// Who the key stands for; `key` is the one that was authenticated.
    pub fn principal(&self, key: &ApiKey) -> Principal {
        let stored_key = if self.is_plain { key.to_stored() } else { key.digest().to_stored() };
        Principal { user_id: self.user_id, key_id: self.key_id, stored_key }
    }

    /// The view under which that was true.
    pub fn generation(&self) -> Generation {
        Generation::from_u64(self.generation.load(Ordering::Acquire))
    }

    /// Notes that a hold found it true under a later view.
    pub fn stamp(&self, generation: Generation) {
        self.generation.fetch_max(generation.to_u64(), Ordering::AcqRel);
    }
}

#[derive(Clone, Debug)]
struct Refusal {
    reason: AuthRefused,
    generation: Generation,
    loaded_us: u64,
}

/// The view. One for the process, shared by all workers.
#[derive(Clone)]
pub struct Auth {
    store: Store,
    prefix: KeyPrefix,
    /// Looked at here, not by moka, which would keep a second list of all keys for it.
    key_ttl: Duration,
    /// Places in the configuration, by name.
    apis: Arc<HashMap<Arc<str>, u32>>,
    started: Instant,
    /// Hashed fast: only keys that exist come in here, nobody can choose their digests.
    known: Cache<KeyDigest, Arc<Known>, RandomState>,
    refusals: Cache<KeyDigest, Refusal>,
    metrics: Arc<AuthMetrics>,
}

impl Auth {
    /// An empty view. `apis`: the names of all APIs, in the order of the configuration.
    pub fn new(store: Store, keys: &KeysConfig, limits: &Limits, apis: &[Arc<str>], metrics: Arc<AuthMetrics>) -> Auth {
        let apis = Arc::new(apis.iter().cloned().zip(0..).collect());
        let known = Cache::builder().max_capacity(limits.cached_keys).build_with_hasher(RandomState::default());
        let refusals = Cache::builder().max_capacity(limits.cached_refusals).time_to_live(limits.refusal_ttl).build();
        let (prefix, key_ttl, started) = (keys.prefix.clone(), limits.key_ttl, Instant::now());
        Auth { store, prefix, key_ttl, apis, started, known, refusals, metrics }
    }

    /// Who a key stands for, as far as memory knows: the answer must be confirmed by a hold, or by
    /// [`Auth::confirm`]. A refusal is fresh.
    ///
    /// # Errors
    /// An unknown or inactive key, or a database that cannot be read.
    pub async fn authenticate(&self, key: &ApiKey) -> Result<Arc<Known>, AuthRefused> {
        let digest = key.digest();
        match self.known.get(&digest).await {
            Some(known) if self.age(known.loaded_us) < self.key_ttl => {
                self.metrics.hits.inc();
                return Ok(known);
            }
            Some(old) => {
                self.metrics.misses.inc();
                return Box::pin(self.reload(key, &old)).await;
            }
            None => {}
        }
        // Boxed, here and below: the future of a request is as long as the longest way through it.
        Box::pin(self.authenticate_unknown(key, digest)).await
    }

    async fn authenticate_unknown(&self, key: &ApiKey, digest: KeyDigest) -> Result<Arc<Known>, AuthRefused> {
        if key.shape(&self.prefix) == KeyShape::Mistyped {
            return Err(AuthRefused::Unknown);
        }
        if let Some(refusal) = self.fresh_refusal(&digest).await {
            self.metrics.refusal_hits.inc();
            return Err(refusal);
        }
        self.metrics.misses.inc();
        self.load(key, digest).await
    }

    /// Makes sure that what was known is true now: what a hold does for a priced request.
    ///
    /// # Errors
    /// As [`Auth::authenticate`].
    pub async fn confirm(&self, key: &ApiKey, known: Arc<Known>) -> Result<Arc<Known>, AuthRefused> {
        if self.is_fresh(known.generation(), known.loaded_us) {
            return Ok(known);
        }
        Box::pin(self.reload(key, &known)).await
    }

    /// Loads a key anew, because what was known of it turned out to be wrong.
    ///
    /// # Errors
    /// As [`Auth::authenticate`].
    pub async fn reload(&self, key: &ApiKey, stale: &Arc<Known>) -> Result<Arc<Known>, AuthRefused> {
        let digest = key.digest();
        // Only the stale entry itself: another request may have loaded the key anew by now.
        if let Some(known) = self.known.get(&digest).await {
            if !Arc::ptr_eq(&known, stale) && self.is_fresh(known.generation(), known.loaded_us) {
                return Ok(known);
            }
            self.known.invalidate(&digest).await;
        }
        self.load(key, digest).await
    }

    /// Whether a value is itself a key, active or not.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn is_key(&self, value: &ApiKey) -> Result<bool, Unavailable> {
        match self.authenticate(value).await {
            Ok(_) | Err(AuthRefused::Inactive) => Ok(true),
            Err(AuthRefused::Unknown) => Ok(false),
            Err(AuthRefused::Unavailable(reason)) => Err(reason),
        }
    }

    /// Keys and refusals in memory now, for the metrics.
    pub fn measure(&self) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.keys_cached.set(gauge(self.known.entry_count()));
        self.metrics.refusals_cached.set(gauge(self.refusals.entry_count()));
    }

    async fn fresh_refusal(&self, digest: &KeyDigest) -> Option<AuthRefused> {
        let refusal = self.refusals.get(digest).await?;
        self.is_fresh(refusal.generation, refusal.loaded_us).then_some(refusal.reason)
    }

    fn is_fresh(&self, generation: Generation, loaded_us: u64) -> bool {
        generation == self.store.generation() && (self.store.view_age() < WATCHED || self.age(loaded_us) < FRESH)
    }

    fn age(&self, loaded_us: u64) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_micros(loaded_us))
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// One look-up for all who ask at once. It runs in a task of its own: callers come and go, and a look-up that is
    /// dropped with its caller would be begun again by each of the others.
    async fn load(&self, key: &ApiKey, digest: KeyDigest) -> Result<Arc<Known>, AuthRefused> {
        let (auth, key) = (self.clone(), key.clone());
        let shared = tokio::spawn(async move {
            let look_up = auth.look_up(key, digest);
            auth.known.try_get_with(digest, look_up).await.map_err(|refused| *refused)
        });
        // The task is never aborted; it ends early only when its runtime does.
        shared.await.unwrap_or(Err(AuthRefused::Unavailable(Unavailable::Stopping)))
    }

    async fn look_up(&self, key: ApiKey, digest: KeyDigest) -> Result<Arc<Known>, AuthRefused> {
        // Refusals are shared here: those who come just after a look-up that found nothing do not begin another.
        if let Some(refusal) = self.fresh_refusal(&digest).await {
            return Err(refusal);
        }
        self.metrics.loads.inc();
        // Before the read: a change that is committed in between makes this older, never newer than it is.
        let (generation, loaded_us) = (self.store.generation(), self.now_us());
        let reason = match self.store.find_key(key).await {
            Ok(Found::Active { principal, api_name }) => {
                return Ok(Arc::new(Known {
                    user_id: principal.user_id,
                    key_id: principal.key_id,
                    generation: AtomicU64::new(generation.to_u64()),
                    loaded_us,
                    api: self.apis.get(&*api_name).copied(),
                    is_plain: !principal.stored_key.is_digest(),
                }));
            }
            Ok(Found::Inactive) => AuthRefused::Inactive,
            Ok(Found::Unknown) => AuthRefused::Unknown,
            // Errors are not remembered.
            Err(reason) => return Err(AuthRefused::Unavailable(reason)),
        };
        self.refusals.insert(digest, Refusal { reason, generation, loaded_us }).await;
        Err(reason)
    }
}
