//! What is found at a start: a file of the application, holds of processes that are gone, changes while away.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
    assert_eq!(opening.recovered, Recovered { instances: 1, accounts: 1, cents: 40 });
    assert_eq!(sample.number("SELECT balance FROM wallets"), 498);
    assert_eq!(sample.books(user), 498);
    assert_eq!(sample.reopen(Role::Gateway).recovered, Recovered::default());
}

#[tokio::test]
async fn a_wallet_that_takes_no_money_stops_neither_others_nor_the_next_start() {
    // A constraint of the application's table: only one wallet, that of the third user, may hold 500.
    const CONSTRAINT: &str = "CREATE UNIQUE INDEX one_has_500 ON wallets (balance) WHERE balance = 500";
    let mut sample = Sample::open(Role::Gateway);
    let (user, key, ledger) = sample.customer().await;
    let other = sample.user("b@example.com").await;
    let other_key = sample.issue(other, "weather").await.key;
    let held = sample.hold(&ledger, &key, 10).await;
    let left = sample.hold(&ledger, &key, 10).await;
    let others = sample.hold(&ledger, &other_key, 40).await;
    sample.user("c@example.com").await;
    sample.application().execute_batch(CONSTRAINT).unwrap();
    sample.application().execute_batch("UPDATE wallets SET balance = balance + 10 WHERE user_id = 1").unwrap();
    assert!(matches!(held.charge.release(None).await, Settled::Released { .. }));
    assert_eq!(others.charge.capture(200).await, Settled::Captured);
    assert_eq!((sample.books(user), sample.books(other)), (490, 460));
    // The store ends as if its process did.
    sample.store.close();
    drop(left);
    assert_eq!(sample.reopen(Role::Gateway).recovered, Recovered { instances: 1, accounts: 1, cents: 10 });
    assert_eq!((sample.books(user), sample.books(other)), (490, 460));
    assert_eq!(sample.number("SELECT balance FROM wallets WHERE user_id = 1"), 490);
    let lost = "SELECT sum(amount_cents) FROM keytoll_entries WHERE note = 'refused by the application''s table'";
    assert_eq!(sample.number(lost), -20);
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
    let held = ledger.hold(sample.wish(&key, 40).await, None).await.unwrap();
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
    assert!(ledger.hold(wish, None).await.is_err());
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
            "BEGIN IMMEDIATE; DELETE FROM keytoll_leases; UPDATE wallets SET balance = balance + 40;
             DELETE FROM keytoll_wallet_log; UPDATE keytoll_instances SET ended_at = 1; COMMIT",
        )
        .unwrap();
    assert!(ledger.hold(wish, None).await.is_err());
    sample.store.fatal().wait_for(|fatal| *fatal == Some(Fatal::TakenForDead)).await.unwrap();
    // A capture that comes too late is none.
    assert_eq!(held.charge.capture(200).await, Settled::Unknown);
    assert_eq!(sample.number("SELECT count(*) FROM keytoll_charges"), 0);
    assert_eq!(sample.number("SELECT balance FROM wallets"), 500);
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
async fn a_gateway_that_is_alone_and_idle_writes_nothing() {
    let sample = Sample::open(Role::Gateway);
    let (_, key, ledger) = sample.customer().await;
    sample.hold(&ledger, &key, 1).await.charge.capture(200).await;
    let turn = || sample.number("SELECT turn FROM keytoll_instances");
    let before = turn();
    let version = sample.application();
    let version = || -> i64 { version.query_row("PRAGMA data_version", [], |row| row.get(0)).unwrap() };
    // The sums are added up once a second: wait until that is done, and for some rounds of maintenance after it.
    let until = |is_so: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    until(&|| sample.number("SELECT value FROM keytoll_meta WHERE name = 'summed_charges_through'") == 1);
    until(&|| sample.store.books_state().is_some());
    let (quiet, begun) = (version(), Instant::now());
    while begun.elapsed() < Duration::from_millis(2_500) {
        assert_eq!(version(), quiet, "the gateway wrote something");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(turn() >= before);
    // With another one on the file it shows that it lives.
    let (other, _) = sample.open_another(Role::Gateway);
    let at = turn_of_first(&sample);
    until(&|| turn_of_first(&sample) > at);
    other.close();
}

fn turn_of_first(sample: &Sample) -> i64 {
    sample.number("SELECT turn FROM keytoll_instances WHERE id = 1")
}

#[test]
fn a_held_lock_is_trusted_for_ever_only_when_its_instance_says_nothing_else() {
    let sample = Sample::open(Role::Gateway);
    let application = sample.application();
    application
        .execute_batch("INSERT INTO keytoll_instances (id, started_at, timeout_ms) VALUES (8, 1, NULL), (9, 1, 0)")
        .unwrap();
    let _locks = [8, 9].map(|instance| LockFile::make(&sample.path(), instance).unwrap());
    let (mut missing, mut silence) = (Missing::default(), Silence::new(Duration::from_secs(1)));
    let mut dead = |silence| {
        let found = instance::find_expired(&application, &sample.path(), Some(1), &mut missing, silence).unwrap();
        assert!(found.any);
        found.expired.len()
    };
    assert_eq!(dead(None), 0);
    // As an instance of an older version does, 8 states no time; 9 must beat all the time.
    assert_eq!(dead(Some(&mut silence)), 1);
}
