//! The view of `api_keys`: a presented key to its principal, from memory when it can be.
//!
//! Two bounded caches, so that unknown keys cannot push out good ones. Loading is shared: a cold key that a thousand
//! clients present at once costs one look-up. What is remembered carries the generation of the view under which it
//! was loaded; a hold compares that exactly, so that a stale entry is never wrong, only slower. Where nothing is held
//! (free routes, refusals) an entry must be fresh: of the generation of now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use moka::future::Cache;

use crate::config::{KeysConfig, Limits};
use crate::model::{ApiKey, KeyDigest, KeyPrefix, KeyShape, Principal};
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

/// A principal as it was loaded, and the view that it belongs to.
#[derive(Debug)]
pub struct Known {
    principal: Arc<Principal>,
    generation: AtomicU64,
    loaded: Instant,
}

impl Known {
    /// Who the key stands for.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
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
    loaded: Instant,
}

/// The view. One for the process, shared by all workers.
#[derive(Clone)]
pub struct Auth {
    store: Store,
    prefix: KeyPrefix,
    /// Looked at here, not by moka, which would keep a second list of all keys for it.
    key_ttl: Duration,
    /// Hashed fast: only keys that exist come in here, nobody can choose their digests.
    known: Cache<KeyDigest, Arc<Known>, RandomState>,
    refusals: Cache<KeyDigest, Refusal>,
    metrics: Arc<AuthMetrics>,
}

impl Auth {
    /// An empty view.
    pub fn new(store: Store, keys: &KeysConfig, limits: &Limits, metrics: Arc<AuthMetrics>) -> Auth {
        let known = Cache::builder().max_capacity(limits.cached_keys).build_with_hasher(RandomState::default());
        let refusals = Cache::builder().max_capacity(limits.cached_refusals).time_to_live(limits.refusal_ttl).build();
        Auth { store, prefix: keys.prefix.clone(), key_ttl: limits.key_ttl, known, refusals, metrics }
    }

    /// Who a key stands for, as far as memory knows: the answer must be confirmed by a hold, or by
    /// [`Auth::confirm`]. A refusal is fresh.
    ///
    /// # Errors
    /// An unknown or inactive key, or a database that cannot be read.
    pub async fn authenticate(&self, key: &ApiKey) -> Result<Arc<Known>, AuthRefused> {
        let digest = key.digest();
        match self.known.get(&digest).await {
            Some(known) if known.loaded.elapsed() < self.key_ttl => {
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
        if self.is_fresh(known.generation(), known.loaded) {
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
            if !Arc::ptr_eq(&known, stale) && self.is_fresh(known.generation(), known.loaded) {
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
        self.is_fresh(refusal.generation, refusal.loaded).then_some(refusal.reason)
    }

    fn is_fresh(&self, generation: Generation, loaded: Instant) -> bool {
        generation == self.store.generation() && (self.store.view_age() < WATCHED || loaded.elapsed() < FRESH)
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
        let (generation, loaded) = (self.store.generation(), Instant::now());
        let reason = match self.store.find_key(key).await {
            Ok(Found::Active(principal)) => {
                let generation = AtomicU64::new(generation.to_u64());
                return Ok(Arc::new(Known { principal, generation, loaded }));
            }
            Ok(Found::Inactive) => AuthRefused::Inactive,
            Ok(Found::Unknown) => AuthRefused::Unknown,
            // Errors are not remembered.
            Err(reason) => return Err(AuthRefused::Unavailable(reason)),
        };
        self.refusals.insert(digest, Refusal { reason, generation, loaded }).await;
        Err(reason)
    }
}
