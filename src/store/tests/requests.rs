//! Requests that are sent again under the same key: what each finds, and what becomes of its money.

mod room;
mod takeover;

use std::time::Duration;

use crate::config::Limits;
use crate::model::{ApiKey, Cents, ChargeId, IdempotencyKey, IdempotentRequest, RequestDigest, UserId};
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
        self.ledger.hold(self.sample.wish(&self.key, PRICE).await, Some(idempotent_request(key, what))).await
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

    /// Charges, and refunds.
    fn counts(&self) -> (i64, i64) {
        let refunds = "SELECT count(*) FROM keytoll_entries WHERE kind = 'refund'";
        (self.sample.number("SELECT count(*) FROM keytoll_charges"), self.sample.number(refunds))
    }

    /// A retry of a request whose charge is refunded with the hold.
    async fn refunded(&self, charge: ChargeId) -> Held {
        let retry = self.ask().await.unwrap();
        assert_eq!(retry.charge.retry_of(), Some(charge));
        assert_ne!(retry.charge.id(), charge);
        retry
    }
}

pub(super) fn idempotent_request(key: &str, what: &str) -> Box<IdempotentRequest> {
    let key = IdempotencyKey::parse(key.as_bytes()).unwrap();
    Box::new(IdempotentRequest { key, request: RequestDigest::of([Some(what.as_bytes())]) })
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
            assert_eq!(scene.ask_for(&key, "thing").await.unwrap().charge.retry_of(), Some(charge));
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
async fn what_was_paid_and_never_answered_is_refunded_to_its_retry_once() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let retry = scene.refunded(charge).await;
    assert_eq!((retry.charge.cents(), retry.balance), (Cents(PRICE), Cents(460)));
    assert_eq!((scene.balance(), scene.counts()), (460, (1, 1)));
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::InFlight);
    // Whatever becomes of its head: a client that always leaves would have an upstream work any number of times.
    assert!(retry.charge.reply_head().is_none());
    let charge = retry.charge.id();
    assert_eq!(retry.charge.capture(200).await, Settled::Captured);
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::AlreadyCharged { charge });
    assert_eq!((scene.balance(), scene.counts()), (460, (2, 1)));
    assert_eq!(scene.sample.store.open_charges(), 0);
}

#[tokio::test]
async fn a_retry_needs_no_more_in_the_wallet_than_its_price_exceeds_the_refund() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    scene.sample.store.debit(scene.user, Cents(450), None).await.unwrap();
    let ask = async |price| {
        let wish = scene.sample.wish(&scene.key, price).await;
        scene.ledger.hold(wish, Some(idempotent_request("key", "thing"))).await
    };
    // Nothing is refunded to a retry that cannot be paid with it.
    assert_eq!(ask(PRICE + 11).await.unwrap_err(), HoldRefused::Insufficient { balance: Cents(10) });
    assert_eq!((scene.balance(), scene.counts()), (10, (1, 0)));
    let retry = ask(PRICE + 10).await.unwrap();
    assert_eq!((retry.charge.retry_of(), retry.balance), (Some(charge), Cents(0)));
    assert_eq!(retry.charge.release(None).await, Settled::Released { balance: Some(Cents(50)) });
    assert_eq!((scene.balance(), scene.counts()), (50, (2, 1)));
}

#[tokio::test]
async fn a_retry_that_fails_costs_nothing_and_the_next_one_is_new() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let retry = scene.refunded(charge).await;
    assert_eq!(retry.charge.release(Some(502)).await, Settled::Released { balance: Some(Cents(500)) });
    let note: String = scene
        .sample
        .application()
        .query_row("SELECT note FROM keytoll_entries WHERE charge_id = ?1", [charge.0], |row| row.get(0))
        .unwrap();
    assert!(note.contains(&format!("charge {charge} ")), "{note}");
    let next = scene.ask().await.unwrap();
    assert_eq!(next.charge.retry_of(), None);
    assert_eq!(next.charge.capture(200).await, Settled::Captured);
    assert_eq!((scene.balance(), scene.counts()), (460, (3, 1)));
}

#[tokio::test]
async fn a_retry_that_is_not_forwarded_leaves_the_request_paid_and_owed() {
    let scene = Scene::new().await;
    let mut charge = scene.captured(false).await;
    for (turn, drops) in [(1, true), (2, false), (3, true)] {
        let retry = scene.refunded(charge).await;
        charge = retry.charge.id();
        if drops {
            drop(retry);
            scene.sample.store.settled().await;
        } else {
            assert_eq!(retry.charge.cancel().await, Settled::Captured);
        }
        assert_eq!((scene.balance(), scene.counts()), (460, (turn + 1, turn)));
    }
    assert_eq!(scene.refunded(charge).await.charge.capture(200).await, Settled::Captured);
    assert!(matches!(scene.ask().await.unwrap_err(), HoldRefused::AlreadyCharged { .. }));
}

#[tokio::test]
async fn a_hold_that_is_cancelled_leaves_a_charge_and_one_that_is_dropped_none() {
    let scene = Scene::new().await;
    let held = scene.ask().await.unwrap();
    assert_eq!(held.charge.cancel().await, Settled::Released { balance: Some(Cents(500)) });
    drop(scene.ask().await.unwrap());
    scene.sample.store.settled().await;
    assert_eq!((scene.balance(), scene.counts()), (500, (1, 0)));
}

#[tokio::test]
async fn a_capture_that_is_too_late_is_refunded_and_its_retry_is_new() {
    let scene = Scene::new().await;
    let held = scene.ask().await.unwrap();
    let application = scene.sample.application();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(held.charge.capture(200).give_up());
    application.execute_batch("COMMIT").unwrap();
    scene.sample.store.settled().await;
    assert_eq!((scene.balance(), scene.counts()), (500, (1, 1)));
    assert_eq!(scene.ask().await.unwrap().charge.retry_of(), None);
}

#[tokio::test]
async fn a_late_capture_that_a_retry_has_had_refunded_elsewhere_is_not_refunded_again() {
    let scene = Scene::new().await;
    let held = scene.ask().await.unwrap();
    let charge = held.charge.id();
    let application = scene.sample.application();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(held.charge.capture(200).give_up());
    // As another gateway does that meets the capture before it is refunded.
    application
        .execute(
            "INSERT INTO keytoll_entries (account_id, kind, amount_cents, created_at, charge_id) VALUES (1, 'refund', ?2, 0, ?1)",
            [charge.0, PRICE],
        )
        .unwrap();
    application.execute_batch("UPDATE wallets SET balance = balance + 40; DELETE FROM keytoll_wallet_log").unwrap();
    application.execute_batch("UPDATE keytoll_requests SET charge_id = 77; COMMIT").unwrap();
    scene.sample.store.settled().await;
    assert_eq!((scene.balance(), scene.counts()), (500, (1, 1)));
    assert_eq!(scene.sample.number("SELECT charge_id FROM keytoll_requests"), 77, "the row is the retry's");
}

#[tokio::test]
async fn a_request_of_a_process_that_died_is_forgotten_and_what_it_captured_is_not() {
    let mut scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let open = scene.ask_for("open", "thing").await.unwrap();
    // The store ends as if its process did.
    scene.sample.store.close();
    drop(open);
    assert_eq!(scene.balance(), 420);
    let opening = scene.sample.reopen(Role::Gateway);
    assert_eq!(opening.recovered, Recovered { instances: 1, accounts: 1, cents: PRICE });
    assert_eq!((scene.balance(), scene.counts()), (460, (1, 0)));
    scene.ledger = scene.sample.ledger();
    assert_eq!(scene.ask_for("open", "thing").await.unwrap().charge.retry_of(), None);
    drop(scene.refunded(charge).await);
}

#[tokio::test]
async fn a_request_of_a_living_gateway_is_in_flight_for_another_and_refunded_there_when_it_is_owed() {
    let scene = Scene::new().await;
    let held = scene.ask().await.unwrap();
    let charge = held.charge.id();
    let (other, opening) = scene.sample.open_another(Role::Gateway);
    assert_eq!(opening.recovered, Recovered::default());
    let (ledger, answers) = other.ledger();
    tokio::spawn(answers);
    let wish = scene.sample.wish(&scene.key, PRICE).await;
    let refused = ledger.hold(wish.clone(), Some(idempotent_request("key", "thing"))).await.unwrap_err();
    assert_eq!(refused, HoldRefused::InFlight);
    assert_eq!(held.charge.capture(200).await, Settled::Captured);
    let retry = ledger.hold(wish, Some(idempotent_request("key", "thing"))).await.unwrap();
    assert_eq!(retry.charge.retry_of(), Some(charge));
    assert_eq!((scene.balance(), scene.counts()), (460, (1, 1)));
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::InFlight);
    retry.charge.release(Some(500)).await;
    assert_eq!((scene.balance(), scene.counts()), (500, (2, 1)));
    other.close();
}

#[tokio::test]
async fn what_is_refunded_to_an_account_without_a_wallet_leaves_the_books_again() {
    let scene = Scene::new().await;
    let held = scene.ask().await.unwrap();
    let application = scene.sample.application();
    application.execute_batch("BEGIN IMMEDIATE; DELETE FROM wallets").unwrap();
    assert!(held.charge.capture(200).give_up());
    application.execute_batch("COMMIT").unwrap();
    scene.sample.store.settled().await;
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
    let retry = scene.ask().await.unwrap();
    assert_eq!(scene.ask_for("key", "other").await.unwrap_err(), HoldRefused::IdempotencyKeyReused);
    retry.charge.release(None).await;
    scene.captured(true).await;
    assert_eq!(scene.ask_for("key", "other").await.unwrap_err(), HoldRefused::IdempotencyKeyReused);
    // Another key is another request, and so is the same key of another user.
    drop(scene.ask_for("other", "other").await.unwrap());
    let other = scene.sample.user("b@example.com").await;
    let key = scene.sample.issue(other, "weather").await.key;
    let wish = scene.sample.wish(&key, PRICE).await;
    drop(scene.ledger.hold(wish, Some(idempotent_request("key", "other"))).await.unwrap());
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
    scene.ask_for("a", "thing").await.unwrap().charge.capture(200).await;
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
async fn a_charge_that_became_usage_is_refunded_all_the_same_and_once() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let rolled_up = "INSERT INTO keytoll_usage VALUES (1, 1, 1, 1, 2, 1, 40, 0, 0); DELETE FROM keytoll_charges;
                     UPDATE keytoll_meta SET value = 1 WHERE name = 'summed_charges_through'";
    scene.sample.application().execute_batch(rolled_up).unwrap();
    let retry = scene.refunded(charge).await;
    assert_eq!(retry.balance, Cents(460));
    assert_eq!(scene.sample.number("SELECT amount_cents FROM keytoll_entries WHERE kind = 'refund'"), PRICE);
}

#[tokio::test]
async fn what_a_dead_process_had_in_flight_is_found_without_a_look_at_the_rest() {
    let scene = Scene::new().await;
    let application = scene.sample.application();
    let delete =
        "EXPLAIN QUERY PLAN DELETE FROM keytoll_requests WHERE instance_id = ?1 AND state = 0 RETURNING account_id";
    let mut plan = application.prepare(delete).unwrap();
    let steps: Vec<String> = plan.query_map([1], |row| row.get(3)).unwrap().collect::<rusqlite::Result<_>>().unwrap();
    assert!(steps.iter().any(|step| step.contains("keytoll_requests_in_flight")), "{steps:?}");
    assert!(steps.iter().all(|step| step.starts_with("SEARCH")), "{steps:?}");
}
