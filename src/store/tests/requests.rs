//! Requests that are sent again under the same key: what each finds, and what becomes of its money.

mod room;
mod takeover;

use std::time::Duration;

use crate::config::Limits;
use crate::model::{ApiKey, Cents, ChargeId, IdempotencyKey, RequestDigest, Retryable, UserId};
use crate::store::books::requests::FORWARDED_BY;
use crate::store::sample::Sample;
use crate::store::{Held, HoldRefused, Ledger, Recovered, Role, Settled};

const PRICE: i64 = 40;

/// A store with a customer of 500 cents.
struct Scene {
    sample: Sample,
    ledger: Ledger,
    user: UserId,
    key: ApiKey,
}

impl Scene {
    async fn new() -> Scene {
        Scene::with(&Limits::default()).await
    }

    async fn with(limits: &Limits) -> Scene {
        let sample = Sample::open_with(Role::Gateway, limits);
        let (user, key, ledger) = sample.customer().await;
        Scene { sample, ledger, user, key }
    }

    /// A request with this key, for this thing.
    async fn ask_for(&self, key: &str, what: &str) -> Result<Held, HoldRefused> {
        self.ledger.hold_once(self.sample.wish(&self.key, PRICE).await, Some(retryable(key, what))).await
    }

    async fn ask(&self) -> Result<Held, HoldRefused> {
        self.ask_for("key", "thing").await
    }

    /// A request that was captured, its reply's head sent or not; its charge.
    async fn captured(&self, is_sent: bool) -> ChargeId {
        let held = self.ask().await.unwrap();
        let (charge, head) = (held.charge.id(), held.charge.reply_head().unwrap());
        if is_sent {
            head.sent();
        }
        assert_eq!(held.charge.capture(200).await, Settled::Captured);
        charge
    }

    /// Lets the time of all requests be over.
    fn grow_old(&self) {
        self.sample.application().execute("UPDATE keytoll_requests SET created_at = 0", []).unwrap();
    }

    fn balance(&self) -> i64 {
        let balance = self.sample.number("SELECT balance FROM wallets");
        assert_eq!(self.sample.books(self.user), balance);
        balance
    }

    /// Charges, and entries that gave something back.
    fn counts(&self) -> (i64, i64) {
        let given_back = "SELECT count(*) FROM keytoll_entries WHERE kind = 'credit' AND actor = 'keytoll'";
        (self.sample.number("SELECT count(*) FROM keytoll_charges"), self.sample.number(given_back))
    }
}

fn retryable(key: &str, what: &str) -> Box<Retryable> {
    let key = IdempotencyKey::parse(key.as_bytes()).unwrap();
    Box::new(Retryable { key, request: RequestDigest::of([Some(what.as_bytes())]) })
}

#[tokio::test]
async fn a_retry_of_what_is_in_flight_is_refused_and_costs_nothing() {
    let scene = Scene::new().await;
    let held = scene.ask().await.unwrap();
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::InFlight);
    assert_eq!(held.charge.capture(200).await, Settled::Captured);
    assert_eq!((scene.balance(), scene.counts()), (460, (1, 0)));
}

#[tokio::test]
async fn a_retry_of_what_was_released_holds_anew() {
    let scene = Scene::new().await;
    for _ in 0..3 {
        let held = scene.ask().await.unwrap();
        assert_eq!(held.charge.release(Some(502)).await, Settled::Released { balance: Some(Cents(500)) });
    }
    let charge = scene.captured(true).await;
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::AlreadyCharged { charge });
    assert_eq!((scene.balance(), scene.counts()), (460, (4, 0)));
    assert_eq!(scene.sample.number("SELECT count(*) FROM keytoll_requests"), 1);
}

#[tokio::test]
async fn a_retry_of_what_was_answered_is_told_its_charge() {
    let scene = Scene::new().await;
    let charge = scene.captured(true).await;
    for _ in 0..3 {
        assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::AlreadyCharged { charge });
    }
    assert_eq!((scene.balance(), scene.counts()), (460, (1, 0)));
}

#[tokio::test]
async fn a_head_that_is_sent_after_the_capture_is_noted_before_the_next_request() {
    let scene = Scene::new().await;
    for turn in 1..=50 {
        let key = turn.to_string();
        let held = scene.ask_for(&key, "thing").await.unwrap();
        let (charge, head) = (held.charge.id(), held.charge.reply_head().unwrap());
        assert_eq!(held.charge.capture(200).await, Settled::Captured);
        head.sent();
        assert_eq!(scene.ask_for(&key, "thing").await.unwrap_err(), HoldRefused::AlreadyCharged { charge });
        scene.sample.store.credit(scene.user, Cents(PRICE), None).await.unwrap();
    }
}

#[tokio::test]
async fn a_head_that_is_sent_while_its_capture_waits_is_noted() {
    let scene = Scene::new().await;
    let held = scene.ask().await.unwrap();
    let (charge, head) = (held.charge.id(), held.charge.reply_head().unwrap());
    let application = scene.sample.application();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    let settling = held.charge.capture(200);
    head.sent();
    application.execute_batch("COMMIT").unwrap();
    assert_eq!(settling.await, Settled::Captured);
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::AlreadyCharged { charge });
}

#[tokio::test]
async fn a_reply_that_is_on_its_way_is_in_flight_until_it_is_sent_or_dropped() {
    let scene = Scene::new().await;
    for is_sent in [true, false] {
        let key = is_sent.to_string();
        let held = scene.ask_for(&key, "thing").await.unwrap();
        let (charge, head) = (held.charge.id(), held.charge.reply_head().unwrap());
        assert_eq!(held.charge.capture(200).await, Settled::Captured);
        assert_eq!(scene.ask_for(&key, "thing").await.unwrap_err(), HoldRefused::InFlight);
        if is_sent {
            head.sent();
            let refused = scene.ask_for(&key, "thing").await.unwrap_err();
            assert_eq!(refused, HoldRefused::AlreadyCharged { charge });
        } else {
            drop(head);
            assert_eq!(scene.ask_for(&key, "thing").await.unwrap().charge.id(), charge);
        }
    }
}

#[tokio::test]
async fn what_is_noted_at_the_very_end_is_in_the_file() {
    let mut scene = Scene::new().await;
    let held = scene.ask().await.unwrap();
    let (charge, head) = (held.charge.id(), held.charge.reply_head().unwrap());
    assert_eq!(held.charge.capture(200).await, Settled::Captured);
    head.sent();
    scene.sample.reopen(Role::Gateway);
    scene.ledger = scene.sample.ledger();
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::AlreadyCharged { charge });
}

#[tokio::test]
async fn what_was_paid_and_never_answered_is_forwarded_once_more_for_the_same_charge() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let again = scene.ask().await.unwrap();
    assert_eq!((again.charge.id(), again.charge.cents(), again.balance), (charge, Cents(PRICE), Cents(460)));
    assert_eq!(scene.sample.number("SELECT again_by > 0 AND is_spent FROM keytoll_requests"), 1);
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::InFlight);
    assert!(again.charge.reply_head().is_none(), "what comes after it does not depend on its head");
    assert_eq!(again.charge.capture(200).await, Settled::Captured);
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::AlreadyCharged { charge });
    assert_eq!((scene.balance(), scene.counts()), (460, (1, 0)));
    assert_eq!(scene.sample.store.open_charges(), 0);
}

#[tokio::test]
async fn a_forward_once_more_needs_nothing_in_the_wallet() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    scene.sample.store.debit(scene.user, Cents(460), None).await.unwrap();
    let again = scene.ask().await.unwrap();
    assert_eq!((again.charge.id(), again.balance), (charge, Cents(0)));
    assert_eq!(again.charge.capture(200).await, Settled::Captured);
    assert_eq!(scene.balance(), 0);
}

#[tokio::test]
async fn a_forward_once_more_costs_what_its_charge_did_whatever_the_price_is_now() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let wish = scene.sample.wish(&scene.key, 2 * PRICE).await;
    let again = scene.ledger.hold_once(wish, Some(retryable("key", "thing"))).await.unwrap();
    assert_eq!((again.charge.id(), again.charge.cents()), (charge, Cents(PRICE)));
    assert_eq!(again.charge.release(None).await, Settled::Released { balance: Some(Cents(500)) });
    assert_eq!(scene.balance(), 500);
}

#[tokio::test]
async fn a_forward_once_more_that_fails_is_given_back_once_and_a_retry_holds_anew() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let again = scene.ask().await.unwrap();
    assert_eq!(again.charge.release(None).await, Settled::Released { balance: Some(Cents(500)) });
    assert_eq!((scene.balance(), scene.counts()), (500, (1, 1)));
    assert_eq!(scene.sample.number("SELECT state FROM keytoll_charges"), 1, "history is not edited");
    let note: String = scene
        .sample
        .application()
        .query_row("SELECT note FROM keytoll_entries ORDER BY id DESC", [], |row| row.get(0))
        .unwrap();
    assert!(note.contains(&format!("charge {charge} ")), "{note}");
    let held = scene.ask().await.unwrap();
    assert_ne!(held.charge.id(), charge);
    assert_eq!(held.charge.capture(200).await, Settled::Captured);
    assert_eq!((scene.balance(), scene.counts()), (460, (2, 1)));
}

#[tokio::test]
async fn a_forward_once_more_whose_client_breaks_it_off_is_owed_still() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    for drops in [true, false, true] {
        let again = scene.ask().await.unwrap();
        if drops {
            drop(again);
            scene.sample.store.settled().await;
        } else {
            assert_eq!(again.charge.withdraw().await, Settled::Captured);
        }
        assert_eq!((scene.balance(), scene.counts()), (460, (1, 0)));
    }
    let again = scene.ask().await.unwrap();
    assert_eq!(again.charge.id(), charge);
    assert_eq!(again.charge.capture(200).await, Settled::Captured);
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::AlreadyCharged { charge });
}

#[tokio::test]
async fn a_hold_that_is_withdrawn_is_released() {
    let scene = Scene::new().await;
    let held = scene.ask().await.unwrap();
    assert_eq!(held.charge.withdraw().await, Settled::Released { balance: Some(Cents(500)) });
    assert_eq!(scene.balance(), 500);
}

#[tokio::test]
async fn a_forward_once_more_that_is_not_noted_in_time_is_given_back() {
    let limits = Limits { settle_timeout: Duration::from_millis(50), ..Limits::default() };
    let scene = Scene::with(&limits).await;
    scene.captured(false).await;
    let again = scene.ask().await.unwrap();
    let application = scene.sample.application();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(again.charge.capture(200).await, Settled::Released { balance: None });
    application.execute_batch("COMMIT").unwrap();
    scene.sample.store.settled().await;
    assert_eq!((scene.balance(), scene.counts()), (500, (1, 1)));
}

#[tokio::test]
async fn a_forward_once_more_that_is_noted_after_its_waiter_gave_up_is_given_back() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let again = scene.ask().await.unwrap();
    let application = scene.sample.application();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    let settlement = again.charge.capture(200);
    assert!(settlement.give_up());
    application.execute_batch("COMMIT").unwrap();
    scene.sample.store.settled().await;
    assert_eq!((scene.balance(), scene.counts()), (500, (1, 1)));
    assert_ne!(scene.ask().await.unwrap().charge.id(), charge);
}

#[tokio::test]
async fn a_late_capture_that_a_retry_has_taken_over_elsewhere_stays() {
    let scene = Scene::new().await;
    let held = scene.ask().await.unwrap();
    let charge = held.charge.id();
    let application = scene.sample.application();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    let settlement = held.charge.capture(200);
    assert!(settlement.give_up());
    // As another gateway does that meets the capture before it is undone.
    application.execute("UPDATE keytoll_requests SET is_spent = 2 WHERE charge_id = ?1", [charge.0]).unwrap();
    application.execute_batch("COMMIT").unwrap();
    scene.sample.store.settled().await;
    assert_eq!((scene.balance(), scene.counts()), (460, (1, 0)));
}

#[tokio::test]
async fn a_forward_once_more_of_a_process_that_died_is_given_back_once_by_the_next_start() {
    let mut scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let again = scene.ask().await.unwrap();
    // The store ends as if its process did.
    scene.sample.store.close();
    drop(again);
    assert_eq!(scene.balance(), 460);
    let opening = scene.sample.reopen(Role::Gateway);
    assert_eq!(opening.recovered, Recovered { instances: 1, charges: 1, cents: PRICE });
    assert_eq!((scene.balance(), scene.counts()), (500, (1, 1)));
    assert_eq!(scene.sample.reopen(Role::Gateway).recovered, Recovered::default());
    assert_eq!((scene.balance(), scene.counts()), (500, (1, 1)));
    scene.ledger = scene.sample.ledger();
    assert_ne!(scene.ask().await.unwrap().charge.id(), charge);
}

#[tokio::test]
async fn a_forward_once_more_of_a_living_gateway_is_left_alone_by_another() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let again = scene.ask().await.unwrap();
    let (other, opening) = scene.sample.open_another(Role::Gateway);
    assert_eq!(opening.recovered, Recovered::default());
    let (ledger, answers) = other.ledger();
    tokio::spawn(answers);
    let wish = scene.sample.wish(&scene.key, PRICE).await;
    let refused = ledger.hold_once(wish.clone(), Some(retryable("key", "thing"))).await.unwrap_err();
    assert_eq!(refused, HoldRefused::InFlight);
    assert_eq!(again.charge.capture(200).await, Settled::Captured);
    let refused = ledger.hold_once(wish, Some(retryable("key", "thing"))).await.unwrap_err();
    assert_eq!(refused, HoldRefused::AlreadyCharged { charge });
    other.close();
}

#[tokio::test]
async fn one_who_was_taken_for_dead_does_not_end_what_was_given_back() {
    for captures in [true, false] {
        let scene = Scene::new().await;
        scene.captured(false).await;
        let again = scene.ask().await.unwrap();
        let given_back = "UPDATE keytoll_requests SET again_by = NULL, is_given_back = 1";
        scene.sample.application().execute(given_back, []).unwrap();
        let settling = if captures { again.charge.capture(200) } else { again.charge.release(None) };
        assert_eq!(settling.await, Settled::Unknown);
        assert_eq!(scene.counts(), (1, 0));
    }
}

#[tokio::test]
async fn what_is_given_back_to_a_wallet_that_is_gone_is_taken_out_again() {
    let scene = Scene::new().await;
    scene.captured(false).await;
    let again = scene.ask().await.unwrap();
    scene.sample.application().execute_batch("DELETE FROM wallets").unwrap();
    assert_eq!(again.charge.release(None).await, Settled::Released { balance: None });
    assert_eq!(scene.sample.books(scene.user), 0);
    assert_eq!(scene.counts(), (1, 1));
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused_unless_the_first_cost_nothing() {
    let scene = Scene::new().await;
    let held = scene.ask().await.unwrap();
    assert_eq!(scene.ask_for("key", "other").await.unwrap_err(), HoldRefused::IdempotencyKeyReused);
    // One that cost nothing stands in nobody's way.
    held.charge.release(Some(500)).await;
    scene.ask_for("key", "other").await.unwrap().charge.release(Some(500)).await;
    scene.captured(false).await;
    assert_eq!(scene.ask_for("key", "other").await.unwrap_err(), HoldRefused::IdempotencyKeyReused);
    let again = scene.ask().await.unwrap();
    assert_eq!(scene.ask_for("key", "other").await.unwrap_err(), HoldRefused::IdempotencyKeyReused);
    again.charge.release(None).await;
    assert_eq!(scene.ask_for("key", "other").await.unwrap_err(), HoldRefused::IdempotencyKeyReused);
    scene.captured(true).await;
    assert_eq!(scene.ask_for("key", "other").await.unwrap_err(), HoldRefused::IdempotencyKeyReused);
    // Another key is another request, and so is the same key of another user.
    drop(scene.ask_for("other", "other").await.unwrap());
    let other = scene.sample.user("b@example.com").await;
    let key = scene.sample.issue(other, "weather").await.key;
    let wish = scene.sample.wish(&key, PRICE).await;
    drop(scene.ledger.hold_once(wish, Some(retryable("key", "other"))).await.unwrap());
}

#[tokio::test]
async fn a_later_user_with_the_same_id_does_not_inherit_a_key() {
    let scene = Scene::new().await;
    scene.captured(true).await;
    let application = scene.sample.application();
    let (user, stored) = (scene.user, scene.key.digest().to_stored());
    let stored = stored.expose().into_owned();
    application.execute_batch("DELETE FROM wallets; DELETE FROM api_keys; DELETE FROM users").unwrap();
    scene.sample.store.route_id("weather", "/").await.unwrap();
    application
        .execute_batch(&format!(
            "INSERT INTO users VALUES ({user}, 'b@example.com', 'B', 1); INSERT INTO wallets VALUES (1, {user}, 100);
             INSERT INTO api_keys VALUES (1, '{stored}', {user}, 'weather', 1, NULL);"
        ))
        .unwrap();
    assert_eq!(scene.ask().await.unwrap().balance, Cents(100 - PRICE));
}

#[tokio::test]
async fn requests_are_bounded_and_none_is_forgotten_before_its_time() {
    let limits = Limits { idempotency_keys: 3, ..Limits::default() };
    let scene = Scene::with(&limits).await;
    for key in ["a", "b", "c"] {
        scene.ask_for(key, "thing").await.unwrap().charge.capture(200).await;
    }
    assert_eq!(scene.ask_for("d", "thing").await.unwrap_err(), HoldRefused::IdempotencyFull);
    // A key that is known needs no room, and a request without one none at all.
    drop(scene.ask_for("a", "thing").await.unwrap());
    drop(scene.sample.hold(&scene.ledger, &scene.key, 1).await);
    assert_eq!(scene.sample.number("SELECT count(*) FROM keytoll_requests"), 3);
    assert_eq!(scene.sample.number("SELECT value FROM keytoll_meta WHERE name = 'requests'"), 3);
    // The oldest one's time is over: there is room for one.
    scene.sample.store.settled().await;
    let oldest =
        "UPDATE keytoll_requests SET created_at = 0 WHERE charge_id = (SELECT min(charge_id) FROM keytoll_requests)";
    scene.sample.application().execute(oldest, []).unwrap();
    scene.ask_for("d", "thing").await.unwrap().charge.capture(200).await;
    assert_eq!(scene.ask_for("e", "thing").await.unwrap_err(), HoldRefused::IdempotencyFull);
    assert_eq!(scene.sample.number("SELECT value FROM keytoll_meta WHERE name = 'requests'"), 3);
}

#[tokio::test]
async fn after_its_time_a_key_is_new_unless_its_request_is_in_flight() {
    let scene = Scene::new().await;
    let held = scene.ask().await.unwrap();
    scene.grow_old();
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::InFlight);
    held.charge.capture(200).await;
    // Another request by now, and nothing is owed for the first any more.
    let held = scene.ask_for("key", "other").await.unwrap();
    held.charge.capture(200).await;
    assert_eq!((scene.balance(), scene.counts()), (420, (2, 0)));
}

#[tokio::test]
async fn what_is_old_is_deleted_by_itself_and_what_is_in_flight_stays() {
    let scene = Scene::new().await;
    scene.captured(true).await;
    let held = scene.ask_for("held", "thing").await.unwrap();
    scene.grow_old();
    let rows = || scene.sample.number("SELECT count(*) FROM keytoll_requests");
    let goes = async {
        while rows() == 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), goes).await.expect("what is old is deleted");
    assert_eq!(rows(), 1);
    assert_eq!(scene.ask_for("held", "thing").await.unwrap_err(), HoldRefused::InFlight);
    assert_eq!(scene.sample.number("SELECT value FROM keytoll_meta WHERE name = 'requests'"), 1);
    drop(held);
}

#[tokio::test]
async fn a_charge_that_is_gone_from_the_books_was_answered() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    scene.sample.application().execute_batch("DELETE FROM keytoll_charges").unwrap();
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::AlreadyCharged { charge });
}

#[tokio::test]
async fn what_a_dead_process_forwarded_is_found_without_a_look_at_the_rest() {
    let scene = Scene::new().await;
    let application = scene.sample.application();
    let mut plan = application.prepare(&format!("EXPLAIN QUERY PLAN {FORWARDED_BY}")).unwrap();
    let steps: Vec<String> = plan.query_map([1], |row| row.get(3)).unwrap().collect::<rusqlite::Result<_>>().unwrap();
    assert!(steps.iter().any(|step| step.contains("keytoll_requests_again")), "{steps:?}");
    assert!(steps.iter().all(|step| step.starts_with("SEARCH")), "{steps:?}");
}
