//! Syncs that fail, and syncs that do not come back.

use std::time::Instant;

use super::{PRICE, RESUMED, Scene};
use crate::harness::{DATABASE, EIO, WAL, Word, until};

/// A sync of these files fails under traffic: the program stops, and the next start finds everything.
#[track_caller]
fn a_sync_that_fails(files: i32) {
    let scene = Scene::new();
    let mut program = scene.start();
    let crowd = scene.crowd(&program);
    scene.shim.set(Word::Files, files);
    scene.shim.set(Word::SyncError, EIO);
    assert_eq!(program.wait().code(), Some(66));
    assert!(program.has_said("could not bring the database to the disk"));
    scene.shim.set(Word::SyncError, 0);
    let mut answers = crowd.leave();
    let program = scene.start();
    let crowd = scene.crowd(&program);
    answers.extend(crowd.leave());
    program.stop();
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

#[test]
fn a_capture_whose_sync_hangs_is_undone_and_the_client_is_told() {
    let scene = Scene::new();
    let builder = scene.ground.program(scene.upstream.address()).under(&scene.shim);
    let program = builder.limit("settle_timeout_ms", 1_000).limit("hold_timeout_ms", 1_000).start();
    let request = program.get(&scene.ground, "/");
    request.send().assert_receipt(PRICE, 1_000_000_000 - PRICE);
    scene.shim.set(Word::HangSyncs, 1);
    let told = request.send();
    told.assert_problem(503, "billing-unavailable");
    assert!(told.head.number("retry-after").is_some());
    assert!(scene.shim.get(Word::Hanging) > 0, "no sync hangs");
    // Its hold cost no sync; that of the next one waits behind the capture.
    assert_eq!(scene.upstream.seen(), 2);
    request.send().assert_problem(503, "billing-unavailable");
    assert_eq!(scene.upstream.seen(), 2);
    until("the reason", || program.trouble().is_some_and(|reason| reason.contains("did not answer in time")));
    scene.shim.set(Word::HangSyncs, 0);
    let ended = Instant::now();
    until("the undoing", || scene.ground.database().charges(2) == 1);
    request.send().assert_receipt(PRICE, 1_000_000_000 - 2 * PRICE);
    assert!(ended.elapsed() < RESUMED, "service resumed after {:?}", ended.elapsed());
    until("ready", || program.trouble().is_none());
    program.stop();
    let database = scene.ground.database();
    assert_eq!((database.charges(0), database.charges(1), database.charges(2)), (0, 2, 1));
    scene.assert_accounts(&[]);
}
