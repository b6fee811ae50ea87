//! Holds and settlements.

use std::time::Duration;

use crate::config::Limits;
use crate::model::{Cents, RouteId};
use crate::store::sample::Sample;
use crate::store::{Found, HoldRefused, HoldRequest, Role, Settled, Unavailable};

#[tokio::test]
async fn a_hold_takes_the_price_and_a_release_gives_it_back() {
    let sample = Sample::open(Role::Gateway);
    let (user, key, ledger) = sample.customer().await;
    let held = sample.hold(&ledger, &key, 40).await;
    assert_eq!(held.balance, Cents(460));
    assert_eq!(sample.number("SELECT balance FROM wallets"), 460);
    assert_eq!(held.charge.release(Some(502)).await, Settled::Released { balance: Some(Cents(500)) });
    let held = sample.hold(&ledger, &key, 40).await;
    assert_eq!(held.charge.capture(200).await, Settled::Captured);
    assert_eq!(sample.number("SELECT balance FROM wallets"), 460);
    assert_eq!(sample.number("SELECT sum(state = 1 AND status = 200) * 10 + sum(state = 2) FROM keytoll_charges"), 11);
    assert_eq!(sample.books(user), 460);
}

#[tokio::test]
async fn a_hold_that_is_dropped_is_released() {
    let sample = Sample::open(Role::Gateway);
    let (_, key, ledger) = sample.customer().await;
    drop(sample.hold(&ledger, &key, 40).await);
    sample.store.settled().await;
    assert_eq!(sample.number("SELECT balance FROM wallets"), 500);
    assert_eq!(sample.number("SELECT count(*) FROM keytoll_charges"), 0, "it was not forwarded");
    assert_eq!(sample.number("SELECT sum(cents) FROM keytoll_leases"), 0);
}

#[tokio::test]
async fn no_balance_goes_below_zero() {
    let sample = Sample::open(Role::Gateway);
    let user = sample.user("a@example.com").await;
    let key = sample.issue(user, "weather").await.key;
    let Found::Active { principal, .. } = sample.store.find_key(key).await.unwrap() else { panic!("the key is good") };
    let route = sample.store.route_id("weather", "/").await.unwrap();
    let generation = sample.store.generation();
    let holds = (0..100).map(|_| {
        let ledger = sample.ledger();
        let wish = HoldRequest { principal: principal.clone(), generation, route, price: Cents(13) };
        tokio::spawn(async move { ledger.hold(wish, None).await })
    });
    let holds: Vec<_> = holds.collect();
    let mut kept = Vec::new();
    for hold in holds {
        match hold.await.unwrap() {
            Ok(held) => kept.push(held),
            Err(refused) => assert_eq!(refused, HoldRefused::Insufficient { balance: Cents(500 - 38 * 13) }),
        }
    }
    assert_eq!(kept.len(), 38);
    assert_eq!(sample.number("SELECT balance FROM wallets"), 500 - 38 * 13);
}

#[tokio::test]
async fn only_an_integer_is_money() {
    let sample = Sample::open(Role::Gateway);
    let (user, key, ledger) = sample.customer().await;
    for balance in ["'abc'", "''", "NULL", "7.5", "x'31'"] {
        sample.application().execute(&format!("UPDATE wallets SET balance = {balance}"), []).unwrap();
        let refused = sample.try_hold(&ledger, &key, 5).await.unwrap_err();
        assert_eq!(refused, HoldRefused::NotAnInteger, "{balance}");
        assert_eq!(sample.number(&format!("SELECT balance IS {balance} FROM wallets")), 1);
        assert_eq!(sample.books(user), 0);
    }
    sample.application().execute("DELETE FROM wallets", []).unwrap();
    let refused = sample.try_hold(&ledger, &key, 5).await.unwrap_err();
    assert_eq!(refused, HoldRefused::Insufficient { balance: Cents(0) });
}

#[tokio::test]
async fn a_key_that_another_program_revokes_is_refused_from_its_commit_on() {
    let sample = Sample::open(Role::Gateway);
    let (_, key, ledger) = sample.customer().await;
    let application = sample.application();
    for (revoke, restore) in [
        ("UPDATE api_keys SET is_active = 0", "UPDATE api_keys SET is_active = 1"),
        ("UPDATE api_keys SET is_active = NULL", "UPDATE api_keys SET is_active = 1"),
        ("UPDATE users SET is_active = 0", "UPDATE users SET is_active = 1"),
        ("UPDATE api_keys SET api_name = 'maps'", "UPDATE api_keys SET api_name = 'weather'"),
        ("UPDATE api_keys SET \"key\" = 'x' || \"key\"", "UPDATE api_keys SET \"key\" = substr(\"key\", 2)"),
    ] {
        for _ in 0..20 {
            // Loaded and noted just before: only the hold itself can see the change.
            let wish = sample.wish(&key, 1).await;
            application.execute(revoke, []).unwrap();
            assert_eq!(ledger.hold(wish.clone(), None).await.unwrap_err(), HoldRefused::KeyChanged, "{revoke}");
            application.execute(restore, []).unwrap();
            let held = ledger.hold(wish, None).await.unwrap();
            assert_eq!(held.charge.capture(200).await, Settled::Captured);
        }
    }
}

#[tokio::test]
async fn a_key_that_the_admin_revokes_is_refused_from_the_answer_on() {
    let sample = Sample::open(Role::Gateway);
    let user = sample.user("a@example.com").await;
    let issued = sample.issue(user, "weather").await;
    let ledger = sample.ledger();
    for _ in 0..50 {
        let wish = sample.wish(&issued.key, 1).await;
        sample.store.set_key_active(issued.record.id, false).await.unwrap();
        assert_eq!(ledger.hold(wish, None).await.unwrap_err(), HoldRefused::KeyChanged);
        sample.store.set_key_active(issued.record.id, true).await.unwrap();
    }
}

#[tokio::test]
async fn a_lock_of_another_program_refuses_in_time_and_ends_by_itself() {
    let limits = Limits { hold_timeout: Duration::from_millis(50), ..Limits::default() };
    let sample = Sample::open_with(Role::Gateway, &limits);
    let (_, key, ledger) = sample.customer().await;
    drop(sample.hold(&ledger, &key, 1).await);
    sample.store.settled().await;
    let wish = sample.wish(&key, 1).await;
    let application = sample.application();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(ledger.hold(wish.clone(), None).await.unwrap_err(), HoldRefused::Unavailable(Unavailable::Locked));
    assert_eq!(sample.store.trouble(), Some(Unavailable::Locked));
    application.execute_batch("COMMIT").unwrap();
    let held = ledger.hold(wish, None).await.unwrap();
    assert_eq!(sample.store.trouble(), None);
    drop(held);
}

#[tokio::test]
async fn a_capture_that_meets_a_lock_for_too_long_ends_as_a_release() {
    let limits = Limits { settle_timeout: Duration::from_millis(50), ..Limits::default() };
    let sample = Sample::open_with(Role::Gateway, &limits);
    let (_, key, ledger) = sample.customer().await;
    let held = sample.hold(&ledger, &key, 40).await;
    let application = sample.application();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(held.charge.capture(200).await, Settled::Released { balance: None });
    application.execute_batch("COMMIT").unwrap();
    sample.store.settled().await;
    assert_eq!(sample.number("SELECT balance FROM wallets"), 500);
    assert_eq!(sample.number("SELECT state FROM keytoll_charges"), 2);
}

#[tokio::test]
async fn a_capture_that_is_committed_after_its_waiter_gave_up_is_refunded() {
    let sample = Sample::open(Role::Gateway);
    let (user, key, ledger) = sample.customer().await;
    let held = sample.hold(&ledger, &key, 40).await;
    let application = sample.application();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    let settlement = held.charge.capture(200);
    assert!(settlement.give_up());
    application.execute_batch("COMMIT").unwrap();
    sample.store.settled().await;
    assert_eq!(sample.number("SELECT state FROM keytoll_charges"), 1);
    assert_eq!(
        sample.number("SELECT amount_cents FROM keytoll_entries e JOIN keytoll_charges c ON e.charge_id = c.id"),
        40
    );
    assert_eq!(sample.number("SELECT balance FROM wallets"), 500);
    assert_eq!(sample.books(user), 500);
}

#[tokio::test]
async fn a_capture_that_nobody_waits_for_stands() {
    let sample = Sample::open(Role::Gateway);
    let (user, key, ledger) = sample.customer().await;
    drop(sample.hold(&ledger, &key, 40).await.charge.capture(200));
    sample.store.settled().await;
    assert_eq!(sample.number("SELECT state FROM keytoll_charges"), 1);
    assert_eq!(sample.books(user), 460);
}

#[tokio::test]
async fn nobody_gives_up_on_a_capture_that_was_answered() {
    let sample = Sample::open(Role::Gateway);
    let (_, key, ledger) = sample.customer().await;
    let settlement = sample.hold(&ledger, &key, 40).await.charge.capture(200);
    sample.store.settled().await;
    assert!(!settlement.give_up());
    assert_eq!(settlement.await, Settled::Captured);
}

#[tokio::test]
async fn open_charges_are_bounded_and_a_settlement_always_has_a_place() {
    let limits = Limits { open_charges: 3, ..Limits::default() };
    let sample = Sample::open_with(Role::Gateway, &limits);
    let (_, key, ledger) = sample.customer().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(sample.hold(&ledger, &key, 1).await);
    }
    let wish = sample.wish(&key, 1).await;
    assert_eq!(ledger.hold(wish, None).await.unwrap_err(), HoldRefused::Unavailable(Unavailable::QueueFull));
    for held in held {
        assert_eq!(held.charge.capture(200).await, Settled::Captured);
    }
    sample.store.settled().await;
    sample.hold(&ledger, &key, 1).await;
}

#[tokio::test]
async fn a_price_of_nothing_or_less_holds_nothing() {
    let sample = Sample::open(Role::Gateway);
    let (_, key, ledger) = sample.customer().await;
    for price in [0, -5, i64::MIN] {
        let wish = HoldRequest { price: Cents(price), route: RouteId(1), ..sample.wish(&key, 1).await };
        assert!(matches!(ledger.hold(wish, None).await, Err(HoldRefused::Insufficient { .. })), "{price}");
    }
    assert_eq!(sample.number("SELECT balance FROM wallets"), 500);
}

#[tokio::test]
async fn a_short_patience_with_holds_is_no_trouble_of_the_database() {
    let limits = Limits { hold_timeout: Duration::from_millis(1), ..Limits::default() };
    let sample = Sample::open_with(Role::Gateway, &limits);
    for _ in 0..20 {
        while sample.store.view_age() <= limits.hold_timeout {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(sample.store.trouble(), None);
    }
}

#[tokio::test]
async fn a_hold_whose_lease_is_gone_from_the_file_is_not_settled_and_stops_nothing_else() {
    for captures in [true, false] {
        let sample = Sample::open(Role::Gateway);
        let (_, key, ledger) = sample.customer().await;
        let held = sample.hold(&ledger, &key, 40).await;
        sample.application().execute("DELETE FROM keytoll_leases", []).unwrap();
        let settling = if captures { held.charge.capture(200) } else { held.charge.release(Some(502)) };
        assert_eq!(settling.await, Settled::Unknown);
        assert_eq!(sample.number("SELECT count(*) FROM keytoll_charges"), 0);
        assert_eq!(sample.number("SELECT balance FROM wallets"), 460);
        assert_eq!(sample.hold(&ledger, &key, 40).await.charge.capture(200).await, Settled::Captured);
        assert_eq!(sample.store.open_charges(), 0);
    }
}
