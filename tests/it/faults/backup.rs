//! A backup that is put in the place of the database while the program runs on it: copied over it in place, or restored through
//! SQLite. And what only looks like that.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::Progress;

use super::Scene;
use crate::harness::{Database, Process, until};

/// The promise is one second, for a machine with more to do than this.
const NOTICED: Duration = Duration::from_secs(3);

/// Written by the application into the file, so that it is larger than what is read at once.
const PADDING: &str =
    "CREATE TABLE padding AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
    SELECT i, hex(randomblob(200)) AS text FROM n";

#[track_caller]
fn stops_soon(mut process: Process, words: &str) {
    let since = Instant::now();
    assert_eq!(process.wait().code(), Some(66));
    assert!(since.elapsed() < NOTICED, "noticed after {:?}", since.elapsed());
    assert!(process.has_said(words), "it does not say why");
}

#[track_caller]
fn pay(scene: &Scene, process: &Process, count: usize) {
    for _ in 0..count {
        assert_eq!(process.get("/").key(&scene.ground.key).send().status(), 200);
    }
}

/// The whole of a database, row by row, and nothing of its form.
fn dump(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut rows = Vec::new();
    for table in ["users", "api_keys", "wallets", "padding", "keytoll_charges", "keytoll_entries"] {
        let mut select = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).unwrap();
        let columns = select.column_count();
        let found = select.query_map([], |row| {
            (0..columns).map(|column| Ok(format!("{:?}", row.get_ref(column)?))).collect::<rusqlite::Result<Vec<_>>>()
        });
        rows.extend(found.unwrap().map(|row| format!("{table} {:?}", row.unwrap())));
    }
    rows
}

/// The file is the backup, whole, and the next start serves from it.
#[track_caller]
fn assert_restored(scene: &Scene, expected: &[String], balance: i64) {
    let database = scene.ground.database();
    database.assert_whole();
    assert!(dump(database.path()) == expected, "it is not the backup");
    let process = scene.start();
    process.get("/").key(&scene.ground.key).send().assert_receipt(10, balance - 10);
    process.stop();
    database.assert_doctor();
}

#[test]
fn a_backup_that_is_copied_over_the_file_is_noticed_without_traffic_and_nothing_is_mixed() {
    let scene = Scene::new();
    scene.ground.database().open().execute_batch(PADDING).unwrap();
    scene.ground.database().leave_alone();
    let (file, backup) = (scene.ground.file(""), scene.ground.file("-backup"));
    fs::copy(&file, &backup).unwrap();
    let expected = dump(&backup);
    let process = scene.start();
    fs::copy(&backup, &file).unwrap();
    stops_soon(process, "overwritten in place");
    assert_restored(&scene, &expected, 1_000_000_000);
    // With charges in the file and in its log.
    let process = scene.start();
    pay(&scene, &process, 50);
    fs::copy(&backup, &file).unwrap();
    stops_soon(process, "overwritten in place");
    assert_restored(&scene, &expected, 1_000_000_000);
}

#[test]
fn a_backup_that_was_made_while_the_program_ran_is_noticed_in_whatever_way_it_was_made() {
    type Make = fn(&Connection, &Path);
    let ways: [Make; 2] = [
        |connection, path| assert_eq!(connection.execute("VACUUM INTO ?1", [path.to_str().unwrap()]), Ok(0)),
        |connection, path| connection.backup("main", path, None::<fn(Progress)>).unwrap(),
    ];
    for make in ways {
        let scene = Scene::new();
        scene.ground.database().open().execute_batch(PADDING).unwrap();
        let process = scene.start();
        pay(&scene, &process, 5);
        let backup = scene.ground.file("-backup");
        make(&scene.ground.database().open(), &backup);
        let expected = dump(&backup);
        pay(&scene, &process, 5);
        fs::copy(&backup, scene.ground.file("")).unwrap();
        stops_soon(process, "overwritten in place");
        assert_restored(&scene, &expected, 1_000_000_000 - 50);
    }
}

#[test]
fn a_file_that_is_emptied_or_becomes_something_else_is_noticed() {
    for contents in ["", "this is a text, and no database at all"] {
        let scene = Scene::new();
        let process = scene.start();
        fs::write(scene.ground.file(""), contents).unwrap();
        stops_soon(process, "overwritten in place");
    }
}

#[test]
fn a_restore_through_sqlite_stops_the_program_with_the_true_reason() {
    // Of before this gateway's start, of its own time, and of a time before Keytoll.
    for (when, has_keytoll) in [(0, true), (1, true), (2, false)] {
        let scene = Scene::new();
        let backup = scene.ground.file("-backup");
        let make = || scene.ground.database().open().backup("main", &backup, None::<fn(Progress)>).unwrap();
        if when == 0 {
            make();
        }
        let process = scene.start();
        pay(&scene, &process, 5);
        if when == 1 {
            make();
        }
        if when == 2 {
            let connection = Connection::open(&backup).unwrap();
            connection.execute_batch(include_str!("../cli/application.sql")).unwrap();
        }
        // The stamp advances at most ten times a second.
        let balance = scene.ground.database().number("SELECT value FROM keytoll_meta WHERE name = 'file_stamp'");
        until("another stamp", || {
            pay(&scene, &process, 1);
            scene.ground.database().number("SELECT value FROM keytoll_meta WHERE name = 'file_stamp'") > balance
        });
        let mut connection = scene.ground.database().open();
        connection.restore("main", &backup, None::<fn(Progress)>).unwrap();
        stops_soon(process, "set the database back to an older state");
        drop(connection);
        let database = scene.ground.database();
        database.assert_whole();
        let process = scene.start();
        if has_keytoll {
            let balance = database.balance(1);
            process.get("/").key(&scene.ground.key).send().assert_receipt(10, balance - 10);
        }
        process.stop();
        database.assert_doctor();
    }
}

#[test]
fn what_other_programs_may_do_to_the_file_is_no_backup() {
    let scene = Scene::new();
    let database: Database = scene.ground.database();
    database.open().execute_batch(PADDING).unwrap();
    let process = scene.start();
    let crowd = scene.crowd(&process);
    let application = database.open();
    for round in 0..6 {
        application.execute_batch("VACUUM").unwrap();
        application.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        application
            .execute_batch(&format!("CREATE TABLE other_{round} AS SELECT * FROM padding; DELETE FROM padding"))
            .unwrap();
        application
            .execute_batch(&format!("INSERT INTO padding SELECT * FROM other_{round}; DROP TABLE other_{round}"))
            .unwrap();
        assert!(Command::new("touch").arg(database.path()).status().unwrap().success());
        application.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        let (served, looks) = (crowd.served() + 100, process.metric("keytoll_checkpoints_total", &[]) + 2);
        until("traffic and checkpoints", || {
            crowd.served() >= served && process.metric("keytoll_checkpoints_total", &[]) >= looks
        });
    }
    scene.close(process, crowd);
}
