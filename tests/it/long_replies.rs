//! Bounded: no charge stays held for longer than the setting, whatever client and upstream do.

use crate::harness::{Api, Call, Client, Customer, Gateway, Upstream, until};

struct Scene {
    upstream: Upstream,
    gateway: Gateway,
    customer: Customer,
}

fn scene(settle_timeout_ms: u64) -> Scene {
    let upstream = Upstream::scripted();
    let api = Api::new("weather", upstream.address());
    let builder = Gateway::builder().api(api).limit("open_charge_ms", 200);
    let gateway = builder.limit("settle_timeout_ms", settle_timeout_ms).start();
    let customer = gateway.customer("weather", 500);
    Scene { upstream, gateway, customer }
}

const BEGIN: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";

impl Scene {
    /// A reply whose first piece has reached the client.
    fn begun(&self) -> (Client, Call) {
        let mut client = self.gateway.get("/").key(&self.customer.key).open();
        let mut call = self.upstream.call();
        call.send(BEGIN);
        assert_eq!(client.head().status(), 200);
        client.expect(b"5\r\nfirst\r\n");
        (client, call)
    }

    fn captured(&self) -> i64 {
        self.gateway.database().charges(1)
    }
}

#[test]
fn a_reply_that_takes_very_long_is_captured_on_the_way_and_flows_on() {
    let scene = scene(5_000);
    let (mut client, mut call) = scene.begun();
    until("the capture", || scene.captured() == 1);
    call.send("6\r\nsecond\r\n");
    client.expect(b"6\r\nsecond\r\n");
    call.reply("0\r\n\r\n");
    client.expect(b"0\r\n\r\n");
    scene.gateway.assert_charges(1, 0);
    assert_eq!(scene.gateway.database().balance(scene.customer.id), 490);
}

#[test]
fn what_breaks_off_after_that_is_paid() {
    let scene = scene(5_000);
    let (mut client, call) = scene.begun();
    until("the capture", || scene.captured() == 1);
    call.break_off();
    client.expect_end();
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn a_client_that_takes_nothing_does_not_keep_its_charge_open() {
    let scene = scene(5_000);
    let _client = scene.gateway.get("/").key(&scene.customer.key).open();
    let mut call = scene.upstream.call();
    call.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1 << 30));
    // More than sockets and buffers hold: from some piece on nothing is asked for.
    let writes = std::thread::spawn(move || {
        let piece = vec![b'x'; 1 << 20];
        while call.try_send(&piece).is_ok() {}
    });
    until("the capture", || scene.captured() == 1);
    drop(scene);
    writes.join().unwrap();
}

#[test]
fn one_that_cannot_be_captured_in_its_time_is_broken_off() {
    let scene = scene(300);
    let (mut client, mut call) = scene.begun();
    let lock = scene.gateway.lock();
    call.expect_end();
    client.expect_end();
    lock.release();
    scene.gateway.assert_charges(0, 1);
    assert_eq!(scene.gateway.database().balance(scene.customer.id), 500);
}

#[test]
fn a_request_whose_reply_does_not_begin_is_given_up_and_costs_nothing() {
    let scene = scene(5_000);
    let mut client = scene.gateway.get("/").key(&scene.customer.key).open();
    let mut call = scene.upstream.call();
    client.reply().assert_problem(504, "upstream-timeout");
    call.expect_end();
    scene.gateway.assert_charges(0, 1);
}
