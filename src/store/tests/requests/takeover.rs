//! A capture that came too late, a retry that takes its charge over, and the undoing that meets it.

use std::convert::Infallible;
use std::future::Future;

use crate::store::tests::requests::*;
use crate::store::writer::write::WriteFault;
use crate::store::{Settlement, Store};

/// A capture whose waiter has given up, in a queue that waits for the lock of the application.
async fn given_up(scene: &Scene, key: &str, application: &rusqlite::Connection) -> (ChargeId, Settlement) {
    let held = scene.ask_for(key, "thing").await.unwrap();
    let charge = held.charge.id();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    let settlement = held.charge.capture(200);
    assert!(settlement.give_up());
    (charge, settlement)
}

/// The request once more, with all that it needs but the lock.
async fn retry(scene: &Scene) -> impl Future<Output = Result<Held, HoldRefused>> {
    let wish = scene.sample.wish(&scene.key, PRICE).await;
    scene.ledger.hold_once(wish, Some(retryable("key", "thing")))
}

/// What these come to when they are in one transaction behind what is queued already.
async fn at_once<T>(scene: &Scene, application: &rusqlite::Connection, wanted: impl Future<Output = T>) -> T {
    let open = scene.sample.store.open_charges();
    tokio::pin!(wanted);
    loop {
        tokio::select! {
            biased;
            _ = &mut wanted => panic!("the application has the lock"),
            () = tokio::task::yield_now() => {}
        }
        // It has its place, and whatever was handed to the writer by then waits there.
        if scene.sample.store.open_charges() > open {
            break;
        }
    }
    for _ in 0..10 {
        tokio::select! {
            biased;
            _ = &mut wanted => panic!("the application has the lock"),
            () = tokio::task::yield_now() => {}
        }
    }
    application.execute_batch("COMMIT").unwrap();
    wanted.await
}

#[tokio::test]
async fn a_late_capture_is_not_undone_once_a_retry_in_its_transaction_is_forwarded_for_it() {
    let scene = Scene::new().await;
    let (application, retry) = (scene.sample.application(), retry(&scene).await);
    let (charge, settlement) = given_up(&scene, "key", &application).await;
    drop(settlement);
    let again = at_once(&scene, &application, retry).await.unwrap();
    assert_eq!(again.charge.id(), charge);
    // The undoing is behind it by now.
    scene.sample.store.credit(scene.user, Cents(1), None).await.unwrap();
    scene.sample.store.debit(scene.user, Cents(1), None).await.unwrap();
    assert_eq!(scene.balance(), 460);
    assert_eq!(again.charge.capture(200).await, Settled::Captured);
    assert_eq!((scene.balance(), scene.counts()), (460, (1, 0)));
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::AlreadyCharged { charge });
}

/// Takes a late capture over at another gateway before it is undone. `None`: it was undone first.
async fn taken_over(scene: &Scene, other: &Ledger, key: &str) -> Option<Held> {
    let application = scene.sample.application();
    let (charge, settlement) = given_up(scene, key, &application).await;
    drop(settlement);
    application.execute_batch("COMMIT").unwrap();
    loop {
        let wish = scene.sample.wish(&scene.key, PRICE).await;
        match other.hold_once(wish, Some(retryable(key, "thing"))).await {
            Ok(held) if held.charge.id() == charge => return Some(held),
            Ok(held) => {
                held.charge.release(None).await;
                return None;
            }
            Err(HoldRefused::InFlight) => {}
            Err(refused) => panic!("{refused:?}"),
        }
    }
}

/// The same, until it comes about; what the balance is before and after.
async fn ends(end: impl AsyncFn(Held), price: i64, given_back: i64) {
    let scene = Scene::new().await;
    let (other, _): (Store, _) = scene.sample.open_another(Role::Gateway);
    let (ledger, answers) = other.ledger();
    tokio::spawn(answers);
    for turn in 0..200 {
        let Some(again) = taken_over(&scene, &ledger, &turn.to_string()).await else { continue };
        // The first gateway has tried to undo its capture.
        scene.sample.store.settled().await;
        end(again).await;
        other.settled().await;
        assert_eq!((scene.balance(), scene.counts().1), (500 - price, given_back));
        other.close();
        return;
    }
    panic!("the other gateway was never faster");
}

#[tokio::test]
async fn a_late_capture_that_another_gateway_took_over_is_paid_when_that_forward_is_had() {
    ends(async |again| assert_eq!(again.charge.capture(200).await, Settled::Captured), PRICE, 0).await;
}

#[tokio::test]
async fn a_late_capture_that_another_gateway_took_over_is_given_back_once_when_that_forward_fails() {
    let released = async |again: Held| {
        assert!(matches!(again.charge.release(Some(500)).await, Settled::Released { .. }));
    };
    ends(released, 0, 1).await;
}

#[tokio::test]
async fn the_end_of_a_withdrawal_that_nobody_waits_for_does_not_end_the_next_forward() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let again = scene.ask().await.unwrap();
    let (application, retry) = (scene.sample.application(), retry(&scene).await);
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(again.charge.withdraw().give_up());
    let next = at_once(&scene, &application, retry).await.unwrap();
    assert_eq!(next.charge.id(), charge);
    scene.sample.store.credit(scene.user, Cents(1), None).await.unwrap();
    scene.sample.store.debit(scene.user, Cents(1), None).await.unwrap();
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::InFlight);
    assert_eq!(next.charge.capture(200).await, Settled::Captured);
    assert_eq!((scene.balance(), scene.counts()), (460, (1, 0)));
}

#[tokio::test]
async fn a_note_of_a_head_that_comes_late_leaves_a_charge_that_was_taken_over_as_it_is() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let again = scene.ask().await.unwrap();
    let own = scene.sample.application();
    crate::store::books::requests::spend(&own, charge).unwrap();
    assert!(!crate::store::books::requests::may_be_undone(&own, charge).unwrap());
    assert_eq!(again.charge.capture(200).await, Settled::Captured);
    crate::store::books::requests::spend(&own, charge).unwrap();
    assert!(!crate::store::books::requests::may_be_undone(&own, charge).unwrap());
}

#[tokio::test]
async fn a_commit_that_reports_an_error_is_known_by_what_nothing_later_in_it_changed() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let again = scene.ask().await.unwrap();
    let (application, retry) = (scene.sample.application(), retry(&scene).await);
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The forward fails, the retry takes its place, and then the transaction is committed behind the writer's back.
    let released = again.charge.release(Some(500));
    let behind = scene.sample.store.write(|tx| -> Result<(), WriteFault<Infallible>> {
        tx.connection().execute_batch("COMMIT; SAVEPOINT write")?;
        Ok(())
    });
    let both = async { tokio::join!(biased; retry, behind) };
    let (held, _) = at_once(&scene, &application, both).await;
    let held = held.expect("the hold is in the file");
    assert_ne!(held.charge.id(), charge);
    assert_eq!(released.await, Settled::Released { balance: Some(Cents(500)) });
    assert_eq!(held.charge.capture(200).await, Settled::Captured);
    assert_eq!((scene.balance(), scene.counts()), (460, (2, 1)));
}

#[tokio::test]
async fn a_forward_that_fails_gives_nothing_back_of_a_charge_that_is_released() {
    let scene = Scene::new().await;
    scene.captured(false).await;
    let again = scene.ask().await.unwrap();
    let released =
        "UPDATE keytoll_charges SET state = 2; UPDATE wallets SET balance = 500; DELETE FROM keytoll_wallet_log";
    scene.sample.application().execute_batch(released).unwrap();
    assert_eq!(again.charge.release(Some(500)).await, Settled::Unknown);
    assert_eq!((scene.balance(), scene.counts()), (500, (1, 0)));
}

#[tokio::test]
async fn a_late_capture_whose_request_went_over_to_another_charge_stays() {
    let scene = Scene::new().await;
    let held = scene.ask().await.unwrap();
    let application = scene.sample.application();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(held.charge.capture(200).give_up());
    // As other gateways do that forward it once more, give its price back, and hold anew for the next retry.
    application.execute_batch("UPDATE keytoll_requests SET charge_id = 77").unwrap();
    application.execute_batch("COMMIT").unwrap();
    scene.sample.store.settled().await;
    assert_eq!((scene.balance(), scene.counts()), (460, (1, 0)));
}
