//! What is found at a start: a file of the application, holds of processes that are gone, changes while away.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::model::Cents;
use crate::store::file::instance;
use crate::store::file::lock_file::{self, LockFile, Missing};
use crate::store::file::silence::Silence;
use crate::store::sample::Sample;
use crate::store::writer::write::WriteFault;
use crate::store::{Fatal, OpenError, Recovered, Role, Settled};

#[tokio::test]
async fn holds_of_a_process_that_is_gone_are_released_at_the_next_start() {
    let mut sample = Sample::open(Role::Gateway);
    let (user, key, ledger) = sample.customer().await;
    let held = sample.hold(&ledger, &key, 40).await;
    let kept = sample.hold(&ledger, &key, 2).await;
    assert_eq!(kept.charge.capture(200).await, Settled::Captured);
    // The store ends as if its process did: with a charge that is held.
    sample.store.close();
    drop(held);
    assert_eq!(sample.number("SELECT balance FROM wallets"), 458);
    let opening = sample.reopen(Role::Gateway);
    assert_eq!(opening.recovered, Recovered { instances: 1, charges: 1, cents: 40 });
    assert_eq!(sample.number("SELECT balance FROM wallets"), 498);
    assert_eq!(sample.books(user), 498);
    assert_eq!(sample.reopen(Role::Gateway).recovered, Recovered::default());
}

#[tokio::test]
async fn a_live_gateways_holds_are_left_alone() {
    let sample = Sample::open(Role::Gateway);
    let (_, key, ledger) = sample.customer().await;
    let held = sample.hold(&ledger, &key, 40).await;
    let (other, opening) = sample.open_another(Role::Gateway);
    assert_eq!(opening.recovered, Recovered::default());
    assert_eq!(held.charge.capture(200).await, Settled::Captured);
    assert_eq!(sample.number("SELECT balance FROM wallets"), 460);
    other.close();
}

#[tokio::test]
async fn the_lock_file_of_a_dead_gateway_stays_until_its_releases_are_committed() {
    let sample = Sample::open(Role::Gateway);
    let user = sample.user("a@example.com").await;
    let key = sample.issue(user, "weather").await.key;
    let (other, _) = sample.open_another(Role::Gateway);
    let (ledger, answers) = other.ledger();
    tokio::spawn(answers);
    let held = ledger.hold(sample.wish(&key, 40).await).await.unwrap();
    let id = sample.number("SELECT max(id) FROM keytoll_instances");
    let lock = lock_file::path(&sample.path(), id);
    // The other ends as if its process did, with a charge that is held.
    other.close();
    drop(held);
    // The first transaction that releases it comes to nothing.
    while !undone_with_the_end_of(&sample, id, lock.clone()).await {}
    let deadline = Instant::now() + Duration::from_secs(20);
    while lock.exists() {
        assert!(Instant::now() < deadline, "the lock file stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((sample.books(user), sample.number("SELECT balance FROM wallets")), (500, 500));
}

/// Whether a transaction in which an instance was ended was rolled back, with its lock file in place until then.
async fn undone_with_the_end_of(sample: &Sample, instance: i64, lock: PathBuf) -> bool {
    let written = sample.store.write(move |tx| -> Result<bool, WriteFault<Infallible>> {
        let ended = "SELECT ended_at IS NOT NULL FROM keytoll_instances WHERE id = ?1";
        let has_ended = tx.connection().query_row(ended, [instance], |row| row.get(0))?;
        if has_ended {
            assert!(lock.exists(), "the lock file is gone before the commit");
            tx.connection().execute_batch("ROLLBACK")?;
        }
        Ok(has_ended)
    });
    written.await.is_err()
}

#[tokio::test]
async fn ids_of_charges_are_never_used_twice() {
    let mut sample = Sample::open(Role::Gateway);
    let user = sample.user("a@example.com").await;
    let key = sample.issue(user, "weather").await.key;
    let mut last = 0;
    for end_in_order in [true, false, true] {
        let ledger = sample.ledger();
        let held = sample.hold(&ledger, &key, 1).await;
        assert!(held.charge.id().0 > last);
        last = held.charge.id().0;
        let held = if end_in_order {
            held.charge.capture(200).await;
            None
        } else {
            Some(held)
        };
        sample.store.close();
        drop(held);
        // As after a power cut that took the last commits away.
        sample.application().execute("DELETE FROM keytoll_charges WHERE id = ?1", [last]).unwrap();
        sample.reopen(Role::Gateway);
    }
}

#[tokio::test]
async fn changes_while_keytoll_was_away_are_entered_at_the_start() {
    let mut sample = Sample::open(Role::Gateway);
    let user = sample.user("a@example.com").await;
    sample.store.close();
    sample.application().execute_batch("UPDATE wallets SET balance = balance + 25").unwrap();
    assert_eq!(sample.reopen(Role::Gateway).external_entries, 1);
    assert_eq!(sample.books(user), 525);
    sample.store.close();
    sample
        .application()
        .execute_batch("DROP TRIGGER keytoll_wallets_after_update; UPDATE wallets SET balance = 1")
        .unwrap();
    assert_eq!(sample.reopen(Role::Gateway).external_entries, 1);
    assert_eq!(sample.books(user), 1);
}

#[tokio::test]
async fn a_file_of_the_application_is_adopted_as_it_is() {
    let mut sample = Sample::open(Role::Tool);
    sample.store.close();
    let application = sample.application();
    let drop_all = "SELECT group_concat('DROP ' || type || ' ' || name, ';') FROM sqlite_master WHERE name LIKE 'keytoll%' AND (type = 'trigger' OR type = 'table')";
    let statements: String = application.query_row(drop_all, [], |row| row.get(0)).unwrap();
    application.execute_batch(&format!("PRAGMA foreign_keys = OFF; {statements}")).unwrap();
    application
        .execute_batch(
            "INSERT INTO users VALUES (1, 'a@example.com', 'A', 1), (2, 'b@example.com', 'B', NULL);
             INSERT INTO wallets VALUES (1, 1, 500), (2, 2, 'abc'), (3, 'nobody', 7);",
        )
        .unwrap();
    let opening = sample.reopen(Role::Gateway);
    assert_eq!(opening.adopted_wallets, 2);
    assert_eq!(
        sample.number("SELECT amount_cents FROM keytoll_entries WHERE kind = 'opening' AND account_id = 1"),
        500
    );
    assert_eq!(sample.number("SELECT balance = 'abc' FROM wallets WHERE user_id = 2"), 1);
}

#[test]
fn what_is_wrong_with_a_file_is_said_and_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("auth.db");
    assert!(matches!(Sample::try_open(&path, false), Err(OpenError::Missing(_))));
    std::fs::write(&path, "this is a text, and no database at all").unwrap();
    assert!(matches!(Sample::try_open(&path, false), Err(OpenError::NotSqlite(_))));
    std::fs::remove_file(&path).unwrap();
    let application = rusqlite::Connection::open(&path).unwrap();
    application.execute_batch("CREATE TABLE wallets (id INTEGER PRIMARY KEY, user_id INTEGER)").unwrap();
    let error = Sample::try_open(&path, false).err().unwrap();
    assert!(matches!(error, OpenError::Column { table: "wallets", column: "balance" }), "{error}");
    let tables: i64 = application.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_open_stops_the_store() {
    let sample = Sample::open(Role::Gateway);
    let (_, key, ledger) = sample.customer().await;
    let wish = sample.wish(&key, 1).await;
    let path = sample.path();
    std::fs::rename(&path, path.with_extension("away")).unwrap();
    assert!(ledger.hold(wish).await.is_err());
    sample.store.fatal().wait_for(Option::is_some).await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_was_taken_for_dead_holds_nothing_more_and_stops() {
    let sample = Sample::open(Role::Gateway);
    let (_, key, ledger) = sample.customer().await;
    let held = sample.hold(&ledger, &key, 40).await;
    let wish = sample.wish(&key, 1).await;
    // As another gateway does it, in one transaction, when this one was frozen and its lock file removed.
    sample
        .application()
        .execute_batch(
            "BEGIN IMMEDIATE; UPDATE keytoll_charges SET state = 2; UPDATE keytoll_instances SET ended_at = 1; COMMIT",
        )
        .unwrap();
    assert!(ledger.hold(wish).await.is_err());
    sample.store.fatal().wait_for(|fatal| *fatal == Some(Fatal::TakenForDead)).await.unwrap();
    assert_eq!(sample.number("SELECT count(*) FROM keytoll_charges"), 1);
    // A capture that comes too late is none.
    assert_eq!(held.charge.capture(200).await, Settled::Unknown);
}

#[tokio::test]
async fn rows_of_processes_that_ended_long_ago_go_and_those_of_others_stay() {
    let mut sample = Sample::open(Role::Gateway);
    sample.reopen(Role::Gateway);
    sample.store.close();
    sample.application().execute("UPDATE keytoll_instances SET ended_at = 5 WHERE id = 1", []).unwrap();
    sample.reopen(Role::Gateway);
    assert_eq!(sample.number("SELECT count(*) * 10 + min(id) FROM keytoll_instances"), 22);
}

#[tokio::test]
async fn no_hold_lies_below_the_mark_after_ids_could_not_be_reserved() {
    let mut sample = Sample::open(Role::Gateway);
    let user = sample.user("a@example.com").await;
    let key = sample.issue(user, "weather").await.key;
    let ledger = sample.ledger();
    let open = sample.hold(&ledger, &key, 1).await;
    let wish = sample.wish(&key, 1).await;
    // Another gateway has the ids above, and this one a single id left of its own, before it knows.
    let (other, _) = sample.open_another(Role::Gateway);
    let (of_other, answers) = other.ledger();
    tokio::spawn(answers);
    while sample.number("SELECT max(id) FROM keytoll_charges") < 999 {
        let missing = 999 - sample.number("SELECT max(id) FROM keytoll_charges");
        let mut holds = tokio::task::JoinSet::new();
        for _ in 0..missing.min(200) {
            let (ledger, wish) = (ledger.clone(), wish.clone());
            holds.spawn(async move { drop(ledger.hold(wish).await) });
        }
        holds.join_all().await;
    }
    drop(of_other.hold(wish.clone()).await.unwrap());
    other.settled().await;
    let application = sample.application();
    application.execute_batch("BEGIN IMMEDIATE; ALTER TABLE keytoll_instances DROP COLUMN ids_below").unwrap();
    let mut holds = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (ledger, wish) = (ledger.clone(), wish.clone());
        holds.spawn(async move { ledger.hold(wish).await.is_ok() });
    }
    while sample.store.open_charges() < 11 {
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    application.execute_batch("COMMIT").unwrap();
    assert!(!holds.join_all().await.contains(&true), "no id could be reserved");
    application.execute_batch("ALTER TABLE keytoll_instances ADD COLUMN ids_below INTEGER").unwrap();
    let late = sample.hold(&ledger, &key, 1).await;
    assert_eq!(open.charge.release(None).await, Settled::Released { balance: Some(Cents(499)) });
    let deadline = Instant::now() + Duration::from_secs(20);
    while sample.number("SELECT low_water FROM keytoll_instances WHERE id = 1") <= 1 {
        assert!(Instant::now() < deadline, "the mark stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mark = sample.number("SELECT low_water FROM keytoll_instances WHERE id = 1");
    assert!(mark <= late.charge.id().0, "{mark} {:?}", late.charge.id());
    // So that the next start finds it.
    other.close();
    sample.store.close();
    drop(late);
    assert_eq!(sample.reopen(Role::Gateway).recovered.charges, 1);
    assert_eq!((sample.books(user), sample.number("SELECT balance FROM wallets")), (500, 500));
}

#[test]
fn a_held_lock_is_trusted_for_ever_only_when_its_instance_says_nothing_else() {
    let sample = Sample::open(Role::Gateway);
    let application = sample.application();
    application
        .execute_batch(
            "INSERT INTO keytoll_instances (id, started_at, low_water, timeout_ms) VALUES (8, 1, 1, NULL), (9, 1, 1, 0)",
        )
        .unwrap();
    let _locks = [8, 9].map(|instance| LockFile::make(&sample.path(), instance).unwrap());
    let (mut missing, mut silence) = (Missing::default(), Silence::new(Duration::from_secs(1)));
    let mut dead = |silence| {
        let found = instance::find_dead(&application, &sample.path(), Some(1), &mut missing, silence).unwrap();
        assert!(found.any);
        found.dead.len()
    };
    assert_eq!(dead(None), 0);
    // As an instance of an older version does, 8 states no time; 9 must beat all the time.
    assert_eq!(dead(Some(&mut silence)), 1);
}
