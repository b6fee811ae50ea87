//! Users, keys, wallets.

use serde_json::json;

use super::Desk;

#[test]
fn a_user_is_made_with_a_wallet_and_found_by_id_and_by_address() {
    let desk = Desk::new();
    let added = desk.json(&["user", "add", "ada@example.com", "--name", "Ada L", "--create"]);
    let ada = json!({"id": 1, "email": "ada@example.com", "name": "Ada L", "is_active": true, "balance_cents": 500});
    assert_eq!(added, ada);
    assert_eq!(desk.json(&["user", "show", "1"]), ada);
    assert_eq!(desk.json(&["user", "show", "ada@example.com"]), ada);
    let bob = desk.json(&["user", "add", "bob@example.com", "--name", "Bob", "--opening-cents", "7"]);
    assert_eq!((&bob["id"], &bob["balance_cents"]), (&json!(2), &json!(7)));
    let list = desk.json(&["user", "list"]);
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    let table = desk.run(&["user", "list"]).done().out;
    assert_eq!(
        table,
        "id  email            name   active\n 1  ada@example.com  Ada L  yes\n 2  bob@example.com  Bob    yes\n"
    );
}

#[test]
fn users_and_keys_are_switched_off_and_on() {
    let desk = Desk::with_ada();
    let is_active = |select: &str| -> bool { desk.application().query_row(select, [], |row| row.get(0)).unwrap() };
    let user = "SELECT is_active FROM users";
    assert_eq!(desk.json(&["user", "disable", "ada@example.com"])["is_active"], false);
    assert!(!is_active(user));
    assert_eq!(desk.json(&["user", "enable", "1"])["is_active"], true);
    assert!(is_active(user));
    desk.run(&["key", "issue", "--user", "1", "--api", "weather"]).done();
    let key = "SELECT is_active FROM api_keys";
    assert_eq!(desk.json(&["key", "disable", "1"])["is_active"], false);
    assert!(!is_active(key));
    assert_eq!(desk.json(&["key", "enable", "1"])["is_active"], true);
    assert!(is_active(key));
}

#[test]
fn a_key_is_shown_once_alone_on_standard_output() {
    let desk = Desk::with_ada();
    let run = desk.run(&["key", "issue", "--user", "ada@example.com", "--api", "weather"]).done();
    let key = run.out.strip_suffix('\n').unwrap();
    assert!(key.starts_with("kt_") && key.len() == 39, "{key}");
    assert!(run.err.contains("not shown again") && !run.err.contains(key), "{}", run.err);
    let stored: String = desk.application().query_row("SELECT \"key\" FROM api_keys", [], |row| row.get(0)).unwrap();
    assert!(stored.starts_with("sha256:"));
    for arguments in [&["key", "list"][..], &["key", "show", "1"], &["key", "list", "--json"], &["user", "show", "1"]] {
        assert!(!desk.run(arguments).done().out.contains(key));
    }
    let shown = desk.json(&["key", "show", "1"]);
    assert_eq!((&shown["api_name"], &shown["user_id"]), (&json!("weather"), &json!(1)));
    assert!(key.ends_with(shown["hint"].as_str().unwrap().rsplit('…').next().unwrap()));
}

#[test]
fn a_key_is_issued_in_json_with_its_secret() {
    let desk = Desk::with_ada();
    let issued = desk.json(&["key", "issue", "--user", "1", "--api", "weather"]);
    assert!(issued["key"].as_str().unwrap().starts_with("kt_"));
    assert_eq!((&issued["id"], &issued["api_name"]), (&json!(1), &json!("weather")));
}

#[test]
fn a_rotated_key_is_shown_once_alone_on_standard_output() {
    let desk = Desk::with_ada();
    let old = desk.run(&["key", "issue", "--user", "1", "--api", "weather"]).done().out;
    let before = desk.json(&["key", "show", "1"]);
    let run = desk.run(&["key", "rotate", "1"]).done();
    let key = run.out.strip_suffix('\n').unwrap();
    assert!(key.starts_with("kt_") && key.len() == 39 && key != old.trim_end(), "{key}");
    assert!(run.err.contains("the new key 1") && !run.err.contains(key) && !run.err.contains("warning"), "{}", run.err);
    let after = desk.json(&["key", "show", "1"]);
    for field in ["id", "user_id", "api_name", "is_active", "created_at"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert!(key.ends_with(after["hint"].as_str().unwrap().rsplit('…').next().unwrap()));
    let rotated = desk.json(&["key", "rotate", "1"]);
    assert!(rotated["key"].as_str().unwrap().starts_with("kt_") && rotated["key"] != key);
    assert_eq!((&rotated["id"], &rotated["api_name"]), (&json!(1), &json!("weather")));
    let stored: String = desk.application().query_row("SELECT \"key\" FROM api_keys", [], |row| row.get(0)).unwrap();
    assert!(stored.starts_with("sha256:"));
}

#[test]
fn a_disabled_key_is_rotated_with_a_warning_and_stored_as_configured() {
    let desk = Desk::with_ada();
    desk.run(&["key", "issue", "--user", "1", "--api", "weather"]).done();
    desk.run(&["key", "disable", "1"]).done();
    desk.write("keytoll.toml", "[keys]\nstorage = \"plain\"\nprefix = \"acme\"\n");
    let run = desk.run(&["key", "rotate", "1"]).done();
    assert!(run.out.starts_with("acme_") && run.err.contains("keytoll: warning: key 1 is disabled"), "{}", run.err);
    let stored: String = desk.application().query_row("SELECT \"key\" FROM api_keys", [], |row| row.get(0)).unwrap();
    assert_eq!(stored, run.out.trim_end());
    assert_eq!(desk.json(&["key", "rotate", "1"])["is_active"], false);
}

#[test]
fn keys_are_stored_as_the_configuration_says() {
    let desk = Desk::with_ada();
    desk.write("keytoll.toml", "[keys]\nstorage = \"plain\"\nprefix = \"acme\"\n");
    let key = desk.run(&["key", "issue", "--user", "1", "--api", "weather"]).done().out;
    assert!(key.starts_with("acme_"), "{key}");
    let stored: String = desk.application().query_row("SELECT \"key\" FROM api_keys", [], |row| row.get(0)).unwrap();
    assert_eq!(stored, key.trim_end());
}

#[test]
fn a_key_for_an_api_that_is_not_configured_is_issued_with_a_warning() {
    let desk = Desk::with_ada();
    let api = "[[api]]\nname = \"weather\"\npath = \"/\"\nupstreams = [\"http://127.0.0.1:3000\"]\nprice_cents = 2\n";
    desk.write("keytoll.toml", api);
    let known = desk.run(&["key", "issue", "--user", "1", "--api", "weather"]).done();
    assert!(!known.err.contains("warning"), "{}", known.err);
    let unknown = desk.run(&["key", "issue", "--user", "1", "--api", "wether"]).done();
    assert!(unknown.err.contains("keytoll: warning: no API") && unknown.err.contains("weather"), "{}", unknown.err);
    assert!(unknown.out.starts_with("kt_"));
}

#[test]
fn keys_are_listed_by_user_and_by_api() {
    let desk = Desk::with_ada();
    desk.run(&["user", "add", "bob@example.com", "--name", "Bob"]).done();
    for (user, api) in [("1", "weather"), ("1", "maps"), ("2", "weather")] {
        desk.run(&["key", "issue", "--user", user, "--api", api]).done();
    }
    let count = |arguments: &[&str]| desk.json(arguments)["data"].as_array().unwrap().len();
    assert_eq!(count(&["key", "list"]), 3);
    assert_eq!(count(&["key", "list", "--user", "bob@example.com"]), 1);
    assert_eq!(count(&["key", "list", "--api", "weather"]), 2);
    assert_eq!(count(&["key", "list", "--user", "1", "--api", "maps"]), 1);
}

#[test]
fn lists_go_on_past_the_first_page() {
    let desk = Desk::with_ada();
    let insert = "WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 1203)
                  INSERT INTO users SELECT i, i || '@example.com', 'N', 1 FROM n";
    desk.application().execute_batch(insert).unwrap();
    let list = desk.json(&["user", "list"]);
    let ids: Vec<i64> = list["data"].as_array().unwrap().iter().map(|user| user["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, (1..=1203).collect::<Vec<_>>());
}

#[test]
fn money_goes_in_and_out_and_stands_in_the_entries() {
    let desk = Desk::with_ada();
    let credit = ["wallet", "credit", "--user", "ada@example.com", "--cents", "1000", "--note", "invoice 17"];
    let credited = desk.json(&credit);
    assert_eq!((&credited["balance_cents"], &credited["amount_cents"]), (&json!(1500), &json!(1000)));
    assert_eq!((&credited["kind"], &credited["note"]), (&json!("credit"), &json!("invoice 17")));
    assert!(desk.run(&["wallet", "debit", "--user", "1", "--cents", "250"]).done().out.contains("$12.50"));
    assert_eq!(desk.json(&["wallet", "show", "--user", "1"]), json!({"user_id": 1, "balance_cents": 1250}));
    let entries = desk.json(&["wallet", "entries", "--user", "1"]);
    let kinds: Vec<_> = entries["data"].as_array().unwrap().iter().map(|entry| &entry["kind"]).collect();
    assert_eq!(kinds, ["opening", "credit", "debit"]);
    assert!(desk.run(&["wallet", "entries", "--user", "1"]).done().out.contains("invoice 17"));
}

#[test]
fn refusals_say_why_and_change_nothing() {
    let desk = Desk::with_ada();
    desk.run(&["key", "issue", "--user", "1", "--api", "weather"]).done();
    desk.run(&["wallet", "debit", "--user", "1", "--cents", "501"]).refused(1, "there is only $5.00");
    desk.run(&["user", "add", "ada@example.com", "--name", "A"]).refused(1, "another user has this e-mail address");
    desk.run(&["key", "issue", "--user", "1", "--api", "weather"]).refused(1, "a key for this API already");
    desk.run(&["key", "issue", "--user", "7", "--api", "weather"]).refused(1, "there is no user 7");
    desk.run(&["user", "show", "bob@example.com"]).refused(1, "there is no user bob@example.com");
    desk.run(&["user", "disable", "7"]).refused(1, "there is no user 7");
    for command in ["show", "enable", "disable", "rotate"] {
        desk.run(&["key", command, "7"]).refused(1, "there is no key 7");
    }
    for command in ["show", "entries"] {
        desk.run(&["wallet", command, "--user", "7"]).refused(1, "there is no user 7");
    }
    assert_eq!(desk.json(&["wallet", "show", "--user", "1"])["balance_cents"], 500);
    desk.application().execute_batch("UPDATE wallets SET balance = 9223372036854775807").unwrap();
    desk.run(&["wallet", "credit", "--user", "1", "--cents", "1"]).refused(1, "64 bits");
    desk.application().execute_batch("UPDATE wallets SET balance = 'abc'").unwrap();
    desk.run(&["wallet", "credit", "--user", "1", "--cents", "1"]).refused(1, "no whole number of cents");
}

#[test]
fn a_command_that_is_given_again_with_its_key_books_once() {
    let desk = Desk::with_ada();
    let credit =
        ["wallet", "credit", "--user", "1", "--cents", "1000", "--note", "invoice 17", "--idempotency-key", "i-17"];
    let made = desk.json(&credit);
    assert_eq!(desk.json(&credit), made);
    let again = desk.run(&credit).done();
    assert!(again.err.contains("entry 2 was made with this idempotency key before"), "{}", again.err);
    assert!(again.out.contains("$15.00"), "{}", again.out);
    let other =
        ["wallet", "debit", "--user", "1", "--cents", "1000", "--note", "invoice 17", "--idempotency-key", "i-17"];
    desk.run(&other).refused(1, "was made with this idempotency key");
    let odd = desk.run(&["wallet", "credit", "--user", "1", "--cents", "1", "--idempotency-key", "a b"]);
    assert!(odd.status == 2 && odd.err.contains("visible ASCII"), "{}", odd.err);
    assert_eq!(desk.json(&["wallet", "show", "--user", "1"])["balance_cents"], 1500);
}

#[test]
fn an_entry_tells_who_gave_the_command() {
    let desk = Desk::with_ada();
    let credit = ["wallet", "credit", "--user", "1", "--cents", "1", "--json"];
    assert_eq!(desk.run_with(&credit, &[("LOGNAME", "ada")]).done().json()["actor"], "cli:ada");
    assert_eq!(desk.run_with(&credit, &[("USER", "bob")]).done().json()["actor"], "cli:bob");
    assert_eq!(desk.run_with(&credit, &[("LOGNAME", "")]).done().json()["actor"], "cli");
    let named = ["wallet", "debit", "--user", "1", "--cents", "1", "--json", "--actor", "Ada, billing"];
    assert_eq!(desk.run_with(&named, &[("LOGNAME", "ada")]).done().json()["actor"], "Ada, billing");
    let list = desk.json(&["wallet", "entries", "--user", "1"]);
    let actors: Vec<_> = list["data"].as_array().unwrap().iter().map(|entry| entry["actor"].clone()).collect();
    assert_eq!(actors, [json!(null), json!("cli:ada"), json!("cli:bob"), json!("cli"), json!("Ada, billing")]);
    assert!(desk.run(&["wallet", "entries", "--user", "1"]).done().out.contains("Ada, billing"));
    let odd = desk.run(&["wallet", "credit", "--user", "1", "--cents", "1", "--actor", " "]);
    assert!(odd.status == 2 && odd.err.contains("must not be empty"), "{}", odd.err);
}
