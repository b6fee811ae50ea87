use crate::model::Cents;
use crate::store::admin::keys::*;
use crate::store::sample::Sample;
use crate::store::{Found, HoldRefused, Role, UserChange};

fn refused<T: std::fmt::Debug>(result: Result<T, WriteError<KeyRefused>>) -> KeyRefused {
    let WriteError::Refused(refused) = result.unwrap_err() else { panic!("unavailable") };
    refused
}

#[tokio::test]
async fn an_issued_key_is_good_at_once_and_kept_as_a_digest() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    let before = sample.store.generation();
    let new = sample.issue(user, "weather").await;
    assert!(sample.store.generation() > before);
    assert!(matches!(sample.store.find_key(new.key.clone()).await.unwrap(), Found::Active { .. }));
    assert!(new.record.hint.0.starts_with("kt_…") && new.key.expose().ends_with(&new.record.hint.0[6..]));
    assert_eq!(sample.store.key(new.record.id).await.unwrap(), Some(new.record));
    assert_eq!(sample.number("SELECT count(*) FROM api_keys WHERE \"key\" LIKE 'sha256:%'"), 1);
    // SQLAlchemy's SQLite DateTime reads no other form back.
    let readable = "SELECT created_at GLOB '????-??-?? ??:??:??.??????' FROM api_keys";
    assert_eq!(sample.number(readable), 1);
}

#[tokio::test]
async fn plain_storage_keeps_the_key_itself() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    let prefix = KeyPrefix::new("app").unwrap();
    let new = sample.store.issue_key(user, "weather", KeyStorage::Plain, &prefix).await.unwrap();
    assert!(matches!(sample.store.find_key(new.key.clone()).await.unwrap(), Found::Active { .. }));
    let kept: String = sample.application().query_row("SELECT \"key\" FROM api_keys", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, new.key.expose());
    assert!(new.record.hint.0.starts_with("app_…"));
}

#[tokio::test]
async fn a_user_has_one_key_for_an_api() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    sample.issue(user, "weather").await;
    let prefix = KeyPrefix::new("kt").unwrap();
    let again = sample.store.issue_key(user, "weather", KeyStorage::Sha256, &prefix).await;
    assert_eq!(refused(again), KeyRefused::Duplicate);
    let nobody = sample.store.issue_key(UserId(99), "weather", KeyStorage::Sha256, &prefix).await;
    assert_eq!(refused(nobody), KeyRefused::NoUser);
}

#[tokio::test]
async fn a_key_that_is_switched_off_is_not_good_and_comes_back() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    let new = sample.issue(user, "weather").await;
    assert!(!sample.store.set_key_active(new.record.id, false).await.unwrap().is_active);
    assert!(matches!(sample.store.find_key(new.key.clone()).await.unwrap(), Found::Inactive));
    sample.store.set_key_active(new.record.id, true).await.unwrap();
    sample.store.update_user(user, UserChange { is_active: Some(false), ..UserChange::default() }).await.unwrap();
    assert!(matches!(sample.store.find_key(new.key).await.unwrap(), Found::Inactive));
    assert_eq!(refused(sample.store.set_key_active(KeyId(99), true).await), KeyRefused::NotFound);
}

#[tokio::test]
async fn a_key_with_charges_is_not_deleted_and_one_without_is() {
    let sample = Sample::open(Role::Gateway);
    let user = sample.user("a@b.example").await;
    let paid = sample.issue(user, "weather").await;
    let unused = sample.issue(user, "maps").await;
    let ledger = sample.ledger();
    let held = sample.hold(&ledger, &paid.key, 2).await;
    assert_eq!(held.balance, Cents(498));
    held.charge.capture(200).await;
    assert_eq!(refused(sample.store.delete_key(paid.record.id).await), KeyRefused::HasCharges);
    sample.store.delete_key(unused.record.id).await.unwrap();
    assert!(matches!(sample.store.find_key(unused.key).await.unwrap(), Found::Unknown));
    assert_eq!(refused(sample.store.delete_key(unused.record.id).await), KeyRefused::NotFound);
    // Charges name keys by their ids: none is used twice.
    assert_ne!(sample.issue(user, "maps").await.record.id, unused.record.id);
}

#[tokio::test]
async fn a_charge_of_long_ago_keeps_its_key_too() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    let key = sample.issue(user, "weather").await.record.id;
    sample
        .application()
        .execute_batch(&format!(
            "INSERT INTO keytoll_charges (id, account_id, key_id, route_id, cents, state, held_at, settled_at)
             VALUES (7, 1, {key}, 1, 2, 2, 0, 0)"
        ))
        .unwrap();
    assert_eq!(refused(sample.store.delete_key(key).await), KeyRefused::HasCharges);
}

#[tokio::test]
async fn charges_that_come_after_the_first_look_are_seen() {
    let sample = Sample::open(Role::Gateway);
    let user = sample.user("a@b.example").await;
    let key = sample.issue(user, "weather").await;
    let other = sample.issue(user, "maps").await;
    let ledger = sample.ledger();
    sample.hold(&ledger, &other.key, 2).await.charge.capture(200).await;
    let through = sample.store.read(|connection| Ok(sums::marks(connection)?.charges_through)).await.unwrap();
    sample.hold(&ledger, &key.key, 2).await.charge.capture(200).await;
    let seen = sample.store.read(move |connection| has_charges(connection, key.record.id, through)).await.unwrap();
    assert!(seen);
}

#[tokio::test]
async fn a_hint_is_not_shown_for_a_later_row_with_the_same_id() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    let new = sample.issue(user, "weather").await;
    let replace = "UPDATE api_keys SET \"key\" = 'abc', created_at = 'last week', is_active = NULL";
    sample.application().execute_batch(replace).unwrap();
    let key = sample.store.key(new.record.id).await.unwrap().unwrap();
    assert_eq!(key.hint.0, "sha256:ba7816bf");
    assert_eq!((key.created_at, key.is_active), (None, false));
}

#[tokio::test]
async fn keys_are_listed_by_user_and_api() {
    let sample = Sample::open(Role::Tool);
    let (first, second) = (sample.user("a@b.example").await, sample.user("c@d.example").await);
    for (user, api) in [(first, "weather"), (second, "weather"), (first, "maps")] {
        sample.issue(user, api).await;
    }
    let ids = |filter: KeyFilter, wish: PageRequest| {
        let store = sample.store.clone();
        async move {
            let page = store.keys(filter, wish).await.unwrap();
            (page.data.iter().map(|key| key.id.0).collect::<Vec<_>>(), page.next_cursor)
        }
    };
    let of_first = KeyFilter { user_id: Some(first), api_name: None };
    assert_eq!(ids(of_first.clone(), PageRequest::default()).await, (vec![1, 3], None));
    assert_eq!(ids(of_first, PageRequest { limit: 1, cursor: None }).await, (vec![1], Some(1)));
    let weather = KeyFilter { user_id: None, api_name: Some("weather".into()) };
    assert_eq!(ids(weather, PageRequest { limit: 9, cursor: Some(1) }).await, (vec![2], None));
}

#[tokio::test]
async fn a_rotated_key_keeps_its_row_and_loses_its_secret() {
    let sample = Sample::open(Role::Gateway);
    let (_, old, ledger) = sample.customer().await;
    let id = KeyId(1);
    let before = sample.store.key(id).await.unwrap().unwrap();
    sample.hold(&ledger, &old, 2).await.charge.capture(200).await;
    // What a gateway remembers of the old key when it is rotated.
    let wish = sample.wish(&old, 2).await;
    let generation = sample.store.generation();
    let new = sample.store.rotate_key(id, KeyStorage::Sha256, &KeyPrefix::new("kt").unwrap()).await.unwrap();
    assert!(sample.store.generation() > generation);
    assert!(matches!(ledger.hold(wish, None).await, Err(HoldRefused::KeyChanged)));
    assert!(matches!(sample.store.find_key(old.clone()).await.unwrap(), Found::Unknown));
    assert_eq!(sample.hold(&ledger, &new.key, 2).await.balance, Cents(496));
    let expected = KeyRecord { hint: new.record.hint.clone(), ..before.clone() };
    assert_eq!((&new.record, sample.store.key(id).await.unwrap()), (&expected, Some(expected.clone())));
    assert!(new.record.hint != before.hint && new.key.expose().ends_with(&new.record.hint.0[6..]));
    // A second rotation ends the first one's key.
    let third = sample.store.rotate_key(id, KeyStorage::Sha256, &KeyPrefix::new("kt").unwrap()).await.unwrap();
    assert!(matches!(sample.store.find_key(new.key).await.unwrap(), Found::Unknown));
    assert!(matches!(sample.store.find_key(third.key).await.unwrap(), Found::Active { .. }));
    assert_eq!(sample.number("SELECT count(*) FROM api_keys"), 1);
}

#[tokio::test]
async fn a_key_is_rotated_whoever_made_it_and_stored_as_configured() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    let made = format!(
        "INSERT INTO api_keys (id, \"key\", user_id, api_name, is_active, created_at)
         VALUES (7, 'a-plain-key', {user}, 'weather', NULL, '2020-01-02 03:04:05.000006')"
    );
    sample.application().execute_batch(&made).unwrap();
    let (id, acme) = (KeyId(7), KeyPrefix::new("acme").unwrap());
    let stored = "SELECT \"key\" FROM api_keys WHERE is_active IS NULL AND created_at = '2020-01-02 03:04:05.000006'";
    let stored = || -> String { sample.application().query_row(stored, [], |row| row.get(0)).unwrap() };
    let digest = sample.store.rotate_key(id, KeyStorage::Sha256, &acme).await.unwrap();
    assert!(stored().starts_with("sha256:") && !digest.record.is_active);
    assert!(matches!(sample.store.find_key(ApiKey::new("a-plain-key").unwrap()).await.unwrap(), Found::Unknown));
    let plain = sample.store.rotate_key(id, KeyStorage::Plain, &acme).await.unwrap();
    assert_eq!((stored().as_str(), plain.key.expose().starts_with("acme_")), (plain.key.expose(), true));
    assert!(matches!(sample.store.find_key(plain.key).await.unwrap(), Found::Inactive));
    let missing = sample.store.rotate_key(KeyId(8), KeyStorage::Sha256, &acme).await;
    assert_eq!(refused(missing), KeyRefused::NotFound);
    assert_eq!(sample.number("SELECT count(*) FROM keytoll_key_hints WHERE key_id = 8"), 0);
}
