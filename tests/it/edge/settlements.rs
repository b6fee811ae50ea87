//! The line of a request says why it was charged or not, and how many bytes went either way.

use serde_json::Value;

use crate::harness::{Api, Call, Client, Gateway, GatewayBuilder, OK, Process, Request, Upstream, until};

const ID: &str = "the-request-of-the-test";

struct Scene {
    upstream: Upstream,
    process: Process,
    key: String,
}

fn scene_with(settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Scene {
    let upstream = Upstream::scripted();
    let api = Api::new("weather", upstream.address()).route("path = \"/status\"\npublic = true");
    let process = settings(Gateway::builder().api(api).access_log()).spawn();
    let key = process.customer("weather", 500).key;
    Scene { upstream, process, key }
}

fn scene() -> Scene {
    scene_with(|builder| builder)
}

impl Scene {
    fn request(&self, method: &str) -> Request {
        self.process.request(method, "/forecast?city=Bonn").key(&self.key).field("X-Request-Id", ID)
    }

    /// A request at the upstream.
    fn forwarded(&self, request: &Request) -> (Client, Call) {
        (request.open(), self.upstream.call())
    }

    /// A request whose reply has begun, and has reached its client so far.
    #[track_caller]
    fn replying(&self) -> (Client, Call) {
        let (mut client, mut call) = self.forwarded(&self.request("GET"));
        call.send(BEGUN);
        assert_eq!(client.head().status(), 200);
        client.expect(b"5\r\nfirst\r\n");
        (client, call)
    }

    /// The line of the request, which was settled so, and that this is counted.
    #[track_caller]
    fn assert_settlement(&self, reason: &str) -> Value {
        let line = self.process.access_line(ID);
        assert_eq!(line["settlement"], reason, "{line}");
        assert_eq!(line["listener"], "data", "{line}");
        assert_eq!((&line["path"], &line["api"]), (&Value::from("/forecast"), &Value::from("weather")), "{line}");
        let count = || self.process.metric("keytoll_settlements_total", &[("reason", reason)]);
        until("the settlement is counted", || count() == 1);
        line
    }
}

fn assert_bytes(line: &Value, request: u64, reply: u64) {
    assert_eq!((&line["request_bytes"], &line["reply_bytes"]), (&request.into(), &reply.into()), "{line}");
}

const BEGUN: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";

#[test]
fn a_whole_reply_is_captured() {
    let scene = scene();
    let (mut client, mut call) = scene.forwarded(&scene.request("POST").body("hello"));
    assert_eq!(call.body().unwrap(), b"hello");
    call.reply(OK);
    assert_eq!(client.reply().status(), 200);
    let line = scene.assert_settlement("captured");
    assert_eq!((&line["status"], &line["cost_cents"]), (&Value::from(200), &Value::from(10)), "{line}");
    assert_bytes(&line, 5, 2);
    scene.process.stop();
}

#[test]
fn chunked_bodies_are_counted_without_their_framing() {
    let scene = scene();
    let (mut client, mut call) = scene.forwarded(&scene.request("POST").field("Transfer-Encoding", "chunked"));
    client.send(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(call.body().unwrap(), b"onetwo");
    call.reply(format!("{BEGUN}0\r\n\r\n"));
    assert_eq!(client.reply().body, b"first");
    let line = scene.assert_settlement("captured");
    assert_bytes(&line, 6, 5);
    scene.process.stop();
}

#[test]
fn a_failure_of_the_upstream_is_released() {
    let scene = scene();
    let (mut client, call) = scene.forwarded(&scene.request("GET"));
    call.reply("HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops");
    assert_eq!(client.reply().status(), 500);
    let line = scene.assert_settlement("released");
    assert_eq!((&line["status"], line.get("problem")), (&Value::from(500), None), "{line}");
    assert_bytes(&line, 0, 4);
    scene.process.stop();
}

#[test]
fn an_upstream_that_breaks_off_is_released() {
    let scene = scene();
    let (mut client, call) = scene.replying();
    call.break_off();
    client.expect_end();
    let line = scene.assert_settlement("released");
    assert_bytes(&line, 0, 5);
    scene.process.stop();
}

/// No client receives the problem document, so only the access log has it.
#[test]
fn a_failure_that_its_client_did_not_wait_for_is_in_the_line() {
    let scene = scene();
    let (client, call) = scene.forwarded(&scene.request("GET"));
    client.leave();
    let open = || scene.process.metric("keytoll_connections_open", &[("listener", "data")]);
    until("the client is missed", || open() == 0);
    call.break_off();
    let line = scene.assert_settlement("released");
    assert_eq!((&line["status"], &line["problem"]), (&Value::from(502), &Value::from("upstream-broken")), "{line}");
    assert_bytes(&line, 0, 0);
    scene.process.stop();
}

#[test]
fn a_client_that_leaves_in_mid_reply_is_said_to_have_left() {
    let scene = scene();
    let (client, mut call) = scene.replying();
    client.leave();
    call.expect_end();
    let line = scene.assert_settlement("client_left");
    assert_eq!(line["cost_cents"], 10, "{line}");
    assert_bytes(&line, 0, 5);
    scene.process.stop();
}

#[test]
fn a_client_that_breaks_its_upload_off_is_said_to_have_aborted_it() {
    let scene = scene();
    let (mut client, mut call) = scene.forwarded(&scene.request("POST").field("Transfer-Encoding", "chunked"));
    client.send(b"4\r\nhalf\r\n");
    call.expect(b"4\r\nhalf\r\n");
    client.leave();
    call.expect_end();
    let line = scene.assert_settlement("aborted_upload");
    assert_eq!(line["request_bytes"], 4, "{line}");
    scene.process.stop();
}

#[test]
fn what_is_cut_at_the_deadline_is_said_to_be_drained() {
    let mut scene = scene_with(|builder| builder.drain_timeout_ms(100));
    let (_client, _call) = scene.replying();
    scene.process.signal("TERM");
    assert!(scene.process.wait().success());
    let line = scene.process.access_line(ID);
    assert_eq!(line["settlement"], "drained", "{line}");
}

/// Its hold is dropped with it, which gives it back.
#[test]
fn a_reply_that_cannot_be_paid_is_said_to_be_unpaid() {
    let scene = scene_with(|builder| builder.limit("settle_timeout_ms", 200));
    let (mut client, call) = scene.replying();
    let lock = scene.process.database().lock();
    call.reply("0\r\n\r\n");
    client.expect_end();
    lock.release();
    scene.assert_settlement("unpaid");
    scene.process.stop();
}

#[test]
fn a_client_that_leaves_in_mid_reply_and_cannot_be_charged_is_said_to_be_unpaid() {
    let scene = scene_with(|builder| builder.limit("settle_timeout_ms", 200));
    let (client, mut call) = scene.replying();
    let lock = scene.process.database().lock();
    client.leave();
    call.expect_end();
    let line = scene.assert_settlement("unpaid");
    assert_eq!(line["cost_cents"], 0, "{line}");
    lock.release();
    scene.process.stop();
}

#[test]
fn a_request_that_holds_nothing_has_no_settlement() {
    let scene = scene();
    let refused = scene.process.get("/forecast").key("no-such-key").field("X-Request-Id", "refused");
    refused.send().assert_problem(401, "invalid-key");
    let mut free = scene.process.get("/status").field("X-Request-Id", "free").open();
    scene.upstream.call().reply(OK);
    assert_eq!(free.reply().status(), 200);
    for id in ["refused", "free"] {
        let line = scene.process.access_line(id);
        assert_eq!((line.get("settlement"), &line["listener"]), (None, &Value::from("data")), "{line}");
    }
    assert_bytes(&scene.process.access_line("free"), 0, 2);
    assert_eq!(scene.process.metric("keytoll_settlements_total", &[]), 0);
    scene.process.stop();
}

#[test]
fn a_client_that_leaves_while_its_capture_is_committed_is_said_to_have_paid() {
    let scene = scene();
    let (mut client, mut call) = scene.forwarded(&scene.request("GET"));
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
    assert_eq!(client.head().status(), 200);
    client.expect(b"first");
    let lock = scene.process.database().lock();
    call.send("other");
    client.expect_silence();
    client.leave();
    // The gateway notices before the capture is committed.
    call.expect_end();
    lock.release();
    let line = scene.assert_settlement("client_left");
    assert_eq!(line["cost_cents"], 10, "{line}");
    scene.process.stop();
}

#[test]
fn a_request_that_is_cut_before_its_reply_is_said_to_be_drained() {
    let mut scene = scene_with(|builder| builder.drain_timeout_ms(100));
    let (_client, _call) = scene.forwarded(&scene.request("GET"));
    scene.process.signal("TERM");
    assert!(scene.process.wait().success());
    let line = scene.process.access_line(ID);
    assert_eq!((&line["settlement"], &line["cost_cents"]), (&"drained".into(), &0.into()), "{line}");
}
