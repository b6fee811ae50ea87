//! A disk that is full, and one that fails.

use serde_json::json;

use super::{CLIENTS, Scene};
use crate::harness::{DATABASE, EIO, ENOSPC, EROFS, WAL, Word, until};

/// Switches a fault of writes on under traffic, and off again.
#[track_caller]
fn a_fault_of_writes(files: i32, fault: (Word, i32), reason: &str) {
    let scene = Scene::new();
    let process = scene.start();
    let crowd = scene.crowd(&process);
    let credit = json!({"kind": "credit", "amount_cents": 7, "note": "in the fault"});
    let credit = process.post("/v1/users/1/wallet/entries", &credit);
    scene.shim.set(Word::Files, files);
    scene.shim.set(fault.0, fault.1);
    scene.assert_refusing(&process, &crowd, reason);
    let refused = credit.send();
    assert_eq!((refused.status(), refused.head.number("retry-after").is_some()), (503, true), "{refused:?}");
    assert!(scene.shim.get(Word::Failed) > 0, "no call failed");
    scene.shim.set(fault.0, 0);
    scene.assert_resuming(&process, &crowd);
    assert_eq!(credit.send().status(), 201);
    scene.close(process, crowd);
    assert_eq!(scene.ground.database().entries(1, "credit"), [7], "what was refused was not done");
}

#[test]
fn past_the_limit_of_a_files_size_nothing_is_forwarded_until_there_is_room_again() {
    a_fault_of_writes(0, (Word::SizeLimit, 4096), "I/O error");
}

#[test]
fn on_a_full_disk_nothing_is_forwarded_until_there_is_room_again() {
    a_fault_of_writes(0, (Word::WriteError, ENOSPC), "disk of the database is full");
}

#[test]
fn while_writes_fail_nothing_is_forwarded() {
    a_fault_of_writes(0, (Word::WriteError, EIO), "I/O error");
}

#[test]
fn while_commits_fail_nothing_is_forwarded() {
    // A commit is what is written to the write-ahead log.
    a_fault_of_writes(WAL, (Word::WriteError, EIO), "I/O error");
}

#[test]
fn on_a_disk_that_became_read_only_nothing_is_forwarded_until_it_is_writable_again() {
    // What Linux does to a file system with errors: descriptors stay open and writes are refused. To change the file's
    // mode would do nothing to them, and nothing at all to root.
    a_fault_of_writes(0, (Word::WriteError, EROFS), "I/O error");
}

#[test]
fn checkpoints_that_fail_stop_nobody() {
    let scene = Scene::new();
    let process = scene.start();
    let crowd = scene.crowd(&process);
    scene.shim.set(Word::Files, DATABASE);
    scene.shim.set(Word::WriteError, EIO);
    until("a checkpoint fails", || process.has_said("a checkpoint failed"));
    let more = crowd.served() + 50 * CLIENTS;
    until("service", || crowd.served() >= more);
    assert_eq!((crowd.refused(), process.trouble()), (0, None));
    scene.shim.set(Word::WriteError, 0);
    scene.close(process, crowd);
    assert!(!scene.ground.file("-wal").exists(), "the last checkpoint took everything over");
}
