//! The other program: what it writes counts at once and is on the books, while requests flow.

use crate::harness::{Api, Gateway, Upstream, traffic};

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::builder().workers(2).api(Api::new("weather", upstream.address())).start()
}

/// How often two clients of another wallet, who keep the writer busy, were served while `body` ran.
fn under_traffic(gateway: &Gateway, upstream: &Upstream, body: impl FnOnce()) -> i64 {
    traffic(gateway, upstream, 2, body)
}

#[test]
fn money_that_another_program_puts_in_can_be_spent_at_once() {
    let upstream = Upstream::fine();
    let gateway = gateway(&upstream);
    let customer = gateway.customer("weather", 5);
    let request = gateway.get("/").key(&customer.key);
    let rounds = 40;
    let served = under_traffic(&gateway, &upstream, || {
        for _ in 0..rounds {
            request.send().assert_problem(402, "insufficient-funds");
            gateway.database().execute("UPDATE wallets SET balance = balance + 10 WHERE user_id = ?1", [customer.id]);
            request.send().assert_receipt(10, 5);
        }
    });
    gateway.assert_charges(served + rounds, 0);
    assert_eq!(gateway.database().entries(customer.id, "external"), vec![10; usize::try_from(rounds).unwrap()]);
}

#[test]
fn a_balance_that_another_program_overwrites_is_the_balance() {
    let upstream = Upstream::fine();
    let gateway = gateway(&upstream);
    let customer = gateway.customer("weather", 500);
    let request = gateway.get("/").key(&customer.key);
    let served = under_traffic(&gateway, &upstream, || {
        request.send().assert_receipt(10, 490);
        gateway.database().execute("UPDATE wallets SET balance = 1000 WHERE user_id = ?1", [customer.id]);
        request.send().assert_receipt(10, 990);
        gateway.database().execute("UPDATE wallets SET balance = 3 WHERE user_id = ?1", [customer.id]);
        let problem = request.send().assert_problem(402, "insufficient-funds");
        assert_eq!(problem["balance_cents"], 3);
    });
    gateway.assert_charges(served + 2, 0);
    assert_eq!(gateway.database().entries(customer.id, "external"), [510, -987]);
}

#[test]
fn a_wallet_that_another_program_makes_anew_is_the_wallet() {
    let upstream = Upstream::fine();
    let gateway = gateway(&upstream);
    let customer = gateway.customer("weather", 500);
    let request = gateway.get("/").key(&customer.key);
    let database = gateway.database();
    let served = under_traffic(&gateway, &upstream, || {
        request.send().assert_receipt(10, 490);
        database.execute("DELETE FROM wallets WHERE user_id = ?1", [customer.id]);
        request.send().assert_problem(402, "insufficient-funds");
        database.execute("INSERT INTO wallets (user_id, balance) VALUES (?1, 70)", [customer.id]);
        request.send().assert_receipt(10, 60);
        database.execute("REPLACE INTO wallets (user_id, balance) VALUES (?1, 40)", [customer.id]);
        request.send().assert_receipt(10, 30);
        database.execute(
            "REPLACE INTO wallets (id, user_id, balance) SELECT id, user_id, 90 FROM wallets WHERE user_id = ?1",
            [customer.id],
        );
        request.send().assert_receipt(10, 80);
    });
    gateway.assert_charges(served + 4, 0);
    let entries = database.entries(customer.id, "external");
    assert_eq!(entries.iter().sum::<i64>(), 80 - 500 + 40, "{entries:?}");
}

#[test]
fn a_user_that_another_program_makes_is_served_at_once() {
    let upstream = Upstream::fine();
    let gateway = gateway(&upstream);
    let other = gateway.database().open();
    let rounds = 20;
    let served = under_traffic(&gateway, &upstream, || {
        for round in 0..rounds {
            let key = format!("application-key-{round}");
            other.execute_batch("BEGIN").unwrap();
            let email = format!("{round}@application.example");
            other.execute("INSERT INTO users (email, name, is_active) VALUES (?1, 'New', 1)", [email]).unwrap();
            let user = other.last_insert_rowid();
            other.execute("INSERT INTO wallets (user_id, balance) VALUES (?1, 500)", [user]).unwrap();
            other
                .execute(
                    "INSERT INTO api_keys (\"key\", user_id, api_name, is_active, created_at)
                     VALUES (?1, ?2, 'weather', 1, '2026-01-31 12:00:00.000000')",
                    (&key, user),
                )
                .unwrap();
            other.execute_batch("COMMIT").unwrap();
            gateway.get("/").key(&key).send().assert_receipt(10, 490);
            assert_eq!(gateway.database().entries(user, "external"), [500]);
        }
    });
    gateway.assert_charges(served + rounds, 0);
}

#[test]
fn wallets_are_on_the_books_again_after_another_program_rebuilt_their_table() {
    let upstream = Upstream::fine();
    let gateway = gateway(&upstream);
    let customer = gateway.customer("weather", 500);
    let request = gateway.get("/").key(&customer.key);
    let served = under_traffic(&gateway, &upstream, || {
        request.send().assert_receipt(10, 490);
        let other = gateway.database().open();
        // As Alembic's batch mode does it.
        other
            .execute_batch(
                "PRAGMA foreign_keys = OFF;
                 BEGIN IMMEDIATE;
                 CREATE TABLE _alembic_tmp_wallets (
                     id INTEGER NOT NULL, user_id INTEGER NOT NULL, balance INTEGER, note VARCHAR,
                     PRIMARY KEY (id), UNIQUE (user_id), FOREIGN KEY(user_id) REFERENCES users (id));
                 INSERT INTO _alembic_tmp_wallets (id, user_id, balance) SELECT id, user_id, balance FROM wallets;
                 DROP TABLE wallets;
                 ALTER TABLE _alembic_tmp_wallets RENAME TO wallets;
                 COMMIT;",
            )
            .unwrap();
        request.send().assert_receipt(10, 480);
        other.execute("UPDATE wallets SET balance = balance + 7 WHERE user_id = ?1", [customer.id]).unwrap();
        request.send().assert_receipt(10, 477);
    });
    gateway.assert_charges(served + 3, 0);
    assert_eq!(gateway.database().entries(customer.id, "external"), [7]);
}
