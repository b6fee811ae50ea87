use std::path::Path;

use super::*;
use crate::config::{CredentialSource, DatabaseConfig, Durability, KeyStorage};
use crate::model::Cents;
use crate::store::Role;
use crate::telemetry::metrics::{MetricNames, Metrics};

struct Scene {
    auth: Auth,
    store: Store,
    metrics: Metrics,
    key: ApiKey,
    application: rusqlite::Connection,
    _directory: tempfile::TempDir,
}

fn keys() -> KeysConfig {
    KeysConfig {
        sources: vec![CredentialSource::AuthorizationBearer],
        storage: KeyStorage::Sha256,
        storage_is_explicit: true,
        prefix: KeyPrefix::new("kt").unwrap(),
    }
}

fn database(path: &Path) -> DatabaseConfig {
    DatabaseConfig { path: path.to_owned(), create: true, durability: Durability::Normal, keep_charges: None }
}

async fn scene(limits: Limits) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("auth.db");
    let metrics = Metrics::new(&MetricNames::default(), None);
    let (store, _) = Store::open(&database(&path), &limits, Role::Gateway, Arc::clone(&metrics.store)).unwrap();
    let user = store.add_user("a@example.com", "A", Cents(500)).await.unwrap().id;
    let key = store.issue_key(user, "weather", KeyStorage::Sha256, &keys().prefix).await.unwrap().key;
    let apis = ["maps".into(), "weather".into()];
    let auth = Auth::new(store.clone(), &keys(), &limits, &apis, Arc::clone(&metrics.auth));
    let application = rusqlite::Connection::open(&path).unwrap();
    Scene { auth, store, metrics, key, application, _directory: directory }
}

#[tokio::test]
async fn a_cold_key_that_a_thousand_ask_for_at_once_is_looked_up_once() {
    let scene = scene(Limits::default()).await;
    for key in [scene.key.clone(), ApiKey::new("unknown-to-all").unwrap()] {
        let before = scene.metrics.auth.loads.get();
        let asking: Vec<_> = (0..1000)
            .map(|_| {
                let (auth, key) = (scene.auth.clone(), key.clone());
                tokio::spawn(async move { auth.authenticate(&key).await.is_ok() })
            })
            .collect();
        for asked in asking {
            asked.await.unwrap();
        }
        assert_eq!(scene.metrics.auth.loads.get() - before, 1);
    }
}

#[tokio::test]
async fn what_is_remembered_is_looked_up_again_when_it_is_old() {
    for (key_ttl, loads) in [(Duration::ZERO, 3), (Duration::from_secs(3600), 1)] {
        let scene = scene(Limits { key_ttl, ..Limits::default() }).await;
        for _ in 0..3 {
            scene.auth.authenticate(&scene.key).await.unwrap();
        }
        assert_eq!(scene.metrics.auth.loads.get(), loads);
        assert_eq!(scene.metrics.auth.hits.get() + scene.metrics.auth.misses.get(), 3);
    }
}

#[tokio::test]
async fn a_look_up_outlives_those_who_asked_and_left() {
    let scene = scene(Limits::default()).await;
    for _ in 0..500 {
        let (auth, key) = (scene.auth.clone(), scene.key.clone());
        let asking = tokio::spawn(async move { auth.authenticate(&key).await.is_ok() });
        tokio::task::yield_now().await;
        asking.abort();
    }
    assert!(scene.auth.authenticate(&scene.key).await.is_ok());
}

#[tokio::test]
async fn a_key_is_good_for_the_api_of_its_row_alone() {
    let scene = scene(Limits::default()).await;
    for (api_name, api) in [("weather", Some(1)), ("maps", Some(0)), ("Maps", None), ("", None)] {
        scene.application.execute("UPDATE api_keys SET api_name = ?1", [api_name]).unwrap();
        let known = scene.auth.authenticate(&scene.key).await.unwrap();
        let known = scene.auth.reload(&scene.key, &known).await.unwrap();
        assert_eq!(known.api(), api, "{api_name:?}");
    }
}

#[tokio::test]
async fn who_a_key_stands_for_has_the_key_as_its_row_does() {
    let scene = scene(Limits::default()).await;
    let known = scene.auth.authenticate(&scene.key).await.unwrap();
    assert!(known.principal(&scene.key).stored_key == scene.key.digest().to_stored());
    scene.application.execute("UPDATE api_keys SET \"key\" = 'a-plain-key'", []).unwrap();
    let plain = ApiKey::new("a-plain-key").unwrap();
    let known = scene.auth.authenticate(&plain).await.unwrap();
    assert_eq!(known.principal(&plain).stored_key.expose(), "a-plain-key");
}

#[test]
fn little_is_kept_of_each_key() {
    // With its two counts 64 bytes: a size that allocators have.
    assert!(size_of::<Known>() <= 48);
}

#[tokio::test]
async fn a_mistyped_key_is_refused_without_a_look_up() {
    let scene = scene(Limits::default()).await;
    let mut typed = scene.key.expose().to_owned();
    let last = typed.pop().unwrap();
    typed.push(if last == 'x' { 'y' } else { 'x' });
    let refused = scene.auth.authenticate(&ApiKey::new(&typed).unwrap()).await.unwrap_err();
    assert_eq!((refused, scene.metrics.auth.loads.get()), (AuthRefused::Unknown, 0));
}

#[tokio::test]
async fn a_refusal_ends_with_the_answer_that_makes_the_key_good() {
    let scene = scene(Limits::default()).await;
    let id = scene.auth.authenticate(&scene.key).await.unwrap().key_id();
    for _ in 0..20 {
        scene.store.set_key_active(id, false).await.unwrap();
        let known = scene.auth.authenticate(&scene.key).await;
        if let Ok(known) = known {
            assert_eq!(scene.auth.reload(&scene.key, &known).await.unwrap_err(), AuthRefused::Inactive);
        }
        scene.store.set_key_active(id, true).await.unwrap();
        scene.auth.authenticate(&scene.key).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_confirmed_follows_another_programs_commit() {
    let scene = scene(Limits::default()).await;
    let known = scene.auth.authenticate(&scene.key).await.unwrap();
    scene.application.execute("UPDATE users SET is_active = 0", []).unwrap();
    // The bound is one of time; that it comes about at all is what can be waited for.
    while scene.auth.confirm(&scene.key, Arc::clone(&known)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.auth.authenticate(&scene.key).await.unwrap_err(), AuthRefused::Inactive);
}

#[tokio::test]
async fn unknown_keys_cannot_push_out_good_ones() {
    let scene = scene(Limits { cached_keys: 10, cached_refusals: 10, ..Limits::default() }).await;
    scene.auth.authenticate(&scene.key).await.unwrap();
    for number in 0..500 {
        let unknown = ApiKey::new(&format!("unknown-{number}")).unwrap();
        assert_eq!(scene.auth.authenticate(&unknown).await.unwrap_err(), AuthRefused::Unknown);
    }
    scene.auth.known.run_pending_tasks().await;
    scene.auth.refusals.run_pending_tasks().await;
    assert_eq!(scene.auth.known.entry_count(), 1);
    assert!(scene.auth.refusals.entry_count() <= 10);
}
