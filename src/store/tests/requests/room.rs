//! What is remembered, and how much of it one user may take up.

use crate::store::tests::requests::*;

impl Scene {
    /// Rows, the number that is kept of them all, and that of the customer's account.
    fn remembered(&self) -> (i64, i64, i64) {
        (
            self.sample.number("SELECT count(*) FROM keytoll_requests"),
            self.sample.number("SELECT value FROM keytoll_meta WHERE name = 'requests'"),
            self.sample.number("SELECT requests FROM keytoll_accounts WHERE id = 1"),
        )
    }
}

#[tokio::test]
async fn what_cost_nothing_is_forgotten_at_once_whoever_released_it() {
    let limits = Limits { idempotency_keys: 2, settle_timeout: Duration::from_millis(50), ..Limits::default() };
    let mut scene = Scene::with(&limits).await;
    for turn in 0..5 {
        scene.ask_for(&turn.to_string(), "thing").await.unwrap().charge.release(Some(429)).await;
        scene.ask_for("left", "thing").await.unwrap().charge.cancel().await;
        drop(scene.ask_for("dropped", "thing").await.unwrap());
        scene.sample.store.settled().await;
        assert_eq!(scene.remembered(), (0, 0, 0));
    }
    // A capture that is undone, after the head of its reply was sent.
    let held = scene.ask().await.unwrap();
    held.charge.reply_head().unwrap().sent();
    let application = scene.sample.application();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(held.charge.capture(200).give_up());
    application.execute_batch("COMMIT").unwrap();
    scene.sample.store.settled().await;
    assert_eq!((scene.remembered(), scene.balance()), ((0, 0, 0), 500));
    // What a dead process held, and what it had captured.
    let (dead, captured) = (scene.ask_for("dead", "thing").await.unwrap(), scene.captured(true).await);
    assert_eq!(scene.remembered(), (2, 2, 2));
    scene.sample.store.close();
    drop(dead);
    assert_eq!(scene.sample.reopen(Role::Gateway).recovered.accounts, 1);
    assert_eq!(scene.remembered(), (1, 1, 1));
    assert_eq!(scene.sample.number("SELECT charge_id FROM keytoll_requests"), captured.0);
}

#[tokio::test]
async fn a_full_share_is_full_for_its_user_alone_until_its_time_is_over() {
    let limits = Limits { idempotency_keys_per_user: 2, ..Limits::default() };
    let scene = Scene::with(&limits).await;
    for key in ["a", "b"] {
        scene.ask_for(key, "thing").await.unwrap().charge.capture(200).await;
    }
    assert_eq!(scene.ask_for("c", "thing").await.unwrap_err(), HoldRefused::IdempotencyFull);
    // Another user has a share of their own, and what comes without a key needs none.
    let other = scene.sample.user("b@example.com").await;
    let key = scene.sample.issue(other, "weather").await.key;
    let wish = scene.sample.wish(&key, PRICE).await;
    drop(scene.ledger.hold(wish, Some(idempotent_request("c", "thing"))).await.unwrap());
    drop(scene.sample.hold(&scene.ledger, &scene.key, 1).await);
    scene.sample.store.settled().await;
    assert_eq!(scene.remembered(), (2, 2, 2));
    scene.grow_old();
    scene.ask_for("c", "thing").await.unwrap().charge.capture(200).await;
    assert_eq!(scene.remembered(), (1, 1, 1));
}
