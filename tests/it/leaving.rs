//! Clients that go away: leaving early is not free, and not dearer than the reply.

use crate::harness::{Api, Call, Client, Gateway, Request, Upstream};

/// A request at the upstream, its client still there.
fn forwarded(request: impl Fn(&Gateway, &str) -> Request) -> (Upstream, Gateway, Client, Call) {
    let upstream = Upstream::scripted();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    let client = request(&gateway, &customer.key).open();
    let call = upstream.call();
    (upstream, gateway, client, call)
}

fn get(gateway: &Gateway, key: &str) -> Request {
    gateway.get("/").key(key)
}

#[test]
fn a_client_that_leaves_before_a_good_reply_pays() {
    let (_upstream, gateway, client, mut call) = forwarded(get);
    client.leave();
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    gateway.assert_charges(1, 0);
    // Only after that the upstream is told to stop.
    call.expect_end();
}

#[test]
fn a_client_that_leaves_before_a_failure_pays_nothing() {
    let (_upstream, gateway, client, mut call) = forwarded(get);
    client.leave();
    call.send("HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno");
    gateway.assert_charges(0, 1);
}

#[test]
fn a_client_that_leaves_before_no_reply_pays_nothing() {
    let (_upstream, gateway, client, call) = forwarded(get);
    client.leave();
    call.break_off();
    gateway.assert_charges(0, 1);
}

#[test]
fn a_client_that_leaves_is_waited_for_no_longer_than_the_upstream_may_take() {
    let upstream = Upstream::scripted();
    let api = Api::new("weather", upstream.address());
    let gateway = Gateway::builder().api(api).limit("upstream_head_timeout_ms", 100).start();
    let customer = gateway.customer("weather", 500);
    let client = gateway.get("/").key(&customer.key).open();
    let mut call = upstream.call();
    client.leave();
    call.expect_end();
    gateway.assert_charges(0, 1);
}

#[test]
fn a_client_that_leaves_in_mid_reply_pays() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    for (reply, beginning) in [(chunked, &b"4\r\nhalf\r\n"[..]), (sized, b"half")] {
        let (_upstream, gateway, mut client, mut call) = forwarded(get);
        call.send(reply);
        assert_eq!(client.head().status(), 200);
        client.expect(beginning);
        client.leave();
        gateway.assert_charges(1, 0);
        call.expect_end();
    }
}

#[test]
fn a_client_that_leaves_before_its_hold_is_committed_buys_nothing() {
    let upstream = Upstream::scripted();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    // One that works first: its key is known then.
    let mut first = gateway.get("/").key(&customer.key).open();
    upstream.call().reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(first.reply().status(), 200);
    let lock = gateway.lock();
    let client = gateway.get("/").key(&customer.key).open();
    upstream.expect_no_call();
    client.leave();
    upstream.expect_no_call();
    lock.release();
    gateway.assert_charges(1, 0);
    upstream.expect_no_call();
}
