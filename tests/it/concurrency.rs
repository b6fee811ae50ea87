//! Money under pressure: no balance goes below zero, nothing unpaid goes upstream, and the neighbours can still write.

use std::sync::{Arc, Barrier};
use std::thread;

use crate::harness::{Api, Gateway, Upstream, traffic};

#[test]
fn a_hundred_requests_at_once_buy_what_the_wallet_can_pay() {
    let upstream = Upstream::fine();
    let gateway = Gateway::builder().workers(2).api(Api::new("weather", upstream.address())).start();
    let customer = gateway.customer("weather", 370 + 9);
    let together = Arc::new(Barrier::new(100));
    let threads: Vec<_> = (0..100)
        .map(|_| {
            let (request, together) = (gateway.get("/").key(&customer.key), Arc::clone(&together));
            thread::spawn(move || {
                together.wait();
                request.send()
            })
        })
        .collect();
    let replies: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let (paid, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status() == 200);
    assert_eq!((paid.len(), refused.len(), upstream.seen()), (37, 63, 37));
    for reply in refused {
        let problem = reply.assert_problem(402, "insufficient-funds");
        assert_eq!(problem["price_cents"], 10);
        let balance = problem["balance_cents"].as_i64().unwrap();
        assert_eq!(balance, 9, "refused with money enough for one more, or with a balance that never was");
        assert!(reply.receipt().is_none());
    }
    assert_eq!(gateway.database().balance(customer.id), 9);
    gateway.assert_charges(37, 0);
}

#[test]
fn another_program_writes_beside_full_load_without_one_lock_timeout() {
    let upstream = Upstream::fine();
    let gateway = Gateway::builder().workers(2).api(Api::new("weather", upstream.address())).start();
    let other = gateway.customer("weather", 0);
    let served = traffic(&gateway, &upstream, 32, || {
        let connection = gateway.database().open();
        for _ in 0..200 {
            // Panics when SQLite's 5 s are over.
            connection.execute("UPDATE wallets SET balance = balance + 1 WHERE user_id = ?1", [other.id]).unwrap();
        }
    });
    assert!(served >= 320);
    gateway.assert_charges(served, 0);
    assert_eq!(gateway.database().balance(other.id), 200);
    assert_eq!(gateway.database().entries(other.id, "external").iter().sum::<i64>(), 200);
}
