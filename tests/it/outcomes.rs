//! What is charged and what is given back, by what the upstream does; and the receipt that says so.

use crate::harness::{Api, Gateway, Reply, Upstream};

/// One request, answered with these bytes, by an upstream that then closes the connection.
fn answered(reply: &'static str) -> (Reply, Gateway) {
    let upstream = Upstream::scripted();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    let mut client = gateway.get("/").key(&customer.key).open();
    let mut call = upstream.call();
    call.send(reply);
    call.break_off();
    (client.reply(), gateway)
}

#[test]
fn a_reply_that_is_charged_is_captured_and_says_so() {
    for status in ["200 OK", "201 Created", "302 Found", "404 Not Found", "418 I'm a teapot"] {
        let text: &'static str = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").leak();
        let (reply, gateway) = answered(text);
        assert_eq!((reply.whole, reply.text()), (true, "ok"));
        reply.assert_receipt(10, 490);
        gateway.assert_charges(1, 0);
    }
}

#[test]
fn a_reply_that_is_not_charged_is_released_and_says_so() {
    for status in ["500 Oops", "502 Oops", "503 Oops", "599 Oops", "408 Late", "429 Slow Down"] {
        let text: &'static str = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno").leak();
        let (reply, gateway) = answered(text);
        assert_eq!(reply.head.first_line.split(' ').nth(1), status.split(' ').next());
        assert_eq!((reply.whole, reply.text()), (true, "no"));
        reply.assert_receipt(0, 500);
        gateway.assert_charges(0, 1);
    }
}

#[test]
fn what_is_charged_can_be_said() {
    let upstream = Upstream::saying("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::of(Api::new("weather", upstream.address()).with("charge_on = [\"2xx\", \"5xx\"]"));
    let customer = gateway.customer("weather", 500);
    gateway.get("/").key(&customer.key).send().assert_receipt(0, 500);
    gateway.assert_charges(0, 1);
}

#[test]
fn an_upstream_that_nobody_listens_at_costs_nothing() {
    let gateway = Gateway::of(Api::new("weather", Upstream::unused_address()));
    let customer = gateway.customer("weather", 500);
    let reply = gateway.get("/").key(&customer.key).send();
    reply.assert_problem(502, "upstream-unreachable");
    reply.assert_receipt(0, 500);
    gateway.assert_charges(0, 1);
}

#[test]
fn an_upstream_that_is_too_slow_costs_nothing() {
    let upstream = Upstream::scripted();
    let api = Api::new("weather", upstream.address());
    let gateway = Gateway::builder().api(api).limit("upstream_head_timeout_ms", 50).start();
    let customer = gateway.customer("weather", 500);
    let mut client = gateway.get("/").key(&customer.key).open();
    let mut call = upstream.call();
    let reply = client.reply();
    reply.assert_problem(504, "upstream-timeout");
    reply.assert_receipt(0, 500);
    call.expect_end();
    gateway.assert_charges(0, 1);
}

#[test]
fn an_upstream_that_ends_before_its_head_costs_nothing() {
    for begun in ["", "HTTP/1.1 200", "this is not HTTP\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
        let (reply, gateway) = answered(begun);
        reply.assert_problem(502, "upstream-broken");
        reply.assert_receipt(0, 500);
        gateway.assert_charges(0, 1);
    }
}

/// A reply whose head and beginning the client has, before the upstream breaks off.
fn broken_off(begin: &str, beginning: &[u8]) {
    let upstream = Upstream::scripted();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    let mut client = gateway.get("/").key(&customer.key).open();
    let mut call = upstream.call();
    call.send(begin);
    assert_eq!(client.head().status(), 200);
    client.expect(beginning);
    call.break_off();
    client.expect_end();
    gateway.assert_charges(0, 1);
    assert_eq!(gateway.database().balance(customer.id), 500);
}

#[test]
fn a_reply_that_breaks_off_within_its_length_costs_nothing() {
    broken_off("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", b"half");
}

#[test]
fn a_chunked_reply_that_breaks_off_costs_nothing() {
    broken_off("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"4\r\nhalf\r\n");
}

#[test]
fn a_reply_that_stops_coming_costs_nothing() {
    let upstream = Upstream::scripted();
    let api = Api::new("weather", upstream.address());
    let gateway = Gateway::builder().api(api).limit("upstream_body_idle_ms", 50).start();
    let customer = gateway.customer("weather", 500);
    let mut client = gateway.get("/").key(&customer.key).open();
    let mut call = upstream.call();
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    let reply = client.reply();
    assert_eq!((reply.whole, reply.text()), (false, "half"));
    call.expect_end();
    gateway.assert_charges(0, 1);
}

#[test]
fn a_receipt_counts_what_was_paid_before() {
    let upstream = Upstream::fine();
    let gateway = Gateway::of(Api::new("weather", upstream.address()).price(7));
    let customer = gateway.customer("weather", 20);
    let request = gateway.get("/").key(&customer.key);
    let (first, second) = (request.send(), request.send());
    first.assert_receipt(7, 13);
    second.assert_receipt(7, 6);
    assert_ne!(first.field("keytoll-charge-id"), second.field("keytoll-charge-id"));
    let refused = request.send();
    assert!(refused.receipt().is_none());
    let problem = refused.assert_problem(402, "insufficient-funds");
    assert_eq!((&problem["price_cents"], &problem["balance_cents"]), (&7.into(), &6.into()));
    gateway.assert_charges(2, 0);
}

#[test]
fn a_request_whose_body_is_announced_as_too_large_costs_nothing() {
    let upstream = Upstream::scripted();
    let api = Api::new("weather", upstream.address());
    let gateway = Gateway::builder().api(api).limit("request_body_bytes", 10).start();
    let customer = gateway.customer("weather", 500);
    let refused = gateway.request("POST", "/").key(&customer.key).body("eleven more").send();
    refused.assert_problem(413, "body-too-large");
    assert!(refused.receipt().is_none());
    upstream.expect_no_call();
}

#[test]
fn the_next_upstream_is_tried_and_paid_once() {
    let upstream = Upstream::fine();
    let gateway = Gateway::of(Api::new("weather", Upstream::unused_address()).or(upstream.address()));
    let customer = gateway.customer("weather", 500);
    for paid in 1..=4 {
        gateway.get("/").key(&customer.key).send().assert_receipt(10, 500 - 10 * paid);
    }
    assert_eq!(upstream.seen(), 4);
    gateway.assert_charges(4, 0);
}

#[test]
fn a_request_is_sent_upstream_once_even_when_that_fails() {
    let (first, second) = (Upstream::scripted(), Upstream::fine());
    let gateway = Gateway::of(Api::new("weather", first.address()).or(second.address()));
    let customer = gateway.customer("weather", 500);
    let mut client = gateway.get("/").key(&customer.key).open();
    first.call().break_off();
    client.reply().assert_problem(502, "upstream-broken");
    assert_eq!((first.seen(), second.seen()), (1, 0));
    gateway.assert_charges(0, 1);
}
