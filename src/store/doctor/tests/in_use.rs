use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::store::doctor::tests::*;

#[tokio::test]
async fn charges_in_every_state_are_on_the_books_of_a_running_gateway() {
    let sample = Sample::open(Role::Gateway);
    let (_, key, ledger) = sample.customer().await;
    let mut open = Vec::new();
    for turn in 0..10 {
        let held = sample.hold(&ledger, &key, 2).await;
        match turn % 3 {
            0 => drop(held.charge.capture(200).await),
            1 => drop(held.charge.release(Some(500)).await),
            _ => open.push(held),
        }
    }
    let report = examined(&sample);
    assert!(report.findings.is_empty(), "{report:#?}");
    let summary = report.summary.unwrap();
    assert_eq!((summary.charges, summary.leased, summary.leased_cents.0, summary.gateways), (7, 1, 6, 1));
}

#[tokio::test]
async fn books_that_are_written_all_the_time_balance_at_every_look() {
    let sample = Arc::new(Sample::open(Role::Gateway));
    let mut keys = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        let user = sample.user(&format!("{name}@example.com")).await;
        keys.push(sample.issue(user, "weather").await.key);
    }
    let done = Arc::new(AtomicBool::new(false));
    let application = {
        let (sample, done) = (Arc::clone(&sample), Arc::clone(&done));
        tokio::task::spawn_blocking(move || {
            let connection = sample.application();
            connection.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
            while !done.load(Ordering::Relaxed) {
                connection.execute("UPDATE wallets SET balance = balance + 3", []).unwrap();
            }
        })
    };
    let gateway = {
        let (sample, done) = (Arc::clone(&sample), Arc::clone(&done));
        tokio::spawn(async move {
            let ledger = sample.ledger();
            let mut charges = 0_u64;
            while !done.load(Ordering::Relaxed) {
                for key in &keys {
                    let first = sample.hold(&ledger, key, 2).await;
                    let second = sample.hold(&ledger, key, 3).await;
                    let _ = first.charge.capture(200).await;
                    drop(second);
                    // The second was not forwarded, and leaves nothing.
                    charges += 1;
                }
            }
            charges
        })
    };
    for _ in 0..30 {
        let sample = Arc::clone(&sample);
        let report = tokio::task::spawn_blocking(move || examined(&sample)).await.unwrap();
        assert!(report.holds(), "{report:#?}");
    }
    done.store(true, Ordering::Relaxed);
    application.await.unwrap();
    let charges = gateway.await.unwrap();
    sample.store.close();
    let report = examined(&sample);
    assert!(report.holds(), "{report:#?}");
    assert_eq!((report.summary.unwrap().charges, report.summary.unwrap().leased), (charges, 0));
}
