//! Files of every kind, the doctor, the way out.

use rusqlite::Connection;
use serde_json::json;

use super::Desk;

/// Every command that opens the database.
const COMMANDS: [&[&str]; 5] =
    [&["user", "list"], &["key", "list"], &["wallet", "show", "--user", "1"], &["doctor"], &["uninstall", "--yes"]];

#[test]
fn a_missing_file_is_refused_and_not_made() {
    let desk = Desk::new();
    for command in COMMANDS {
        desk.run(command).refused(66, "auth.db: there is no such file");
        desk.run(&[command, &["--database", "nowhere/a.db"]].concat())
            .refused(66, "nowhere/a.db: the directory nowhere does not exist");
    }
    let in_nowhere = ["user", "add", "a@b", "--name", "A", "--create", "--database", "nowhere/a.db"];
    desk.run(&in_nowhere).refused(66, "nowhere/a.db");
    assert!(!desk.path("auth.db").exists() && !desk.path("nowhere").exists());
}

#[test]
fn what_is_no_sqlite_database_is_refused_and_left_alone() {
    let desk = Desk::new();
    desk.write("auth.db", "a text, and no database at all");
    for command in COMMANDS {
        desk.run(command).refused(66, "not an SQLite database");
    }
    assert_eq!(std::fs::read_to_string(desk.path("auth.db")).unwrap(), "a text, and no database at all");
}

#[test]
fn a_directory_is_no_database() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("auth.db")).unwrap();
    for command in COMMANDS {
        desk.run(command).refused(66, "auth.db");
    }
}

#[test]
fn a_table_that_lacks_a_column_is_refused_by_name() {
    let desk = Desk::new();
    desk.application().execute_batch("CREATE TABLE wallets (id INTEGER PRIMARY KEY, user_id INTEGER)").unwrap();
    desk.run(&["init"]).refused(66, "the table wallets has no column balance");
    let tables: i64 = desk
        .application()
        .query_row("SELECT count(*) FROM sqlite_master WHERE name LIKE 'keytoll%'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 0, "nothing is left of the attempt");
}

#[test]
fn tables_of_a_newer_program_are_refused() {
    let desk = Desk::with_ada();
    desk.application().execute_batch("INSERT INTO keytoll_migrations VALUES (999, 0)").unwrap();
    desk.run(&["user", "list"]).refused(66, "of version 999");
    desk.run(&["doctor"]).refused(66, "of version 999");
}

#[test]
fn a_file_that_was_set_up_before_is_set_up_again() {
    let desk = Desk::with_ada();
    desk.run(&["uninstall", "--yes"]).done();
    let run = desk.run(&["init"]).done();
    assert!(run.out.contains("1 taken onto the books"), "{}", run.out);
    assert_eq!(desk.json(&["wallet", "entries", "--user", "1"])["data"][0]["kind"], "opening");
}

#[test]
fn the_database_is_the_one_of_the_flag_before_the_variable_before_the_file() {
    let desk = Desk::with_ada();
    desk.run(&["user", "add", "bob@example.com", "--name", "Bob", "--create", "--database", "other.db"]).done();
    desk.write("some.toml", "[database]\npath = \"other.db\"\n");
    let first = |arguments: &[&str], variables: &[(&str, &str)]| {
        desk.run_with(arguments, variables).done().json()["data"][0]["email"].as_str().unwrap().to_owned()
    };
    let list = ["user", "list", "--json"];
    assert_eq!(first(&list, &[]), "ada@example.com");
    assert_eq!(first(&list, &[("KEYTOLL_DATABASE", "other.db")]), "bob@example.com");
    assert_eq!(first(&["user", "list", "--json", "--config", "some.toml"], &[]), "bob@example.com");
    let both = ["--database", "auth.db", "user", "list", "--json", "--config", "some.toml"];
    assert_eq!(first(&both, &[("KEYTOLL_DATABASE", "other.db")]), "ada@example.com");
}

#[test]
fn the_doctor_proves_the_books() {
    let desk = Desk::with_ada();
    desk.run(&["wallet", "credit", "--user", "1", "--cents", "10"]).done();
    assert_eq!(desk.run(&["doctor"]).done().out, "books of 1 user balance; 0 charges\n");
    let report = desk.json(&["doctor"]);
    assert_eq!((&report["ok"], &report["findings"]), (&json!(true), &json!([])));
    assert_eq!(report["summary"]["users"], 1);
}

#[test]
fn the_doctor_names_user_cents_and_remedy_of_a_tampered_balance() {
    let desk = Desk::with_ada();
    let tampered = "DROP TRIGGER keytoll_wallets_after_update; UPDATE wallets SET balance = balance + 100";
    desk.application().execute_batch(tampered).unwrap();
    let run = desk.run(&["doctor"]);
    assert_eq!((run.status, run.err.as_str()), (1, ""));
    assert!(
        run.out.contains("wrong  user 1: $1.00: the wallet holds $6.00, the books say $5.00\n       -> "),
        "{}",
        run.out
    );
    assert!(run.out.contains("books of 1 of 1 user do not balance"), "{}", run.out);
    let run = desk.run(&["doctor", "--json"]);
    assert_eq!(run.status, 1);
    let report = run.json();
    let finding = report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "books").unwrap();
    assert_eq!(
        (&finding["user_id"], &finding["cents"], &finding["severity"]),
        (&json!(1), &json!(100), &json!("wrong"))
    );
    assert!(!finding["remedy"].as_str().unwrap().is_empty());
}

#[test]
fn the_doctor_repairs_what_it_can_and_says_what_it_did() {
    let desk = Desk::with_ada();
    let tampered = "DROP TRIGGER keytoll_wallets_after_update; UPDATE wallets SET balance = balance + 100";
    desk.application().execute_batch(tampered).unwrap();
    let run = desk.run(&["doctor", "--repair"]).done();
    let done = "done   the triggers on wallets are in place again\n\
                done   user 1: $1.00: what is in the wallet was accepted: entered as external\n\
                books of 1 user balance; 0 charges\n";
    assert_eq!(run.out, done);
    let report = desk.json(&["doctor", "--repair"]);
    assert_eq!((&report["ok"], report.get("repaired")), (&json!(true), None));
    let entries = desk.json(&["wallet", "entries", "--user", "1"]);
    assert_eq!(entries["data"][1]["kind"], "external");
    assert_eq!(entries["data"][1]["amount_cents"], 100);
}

#[test]
fn the_doctor_repairs_nothing_in_a_file_that_it_cannot_count() {
    let desk = Desk::with_ada();
    desk.run(&["uninstall", "--yes"]).done();
    let run = desk.run(&["doctor", "--repair"]);
    assert_eq!((run.status, run.err.as_str()), (1, ""));
    assert!(run.out.contains("wrong  Keytoll's tables are not in the file"), "{}", run.out);
    assert!(run.out.ends_with("the books were not examined\n"), "{}", run.out);
}

#[test]
fn the_doctor_finds_a_charge_in_a_state_that_is_not_known() {
    let desk = Desk::with_ada();
    let charge = "INSERT INTO keytoll_charges VALUES (1, 1, 1, 1, 1, 2, 9, 0, 0, NULL)";
    desk.application().execute_batch(charge).unwrap();
    let run = desk.run(&["doctor"]);
    assert_eq!(run.status, 1);
    assert!(run.out.contains("charge 1 is in a state that is not known"), "{}", run.out);
}

#[test]
fn uninstall_asks_and_leaves_the_application_its_tables() {
    let desk = Desk::with_ada();
    desk.run(&["uninstall"]).refused(2, "--yes");
    desk.run(&["doctor"]).done();
    desk.run(&["uninstall", "--yes"]).done();
    let names: String = desk
        .application()
        .query_row(
            "SELECT group_concat(name) FROM (SELECT name FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%' ORDER BY name)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(names, "api_keys,users,wallets");
    let balance: i64 = desk.application().query_row("SELECT balance FROM wallets", [], |row| row.get(0)).unwrap();
    assert_eq!(balance, 500);
    let again = desk.run(&["uninstall", "--yes"]).done();
    assert!(again.out.contains("nothing of Keytoll"), "{}", again.out);
    assert_eq!(desk.run(&["doctor"]).status, 1);
}

#[test]
fn a_file_that_another_program_keeps_locked_is_refused_with_the_reason() {
    let desk = Desk::with_ada();
    let application = Connection::open(desk.path("auth.db")).unwrap();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    desk.run(&["user", "disable", "1"]).refused(66, "another program holds the database locked");
    for command in [&["user", "list"][..], &["doctor"]] {
        desk.run(command).done();
    }
}
