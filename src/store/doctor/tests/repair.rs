use crate::store::doctor::repair;
use crate::store::doctor::tests::*;

const CHARGE: &str =
    "INSERT INTO keytoll_charges (id, account_id, key_id, route_id, cents, state, held_at, settled_at)";

impl File {
    /// Repairs, and asserts that everything holds then. Who and how much.
    fn repaired(&self) -> Vec<(i64, i64)> {
        assert!(!self.examine().holds(), "there is nothing to repair");
        let done = repair(&self.database(), &self.examine()).unwrap();
        let report = self.examine();
        assert!(report.holds(), "{report:#?}");
        assert_eq!(repair(&self.database(), &report).unwrap(), [], "a repair is done once");
        done.iter().map(|done| (done.user_id.map_or(0, |id| id.0), done.cents.map_or(0, |cents| cents.0))).collect()
    }

    fn number(&self, select: &str) -> i64 {
        self.connect().query_row(select, [], |row| row.get(0)).unwrap()
    }
}

#[tokio::test]
async fn what_is_in_a_wallet_is_accepted_with_an_entry() {
    let file = File::new().await;
    file.behind_its_back("UPDATE wallets SET balance = balance + 100 WHERE user_id = 5");
    let before = file.number("SELECT sum(amount_cents * id) FROM keytoll_entries");
    assert_eq!(file.repaired(), [(5, 100)]);
    assert_eq!(file.number("SELECT balance FROM wallets WHERE user_id = 5"), 600);
    let last = "SELECT sum(amount_cents * id) FROM keytoll_entries WHERE kind <> 'external'";
    assert_eq!(file.number(last), before, "no entry was changed");
    assert_eq!(file.number("SELECT count(*) FROM keytoll_entries WHERE note LIKE '%doctor --repair'"), 1);
}

#[tokio::test]
async fn leases_that_no_gateway_will_return_are_returned() {
    let file = File::new().await;
    // One of a gateway that has ended, one of a gateway that never was.
    file.behind_its_back(
        "INSERT INTO keytoll_instances (id, started_at, ended_at) VALUES (1, 0, 1);
         INSERT INTO keytoll_leases (instance_id, account_id, cents) VALUES (1, 2, 5), (77, 2, 6);
         UPDATE wallets SET balance = balance - 11 WHERE user_id = 2",
    );
    assert_eq!(file.repaired(), [(0, 11)]);
    assert_eq!(file.number("SELECT balance FROM wallets WHERE user_id = 2"), 500);
    assert_eq!(file.number("SELECT count(*) FROM keytoll_leases"), 0);
}

#[tokio::test]
async fn sums_that_are_not_those_of_the_rows_are_found_and_made_anew() {
    for tamper in [
        "INSERT INTO keytoll_sums VALUES (1, 1, 0)",
        "UPDATE keytoll_meta SET value = 3 WHERE name = 'summed_entries_through'",
        "INSERT INTO keytoll_usage VALUES (1, 1, 1, 1, 2, 1, 7, 0, 0); UPDATE wallets SET balance = 493 WHERE user_id = 1",
    ] {
        let file = File::new().await;
        file.behind_its_back(tamper);
        assert!(file.examine().findings.iter().all(|finding| finding.check == Check::Sums), "{tamper}");
        assert_eq!(file.repaired(), [(0, 0)], "{tamper}");
    }
}

#[tokio::test]
async fn a_charge_in_a_state_that_is_not_known_counts_as_nothing_for_a_repair_too() {
    for state in ["7", "'text'"] {
        for next_charge_id in [1, 2] {
            let file = File::new().await;
            file.behind_its_back(&format!(
                "{CHARGE} VALUES (1, 1, 1, 1, 2, {state}, 0, 0);
                 UPDATE keytoll_meta SET value = {next_charge_id} WHERE name = 'next_charge_id'"
            ));
            assert_eq!(file.only_wrong().check, Check::Rows);
            assert_eq!(repair(&file.database(), &file.examine()).unwrap(), [], "{state}");
            assert_eq!(file.only_wrong().check, Check::Rows, "{state}");
            assert_eq!(file.number("SELECT count(*) FROM keytoll_entries WHERE kind = 'external'"), 0, "{state}");
        }
    }
}

#[tokio::test]
async fn missing_triggers_are_put_back() {
    let file = File::new().await;
    file.application("DROP TRIGGER keytoll_wallets_after_update; UPDATE wallets SET balance = 1 WHERE user_id = 2");
    assert_eq!(file.repaired(), [(0, 0), (2, -499)]);
}

#[tokio::test]
async fn what_only_its_owner_can_put_right_stays_wrong() {
    let file = File::new().await;
    file.application("UPDATE wallets SET balance = -3 WHERE user_id = 1");
    repair(&file.database(), &file.examine()).unwrap();
    assert_eq!(file.only_wrong().check, Check::Wallets);
}
