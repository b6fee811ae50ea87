//! What other programs do to wallets gets onto the books.

use crate::model::{ApiKey, Cents, UserId};
use crate::store::sample::Sample;
use crate::store::{HoldRefused, Ledger, Role, Settled};

struct Scene {
    sample: Sample,
    user: UserId,
    key: ApiKey,
    ledger: Ledger,
}

/// A user with $5.00, 40 cents of them captured and 60 held and dropped at the end.
async fn scene() -> Scene {
    let sample = Sample::open(Role::Gateway);
    let (user, key, ledger) = sample.customer().await;
    let held = sample.hold(&ledger, &key, 40).await;
    assert_eq!(held.charge.capture(200).await, Settled::Captured);
    Scene { sample, user, key, ledger }
}

impl Scene {
    /// Runs the application's statements, and lets the writer see them.
    async fn apply(&self, statements: &str) {
        let application = self.sample.application();
        // As other programs have it unless they say otherwise; rusqlite does.
        application.pragma_update(None, "foreign_keys", false).unwrap();
        application.execute_batch(statements).unwrap();
        self.sample.store.route_id("weather", "/").await.unwrap();
        assert_eq!(self.sample.number("SELECT count(*) FROM keytoll_wallet_log"), 0, "{statements}");
    }

    fn balance(&self) -> i64 {
        self.sample.number(&format!(
            "SELECT coalesce(max(CASE WHEN typeof(balance) = 'integer' THEN balance ELSE 0 END), 0)
             FROM wallets WHERE user_id = {}",
            self.user
        ))
    }
}

#[tokio::test]
async fn the_books_balance_after_whatever_another_program_does() {
    let scene = scene().await;
    for statements in [
        "UPDATE wallets SET balance = balance + 500",
        "UPDATE wallets SET balance = 500",
        "UPDATE wallets SET balance = -3",
        "UPDATE wallets SET balance = 'abc'",
        "UPDATE wallets SET balance = NULL",
        "UPDATE wallets SET balance = 7.5",
        "UPDATE wallets SET balance = 9223372036854774807",
        "UPDATE wallets SET balance = -9223372036854774807",
        "UPDATE wallets SET balance = 300",
        "REPLACE INTO wallets (user_id, balance) VALUES (1, 71)",
        "REPLACE INTO wallets (id, user_id, balance) VALUES ((SELECT id FROM wallets WHERE user_id = 1), 1, 72)",
        "PRAGMA recursive_triggers = ON; REPLACE INTO wallets (user_id, balance) VALUES (1, 73)",
        "INSERT OR IGNORE INTO wallets (user_id, balance) VALUES (1, 9999)",
        "INSERT OR IGNORE INTO wallets (user_id, balance) VALUES (1, 9999); UPDATE wallets SET balance = balance + 1",
        "DELETE FROM wallets",
        "INSERT INTO wallets (user_id, balance) VALUES (1, 74)",
        "DELETE FROM wallets; INSERT INTO wallets (user_id, balance) VALUES (1, 75)",
        "BEGIN; UPDATE wallets SET balance = 1; UPDATE wallets SET balance = 2; ROLLBACK",
        "INSERT INTO wallets (user_id, balance) VALUES (9, 10); UPDATE wallets SET user_id = 8 WHERE user_id = 9",
        "UPDATE OR REPLACE wallets SET user_id = 1 WHERE user_id = 8",
        "UPDATE wallets SET id = 77 WHERE user_id = 1",
    ] {
        scene.apply(statements).await;
        assert_eq!(scene.sample.books(scene.user), scene.balance(), "{statements}");
        assert_eq!(scene.sample.books(UserId(9)), 0, "{statements}");
    }
    assert_eq!(scene.balance(), 10);
    let held = scene.sample.hold(&scene.ledger, &scene.key, 4).await;
    assert_eq!(held.balance, Cents(6));
}

#[tokio::test]
async fn a_wallet_that_is_nobodys_any_more_is_taken_off_the_books() {
    for statement in
        ["UPDATE wallets SET user_id = 'nobody'", "REPLACE INTO wallets (id, user_id, balance) VALUES (1, 'nobody', 7)"]
    {
        let scene = scene().await;
        scene.apply(statement).await;
        assert_eq!(scene.sample.books(scene.user), 0, "{statement}");
        // Nor do all wallets together bring it there.
        scene.apply("INSERT INTO keytoll_wallet_log (op) VALUES ('else')").await;
        assert_eq!(scene.sample.books(scene.user), 0, "{statement}");
    }
}

#[tokio::test]
async fn a_note_that_no_trigger_writes_has_the_wallets_compared() {
    let scene = scene().await;
    for op in ["NULL", "7", "'else'"] {
        scene.apply(&format!("INSERT INTO keytoll_wallet_log (op) VALUES ({op})")).await;
        assert_eq!(scene.sample.books(scene.user), scene.balance(), "{op}");
    }
}

#[tokio::test]
async fn an_absolute_value_written_over_a_debit_shows_on_the_books() {
    let scene = scene().await;
    // The application read 500 before the call was charged, and writes back 500 + 100.
    scene.apply("UPDATE wallets SET balance = 600").await;
    assert_eq!(scene.sample.number("SELECT amount_cents FROM keytoll_entries WHERE kind = 'external'"), 140);
    assert_eq!(scene.sample.books(scene.user), 600);
}

#[tokio::test]
async fn a_rebuilt_table_gets_its_triggers_back_and_is_compared_with_the_books() {
    let scene = scene().await;
    scene
        .apply(
            "BEGIN;
             CREATE TABLE _alembic_tmp_wallets (id INTEGER NOT NULL PRIMARY KEY, user_id INTEGER NOT NULL UNIQUE REFERENCES users (id), balance INTEGER, extra TEXT);
             INSERT INTO _alembic_tmp_wallets (id, user_id, balance) SELECT id, user_id, balance + 11 FROM wallets;
             DROP TABLE wallets;
             ALTER TABLE _alembic_tmp_wallets RENAME TO wallets;
             COMMIT",
        )
        .await;
    assert_eq!((scene.balance(), scene.sample.books(scene.user)), (471, 471));
    let count = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'keytoll%'";
    assert_eq!(scene.sample.number(count), 5);
    scene.apply("UPDATE wallets SET balance = balance + 1").await;
    assert_eq!(scene.sample.books(scene.user), 472);
}

#[tokio::test]
async fn triggers_do_not_fire_for_keytolls_own_writes() {
    let scene = scene().await;
    scene.sample.store.credit(scene.user, Cents(5), None).await.unwrap();
    assert_eq!(scene.sample.number("SELECT count(*) FROM keytoll_entries WHERE kind = 'external'"), 0);
    assert_eq!(scene.sample.books(scene.user), 465);
}

#[tokio::test]
async fn a_release_into_a_missing_wallet_is_given_back_and_taken_out_again() {
    let scene = scene().await;
    let held = scene.sample.hold(&scene.ledger, &scene.key, 60).await;
    scene.apply("DELETE FROM wallets").await;
    assert_eq!(held.charge.release(None).await, Settled::Released { balance: None });
    assert_eq!(scene.sample.books(scene.user), 0);
    assert_eq!(scene.sample.number("SELECT amount_cents FROM keytoll_entries ORDER BY id DESC LIMIT 1"), -60);
}

#[tokio::test]
async fn a_later_user_with_the_same_id_inherits_nothing() {
    let scene = scene().await;
    let held = scene.sample.hold(&scene.ledger, &scene.key, 60).await;
    scene
        .apply(
            "DELETE FROM wallets; DELETE FROM api_keys; DELETE FROM users;
             INSERT INTO users (id, email, name, is_active) VALUES (1, 'b@example.com', 'B', 1);
             INSERT INTO wallets (user_id, balance) VALUES (1, 500);",
        )
        .await;
    assert_eq!(scene.sample.books(scene.user), 500);
    assert_eq!(held.charge.release(None).await, Settled::Released { balance: None });
    assert_eq!((scene.balance(), scene.sample.books(scene.user)), (500, 500));
}

#[tokio::test]
async fn a_user_that_is_gone_ends_its_account() {
    let scene = scene().await;
    scene.apply("DELETE FROM wallets; DELETE FROM api_keys; DELETE FROM users").await;
    assert_eq!(scene.sample.number("SELECT count(*) FROM keytoll_accounts WHERE closed_at IS NULL"), 0);
    scene
        .apply(
            "INSERT INTO users (id, email, name, is_active) VALUES (1, 'a@example.com', 'A', 1);
             INSERT INTO wallets (user_id, balance) VALUES (1, 20);",
        )
        .await;
    assert_eq!(scene.sample.books(scene.user), 20);
}

#[tokio::test]
async fn a_wallet_that_another_program_drains_is_empty_at_once() {
    let scene = scene().await;
    drop(scene.sample.hold(&scene.ledger, &scene.key, 1).await);
    scene.sample.store.settled().await;
    scene.sample.application().execute("UPDATE wallets SET balance = 3", []).unwrap();
    let refused = scene.sample.try_hold(&scene.ledger, &scene.key, 4).await.unwrap_err();
    assert_eq!(refused, HoldRefused::Insufficient { balance: Cents(3) });
}

#[tokio::test]
async fn a_change_that_no_trigger_saw_is_entered_also_when_the_user_is_gone_since() {
    let scene = scene().await;
    scene
        .apply(
            "DROP TRIGGER keytoll_wallets_after_update; UPDATE wallets SET balance = balance + 7;
             DELETE FROM wallets; DELETE FROM api_keys; DELETE FROM users",
        )
        .await;
    assert_eq!(scene.sample.number("SELECT count(*) FROM keytoll_accounts WHERE closed_at IS NULL"), 0);
    let entries = "SELECT sum(amount_cents) FROM keytoll_entries";
    let charges = "SELECT coalesce((SELECT sum(cents) FROM keytoll_charges WHERE state = 1), 0)
         + coalesce((SELECT sum(cents) FROM keytoll_leases), 0)";
    assert_eq!(scene.sample.number(entries), scene.sample.number(charges));
}

#[tokio::test]
async fn a_wallet_that_is_replaced_for_another_person_begins_with_what_is_in_it() {
    let scene = scene().await;
    scene
        .apply(
            "UPDATE users SET email = 'b@example.com';
             REPLACE INTO wallets (user_id, balance) VALUES (1, 70)",
        )
        .await;
    assert_eq!((scene.balance(), scene.sample.books(scene.user)), (70, 70));
    let closed = "SELECT sum(amount_cents) FROM keytoll_entries WHERE account_id = 1";
    assert_eq!(scene.sample.number(closed), 40, "what was captured of the one who had the id before");
}

#[tokio::test]
async fn a_later_user_with_the_same_id_inherits_nothing_also_when_no_trigger_saw_it() {
    let scene = scene().await;
    let held = scene.sample.hold(&scene.ledger, &scene.key, 60).await;
    scene
        .apply(
            "DROP TRIGGER keytoll_wallets_after_insert; DROP TRIGGER keytoll_wallets_after_delete;
             DELETE FROM wallets; DELETE FROM api_keys; DELETE FROM users;
             INSERT INTO users (id, email, name, is_active) VALUES (1, 'b@example.com', 'B', 1);
             INSERT INTO wallets (user_id, balance) VALUES (1, 500);",
        )
        .await;
    assert_eq!(held.charge.release(None).await, Settled::Released { balance: None });
    assert_eq!((scene.balance(), scene.sample.books(scene.user)), (500, 500));
}
