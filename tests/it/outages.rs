//! Closed when in doubt: what cannot be billed is not forwarded, and Keytoll recovers by itself.

use rusqlite::types::Value;

use crate::harness::{Api, Gateway, Upstream, until};

#[test]
fn a_locked_database_forwards_nothing_and_recovers() {
    let upstream = Upstream::fine();
    let api = Api::new("weather", upstream.address()).route("path = \"/free\"\nprice_cents = 0");
    let gateway = Gateway::builder().api(api).limit("hold_timeout_ms", 50).start();
    let customer = gateway.customer("weather", 500);
    let request = gateway.get("/").key(&customer.key);
    request.send().assert_receipt(10, 490);
    let lock = gateway.lock();
    for _ in 0..3 {
        let reply = request.send();
        reply.assert_problem(503, "billing-unavailable");
        assert!(reply.head.number("retry-after").is_some());
        assert!(reply.receipt().is_none());
    }
    assert_eq!(upstream.seen(), 1);
    // What costs nothing goes on.
    assert_eq!(gateway.get("/free").key(&customer.key).send().status(), 200);
    assert_eq!(gateway.get("/.keytoll/readyz").send().status(), 503);
    lock.release();
    request.send().assert_receipt(10, 480);
    until("ready again", || gateway.get("/.keytoll/readyz").send().status() == 200);
    gateway.assert_charges(2, 0);
}

#[test]
fn a_lock_that_is_let_go_in_time_is_only_waited_for() {
    let upstream = Upstream::scripted();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    let lock = gateway.lock();
    let mut client = gateway.get("/").key(&customer.key).open();
    upstream.expect_no_call();
    lock.release();
    upstream.call().reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    client.reply().assert_receipt(10, 490);
    gateway.assert_charges(1, 0);
}

#[test]
fn what_is_no_integer_is_no_money_and_is_not_touched() {
    let upstream = Upstream::fine();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let values =
        [Value::Text("abc".into()), Value::Text(String::new()), Value::Null, Value::Real(5.5), Value::Blob(vec![9])];
    for value in values {
        let customer = gateway.customer("weather", 500);
        assert_eq!(gateway.get("/").key(&customer.key).send().status(), 200);
        gateway.database().execute("UPDATE wallets SET balance = ?1 WHERE user_id = ?2", (&value, customer.id));
        for _ in 0..2 {
            let problem = gateway.get("/").key(&customer.key).send().assert_problem(402, "insufficient-funds");
            assert_eq!(problem["balance_cents"], 0, "{value:?}");
        }
        gateway.settle();
        assert_eq!(gateway.database().balance_value(customer.id), value);
    }
    assert_eq!(upstream.seen(), 5);
    gateway.assert_charges(5, 0);
}

#[test]
fn a_missing_wallet_is_no_money() {
    let upstream = Upstream::fine();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    assert_eq!(gateway.get("/").key(&customer.key).send().status(), 200);
    gateway.database().execute("DELETE FROM wallets WHERE user_id = ?1", [customer.id]);
    let problem = gateway.get("/").key(&customer.key).send().assert_problem(402, "insufficient-funds");
    assert_eq!(problem["balance_cents"], 0);
    assert_eq!(upstream.seen(), 1);
    gateway.assert_charges(1, 0);
}

#[test]
fn a_debt_that_another_program_made_buys_nothing() {
    let upstream = Upstream::fine();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    gateway.database().execute("UPDATE wallets SET balance = -5 WHERE user_id = ?1", [customer.id]);
    let problem = gateway.get("/").key(&customer.key).send().assert_problem(402, "insufficient-funds");
    assert_eq!(problem["balance_cents"], -5);
    gateway.settle();
    assert_eq!((upstream.seen(), gateway.database().balance(customer.id)), (0, -5));
}

#[test]
fn past_the_number_of_open_charges_requests_are_refused() {
    let upstream = Upstream::scripted();
    let gateway = Gateway::builder().api(Api::new("weather", upstream.address())).limit("open_charges", 2).start();
    let customer = gateway.customer("weather", 500);
    let request = gateway.get("/").key(&customer.key);
    let (mut one, mut two) = (request.open(), request.open());
    let (first, second) = (upstream.call(), upstream.call());
    request.send().assert_problem(503, "billing-unavailable");
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    first.reply(ok);
    second.reply(ok);
    assert_eq!((one.reply().status(), two.reply().status()), (200, 200));
    gateway.settle();
    let mut three = request.open();
    upstream.call().reply(ok);
    three.reply().assert_receipt(10, 470);
    gateway.assert_charges(3, 0);
}
