use crate::store::doctor::tests::*;

const CHARGE: &str =
    "INSERT INTO keytoll_charges (id, account_id, key_id, route_id, cents, state, held_at, settled_at)";

#[tokio::test]
async fn books_that_nobody_touched_balance() {
    let file = File::new().await;
    let report = file.examine();
    assert!(report.holds() && report.findings.is_empty(), "{report:#?}");
    let summary = report.summary.unwrap();
    assert_eq!((summary.users, summary.unbalanced, summary.charges, summary.leased), (5, 0, 0, 0));
}

#[tokio::test]
async fn a_balance_that_the_books_do_not_explain_is_found_with_user_and_cents() {
    let file = File::new().await;
    file.behind_its_back("UPDATE wallets SET balance = balance + 100 WHERE user_id = 5");
    let found = file.only_wrong();
    assert_eq!((found.check, found.user_id.unwrap().0, found.cents.unwrap().0), (Check::Books, 5, 100));
    assert!(found.message.contains("$6.00") && found.message.contains("$5.00"), "{}", found.message);
    assert_eq!(file.examine().summary.unwrap().unbalanced, 1);
}

#[tokio::test]
async fn missing_triggers_are_found_and_the_next_command_accepts_what_they_missed() {
    let file = File::new().await;
    file.application("DROP TRIGGER keytoll_wallets_after_update; UPDATE wallets SET balance = 1 WHERE user_id = 2");
    let report = file.examine();
    assert_eq!(of_check(&report, Check::Triggers), [(0, 0)]);
    assert_eq!(of_check(&report, Check::Books), [(2, -499)]);
    file.open().close();
    assert!(file.examine().findings.is_empty());
}

#[tokio::test]
async fn what_other_programs_did_is_pending_and_not_wrong_until_it_is_entered() {
    let changes = [
        "UPDATE wallets SET balance = balance - 30 WHERE user_id = 1",
        "UPDATE wallets SET balance = NULL WHERE user_id = 1; UPDATE wallets SET balance = 7 WHERE user_id = 1",
        "REPLACE INTO wallets (id, user_id, balance) VALUES (2, 2, 9)",
        "REPLACE INTO wallets (id, user_id, balance) VALUES (2, 3, 9)",
        "INSERT OR IGNORE INTO wallets (id, user_id, balance) VALUES (2, 3, 9)",
        "UPDATE OR REPLACE wallets SET user_id = 4 WHERE user_id = 1",
        "DELETE FROM wallets WHERE user_id = 5",
        "DELETE FROM wallets WHERE user_id = 5; DELETE FROM users WHERE id = 5",
        "DELETE FROM wallets WHERE user_id = 5; DELETE FROM users WHERE id = 5;
         INSERT INTO users VALUES (5, 'new@example.com', 'New', 1); INSERT INTO wallets VALUES (5, 5, 70)",
        "INSERT INTO users VALUES (9, 'nine@example.com', 'Nine', 1); INSERT INTO wallets VALUES (9, 9, 70)",
    ];
    for change in changes {
        let file = File::new().await;
        file.application(change);
        let before = file.examine();
        assert!(before.holds(), "{change}: {before:#?}");
        let entered = of_check(&before, Check::Pending);
        assert_eq!(entered.is_empty(), change.contains("IGNORE"), "{change}: {before:#?}");
        file.open().close();
        let after = file.examine();
        assert!(after.holds() && of_check(&after, Check::Pending).is_empty(), "{change}: {after:#?}");
    }
}

#[tokio::test]
async fn a_change_of_a_wallet_that_an_insert_left_alone_is_pending() {
    let file = File::new().await;
    file.application(
        "INSERT OR IGNORE INTO wallets (user_id, balance) VALUES (1, 0);
         UPDATE wallets SET balance = balance + 5 WHERE user_id = 1",
    );
    let before = file.examine();
    assert!(before.holds(), "{before:#?}");
    assert_eq!(of_check(&before, Check::Pending), [(1, 5)]);
    file.open().close();
    assert!(file.examine().findings.is_empty());
}

#[tokio::test]
async fn pending_changes_do_not_hide_a_difference() {
    let file = File::new().await;
    file.application("UPDATE wallets SET balance = balance + 30 WHERE user_id = 1");
    file.behind_its_back("UPDATE wallets SET balance = balance - 1 WHERE user_id = 1");
    let found = file.only_wrong();
    assert_eq!((found.check, found.cents.unwrap().0), (Check::Books, -1));
}

#[tokio::test]
async fn every_charge_is_well_formed() {
    let rows = [
        ("(1, 1, 1, 1, 2, 7, 0, 0)", "state"),
        ("(1, 1, 1, 1, 0, 2, 0, 0)", "positive"),
        ("(1, 1, 1, 1, -2, 2, 0, 0)", "positive"),
        ("(1, 1, 1, 1, 'x', 2, 0, 0)", "positive"),
        ("(1, 1, 1, 1, 2, 2, 0, 'x')", "no time"),
    ];
    for (row, words) in rows {
        for next_charge_id in [1, 2] {
            let file = File::new().await;
            file.behind_its_back(&format!(
                "{CHARGE} VALUES {row}; UPDATE keytoll_meta SET value = {next_charge_id} WHERE name = 'next_charge_id'"
            ));
            let found = file.only_wrong();
            assert_eq!(found.check, Check::Rows);
            assert!(found.message.contains("charge 1 ") && found.message.contains(words), "{}", found.message);
        }
    }
}

#[tokio::test]
async fn usage_that_is_no_number_is_found_and_the_rest_is_counted() {
    let file = File::new().await;
    file.behind_its_back(
        "INSERT INTO keytoll_usage VALUES (1, 1, 1, 1, 2, 0, 0, 1, 7), ('x', 1, 1, 1, 2, 0, 0, 1, 7), (2, 1, 'x', 1, 2, 0, 0, 1, 7),
             (2, 1, 1, 1, 'x', 0, 0, 1, 7), (2, 'x', 1, 1, 2, 0, 0, 1, 7), (3, 1, 1, 1, 2, 0, 'many', 1, 7), (4, 1, 1, 1, 2, 0, 0, 1, -7),
             (5, 1, 1, 1, 2, 0, 0, 1, 7), (6, 1, 1, 1, 2, 0, 0, 1, 7), ('y', 1, 1, 1, 2, 0, 0, 1, 7), ('z', 1, 1, 1, 2, 0, 0, 1, 7)",
    );
    let report = file.examine();
    let found: Vec<Finding> = wrong(&report).into_iter().filter(|finding| finding.check == Check::Rows).collect();
    assert_eq!(found.len(), 8, "{report:#?}");
    let counts =
        found.iter().filter(|finding| finding.message.contains("count or sum that is no whole number")).count();
    assert_eq!((counts, report.summary.unwrap().rolled_up), (2, 11));
    // A repair comes to its end too, and has nothing to enter.
    let done = crate::store::doctor::repair(&file.database(), &file.examine()).unwrap();
    assert_eq!(done, []);
}

#[tokio::test]
async fn charges_and_entries_of_nobody_are_found() {
    let file = File::new().await;
    file.behind_its_back(&format!("{CHARGE} VALUES (1, 77, 1, 1, 2, 1, 0, 0)"));
    let found = file.only_wrong();
    assert_eq!((found.check, found.cents.unwrap().0), (Check::Books, -2));
}

#[tokio::test]
async fn a_closed_account_comes_to_nothing() {
    let file = File::new().await;
    file.behind_its_back(
        "UPDATE keytoll_accounts SET closed_at = 1 WHERE user_id = 3; DELETE FROM wallets WHERE user_id = 3",
    );
    let found = file.only_wrong();
    assert_eq!((found.check, found.user_id.unwrap().0, found.cents.unwrap().0), (Check::Books, 3, 500));
}

#[tokio::test]
async fn leases_of_a_killed_gateway_are_noted_and_those_that_no_gateway_will_return_are_wrong() {
    let file = File::new().await;
    file.behind_its_back(
        "INSERT INTO keytoll_instances (id, started_at) VALUES (1, 0);
         INSERT INTO keytoll_leases (instance_id, account_id, cents) VALUES (1, 2, 11);
         UPDATE wallets SET balance = balance - 11 WHERE user_id = 2",
    );
    let report = file.examine();
    assert!(report.holds(), "the books balance: {report:#?}");
    assert_eq!(of_check(&report, Check::Leases), [(2, 11)]);
    let summary = report.summary.unwrap();
    assert_eq!((summary.charges, summary.leased, summary.leased_cents.0, summary.gateways), (0, 1, 11, 0));

    file.behind_its_back("UPDATE keytoll_instances SET ended_at = 1");
    let found = file.only_wrong();
    assert_eq!((found.check, found.user_id.unwrap().0, found.cents.unwrap().0), (Check::Leases, 2, 11));
    let done = crate::store::doctor::repair(&file.database(), &file.examine()).unwrap();
    assert_eq!(done.iter().map(|done| done.cents.unwrap().0).collect::<Vec<_>>(), [11]);
    assert!(file.examine().findings.is_empty());
}

#[tokio::test]
async fn a_lease_that_is_no_amount_or_of_no_account_is_found() {
    for (values, cents) in [("(1, 2, -3)", -3), ("(1, 2, 'x')", 0), ("(1, 77, 5)", 5)] {
        let file = File::new().await;
        file.behind_its_back(&format!("INSERT INTO keytoll_leases (instance_id, account_id, cents) VALUES {values}"));
        let report = file.examine();
        let found = wrong(&report).into_iter().find(|finding| finding.check == Check::Leases);
        assert_eq!(found.unwrap().cents.unwrap().0, cents, "{values}");
    }
}

#[tokio::test]
async fn wallets_that_are_odd_are_told_apart() {
    let file = File::new().await;
    file.application(
        "UPDATE wallets SET balance = -3 WHERE user_id = 1; UPDATE wallets SET balance = 'abc' WHERE user_id = 2;
         UPDATE wallets SET balance = NULL WHERE user_id = 3; DELETE FROM wallets WHERE user_id = 4;
         PRAGMA foreign_keys = OFF; DELETE FROM users WHERE id = 5",
    );
    let report = file.examine();
    let found = report.findings.iter().filter(|finding| finding.check == Check::Wallets);
    let found: Vec<_> = found.map(|finding| (finding.user_id.unwrap().0, finding.severity)).collect();
    let (wrong, note) = (Severity::Wrong, Severity::Note);
    assert_eq!(found, [(1, wrong), (2, wrong), (3, note), (5, wrong), (4, note)]);
}

#[tokio::test]
async fn references_to_nothing_are_wrong_in_the_shared_tables_only() {
    let file = File::new().await;
    file.application(
        "PRAGMA foreign_keys = OFF; INSERT INTO api_keys (\"key\", user_id, api_name) VALUES ('k', 99, 'a');
         CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users (id)); INSERT INTO orders VALUES (1, 99)",
    );
    assert_eq!(file.only_wrong().check, Check::ForeignKeys);
    assert_eq!(of_check(&file.examine(), Check::ForeignKeys).len(), 2);
}

#[tokio::test]
async fn a_damaged_file_is_told_and_not_trusted() {
    let file = File::new().await;
    file.application(
        "CREATE TABLE filler (text); INSERT INTO filler SELECT hex(zeroblob(4000)) FROM wallets; PRAGMA wal_checkpoint(TRUNCATE)",
    );
    let path = file.database().path;
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 3 * 4096..].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let report = file.examine();
    assert!(!report.holds() && report.summary.is_none());
    assert!(report.findings.iter().all(|finding| finding.check == Check::Integrity), "{report:#?}");
}

#[tokio::test]
async fn a_file_without_keytolls_tables_is_not_examined() {
    let file = File::new().await;
    crate::store::uninstall(&file.database()).unwrap();
    let report = file.examine();
    assert_eq!(wrong(&report)[0].check, Check::Tables);
    assert!(report.summary.is_none());
}

#[tokio::test]
async fn another_journal_mode_is_wrong() {
    let file = File::new().await;
    file.application("PRAGMA journal_mode = DELETE");
    assert_eq!(file.only_wrong().check, Check::Journal);
}

#[tokio::test]
async fn an_examination_changes_nothing() {
    let file = File::new().await;
    file.application("UPDATE wallets SET balance = balance + 1; PRAGMA wal_checkpoint(TRUNCATE)");
    let path = file.database().path;
    let before = std::fs::read(&path).unwrap();
    file.examine();
    file.application("PRAGMA wal_checkpoint(TRUNCATE)");
    assert!(before == std::fs::read(&path).unwrap());
}

#[tokio::test]
async fn a_long_list_of_findings_is_cut_and_counted() {
    let file = File::new().await;
    file.behind_its_back(&format!(
        "WITH RECURSIVE ids (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < 250)
         {CHARGE} SELECT id, 1, 1, 1, 2, 7, 0, 0 FROM ids"
    ));
    let report = file.examine();
    assert_eq!((report.findings.len(), report.unlisted, report.holds()), (100, 150, false));
}

#[test]
fn only_versions_with_the_bug_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("header");
    for (version, is_named) in [
        (3_040_001, true),
        (3_044_005, true),
        (3_044_006, false),
        (3_045_000, true),
        (3_050_006, true),
        (3_050_007, false),
        (3_051_002, true),
        (3_051_003, false),
        (3_054_001, false),
        (0, false),
    ] {
        let mut header = vec![0_u8; 100];
        header[96..].copy_from_slice(&u32::to_be_bytes(version));
        std::fs::write(&path, header).unwrap();
        let mut report = Report::default();
        crate::store::doctor::file::written_by(&path, &mut report).unwrap();
        assert_eq!(!report.findings.is_empty(), is_named, "{version}");
        assert!(report.holds());
    }
}
