//! Requests that their clients send again under the same `Idempotency-Key`: paid once, whatever became of the first.

mod again;
mod killed;
mod refused;

use crate::harness::{Api, Call, Client, Customer, Gateway, OK, Request, Upstream, until};

const OOPS: &str = "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno";
const ON: &str = "idempotency = \"on\"";

/// A gateway whose API takes keys, and a customer with 500 cents.
struct Scene {
    upstream: Upstream,
    gateway: Gateway,
    customer: Customer,
}

impl Scene {
    fn new() -> Scene {
        let upstream = Upstream::scripted();
        let gateway = Gateway::of(Api::new("weather", upstream.address()).with(ON));
        let customer = gateway.customer("weather", 500);
        Scene { upstream, gateway, customer }
    }

    fn request(&self) -> Request {
        self.gateway.request("POST", "/buy").key(&self.customer.key).field("Idempotency-Key", "\"one\"")
    }

    /// A request at the upstream.
    fn forwarded(&self) -> (Client, Call) {
        (self.request().open(), self.upstream.call())
    }

    /// A request that is paid for, and whose client left before the head of its reply; its charge.
    fn unanswered(&self) -> i64 {
        let (client, call) = self.forwarded();
        let charge = call.head.number("keytoll-charge-id").unwrap();
        let captured = self.gateway.database().charges(1);
        client.leave();
        call.reply(OK);
        until("it is captured", || self.gateway.database().charges(1) == captured + 1);
        // The reply that nobody takes is dropped right after.
        self.gateway.settle();
        charge
    }

    fn balance(&self) -> i64 {
        self.gateway.settle();
        self.gateway.database().assert_books();
        self.gateway.database().balance(self.customer.id)
    }

    /// What charges were refunded.
    fn refunds(&self) -> Vec<i64> {
        self.gateway.database().entries(self.customer.id, "refund")
    }

    /// A retry at the upstream, which is told that it is one of this charge; its own charge.
    fn retried(&self, charge: i64) -> (Client, Call, i64) {
        let (client, call) = self.forwarded();
        assert_eq!(call.head.number("keytoll-retry-of"), Some(charge));
        let own = call.head.number("keytoll-charge-id").unwrap();
        assert_ne!(own, charge);
        (client, call, own)
    }

    /// The request is told that it was paid for with this charge.
    #[track_caller]
    fn assert_already_charged(&self, charge: i64) {
        let problem = already_charged(&self.request());
        assert_eq!(problem["charge_id"], charge);
        self.upstream.expect_no_call();
    }
}

/// The request is told that it was paid for, and how. A client may see its reply before Keytoll has noted that it does:
/// until then the request is under way.
#[track_caller]
fn already_charged(request: &Request) -> serde_json::Value {
    let mut reply = request.send();
    until("it is noted", || {
        if reply.problem()["code"] == "request-in-flight" {
            reply = request.send();
        }
        reply.problem()["code"] != "request-in-flight"
    });
    reply.assert_problem(409, "already-charged")
}

#[test]
fn a_retry_of_an_answered_request_is_not_forwarded_and_costs_nothing() {
    let scene = Scene::new();
    let (mut client, call) = scene.forwarded();
    assert_eq!(call.head.field("idempotency-key"), Some("\"one\""), "the upstream may count on it as well");
    call.reply(OK);
    let reply = client.reply();
    reply.assert_receipt(10, 490);
    let charge = reply.receipt().unwrap().charge;
    for _ in 0..3 {
        scene.assert_already_charged(charge);
    }
    // On the connection that had the reply, with quotes or without: the same.
    client
        .send_request(&scene.gateway.request("POST", "/buy").key(&scene.customer.key).field("idempotency-key", "one"));
    client.reply().assert_problem(409, "already-charged");
    assert_eq!(scene.balance(), 490);
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn every_form_of_a_reply_that_reached_its_client_is_an_answer() {
    let forms: [(&str, &[&str]); 5] = [
        ("GET", &["HTTP/1.1 204 No Content\r\n\r\n"]),
        ("HEAD", &["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"]),
        ("GET", &["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "one", "two"]),
        ("GET", &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n", "0\r\n\r\n"]),
        ("GET", &["HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"]),
    ];
    for (method, pieces) in forms {
        let scene = Scene::new();
        let request = scene.gateway.request(method, "/").key(&scene.customer.key).field("Idempotency-Key", "one");
        let (mut client, mut call) = (request.open(), scene.upstream.call());
        for piece in pieces {
            call.send(piece);
        }
        call.break_off();
        let reply = client.reply();
        assert!(reply.whole, "{reply:?}");
        reply.assert_receipt(10, 490);
        // HEAD has the problem's head alone.
        let retried = request.send();
        assert_eq!(retried.status(), 409, "{method} {pieces:?}");
        scene.upstream.expect_no_call();
        scene.gateway.assert_charges(1, 0);
    }
}

#[test]
fn a_retry_while_the_first_is_under_way_is_told_so() {
    let scene = Scene::new();
    let (mut client, mut call) = scene.forwarded();
    let refused = scene.request().send();
    refused.assert_problem(409, "request-in-flight");
    assert_eq!(refused.field("retry-after"), Some("1"));
    // Also when its reply has begun.
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none");
    assert_eq!(client.head().status(), 200);
    scene.request().send().assert_problem(409, "request-in-flight");
    call.reply("two");
    client.expect(b"onetwo");
    already_charged(&scene.request());
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn a_retry_of_a_request_that_cost_nothing_is_a_request_like_any_other() {
    let scene = Scene::new();
    let (mut client, call) = scene.forwarded();
    call.reply(OOPS);
    client.reply().assert_receipt(0, 500);
    let (mut client, call) = scene.forwarded();
    call.break_off();
    client.reply().assert_problem(502, "upstream-broken");
    let (mut client, mut call) = scene.forwarded();
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none");
    assert_eq!(client.head().status(), 200);
    client.expect(b"one");
    call.break_off();
    client.expect_end();
    let (mut client, call) = scene.forwarded();
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
    scene.gateway.assert_charges(1, 3);
}

#[test]
fn a_reply_that_its_client_saw_the_beginning_of_is_an_answer() {
    let scene = Scene::new();
    let (mut client, mut call) = scene.forwarded();
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none");
    let charge = client.head().number("keytoll-charge-id").unwrap();
    client.expect(b"one");
    client.leave();
    call.expect_end();
    scene.gateway.assert_charges(1, 0);
    scene.assert_already_charged(charge);
}
