//! Load: clients of a wallet that is never empty, as many as a test wants, for as long as it runs.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Client, Gateway, Upstream, until};

/// Requests of each client that come first.
const BEFORE: usize = 10;

/// Runs `body` while `clients` call as fast as they are served; how often they were. Every call is paid.
#[track_caller]
pub(crate) fn traffic(gateway: &Gateway, upstream: &Upstream, clients: usize, body: impl FnOnce()) -> i64 {
    let busy = gateway.customer("weather", 1_000_000_000);
    let enough = Arc::new(AtomicBool::new(false));
    let before = upstream.seen();
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let (address, request) = (gateway.address(), gateway.get("/").key(&busy.key));
            let enough = Arc::clone(&enough);
            thread::spawn(move || {
                let mut client = Client::connect(address);
                let mut served = 0;
                while !enough.load(Ordering::Relaxed) {
                    client.send_request(&request);
                    let reply = client.reply();
                    assert_eq!(reply.status(), 200, "{reply:?}");
                    served += 1;
                }
                served
            })
        })
        .collect();
    until("traffic", || upstream.seen() >= before + clients * BEFORE);
    let done = catch_unwind(AssertUnwindSafe(body));
    enough.store(true, Ordering::Relaxed);
    let served = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    done.unwrap_or_else(|panic| resume_unwind(panic));
    served
}
