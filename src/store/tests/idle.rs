//! What a gateway writes when nothing is asked of it.

use std::time::{Duration, Instant};

use crate::config::Limits;
use crate::store::sample::Sample;
use crate::store::{Role, Store};

/// Looks at the file for commits of other programs: many rounds of the writer's maintenance at the limits of these tests.
const LOOKS: u32 = 60;

/// With the shortest intervals that can be configured.
fn brisk() -> Limits {
    Limits { instance_timeout: Duration::from_secs(1), ..Limits::default() }
}

/// Waits until the writer of a store has looked at the file so often.
async fn looks(store: &Store, count: u32) {
    let (mut seen, mut last) = (0, store.view_age());
    while seen < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let age = store.view_age();
        seen += u32::from(age < last);
        last = age;
    }
}

/// Waits until the sums hold all entries, so that the books have nothing to write any more.
async fn summed(sample: &Sample) {
    let unsummed = "SELECT (SELECT coalesce(max(id), 0) FROM keytoll_entries) > (SELECT value FROM keytoll_meta WHERE name = 'summed_entries_through')
                        OR (SELECT coalesce(max(position), -1) FROM keytoll_charges) > (SELECT value FROM keytoll_meta WHERE name = 'summed_charges_through')";
    while sample.number(unsummed) != 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn turns(sample: &Sample) -> i64 {
    sample.number("SELECT sum(turn) FROM keytoll_instances")
}

#[tokio::test]
async fn an_idle_gateway_writes_nothing_when_no_other_uses_the_file() {
    let sample = Sample::open_with(Role::Gateway, &brisk());
    let (_, key, ledger) = sample.customer().await;
    sample.hold(&ledger, &key, 40).await.charge.capture(200).await;
    summed(&sample).await;
    let log = sample.path().with_extension("db-wal");
    let state = || (turns(&sample), std::fs::metadata(&log).unwrap().len());
    let before = state();
    looks(&sample.store, LOOKS).await;
    assert_eq!(state(), before);
}

#[tokio::test]
async fn commits_of_another_program_that_change_no_wallet_are_answered_by_the_stamp_alone() {
    let sample = Sample::open(Role::Gateway);
    sample.customer().await;
    summed(&sample).await;
    let application = sample.application();
    application.execute_batch("CREATE TABLE sessions (id INTEGER PRIMARY KEY)").unwrap();
    looks(&sample.store, 2).await;
    let (before, begun) = (turns(&sample), Instant::now());
    for _ in 0..20 {
        let generation = sample.store.generation();
        application.execute_batch("INSERT INTO sessions DEFAULT VALUES").unwrap();
        while sample.store.generation() == generation {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    looks(&sample.store, 2).await;
    // The stamp of the file is incremented ten times a second at most.
    let (written, most) = (turns(&sample) - before, i64::try_from(begun.elapsed().as_millis() / 100).unwrap() + 1);
    assert!(written <= most, "{written} transactions, and not {most}");
}

#[tokio::test]
async fn two_idle_gateways_write_their_heartbeats_and_nothing_else() {
    let sample = Sample::open(Role::Gateway);
    sample.customer().await;
    let (other, _) = sample.open_another(Role::Gateway);
    // Each has sent its first heartbeat; the next one is seconds away.
    while sample.number("SELECT min(turn) FROM keytoll_instances") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    summed(&sample).await;
    let before = turns(&sample);
    looks(&sample.store, LOOKS).await;
    let written = turns(&sample) - before;
    assert!(written <= 4, "{written} transactions");
    other.close();
}

#[tokio::test]
async fn gateways_that_share_a_file_go_on_sending_heartbeats() {
    let sample = Sample::open_with(Role::Gateway, &brisk());
    let _lock = crate::store::file::lock_file::LockFile::make(&sample.path(), 9).unwrap();
    sample.application().execute_batch("INSERT INTO keytoll_instances (id, started_at) VALUES (9, 1)").unwrap();
    let turn = || sample.number("SELECT turn FROM keytoll_instances WHERE id = 1");
    let before = turn();
    let beats = async {
        while turn() < before + 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), beats).await.expect("heartbeats");
}
