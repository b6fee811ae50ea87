//! One wallet, many clients, an upstream that fails at random, an application that tops up: exact to the cent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::harness::{Api, Client, Gateway, Request, number};
use crate::plan::Script;
use crate::records::is_charged;
use crate::upstream::{Progress, SCRIPT, Upstream};

const CLIENTS: usize = 64;
const PRICES: i64 = 7;
const USUAL_SECONDS: u64 = 10;

/// Counts and sums of one record.
#[derive(Default)]
struct Sum {
    count: AtomicI64,
    cents: AtomicI64,
}

impl Sum {
    fn add(&self, cents: i64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.cents.fetch_add(cents, Ordering::Relaxed);
    }

    fn get(&self) -> (i64, i64) {
        (self.count.load(Ordering::SeqCst), self.cents.load(Ordering::SeqCst))
    }
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    paid: Sum,
    given_back: Sum,
    broken: Sum,
    refused: AtomicI64,
}

#[test]
fn one_wallet_of_many_clients_is_exact_to_the_cent() {
    let seconds = number("KEYTOLL_IT_SOAK_SECONDS").unwrap_or(USUAL_SECONDS);
    let seed = number("KEYTOLL_IT_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("KEYTOLL_IT_SEED={seed} KEYTOLL_IT_SOAK_SECONDS={seconds}");
    let served = Arc::new(Sum::default());
    let record = Arc::clone(&served);
    let upstream = Upstream::start(move || {
        let record = Arc::clone(&record);
        Box::new(move |head, script, seen| {
            if seen == Progress::Whole && script.is_whole() && is_charged(script.status) {
                record.add(head.target().trim_start_matches('/').parse().unwrap());
            }
        })
    });
    let mut api = Api::new("weather", upstream.address());
    for cents in 1..=PRICES {
        api = api.route(&format!("path = \"/{cents}\"\nprice_cents = {cents}"));
    }
    let directory = tempfile::tempdir().unwrap();
    let process = Gateway::builder().api(api).at(directory.path()).workers(2).spawn();
    let database = process.database().clone();
    let customer = database.customer("weather", 500);
    let (seen, enough) = (Seen::default(), AtomicBool::new(false));
    let mut rng = Rng::with_seed(seed);
    let (topped_up, lowest) = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (rng, seen, enough) = (rng.fork(), &seen, &enough);
            let (gateway, key) = (process.address(), customer.key.as_str());
            scope.spawn(move || call(rng, gateway, key, seen, enough));
        }
        let connection = database.open();
        let (mut topped_up, mut lowest) = (0, i64::MAX);
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let cents = rng.i64(0..400);
            let sql = "UPDATE wallets SET balance = balance + ?2 WHERE user_id = ?1";
            connection.execute(sql, [customer.id, cents]).unwrap();
            topped_up += cents;
            lowest = lowest.min(database.balance(customer.id));
            // Now and then long enough for the wallet to be empty.
            thread::sleep(Duration::from_millis(if rng.u8(..8) == 0 { rng.u64(..300) } else { rng.u64(..20) }));
        }
        enough.store(true, Ordering::Release);
        (topped_up, lowest)
    });
    process.stop();

    let (paid, given_back, broken) = (seen.paid.get(), seen.given_back.get(), seen.broken.get());
    let refused = seen.refused.load(Ordering::SeqCst);
    println!(
        "{paid:?} paid, {given_back:?} given back, {broken:?} broken off, {refused} refused with 402, {topped_up} topped up"
    );
    let books = |state| {
        let of = |what: &str| database.number(&format!("SELECT {what} FROM keytoll_charges WHERE state = {state}"));
        (of("count(*)"), of("coalesce(sum(cents), 0)"))
    };
    assert_eq!(books(1), paid, "captured, and paid by the clients' receipts");
    assert_eq!(served.get(), paid, "served whole with a charged status, and paid");
    assert_eq!(books(2), (given_back.0 + broken.0, given_back.1 + broken.1), "released, and not paid");
    assert_eq!(database.leased(), 0, "held");
    assert_eq!(database.balance(customer.id), 500 + topped_up - paid.1, "to the cent");
    assert!(lowest >= 0 && refused > 0 && broken.0 > 0 && given_back.0 > 0 && paid.0 > 100, "nothing was tried");
    database.assert_books();
    database.assert_doctor();
}

fn call(mut rng: Rng, gateway: std::net::SocketAddr, key: &str, seen: &Seen, enough: &AtomicBool) {
    let mut connected = None;
    while !enough.load(Ordering::Acquire) {
        let mut client = connected.take().unwrap_or_else(|| Client::connect(gateway));
        let (cents, script) = (rng.i64(1..=PRICES), Script::draw(&mut rng, false));
        let request = Request::new(gateway, "GET", &format!("/{cents}")).key(key).field(SCRIPT, script.to_string());
        client.send_request(&request);
        let reply = client.reply();
        if !reply.whole {
            assert!(!script.is_whole(), "{script}: {reply:?}");
            seen.broken.add(cents);
            continue;
        }
        match (reply.status(), reply.receipt()) {
            (402, None) => {
                seen.refused.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
            (status, Some(receipt)) if is_charged(status) => {
                assert_eq!((status, receipt.cost), (script.status, cents));
                seen.paid.add(cents);
            }
            (status, Some(receipt)) => {
                assert!(receipt.cost == 0 && (status == script.status || status == 502), "{script}: {reply:?}");
                seen.given_back.add(cents);
            }
            (_, None) => panic!("{script}: {reply:?}"),
        }
        connected = Some(client);
    }
}
