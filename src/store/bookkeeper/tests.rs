//! Sums, usage and the comparison that rests on them.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::config::{DatabaseConfig, Durability, Limits};
use crate::model::{ApiKey, Cents, UserId};
use crate::store::bookkeeper::BooksWorker;
use crate::store::books::check::{self, Comparison};
use crate::store::books::retention::{self, Retention};
use crate::store::books::{external, sums};
use crate::store::file::lock_file::RollUpLock;
use crate::store::sample::Sample;
use crate::store::writer::queue::{Queue, QueueLimits};
use crate::store::{Ledger, Role, Settled, doctor};
use crate::telemetry::metrics::{MetricNames, Metrics};

const HOUR: Duration = Duration::from_secs(3_600);
const HOUR_MS: i64 = 3_600_000;

/// A connection as Keytoll's own are: no trigger fires on it.
fn own(sample: &Sample) -> Connection {
    let connection = sample.application();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    connection
}

/// So many charges, captured and released in turn.
async fn settled(sample: &Sample, ledger: &Ledger, key: &ApiKey, count: usize) {
    for number in 0..count {
        let held = sample.hold(ledger, key, 3).await;
        if number % 2 == 0 {
            held.charge.capture(200).await
        } else {
            held.charge.release(Some(502)).await
        };
    }
}

/// Everything that is final, added up; how many portions that took.
fn sum_up(connection: &Connection) -> usize {
    let mut portions = 0;
    while let Some(portion) = sums::gather(connection).unwrap() {
        sums::apply(connection, &portion).unwrap();
        portions += 1;
    }
    portions
}

/// Moves what is older than an hour; how many charges.
fn retire(connection: &Connection, sample: &Sample, now_unix_ms: i64) -> u64 {
    let retention = Retention::new(HOUR, RollUpLock::open(&sample.path()).unwrap());
    let mut cursor = retention.begin(now_unix_ms);
    let mut moved = 0;
    while let Some(old) = cursor.next(connection).unwrap() {
        moved += retention::roll_up(connection, old).unwrap();
    }
    moved
}

/// The books as they are proved, from the rows; the sum of what is kept of them.
fn assert_proved(sample: &Sample) -> doctor::Summary {
    let database = DatabaseConfig {
        path: sample.path(),
        create: false,
        file_mode: 0o600,
        durability: Durability::Full,
        keep_charges: None,
    };
    let report = doctor::examine(&database).unwrap();
    assert!(report.holds(), "{report:#?}");
    report.summary.unwrap()
}

#[tokio::test]
async fn sums_hold_what_is_settled_and_what_is_leased_is_read_beside_them() {
    let mut sample = Sample::open(Role::Gateway);
    let (user, key, ledger) = sample.customer().await;
    settled(&sample, &ledger, &key, 8).await;
    let open = sample.hold(&ledger, &key, 7).await;
    settled(&sample, &ledger, &key, 4).await;
    // It ends with one hold open.
    sample.store.close();
    let connection = own(&sample);
    assert!(sum_up(&connection) > 2, "portions are small in tests");
    assert_eq!(sums::marks(&connection).unwrap().charges_through, 12);
    let summed: (i64, i64) = connection
        .query_row("SELECT entered_cents, charged_cents FROM keytoll_sums", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(summed, (500, 6 * 3));
    assert_eq!(sum_up(&connection), 0, "nothing is added twice");
    let found = check::compare(&connection, |_, _| {}).unwrap();
    assert_eq!(found, Comparison { users: 1, unbalanced: 0 });
    drop(open);
    drop(connection);
    sample.reopen(Role::Gateway);
    assert_eq!(sample.books(user), 500 - 6 * 3);
    assert_proved(&sample);
}

#[tokio::test]
async fn a_portion_is_written_once_whoever_gathers_it() {
    let sample = Sample::open(Role::Tool);
    sample.user("a@example.com").await;
    let connection = own(&sample);
    let (mine, others) = (sums::gather(&connection).unwrap().unwrap(), sums::gather(&connection).unwrap().unwrap());
    sums::apply(&connection, &others).unwrap();
    sums::apply(&connection, &mine).unwrap();
    assert_eq!(sample.number("SELECT entered_cents FROM keytoll_sums"), 500);
}

#[tokio::test]
async fn a_comparison_of_all_wallets_does_not_read_what_was_added_up() {
    let sample = Sample::open(Role::Gateway);
    let (_, key, ledger) = sample.customer().await;
    settled(&sample, &ledger, &key, 9).await;
    sample.store.close();
    let connection = own(&sample);
    sum_up(&connection);
    // Were they read, the books would not balance.
    connection.execute("DELETE FROM keytoll_charges", []).unwrap();
    assert_eq!(check::compare(&connection, |_, _| {}).unwrap().unbalanced, 0);
    assert_eq!(external::reconcile(&connection, "compared", 0).unwrap(), 0);
    connection.execute("UPDATE wallets SET balance = balance + 11", []).unwrap();
    let mut told = Vec::new();
    check::compare(&connection, |user, cents| told.push((user, cents))).unwrap();
    assert_eq!(told, [(UserId(1), 11)]);
    assert_eq!(external::reconcile(&connection, "compared", 0).unwrap(), 1);
    assert_eq!(check::compare(&connection, |_, _| {}).unwrap().unbalanced, 0);
}

#[tokio::test]
async fn sums_that_wrap_around_still_prove_the_books() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@example.com").await;
    for _ in 0..3 {
        sample.store.credit(user, Cents(i64::MAX - 500), None).await.unwrap();
        sample.store.debit(user, Cents(i64::MAX - 500), None).await.unwrap();
    }
    let connection = own(&sample);
    sum_up(&connection);
    assert_eq!(check::compare(&connection, |_, _| {}).unwrap(), Comparison { users: 1, unbalanced: 0 });
    assert_proved(&sample);
}

#[tokio::test]
async fn old_charges_become_usage_and_the_books_stay_as_they_are() {
    let mut sample = Sample::open(Role::Gateway);
    let (user, key, ledger) = sample.customer().await;
    settled(&sample, &ledger, &key, 10).await;
    sample.store.close();
    let connection = own(&sample);
    let now: i64 = connection.query_row("SELECT max(settled_at) FROM keytoll_charges", [], |row| row.get(0)).unwrap();
    assert_eq!(retire(&connection, &sample, now + 2 * HOUR_MS), 0, "what is not added up stays");
    sum_up(&connection);
    // Seven of them are old.
    connection.execute("UPDATE keytoll_charges SET settled_at = settled_at - 7200000 WHERE position <= 7", []).unwrap();
    assert_eq!(retire(&connection, &sample, now), 7);
    assert_eq!(retire(&connection, &sample, now), 0);
    assert_eq!(sample.number("SELECT count(*) * 100 + min(id) FROM keytoll_charges"), 308);
    let usage: (i64, i64, i64, i64) = connection
        .query_row(
            "SELECT sum(captured), sum(captured_cents), sum(released), sum(released_cents) FROM keytoll_usage",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .unwrap();
    assert_eq!(usage, (4, 12, 3, 9));
    assert_eq!(sample.number("SELECT count(*) FROM keytoll_usage WHERE status_class = 2 AND captured = 4"), 1);
    assert_eq!(sample.number("SELECT count(*) FROM keytoll_usage WHERE status_class = 5 AND released = 3"), 1);
    assert_eq!(check::compare(&connection, |_, _| {}).unwrap().unbalanced, 0);
    let summary = assert_proved(&sample);
    assert_eq!((summary.charges, summary.rolled_up), (3, 7));
    // Nothing but usage points to the key then.
    connection.execute("DELETE FROM keytoll_charges", []).unwrap();
    drop(connection);
    sample.reopen(Role::Gateway);
    let key_id = sample.number("SELECT id FROM api_keys");
    assert!(sample.store.delete_key(crate::model::KeyId(key_id)).await.is_err(), "usage points to the key");
    assert_eq!(sample.store.wallet(user).await.unwrap().unwrap().balance_cents, Cents(500 - 5 * 3));
}

#[tokio::test]
async fn the_last_charge_stays_so_that_no_position_is_used_twice() {
    let mut sample = Sample::open(Role::Gateway);
    let (user, key, ledger) = sample.customer().await;
    settled(&sample, &ledger, &key, 5).await;
    sample.store.close();
    let connection = own(&sample);
    sum_up(&connection);
    assert_eq!(retire(&connection, &sample, i64::MAX), 4);
    assert_eq!(sample.number("SELECT position FROM keytoll_charges"), 5);
    drop(connection);
    sample.reopen(Role::Gateway);
    settled(&sample, &sample.ledger(), &key, 2).await;
    sample.store.close();
    assert_eq!(sample.number("SELECT max(position) FROM keytoll_charges"), 7);
    let connection = own(&sample);
    sum_up(&connection);
    assert_eq!(check::compare(&connection, |_, _| {}).unwrap().unbalanced, 0);
    assert_eq!(sample.books(user) - sample.number("SELECT sum(captured_cents) FROM keytoll_usage"), 500 - 4 * 3);
}

#[tokio::test]
async fn nothing_becomes_usage_while_the_file_is_examined() {
    let sample = Sample::open(Role::Gateway);
    let mut retention = Retention::new(HOUR, RollUpLock::open(&sample.path()).unwrap());
    let examined = RollUpLock::stay(&sample.path()).unwrap().unwrap();
    assert!(retention.lock().is_none());
    drop(examined);
    // Somebody removes the file: whoever counts makes it anew, and whoever moves finds that one.
    std::fs::remove_file(sample.path().with_file_name("auth.db-keytoll-usage.lock")).unwrap();
    let examined = RollUpLock::stay(&sample.path()).unwrap().unwrap();
    retention.keep_lock();
    assert!(retention.lock().is_none());
    drop(examined);
    let locked = retention.lock();
    assert!(locked.is_some());
}

#[tokio::test]
async fn a_gateway_keeps_its_books_by_itself_and_says_how_they_stand() {
    let mut sample = Sample::open(Role::Gateway);
    let (_, key, ledger) = sample.customer().await;
    settled(&sample, &ledger, &key, 6).await;
    sample.store.close();
    let connection = own(&sample);
    connection.execute("UPDATE keytoll_charges SET settled_at = 0", []).unwrap();
    connection.execute("UPDATE wallets SET balance = balance + 1", []).unwrap();
    connection.execute("UPDATE users SET email = 'new@example.com'", []).unwrap();
    sample.reopen_keeping(Some(HOUR));
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let state = loop {
        match sample.store.books_state() {
            Some(state) => break state,
            None => assert!(std::time::Instant::now() < deadline, "the books are not compared"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((state.users, state.unbalanced), (1, 1));
    assert_eq!(sample.number("SELECT email = 'new@example.com' FROM keytoll_accounts"), 1);
    while sample.number("SELECT count(*) FROM keytoll_charges") > 1 {
        assert!(std::time::Instant::now() < deadline, "old charges stay");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(sample.number("SELECT sum(captured + released) FROM keytoll_usage"), 5);
}

#[tokio::test]
async fn the_log_names_some_users_whose_books_do_not_balance_and_counts_the_rest() {
    let sample = Sample::open(Role::Tool);
    for name in ["a", "b", "c", "d", "e"] {
        sample.user(&format!("{name}@example.com")).await;
    }
    own(&sample).execute("UPDATE wallets SET balance = balance + 1 WHERE user_id <> 3", []).unwrap();
    let worker = BooksWorker {
        connection: own(&sample),
        queue: Arc::new(Queue::new(QueueLimits::from(&Limits::default()))),
        retention: None,
        pass: None,
        metrics: Metrics::new(&MetricNames::default(), None).store,
        shared: Arc::default(),
    };
    let log = sample.path().with_extension("log");
    let kept = Arc::new(File::create(&log).unwrap());
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(kept).finish();
    // With one subscriber alone, tracing asks that of whichever thread comes first whether a line is wanted at all.
    let _other = tracing::Dispatch::new(tracing_subscriber::registry());
    tracing::subscriber::with_default(subscriber, || assert!(worker.compare().is_ok()));
    let log = std::fs::read_to_string(log).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 3, "{log}");
    assert!(lines[0].contains("user_id=1 difference=1") && lines[1].contains("user_id=2 difference=1"), "{log}");
    assert!(lines[2].contains("users=4"), "{log}");
}

#[tokio::test]
async fn a_user_whose_address_the_application_changed_keeps_account_and_holds_when_wallets_are_rebuilt() {
    let sample = Sample::open(Role::Gateway);
    let (user, key, ledger) = sample.customer().await;
    let held = sample.hold(&ledger, &key, 40).await;
    sample.application().execute("UPDATE users SET email = 'new@example.com'", []).unwrap();
    let connection = own(&sample);
    let accounts = external::readdressed(&connection, 10).unwrap();
    external::readdress(&connection, &accounts).unwrap();
    assert_eq!(external::readdressed(&connection, 10).unwrap(), []);
    let rebuild =
        "BEGIN; CREATE TABLE anew (id INTEGER NOT NULL PRIMARY KEY, user_id INTEGER NOT NULL UNIQUE, balance INTEGER);
        INSERT INTO anew SELECT id, user_id, balance FROM wallets; DROP TABLE wallets;
        ALTER TABLE anew RENAME TO wallets; COMMIT";
    sample.application().execute_batch(rebuild).unwrap();
    assert_eq!(held.charge.release(Some(502)).await, Settled::Released { balance: Some(Cents(500)) });
    assert_eq!(sample.number("SELECT count(*) FROM keytoll_accounts"), 1);
    assert_eq!(sample.books(user), 500);
}
