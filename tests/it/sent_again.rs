//! Requests on kept connections that their upstream closes just then.

use std::time::Duration;

use crate::harness::{Api, Call, Client, Customer, Gateway, OK, Request, Upstream};

struct Scene {
    upstream: Upstream,
    gateway: Gateway,
    customer: Customer,
}

impl Scene {
    /// With one kept connection to the upstream, and one paid request behind it.
    fn new() -> Scene {
        let upstream = Upstream::scripted();
        let api = Api::new("weather", upstream.address());
        let gateway = Gateway::builder().api(api).limit("upstream_keep_idle_ms", 60_000).start();
        let customer = gateway.customer("weather", 500);
        let scene = Scene { upstream, gateway, customer };
        let (mut client, call) = scene.forwarded(&scene.request("GET"));
        call.reply(OK);
        client.reply().assert_receipt(10, 490);
        scene
    }

    fn request(&self, method: &str) -> Request {
        self.gateway.request(method, "/").key(&self.customer.key)
    }

    fn forwarded(&self, request: &Request) -> (Client, Call) {
        let client = request.open();
        (client, self.upstream.call())
    }
}

#[test]
fn a_get_on_a_connection_that_ends_is_sent_again_and_paid_once() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        let scene = Scene::new();
        let (mut client, call) = scene.forwarded(&scene.request(method).field("X-Custom", "kept"));
        let first = call.head.clone();
        call.break_off();
        let call = scene.upstream.call();
        let second = call.head.clone();
        assert_eq!(second.field("x-custom"), Some("kept"));
        for name in ["x-request-id", "keytoll-charge-id", "keytoll-user-id", "traceparent", "via"] {
            assert!(first.field(name).is_some() && first.field(name) == second.field(name), "{method} {name}");
        }
        assert_eq!((first.first_line, first.fields.len()), (second.first_line, second.fields.len()));
        call.reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let reply = client.reply();
        assert_eq!(reply.status(), 200);
        reply.assert_receipt(10, 480);
        scene.gateway.assert_charges(2, 0);
    }
}

#[test]
fn a_get_is_sent_again_only_once_and_a_failure_costs_nothing() {
    let scene = Scene::new();
    let (mut client, call) = scene.forwarded(&scene.request("GET"));
    call.break_off();
    scene.upstream.call().break_off();
    let reply = client.reply();
    reply.assert_problem(502, "upstream-broken");
    reply.assert_receipt(0, 490);
    scene.upstream.expect_no_call();
    assert_eq!(scene.upstream.seen(), 3);
    scene.gateway.assert_charges(1, 1);
}

#[test]
fn what_may_change_something_is_not_sent_again() {
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let scene = Scene::new();
        let (mut client, call) = scene.forwarded(&scene.request(method));
        call.break_off();
        let reply = client.reply();
        reply.assert_problem(502, "upstream-broken");
        reply.assert_receipt(0, 490);
        scene.upstream.expect_no_call();
        scene.gateway.assert_charges(1, 1);
    }
}

#[test]
fn a_get_with_a_body_is_not_sent_again() {
    let scene = Scene::new();
    let (mut client, call) = scene.forwarded(&scene.request("GET").body("hello"));
    call.break_off();
    client.reply().assert_problem(502, "upstream-broken");
    scene.upstream.expect_no_call();
    scene.gateway.assert_charges(1, 1);
}

#[test]
fn a_get_whose_reply_had_begun_is_not_sent_again() {
    let scene = Scene::new();
    let (mut client, mut call) = scene.forwarded(&scene.request("GET"));
    call.send("H");
    call.break_off();
    client.reply().assert_problem(502, "upstream-broken");
    scene.upstream.expect_no_call();
    scene.gateway.assert_charges(1, 1);
}

/// Another gateway on the same file may have released a hold that is too old.
#[test]
fn a_get_whose_hold_is_too_old_is_not_sent_again() {
    let upstream = Upstream::scripted();
    let api = Api::new("weather", upstream.address());
    // A request is forwarded with its hold during half of this.
    let gateway = Gateway::builder().api(api).limit("instance_timeout_ms", 1_000).start();
    let customer = gateway.customer("weather", 500);
    let request = gateway.get("/").key(&customer.key);
    let mut client = request.open();
    upstream.call().reply(OK);
    client.reply().assert_receipt(10, 490);
    let mut client = request.open();
    let call = upstream.call();
    std::thread::sleep(Duration::from_millis(600));
    call.break_off();
    client.reply().assert_problem(502, "upstream-broken");
    upstream.expect_no_call();
    gateway.assert_charges(1, 1);
}
