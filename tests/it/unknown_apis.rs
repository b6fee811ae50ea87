//! Active keys for APIs that are not configured: said by `serve` and by `check`, which changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use rusqlite::Connection;
use serde_json::Value;

use crate::harness::process::program;
use crate::harness::{Ground, Upstream, until};

const SAID: &str = "3 active keys are for APIs that are not configured: \"wether\" (2), \"maps\" (1).";

/// A database with one key for the API that is configured, three for others, and a disabled one.
fn ground() -> Ground {
    let ground = Ground::with_cents(1_000);
    ground.run(&["user", "add", "bob@example.com", "--name", "Bob"]);
    for (user, api) in [("1", "wether"), ("2", "wether"), ("1", "maps"), ("2", "maps")] {
        ground.run(&["key", "issue", "--user", user, "--api", api]);
    }
    ground.run(&["key", "disable", "5"]);
    ground
}

fn check(database: &Path) -> Command {
    let mut command = program();
    command.args(["check", "--upstream", "http://127.0.0.1:9", "--api", "weather", "--price", "1", "--database"]);
    command.arg(database).current_dir(database.parent().unwrap());
    command
}

#[track_caller]
fn warnings(output: &Output) -> Vec<String> {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let warnings = answer["warnings"].as_array().unwrap().iter().map(|warning| warning.as_str().unwrap().to_owned());
    warnings.filter(|warning| !warning.starts_with("There is no admin token")).collect()
}

/// What `check` warns of, and that it leaves every file as it was.
#[track_caller]
fn checked(database: &Path) -> Vec<String> {
    let files = || {
        let entries = fs::read_dir(database.parent().unwrap()).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .map(|entry| (entry.file_name(), entry.metadata().unwrap()))
            .map(|(name, found)| (name, found.len(), found.mtime_nsec(), found.ino(), found.mode()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    let found = warnings(&check(database).arg("--json").output().unwrap());
    assert_eq!(files(), before, "it changed a file");
    found
}

#[test]
fn serve_warns_of_active_keys_for_apis_that_are_not_configured() {
    let (ground, upstream) = (ground(), Upstream::fine());
    let process = ground.gateway(upstream.address()).spawn();
    let in_json = SAID.replace('"', "\\\"");
    until("the warning", || process.has_said(&in_json));
    process.stop();
}

#[test]
fn check_warns_of_them_and_changes_nothing_whatever_state_the_file_is_in() {
    let (ground, upstream) = (ground(), Upstream::fine());
    assert_eq!(checked(&ground.file("")), [SAID]);
    let output = check(&ground.file("")).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains(&format!("warning   {SAID}\n")));
    let process = ground.gateway(upstream.address()).spawn();
    // In the log, and not yet in the file itself.
    process.customer("new", 0);
    let more = "4 active keys are for APIs that are not configured: \"wether\" (2), \"maps\" (1), \"new\" (1).";
    let output = check(&ground.file("")).arg("--json").output().unwrap();
    assert_eq!(warnings(&output), [more]);
    process.kill();
    assert_eq!(checked(&ground.file("")), [more]);
    // A log without its index is read all the same.
    fs::remove_file(ground.file("-shm")).unwrap();
    assert_eq!(checked(&ground.file("")), [more]);
    // The last program that used the database has ended in order.
    ground.database().leave_alone();
    assert!(!ground.file("-wal").exists() && !ground.file("-shm").exists());
    assert_eq!(checked(&ground.file("")), [more]);
}

#[test]
fn check_reads_the_database_of_an_application_that_has_never_met_keytoll() {
    let directory = tempfile::tempdir().unwrap();
    // Names that mean something in a URI.
    let database = directory.path().join("auth 100%3f?mode=rw#.db");
    let application = Connection::open(&database).unwrap();
    assert_eq!(checked(&database), Vec::<String>::new());
    application.execute_batch("CREATE TABLE api_keys (id INTEGER, api_name, is_active)").unwrap();
    assert_eq!(checked(&database), Vec::<String>::new());
    let names = (0..9).map(|name| format!("(1, 'api-{name}', 1), (2, 'api-{name}', 1)")).collect::<Vec<_>>().join(", ");
    let long = "x".repeat(100);
    let odd = format!("(1, 'weather', 1), (1, 'off', 0), (1, 'null', NULL), (1, x'41FF', 1), (1, '{long}', 1)");
    application.execute_batch(&format!("INSERT INTO api_keys VALUES {names}, {odd}")).unwrap();
    let listed = "\"api-0\" (2), \"api-1\" (2), \"api-2\" (2), \"api-3\" (2), \"api-4\" (2) and 6 other names.";
    assert_eq!(checked(&database), [format!("20 active keys are for APIs that are not configured: {listed}")]);
    application.execute_batch("DELETE FROM api_keys WHERE api_name LIKE 'api%' OR typeof(api_name) = 'blob'").unwrap();
    let shown = "x".repeat(64);
    assert_eq!(checked(&database), [format!("1 active key is for an API that is not configured: \"{shown}\" (1).")]);
}

#[test]
fn check_does_not_fail_for_the_sake_of_a_database() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("auth.db");
    assert_eq!(checked(&database), Vec::<String>::new());
    fs::write(&database, "a text, and no database at all").unwrap();
    let said = checked(&database);
    assert!(said.len() == 1 && said[0].contains("this is not an SQLite database"), "{said:?}");
    fs::remove_file(&database).unwrap();
    super::files::fifo(&database);
    let said = checked(&database);
    assert!(said.len() == 1 && said[0].contains("this is a FIFO"), "{said:?}");
}
