//! Processes that die between two steps, and two gateways on one file.

use tempfile::TempDir;

use super::{OK, ON, already_charged};
use crate::harness::{Api, Call, Client, Customer, Gateway, Process, Request, Upstream, until};

/// A process that will be killed, and what is left of it after that.
struct Scene {
    directory: TempDir,
    upstream: Upstream,
    user: i64,
    key: String,
}

impl Scene {
    fn new() -> (Scene, Process) {
        let (directory, upstream) = (tempfile::tempdir().unwrap(), Upstream::scripted());
        let api = Api::new("weather", upstream.address()).with(ON);
        let process = Gateway::builder().api(api).at(directory.path()).spawn();
        let Customer { id: user, key, .. } = process.customer("weather", 1_000);
        (Scene { directory, upstream, user, key }, process)
    }

    fn another(&self) -> Gateway {
        let api = Api::new("weather", self.upstream.address()).with(ON);
        Gateway::builder().api(api).at(self.directory.path()).start()
    }

    fn forwarded(&self, request: &Request) -> (Client, Call) {
        let client = request.clone().field("Idempotency-Key", "one").open();
        (client, self.upstream.call())
    }

    /// A request that is captured in this process, and whose client left before the head of its reply.
    fn unanswered(&self, process: &Process, watch: &Gateway) -> i64 {
        let (client, call) = self.forwarded(&process.get("/").key(&self.key));
        let charge = call.head.number("keytoll-charge-id").unwrap();
        client.leave();
        call.reply(OK);
        until("it is captured", || watch.database().charges(1) == 1);
        charge
    }
}

#[test]
fn a_retry_after_a_death_before_the_capture_pays_anew() {
    let (scene, process) = Scene::new();
    let (_client, _call) = scene.forwarded(&process.get("/").key(&scene.key));
    process.kill();
    let gateway = scene.another();
    let (mut client, call) = scene.forwarded(&gateway.get("/").key(&scene.key));
    call.reply(OK);
    client.reply().assert_receipt(10, 990);
    gateway.assert_charges(1, 0);
}

#[test]
fn a_retry_after_a_death_between_capture_and_delivery_has_that_refunded() {
    let (scene, process) = Scene::new();
    let gateway = scene.another();
    let charge = scene.unanswered(&process, &gateway);
    process.kill();
    let request = gateway.get("/").key(&scene.key);
    let (mut client, call) = scene.forwarded(&request);
    assert_eq!(call.head.number("keytoll-retry-of"), Some(charge));
    call.reply(OK);
    client.reply().assert_receipt(10, 990);
    already_charged(&request.field("Idempotency-Key", "one"));
    gateway.assert_charges(2, 0);
    assert_eq!(gateway.database().entries(scene.user, "refund"), [10]);
}

#[test]
fn a_reply_that_was_delivered_by_a_process_that_died_after_is_known_to_the_next() {
    let (scene, process) = Scene::new();
    let (mut client, call) = scene.forwarded(&process.get("/").key(&scene.key));
    call.reply(OK);
    client.reply().assert_receipt(10, 990);
    // The note that it left is on its way by itself.
    let gateway = scene.another();
    until("it is noted", || gateway.database().number("SELECT state FROM keytoll_requests") == 2);
    process.kill();
    already_charged(&gateway.get("/").key(&scene.key).field("Idempotency-Key", "one"));
    gateway.assert_charges(1, 0);
}

#[test]
fn a_death_during_the_retry_is_free_after_the_next_start() {
    let (scene, process) = Scene::new();
    let watch = scene.another();
    let charge = scene.unanswered(&process, &watch);
    watch.stop();
    let (_client, _call) = scene.forwarded(&process.get("/").key(&scene.key));
    process.kill();
    for _ in 0..2 {
        let gateway = scene.another();
        gateway.assert_charges(1, 0);
        assert_eq!(gateway.database().balance(scene.user), 1_000);
        assert_eq!(gateway.database().entries(scene.user, "refund"), [10]);
        gateway.stop();
    }
    let gateway = scene.another();
    let (mut client, call) = scene.forwarded(&gateway.get("/").key(&scene.key));
    assert_ne!(call.head.number("keytoll-charge-id"), Some(charge));
    assert_eq!(call.head.number("keytoll-retry-of"), None);
    call.reply(OK);
    client.reply().assert_receipt(10, 990);
    gateway.assert_charges(2, 0);
}

#[test]
fn a_death_during_the_retry_is_recovered_by_a_living_gateway() {
    let (scene, process) = Scene::new();
    let gateway = scene.another();
    scene.unanswered(&process, &gateway);
    let (_client, _call) = scene.forwarded(&process.get("/").key(&scene.key));
    // The other one lives: what it holds is its own.
    let request = gateway.get("/").key(&scene.key).field("Idempotency-Key", "one");
    request.send().assert_problem(409, "request-in-flight");
    assert_eq!(gateway.database().balance(scene.user), 990);
    process.kill();
    until("it is given back", || gateway.database().balance(scene.user) == 1_000);
    assert_eq!(gateway.database().entries(scene.user, "refund"), [10]);
    gateway.assert_charges(1, 0);
}

#[test]
fn two_gateways_on_one_file_serve_a_key_once() {
    let (scene, process) = Scene::new();
    let gateway = scene.another();
    let here = gateway.get("/").key(&scene.key).field("Idempotency-Key", "one");
    let there = process.get("/").key(&scene.key).field("Idempotency-Key", "one");
    for (one, other, charges) in [(&here, &there, 1), (&there, &here, 2)] {
        let mut client = one.open();
        let mut call = scene.upstream.call();
        other.send().assert_problem(409, "request-in-flight");
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none");
        assert_eq!(client.head().status(), 200);
        client.expect(b"one");
        call.reply("two");
        client.expect(b"two");
        already_charged(other);
        already_charged(one);
        gateway.assert_charges(charges, 0);
        gateway.database().execute("DELETE FROM keytoll_requests", []);
    }
}
