//! A capture that came too late, and a retry of its request that meets it: the charge is refunded once, by whichever comes first.

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

/// The request again, with all that it needs but the lock.
async fn retry(scene: &Scene) -> impl Future<Output = Result<Held, HoldRefused>> {
    let wish = scene.sample.wish(&scene.key, PRICE).await;
    scene.ledger.hold(wish, Some(idempotent_request("key", "thing")))
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
async fn a_late_capture_and_a_retry_in_one_transaction_refund_the_charge_once() {
    let scene = Scene::new().await;
    let (application, retry) = (scene.sample.application(), retry(&scene).await);
    let (charge, settlement) = given_up(&scene, "key", &application).await;
    drop(settlement);
    let retry = at_once(&scene, &application, retry).await.unwrap();
    assert_eq!(retry.charge.retry_of(), Some(charge));
    // The refund of the late capture is behind it by now.
    scene.sample.store.credit(scene.user, Cents(1), None).await.unwrap();
    scene.sample.store.debit(scene.user, Cents(1), None).await.unwrap();
    assert_eq!((scene.balance(), scene.counts()), (460, (1, 1)));
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::InFlight, "the record is the retry's");
    assert_eq!(retry.charge.capture(200).await, Settled::Captured);
    assert_eq!((scene.balance(), scene.counts()), (460, (2, 1)));
}

/// Asks at another gateway after a late capture, before or after its refund. `None`: it was refunded first.
async fn taken_over(scene: &Scene, other: &Ledger, key: &str) -> Option<Held> {
    let application = scene.sample.application();
    let (charge, settlement) = given_up(scene, key, &application).await;
    drop(settlement);
    application.execute_batch("COMMIT").unwrap();
    loop {
        let wish = scene.sample.wish(&scene.key, PRICE).await;
        match other.hold(wish, Some(idempotent_request(key, "thing"))).await {
            Ok(held) if held.charge.retry_of() == Some(charge) => return Some(held),
            Ok(held) => {
                drop(held);
                return None;
            }
            Err(HoldRefused::InFlight) => {}
            Err(refused) => panic!("{refused:?}"),
        }
    }
}

#[tokio::test]
async fn a_late_capture_is_refunded_once_whichever_gateway_does_it() {
    let scene = Scene::new().await;
    let (other, _): (Store, _) = scene.sample.open_another(Role::Gateway);
    let (ledger, answers) = other.ledger();
    tokio::spawn(answers);
    let (mut late, mut taken) = (0, 0);
    while taken == 0 {
        assert!(late < 200, "the other gateway was never faster");
        late += 1;
        let retry = taken_over(&scene, &ledger, &late.to_string()).await;
        // The first gateway has tried to refund its capture.
        scene.sample.store.settled().await;
        if let Some(retry) = retry {
            taken += 1;
            assert_eq!(retry.charge.capture(200).await, Settled::Captured);
        }
        other.settled().await;
        assert_eq!((scene.balance(), scene.counts()), (500 - taken * PRICE, (late + taken, late)));
    }
    other.close();
}

#[tokio::test]
async fn a_note_of_a_head_that_comes_late_does_not_end_the_retry() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let retry = scene.refunded(charge).await;
    let own = scene.sample.application();
    crate::store::books::requests::answered(&own, charge).unwrap();
    assert_eq!(scene.ask().await.unwrap_err(), HoldRefused::InFlight);
    assert_eq!(retry.charge.capture(200).await, Settled::Captured);
    assert_eq!((scene.balance(), scene.counts()), (460, (2, 1)));
}

#[tokio::test]
async fn a_commit_that_reports_an_error_is_known_by_the_turn_of_its_instance() {
    let scene = Scene::new().await;
    let charge = scene.captured(false).await;
    let (application, retry) = (scene.sample.application(), retry(&scene).await);
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The transaction is committed behind the writer's back, which then sees its own COMMIT fail.
    let behind = scene.sample.store.write(|tx| -> Result<(), WriteFault<Infallible>> {
        tx.connection().execute_batch("COMMIT; SAVEPOINT write")?;
        Ok(())
    });
    let both = async { tokio::join!(biased; retry, behind) };
    let (held, _) = at_once(&scene, &application, both).await;
    let held = held.expect("the hold is in the file");
    assert_eq!(held.charge.retry_of(), Some(charge));
    assert_eq!(held.charge.capture(200).await, Settled::Captured);
    assert_eq!((scene.balance(), scene.counts()), (460, (2, 1)));
}
