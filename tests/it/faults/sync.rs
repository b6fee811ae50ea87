//! Syncs that fail, and syncs that do not come back.

use std::time::Instant;

use rusqlite::Connection;

use super::{PRICE, RESUMED, Scene};
use crate::harness::{DATABASE, EIO, GatewayBuilder, Process, Request, WAL, Word, until};

/// A sync of these files fails under traffic: the program stops, and the next start finds everything.
#[track_caller]
fn a_sync_that_fails(files: i32) {
    let scene = Scene::new();
    let mut process = scene.start();
    let crowd = scene.crowd(&process);
    scene.shim.set(Word::Files, files);
    scene.shim.set(Word::SyncError, EIO);
    assert_eq!(process.wait().code(), Some(66));
    scene.died();
    assert!(process.has_said("could not bring the database to the disk"));
    scene.shim.set(Word::SyncError, 0);
    let mut answers = crowd.leave();
    let process = scene.start();
    let crowd = scene.crowd(&process);
    answers.extend(crowd.leave());
    process.stop();
    scene.assert_accounts(&answers);
}

#[test]
fn when_a_commits_sync_fails_the_program_stops_and_nothing_delivered_is_lost() {
    a_sync_that_fails(WAL);
}

#[test]
fn when_a_checkpoints_sync_fails_the_program_stops_and_nothing_delivered_is_lost() {
    a_sync_that_fails(DATABASE);
}

/// A gateway that has served one request, and whose syncs hang from now on. The log stays pinned with the connection.
fn hanging(scene: &Scene, gateway: GatewayBuilder) -> (Process, Request, Connection) {
    let process = gateway.spawn();
    let pinned = scene.pin_log();
    let request = process.get("/").key(&scene.ground.key);
    request.send().assert_receipt(PRICE, 1_000_000_000 - PRICE);
    scene.shim.set(Word::HangSyncs, 1);
    (process, request, pinned)
}

#[test]
fn a_capture_whose_sync_hangs_is_refunded_and_the_client_is_refused() {
    let scene = Scene::new();
    let gateway = scene.gateway().limit("settle_timeout_ms", 1_000).limit("hold_timeout_ms", 1_000);
    let (process, request, _pinned) = hanging(&scene, gateway);
    let told = request.send();
    told.assert_problem(503, "billing-unavailable");
    assert!(told.head.number("retry-after").is_some());
    assert!(scene.shim.get(Word::Hanging) > 0, "no sync hangs");
    // Its hold cost no sync; that of the next one waits behind the capture.
    assert_eq!(scene.upstream.seen(), 2);
    request.send().assert_problem(503, "billing-unavailable");
    assert_eq!(scene.upstream.seen(), 2);
    until("the reason", || process.trouble().is_some_and(|reason| reason.contains("did not answer in time")));
    // It stays, also when nothing waits any more.
    request.send().assert_problem(503, "billing-unavailable");
    assert!(process.trouble().is_some());
    scene.shim.set(Word::HangSyncs, 0);
    let ended = Instant::now();
    until("the refund", || scene.ground.database().refunds() == 1);
    request.send().assert_receipt(PRICE, 1_000_000_000 - 2 * PRICE);
    assert!(ended.elapsed() < RESUMED, "service resumed after {:?}", ended.elapsed());
    until("ready", || process.trouble().is_none());
    process.stop();
    let database = scene.ground.database();
    assert_eq!((database.leased(), database.charges(1), database.charges(2), database.refunds()), (0, 3, 0, 1));
    scene.assert_accounts(&[]);
}

#[test]
fn neither_a_hold_nor_the_application_waits_for_the_sync_of_a_capture() {
    let scene = Scene::new();
    let gateway = scene.gateway().limit("sync_late_ms", 600_000).limit("settle_timeout_ms", 600_000);
    let (process, request, _pinned) = hanging(&scene, gateway);
    let mut first = request.open();
    until("the sync of its capture", || scene.shim.get(Word::Hanging) > 0);
    let mut second = request.open();
    until("the second call", || scene.upstream.seen() == 3);
    // The write lock is free.
    scene.ground.database().execute("UPDATE users SET name = 'Ada Lovelace'", ());
    first.expect_silence();
    scene.shim.set(Word::HangSyncs, 0);
    first.reply().assert_receipt(PRICE, 1_000_000_000 - 2 * PRICE);
    second.reply().assert_receipt(PRICE, 1_000_000_000 - 3 * PRICE);
    process.stop();
    scene.assert_accounts(&[]);
}

#[test]
fn a_late_capture_stays_as_it_is_and_is_refunded_by_an_entry() {
    let scene = Scene::new();
    // Long enough that it is added up meanwhile, once a second.
    let gateway = scene.gateway().limit("sync_late_ms", 600_000).limit("settle_timeout_ms", 2_500);
    let (process, request, _pinned) = hanging(&scene, gateway);
    let mut late = request.open();
    let database = scene.ground.database();
    until("the capture", || database.charges(1) == 2);
    late.reply().assert_problem(503, "billing-unavailable");
    let row = "SELECT sum(id * 7 + cents * 3 + state + settled_at) FROM keytoll_charges";
    let before = database.number(row);
    scene.shim.set(Word::HangSyncs, 0);
    until("the refund", || database.refunds() == 1);
    assert_eq!(database.number(row), before, "a charge that is in the books is final");
    process.stop();
    assert_eq!((database.charges(1), database.charges(2), database.refunds()), (2, 0, 1));
    scene.assert_accounts(&[]);
}

#[test]
fn without_a_request_too_a_disk_that_does_not_answer_is_told() {
    let scene = Scene::new();
    let gateway = scene.gateway().limit("settle_timeout_ms", 600_000).limit("hold_timeout_ms", 1_000);
    let (process, request, _pinned) = hanging(&scene, gateway);
    let mut client = request.open();
    until("the reason", || process.trouble().is_some_and(|reason| reason.contains("did not answer in time")));
    scene.shim.set(Word::HangSyncs, 0);
    client.reply().assert_receipt(PRICE, 1_000_000_000 - 2 * PRICE);
    until("ready", || process.trouble().is_none());
    process.stop();
}

#[test]
fn a_capture_that_is_late_at_the_stop_is_refunded_before_the_end() {
    let scene = Scene::new();
    let gateway = scene.gateway().drain_timeout_ms(0).limit("settle_timeout_ms", 100);
    let (mut process, request, _pinned) = hanging(&scene, gateway);
    request.send().assert_problem(503, "billing-unavailable");
    process.signal("TERM");
    until("the end of its patience", || process.has_said("stopping while the disk does not answer"));
    scene.shim.set(Word::HangSyncs, 0);
    assert!(process.wait().success());
    let database = scene.ground.database();
    assert_eq!((database.leased(), database.charges(1), database.charges(2), database.refunds()), (0, 2, 0, 1));
    scene.assert_accounts(&[]);
}
