//! The file taken away, replaced, or made read-only.

use std::fs;

use super::Scene;
use crate::harness::{Answer, Database, EACCES, EROFS, Process, Word};

/// Under traffic: something happens to the file, and the program stops and says so. What the clients were answered.
#[track_caller]
fn stops(scene: &Scene, mut process: Process, words: &str, happens: impl FnOnce()) -> Vec<Answer> {
    let crowd = scene.crowd(&process);
    happens();
    assert_eq!(process.wait().code(), Some(66));
    scene.died();
    assert!(process.has_said(words), "it does not say why");
    crowd.leave()
}

/// Every charge of a reply that came whole is captured there.
#[track_caller]
fn assert_all_captured(database: &Database, answers: &[Answer]) {
    let connection = database.open();
    let mut captured = connection.prepare("SELECT 1 FROM keytoll_charges WHERE id = ?1 AND state = 1").unwrap();
    for answer in answers {
        if let Answer::Whole { receipt: Some(receipt), status: 200, .. } = answer {
            assert!(captured.exists([receipt.charge]).unwrap(), "{receipt:?} is lost");
        }
    }
    database.assert_whole();
    database.assert_books();
}

#[test]
fn when_the_file_is_renamed_over_the_program_stops_and_both_files_stay_whole() {
    let scene = Scene::new();
    let (backup, old) = (scene.ground.file("-backup"), scene.ground.file("-old"));
    let process = scene.start();
    let answers = stops(&scene, process, "moved or replaced", || {
        scene.ground.database().execute("VACUUM INTO ?1", [backup.to_str().unwrap()]);
        // Another name, by which the file that is replaced can be found again.
        fs::hard_link(scene.ground.file(""), &old).unwrap();
        fs::rename(&backup, scene.ground.file("")).unwrap();
    });
    assert_all_captured(&Database::new(old), &answers);
    // The next start serves from what stands there now.
    let process = scene.start();
    let answers = scene.crowd(&process).leave();
    process.stop();
    scene.ground.database().assert_doctor();
    assert_all_captured(&scene.ground.database(), &answers);
}

#[test]
fn when_the_file_is_moved_away_the_program_stops_and_nothing_delivered_is_lost() {
    let scene = Scene::new();
    let old = scene.ground.file("-old");
    let process = scene.start();
    let answers = stops(&scene, process, "moved or replaced", || fs::rename(scene.ground.file(""), &old).unwrap());
    assert_all_captured(&Database::new(old.clone()), &answers);
    fs::rename(old, scene.ground.file("")).unwrap();
    // What was held when it stopped is given back.
    scene.start().stop();
    scene.assert_accounts(&answers);
}

#[test]
fn when_the_write_ahead_log_is_removed_the_program_stops_and_nothing_delivered_is_lost() {
    let scene = Scene::new();
    let process = scene.start();
    let wal = scene.ground.file("-wal");
    let answers = stops(&scene, process, "-wal file was removed", || fs::remove_file(wal).unwrap());
    scene.start().stop();
    scene.assert_accounts(&answers);
}

#[test]
fn a_file_that_may_not_be_written_is_refused_at_the_start() {
    let scene = Scene::new();
    for error in [EACCES, EROFS] {
        scene.shim.set(Word::OpenError, error);
        let output = scene.gateway().refused();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(66), "{said}");
        assert!(said.contains("must be writable"), "{said}");
    }
    scene.shim.set(Word::OpenError, 0);
    scene.start().stop();
    scene.assert_accounts(&[]);
}
