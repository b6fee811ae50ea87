//! Faults of the disk, the file, the clock and the neighbours, each injected for real into the program itself under
//! traffic: what cannot be billed is refused and not forwarded, nothing that was committed is lost, and service
//! resumes by itself, or the program stops where going on would be unsafe.

mod backup;
mod clock;
mod disk;
mod file;
mod locks;
mod readers;
mod sync;

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::harness::{Answer, Crowd, GatewayBuilder, Ground, OK, Process, Shim, Upstream, until};

/// What a request costs: the price of [`crate::harness::Api`] when nothing else is said.
const PRICE: i64 = 10;
const CLIENTS: usize = 4;
/// The promise is one second; a busy machine may take longer to show it.
const RESUMED: Duration = Duration::from_secs(4);

/// A ground, an upstream that knows what it was sent, and the shim.
struct Scene {
    ground: Ground,
    shim: Shim,
    upstream: Upstream,
    /// The charges of all requests that came to the upstream.
    forwarded: Arc<Mutex<Vec<i64>>>,
    /// How many programs stopped with requests in flight.
    deaths: Cell<usize>,
}

impl Scene {
    fn new() -> Scene {
        let ground = Ground::with_cents(1_000_000_000);
        let shim = ground.shim();
        let forwarded: Arc<Mutex<Vec<i64>>> = Arc::default();
        let seen = Arc::clone(&forwarded);
        let upstream = Upstream::answering(move |head, _| {
            seen.lock().unwrap().extend(head.number("keytoll-charge-id"));
            OK.into()
        });
        Scene { ground, shim, upstream, forwarded, deaths: Cell::new(0) }
    }

    fn start(&self) -> Process {
        self.gateway().spawn()
    }

    /// Notes that a program stopped without settling what was in flight.
    fn died(&self) {
        self.deaths.set(self.deaths.get() + 1);
    }

    /// A reader that keeps the log from beginning anew as long as it is there: that would cost the committing thread a sync.
    fn pin_log(&self) -> Connection {
        let reader = self.ground.database().open();
        reader.execute_batch("BEGIN; SELECT count(*) FROM users").unwrap();
        reader
    }

    /// One in the making, under the shim.
    fn gateway(&self) -> GatewayBuilder {
        self.ground.gateway(self.upstream.address()).under(&self.shim)
    }

    /// Clients that are being served.
    #[track_caller]
    fn crowd(&self, process: &Process) -> Crowd {
        let crowd = Crowd::of(CLIENTS, &process.get("/").key(&self.ground.key));
        until("traffic", || crowd.served() >= 10 * CLIENTS);
        crowd
    }

    /// Everybody is refused, nothing is forwarded, and `/readyz` says why.
    #[track_caller]
    fn assert_refusing(&self, process: &Process, crowd: &Crowd, reason: &str) {
        let some = crowd.refused() + 10 * CLIENTS;
        until("refusals", || crowd.refused() >= some);
        // Whatever was held before the fault has arrived by now.
        let (forwarded, more) = (self.upstream.seen(), crowd.refused() + 25 * CLIENTS);
        until("more refusals", || crowd.refused() >= more);
        assert_eq!(self.upstream.seen(), forwarded, "something was forwarded that cannot have been paid");
        let trouble = process.trouble().expect("not ready");
        assert!(trouble.contains(reason), "{trouble}");
        assert_eq!(process.get("/free").key(&self.ground.key).send().status(), 200, "what costs nothing goes on");
    }

    /// The cause has just ended: service resumes by itself, and `/readyz` says so.
    #[track_caller]
    fn assert_resuming(&self, process: &Process, crowd: &Crowd) {
        let (ended, before) = (Instant::now(), crowd.served());
        until("service", || crowd.served() > before);
        assert!(ended.elapsed() < RESUMED, "service resumed after {:?}", ended.elapsed());
        until("ready", || process.trouble().is_none());
        let more = crowd.served() + 10 * CLIENTS;
        until("traffic again", || crowd.served() >= more);
    }

    /// No process is on the file: three records of what happened agree, and the doctor finds nothing.
    #[track_caller]
    fn assert_accounts(&self, answers: &[Answer]) {
        let database = self.ground.database();
        database.assert_doctor();
        let charges = database.charges_by_id();
        let mut refused = 0;
        for answer in answers {
            let Answer::Whole { status, retry_after, receipt, .. } = answer else { continue };
            match (status, receipt) {
                (200, Some(receipt)) => {
                    assert_eq!((receipt.cost, charges.get(&receipt.charge)), (PRICE, Some(&(1, PRICE))), "{receipt:?}");
                }
                (503, _) => {
                    assert!(retry_after, "a refusal says when to come again");
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(database.leased(), 0, "something is still held");
        let forwarded = self.forwarded.lock().unwrap();
        // What a program had in flight when it stopped is free, and has no charge; no client had more than one.
        let unsettled: Vec<_> = forwarded.iter().filter(|charge| !charges.contains_key(charge)).collect();
        assert!(unsettled.len() <= CLIENTS * self.deaths.get(), "forwarded and never settled: {unsettled:?}");
        let captured = charges.values().filter(|(state, _)| *state == 1).count();
        assert!(captured <= forwarded.len(), "{captured} captured, {} forwarded", forwarded.len());
        println!("{captured} captured, {} charges, {refused} refused", charges.len());
    }

    /// Stops everything in order and compares.
    #[track_caller]
    fn close(&self, process: Process, crowd: Crowd) {
        let answers = crowd.leave();
        process.stop();
        self.assert_accounts(&answers);
    }
}
