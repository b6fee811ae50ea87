//! A process that is killed: what was in flight is given back, what was delivered stays paid.

use tempfile::TempDir;

use crate::harness::{Api, Call, Client, Customer, Gateway, OK, Process, Upstream, until};

/// A process with one delivered reply, and one request in flight.
fn in_flight(directory: &TempDir, upstream: &Upstream) -> (Process, Customer, Client, Call) {
    let process = Process::start(upstream.address(), directory.path());
    let customer = process.customer("weather", 1_000);
    let mut delivered = process.get("/").key(&customer.key).open();
    upstream.call().reply(OK);
    delivered.reply().assert_receipt(10, 990);
    let mut client = process.get("/").key(&customer.key).open();
    let mut call = upstream.call();
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none");
    assert_eq!(client.head().status(), 200);
    (process, customer, client, call)
}

fn another(directory: &TempDir, upstream: &Upstream) -> Gateway {
    Gateway::builder().api(Api::new("weather", upstream.address())).at(directory.path()).start()
}

#[test]
fn what_was_in_flight_in_a_killed_process_is_given_back_by_the_next() {
    let (directory, upstream) = (tempfile::tempdir().unwrap(), Upstream::scripted());
    let (process, customer, _client, _call) = in_flight(&directory, &upstream);
    process.kill();
    let gateway = another(&directory, &upstream);
    assert_eq!(gateway.database().balance(customer.id), 990);
    gateway.assert_charges(1, 0);
    let mut client = gateway.get("/").key(&customer.key).open();
    upstream.call().reply(OK);
    client.reply().assert_receipt(10, 980);
    gateway.assert_charges(2, 0);
}

#[test]
fn what_was_in_flight_in_a_killed_process_is_given_back_by_a_living_one() {
    let (directory, upstream) = (tempfile::tempdir().unwrap(), Upstream::scripted());
    let (process, customer, _client, _call) = in_flight(&directory, &upstream);
    let gateway = another(&directory, &upstream);
    // The other one lives: what it holds is its own.
    assert_eq!((gateway.database().leased(), gateway.database().balance(customer.id)), (10, 980));
    process.kill();
    until("its hold is released", || gateway.database().leased() == 0);
    assert_eq!(gateway.database().balance(customer.id), 990);
    gateway.assert_charges(1, 0);
}

#[test]
fn a_charges_id_is_never_used_twice() {
    let (directory, upstream) = (tempfile::tempdir().unwrap(), Upstream::fine());
    let mut last = 0;
    for _ in 0..3 {
        let process = Process::start(upstream.address(), directory.path());
        let customer = process.customer("weather", 1_000);
        for _ in 0..3 {
            let charge = process.get("/").key(&customer.key).send().receipt().unwrap().charge;
            assert!(charge > last, "{charge} after {last}");
            last = charge;
        }
        process.kill();
    }
    let gateway = another(&directory, &upstream);
    gateway.assert_charges(9, 0);
}
