//! The price of a reply stays held until the reply ends, however long that takes. Only its head has a deadline.

use crate::harness::{Api, Call, Client, Customer, Gateway, Upstream};

struct Scene {
    upstream: Upstream,
    gateway: Gateway,
    customer: Customer,
}

impl Scene {
    fn new() -> Scene {
        let upstream = Upstream::scripted();
        let api = Api::new("weather", upstream.address()).route("path = \"/status\"\npublic = true");
        let gateway = Gateway::builder().api(api).limit("upstream_head_deadline_ms", 200).start();
        let customer = gateway.customer("weather", 500);
        Scene { upstream, gateway, customer }
    }

    /// A reply whose first piece has reached the client, and which is still held long after the deadline of its head.
    fn long_reply(&self) -> (Client, Call) {
        let mut client = self.gateway.get("/").key(&self.customer.key).open();
        let mut call = self.upstream.call();
        call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        assert_eq!(client.head().status(), 200);
        client.expect(b"5\r\nfirst\r\n");
        for _ in 0..2 {
            self.pass_the_deadline();
        }
        assert_eq!(self.gateway.database().charges(1), 0, "it is not captured before its end");
        call.send("6\r\nsecond\r\n");
        client.expect(b"6\r\nsecond\r\n");
        (client, call)
    }

    /// A free request that gets no reply takes as long as the deadline.
    fn pass_the_deadline(&self) {
        let mut client = self.gateway.get("/status").open();
        let mut call = self.upstream.call();
        client.reply().assert_problem(504, "upstream-timeout");
        call.expect_end();
    }

    fn assert_settled(&self, captured: i64, released: i64, balance: i64) {
        self.gateway.assert_charges(captured, released);
        assert_eq!(self.gateway.database().balance(self.customer.id), balance);
    }
}

#[test]
fn a_long_reply_is_captured_at_its_end() {
    let scene = Scene::new();
    let (mut client, call) = scene.long_reply();
    call.reply("0\r\n\r\n");
    client.expect(b"0\r\n\r\n");
    scene.assert_settled(1, 0, 490);
}

#[test]
fn a_long_reply_that_breaks_off_is_released() {
    let scene = Scene::new();
    let (mut client, call) = scene.long_reply();
    call.break_off();
    client.expect_end();
    scene.assert_settled(0, 1, 500);
}

#[test]
fn a_client_that_leaves_during_a_long_reply_pays() {
    let scene = Scene::new();
    let (client, mut call) = scene.long_reply();
    client.leave();
    call.expect_end();
    scene.assert_settled(1, 0, 490);
}

#[test]
fn a_reply_whose_head_misses_the_deadline_costs_nothing() {
    let scene = Scene::new();
    let mut client = scene.gateway.get("/").key(&scene.customer.key).open();
    let mut call = scene.upstream.call();
    client.reply().assert_problem(504, "upstream-timeout");
    call.expect_end();
    scene.assert_settled(0, 1, 500);
}
