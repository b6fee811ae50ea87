//! First contact: what reads changes nothing, `init` sets a file up, and messages name the cause.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use rusqlite::Connection;

use super::{Desk, Run};
use crate::harness::{Ground, Upstream};

/// Every command that only reads, and needs no gateway.
const READING: [&[&str]; 9] = [
    &["user", "list"],
    &["user", "show", "1"],
    &["key", "list"],
    &["key", "show", "1"],
    &["wallet", "show", "--user", "1"],
    &["wallet", "entries", "--user", "1"],
    &["doctor"],
    &["check", "--upstream", "http://127.0.0.1:9", "--price", "1"],
    &["health", "--listen", "127.0.0.1:9"],
];

/// Everything in the directory, byte for byte.
fn files(desk: &Desk) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(desk.directory.path()).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn journal_mode(desk: &Desk) -> String {
    desk.application().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap()
}

#[track_caller]
fn assert_reading_changes_nothing(desk: &Desk) -> Vec<Run> {
    let before = files(desk);
    let runs = READING.map(|command| desk.run(command));
    assert!(files(desk) == before, "{:?}, before: {:?}", files(desk).keys(), before.keys());
    Vec::from(runs)
}

#[test]
fn what_only_reads_changes_nothing_in_an_application_s_file_and_reads_what_is_there() {
    for wal in [false, true] {
        let desk = Desk::of_an_application();
        if wal {
            desk.application().query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
        }
        let runs = assert_reading_changes_nothing(&desk);
        let statuses: Vec<i32> = runs.iter().map(|run| run.status).collect();
        // No entries without books; the doctor says no; no gateway answers.
        assert_eq!(statuses, [0, 0, 0, 0, 0, 66, 1, 0, 1]);
        assert!(runs[0].out.contains("bob@example.com") && runs[4].out.contains("$7.00"));
        assert!(runs[3].out.contains("weather") && !runs[3].out.contains("key-of-ada"), "{}", runs[3].out);
        assert!(runs[5].err.contains("not set up for Keytoll; run `keytoll init"), "{}", runs[5].err);
        assert!(runs[6].out.contains("`keytoll init`"), "{}", runs[6].out);
    }
}

#[test]
fn what_only_reads_changes_nothing_in_a_file_that_is_set_up() {
    let desk = Desk::with_ada();
    desk.run(&["key", "issue", "--user", "1", "--api", "weather"]).done();
    for run in &assert_reading_changes_nothing(&desk)[..7] {
        assert_eq!(run.status, 0, "{}", run.err);
    }
    // While another program has it open, whose commit is in the log; and when that program was killed.
    let application = desk.application();
    application.execute_batch("PRAGMA wal_autocheckpoint = 0; UPDATE users SET name = 'Ada L'").unwrap();
    let runs = assert_reading_changes_nothing(&desk);
    assert!(runs[0].out.contains("Ada L"));
    let copy = Desk::new();
    for name in ["auth.db", "auth.db-wal", "auth.db-shm"] {
        fs::copy(desk.path(name), copy.path(name)).unwrap();
    }
    assert!(assert_reading_changes_nothing(&copy)[0].out.contains("Ada L"));
    fs::remove_file(copy.path("auth.db-shm")).unwrap();
    let runs = assert_reading_changes_nothing(&copy);
    assert!(runs[0].out.contains("Ada L") && runs[6].status == 0, "{}{}", runs[0].err, runs[6].out);
}

#[test]
fn what_only_reads_sees_what_a_gateway_that_runs_has_committed() {
    let (ground, upstream) = (Ground::with_cents(1_000), Upstream::fine());
    let process = ground.gateway(upstream.address()).spawn();
    process.get("/").key(&ground.key).send().assert_receipt(10, 990);
    assert!(ground.run(&["wallet", "show", "--user", "1"]).contains("990"));
    assert!(ground.run(&["doctor"]).contains("1 gateway running"));
    process.get("/").key(&ground.key).send().assert_receipt(10, 980);
    process.stop();
    ground.database().assert_doctor();
}

#[test]
fn what_writes_refuses_a_file_that_is_not_set_up_and_changes_nothing() {
    let desk = Desk::of_an_application();
    let before = files(&desk);
    let writing: [&[&str]; 5] = [
        &["user", "add", "eve@example.com", "--name", "Eve"],
        &["user", "add", "eve@example.com", "--name", "Eve", "--create"],
        &["user", "disable", "1"],
        &["key", "issue", "--user", "2", "--api", "weather"],
        &["wallet", "credit", "--user", "1", "--cents", "1"],
    ];
    for command in writing {
        desk.run(command).refused(66, "not set up for Keytoll; run `keytoll init");
    }
    desk.run(&["uninstall", "--yes"]).done();
    assert!(files(&desk) == before);
}

#[test]
fn init_sets_a_file_up_and_uninstall_puts_the_journal_mode_back_that_it_found() {
    for (wal, mode) in [(false, "delete"), (true, "wal")] {
        let desk = Desk::of_an_application();
        if wal {
            desk.application().query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
        }
        let out = desk.run(&["init"]).done().out;
        assert!(out.contains("auth.db is set up for Keytoll") && out.contains("2 taken onto the books"), "{out}");
        assert_eq!(out.contains("changed from a rollback journal to WAL"), !wal, "{out}");
        assert_eq!(journal_mode(&desk), "wal");
        assert!(desk.run(&["init"]).done().out.contains("set up already"));
        desk.run(&["doctor"]).done();
        assert_eq!(desk.json(&["wallet", "entries", "--user", "1"])["data"][0]["amount_cents"], 700);
        let run = desk.run(&["uninstall", "--yes"]).done();
        assert_eq!((journal_mode(&desk).as_str(), run.err.as_str()), (mode, ""));
        let tables = "SELECT count(*) FROM sqlite_master WHERE name LIKE 'keytoll%'";
        assert_eq!(desk.application().query_row(tables, [], |row| row.get(0)), Ok(0));
    }
}

#[test]
fn uninstall_says_that_the_journal_mode_stays_when_another_program_keeps_it() {
    let desk = Desk::of_an_application();
    desk.run(&["init"]).done();
    let application = desk.application();
    application.query_row("SELECT count(*) FROM users", [], |_| Ok(())).unwrap();
    let run = desk.run(&["uninstall", "--yes"]).done();
    assert!(run.err.contains("the journal mode stays WAL"), "{}", run.err);
    assert!(desk.run(&["uninstall", "--yes"]).done().out.contains("nothing of Keytoll"));
}

#[test]
fn serve_sets_a_file_up_and_says_so_and_a_refused_start_changes_nothing() {
    let (ground, upstream) = (Ground::empty(), Upstream::fine());
    let connection = Connection::open(ground.file("")).unwrap();
    connection.execute_batch(include_str!("application.sql")).unwrap();
    connection.execute_batch("ALTER TABLE wallets RENAME COLUMN balance TO cents").unwrap();
    let before = fs::read(ground.file("")).unwrap();
    let output = ground.gateway(upstream.address()).refused();
    assert_eq!(output.status.code(), Some(66));
    assert!(fs::read(ground.file("")).unwrap() == before && !ground.file("-wal").exists());
    connection.execute_batch("ALTER TABLE wallets RENAME COLUMN cents TO balance").unwrap();
    drop(connection);
    let process = ground.gateway(upstream.address()).spawn();
    let line = process.log_line("the set-up", |line| line["fields"]["tables"].is_u64() || line["tables"].is_u64());
    let fields = line.get("fields").unwrap_or(&line);
    assert_eq!((&fields["wallets"], &fields["journal_mode_changed_to_wal"]), (&2.into(), &true.into()), "{line}");
    process.stop();
    let process = ground.gateway(upstream.address()).spawn();
    assert!(!process.has_said("database set up"));
    process.stop();
}

#[test]
fn an_empty_file_becomes_a_database_only_when_one_is_to_be_made() {
    let desk = Desk::new();
    desk.write("auth.db", "");
    for command in [&["user", "list"][..], &["doctor"], &["init"], &["user", "add", "a@b", "--name", "A"]] {
        desk.run(command).refused(66, "auth.db: the file is empty; use --create");
    }
    assert_eq!(fs::metadata(desk.path("auth.db")).unwrap().len(), 0);
    let out = desk.run(&["init", "--create"]).done().out;
    assert!(out.contains("WAL, as of a new file"), "{out}");
    desk.run(&["user", "add", "a@b", "--name", "A"]).done();
}

#[test]
fn ids_that_are_no_integers_are_refused_by_column_and_type() {
    let columns = "email VARCHAR, name VARCHAR, is_active BOOLEAN";
    let tables = [
        (format!("CREATE TABLE users (id VARCHAR(36) PRIMARY KEY, {columns})"), "users.id is of type VARCHAR(36)"),
        (format!("CREATE TABLE users (id UUID PRIMARY KEY, {columns})"), "users.id is of type UUID"),
        (
            format!("CREATE TABLE users (id PRIMARY KEY, {columns}); INSERT INTO users (id) VALUES ('8c7e')"),
            "users.id is of type text",
        ),
        ("CREATE TABLE wallets (id INTEGER PRIMARY KEY, user_id TEXT, balance INTEGER)".to_owned(), "wallets.user_id"),
    ];
    for (table, words) in tables {
        let desk = Desk::new();
        desk.application().execute_batch(&table).unwrap();
        let before = files(&desk);
        desk.run(&["init"]).refused(66, words);
        desk.run(&[
            "serve",
            "--upstream",
            "http://127.0.0.1:9",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ]);
        assert!(files(&desk) == before, "{words}");
    }
}

#[test]
fn a_directory_that_may_not_be_searched_is_not_a_missing_file() {
    /// An ordinary user without rights of their own.
    const ORDINARY: &str = "--reuid=65534";
    if fs::metadata("/proc/self").unwrap().uid() != 0 || Command::new("setpriv").arg("--version").output().is_err() {
        return;
    }
    let desk = Desk::new();
    let binary = desk.path("keytoll");
    fs::copy(env!("CARGO_BIN_EXE_keytoll"), &binary).unwrap();
    fs::create_dir(desk.path("closed")).unwrap();
    fs::write(desk.path("closed/auth.db"), "").unwrap();
    fs::set_permissions(desk.directory.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(desk.path("closed"), Permissions::from_mode(0o700)).unwrap();
    for path in ["closed/auth.db", "closed/missing.db"] {
        for command in [&["user", "list"][..], &["init", "--create"]] {
            let mut run = Command::new("setpriv");
            run.args([ORDINARY, "--regid=65534", "--clear-groups"]).arg(&binary).args(command);
            run.args(["--database", path]).current_dir(desk.directory.path()).env_clear();
            let words = format!("{path}: permission denied: this user may not search the directory closed");
            Run::of(&run.output().unwrap()).refused(66, &words);
        }
    }
}

/// Asks an application's own rules: a column without a default that Keytoll knows nothing of.
#[test]
fn a_column_that_keytoll_cannot_fill_is_named_and_what_the_application_adds_is_served() {
    let (ground, upstream) = (Ground::empty(), Upstream::fine());
    let connection = Connection::open(ground.file("")).unwrap();
    let name = "email VARCHAR NOT NULL, name VARCHAR NOT NULL,";
    let tables = include_str!("application.sql").replace(name, &format!("{name} tenant_id INTEGER NOT NULL,"));
    let tables = tables.replace("'Ada', 1)", "'Ada', 7, 1)").replace("'Bob', 0)", "'Bob', 7, 0)");
    connection.execute_batch(&tables).unwrap();
    drop(connection);
    let process = ground.gateway(upstream.address()).spawn();
    process.log_line("the warning", |line| line.to_string().contains("users.tenant_id"));
    process.get("/").key("key-of-ada-0123456789").send().assert_receipt(10, 690);
    let user = serde_json::json!({"email": "eve@example.com", "name": "Eve"});
    let problem = process.post("/v1/users", &user).send().assert_problem(409, "constraint-failed");
    assert!(
        problem["detail"].as_str().unwrap().contains("users.tenant_id must not be NULL and has no default"),
        "{problem}"
    );
    // What it can write, it writes, and nothing of the attempt is left.
    let reply =
        process.post("/v1/users/1/wallet/entries", &serde_json::json!({"kind": "credit", "amount_cents": 10})).send();
    assert_eq!(reply.status(), 201);
    process.stop();
    let output = crate::harness::process::program()
        .args(["user", "add", "eve@example.com", "--name", "Eve", "--database"])
        .arg(ground.file(""))
        .output();
    Run::of(&output.unwrap()).refused(1, "users.tenant_id must not be NULL");
    ground.database().assert_doctor();
}

#[test]
fn a_balance_that_is_not_an_integer_is_said_to_the_client_and_in_the_log() {
    for balance in ["'12.50'", "12.5", "NULL"] {
        let (ground, upstream) = (Ground::with_cents(1_000), Upstream::fine());
        let process = ground.gateway(upstream.address()).spawn();
        // The column has INTEGER affinity, which makes an integer of what looks like one.
        ground.database().execute(&format!("UPDATE wallets SET balance = {balance}"), []);
        let problem = process.get("/").key(&ground.key).send().assert_problem(402, "insufficient-funds");
        assert!(
            problem["detail"].as_str().unwrap().contains("the balance of the wallet is not an integer"),
            "{problem}"
        );
        process
            .log_line("the warning", |line| line.to_string().contains("the balance of this wallet is not an integer"));
        process.stop();
    }
}
