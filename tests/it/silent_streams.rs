//! Replies that the gateway cuts because their upstream says nothing: an event stream of which some was delivered is charged,
//! everything else is not.

use serde_json::Value;

use crate::harness::{Api, Call, Client, Gateway, GatewayBuilder, Process, Upstream, until};

const ID: &str = "the-request-of-the-test";
const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
const EVENT: &str = "9\r\ndata: 1\n\n\r\n";

struct Scene {
    upstream: Upstream,
    process: Process,
    key: String,
}

impl Scene {
    fn with(api: impl FnOnce(Api) -> Api, settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Scene {
        let upstream = Upstream::scripted();
        let api = api(Api::new("weather", upstream.address()));
        let process = settings(Gateway::builder().api(api).access_log()).spawn();
        let key = process.customer("weather", 500).key;
        Scene { upstream, process, key }
    }

    /// Event streams may be silent for a moment, everything else for a minute.
    fn with_short_streams(api: impl FnOnce(Api) -> Api) -> Scene {
        Scene::with(api, |builder| builder.limit("event_stream_idle_ms", 100))
    }

    fn begun(&self, path: &str, reply: &str) -> (Client, Call) {
        let mut client = self.process.request("GET", path).key(&self.key).field("X-Request-Id", ID).open();
        let mut call = self.upstream.call();
        call.send(reply);
        assert_eq!(client.head().status(), 200);
        (client, call)
    }

    /// The gateway cuts the reply, and settles it so.
    #[track_caller]
    fn assert_cut(self, mut call: Call, reason: &str, cents: i64) {
        call.expect_end();
        let line = self.process.access_line(ID);
        assert_eq!((&line["settlement"], &line["cost_cents"]), (&reason.into(), &Value::from(cents)), "{line}");
        let database = self.process.database();
        until("it is in the books", || database.leased() == 0 && database.charges(1) == i64::from(cents > 0));
        database.assert_books();
        self.process.stop();
    }
}

#[test]
fn an_event_stream_that_is_cut_after_some_of_it_was_delivered_is_charged() {
    let scene = Scene::with_short_streams(|api| api);
    let (mut client, mut call) = scene.begun("/", EVENTS);
    call.send(EVENT);
    client.expect(EVENT.as_bytes());
    scene.assert_cut(call, "idle_cut", 10);
}

#[test]
fn an_event_stream_of_which_nothing_was_delivered_is_not_charged() {
    let scene = Scene::with_short_streams(|api| api);
    let (_client, call) = scene.begun("/", EVENTS);
    scene.assert_cut(call, "released", 0);
}

#[test]
fn an_api_and_a_route_can_leave_cut_event_streams_uncharged() {
    let off = |api: Api| api.with("charge_idle_cut = false");
    let off_for_one = |api: Api| api.route("path = \"/chat\"\ncharge_idle_cut = false");
    let on_for_one = |api: Api| api.with("charge_idle_cut = false").route("path = \"/chat\"\ncharge_idle_cut = true");
    let scenes = [
        (Scene::with_short_streams(off), "/", "released", 0),
        (Scene::with_short_streams(off_for_one), "/chat", "released", 0),
        (Scene::with_short_streams(off_for_one), "/", "idle_cut", 10),
        (Scene::with_short_streams(on_for_one), "/chat", "idle_cut", 10),
    ];
    for (scene, path, reason, cents) in scenes {
        let (mut client, mut call) = scene.begun(path, EVENTS);
        call.send(EVENT);
        client.expect(EVENT.as_bytes());
        scene.assert_cut(call, reason, cents);
    }
}

#[test]
fn another_reply_that_is_cut_for_silence_is_not_charged() {
    let scene = Scene::with(|api| api, |builder| builder.limit("upstream_body_idle_ms", 100));
    let (mut client, mut call) = scene.begun("/", PLAIN);
    call.send(EVENT);
    client.expect(EVENT.as_bytes());
    scene.assert_cut(call, "released", 0);
}

#[test]
fn an_event_stream_that_its_upstream_breaks_off_is_not_charged() {
    let scene = Scene::with(|api| api, |builder| builder);
    let (mut client, mut call) = scene.begun("/", EVENTS);
    call.send(EVENT);
    client.expect(EVENT.as_bytes());
    call.break_off();
    client.expect_end();
    assert_eq!(scene.process.access_line(ID)["settlement"], "released");
    scene.process.stop();
}

/// The idle limit of event streams is another than that of all other replies, in either direction.
#[test]
fn an_event_stream_may_be_silent_for_longer_than_another_reply() {
    let settings =
        |builder: GatewayBuilder| builder.limit("upstream_body_idle_ms", 50).limit("event_stream_idle_ms", 60_000);
    let scene = Scene::with(|api| api, settings);
    let (mut client, mut call) = scene.begun("/", EVENTS);
    call.send(EVENT);
    client.expect(EVENT.as_bytes());
    // Past the limit of other replies.
    client.expect_silence();
    call.reply("0\r\n\r\n");
    client.expect(b"0\r\n\r\n");
    assert_eq!(scene.process.access_line(ID)["settlement"], "captured");
    scene.process.stop();
}

#[test]
fn a_route_has_waits_of_its_own() {
    let api = |api: Api| {
        api.with("upstream_head_timeout_ms = 60000\ntotal_timeout_ms = 60000")
            .route("path = \"/head\"\nupstream_head_timeout_ms = 100")
            .route("path = \"/body\"\nupstream_body_idle_ms = 100")
            .route("path = \"/total\"\ntotal_timeout_ms = 100")
    };
    let scene = Scene::with(api, |builder| builder);
    for path in ["/head", "/total"] {
        let mut client = scene.process.request("GET", path).key(&scene.key).open();
        let mut call = scene.upstream.call();
        let reply = client.reply();
        reply.assert_problem(504, "upstream-timeout");
        reply.assert_receipt(0, 500);
        call.expect_end();
    }
    for path in ["/body", "/total"] {
        let (mut client, mut call) = scene.begun(path, PLAIN);
        call.expect_end();
        client.expect_end();
    }
    // The other routes wait longer.
    let mut client = scene.process.request("GET", "/other").key(&scene.key).open();
    let call = scene.upstream.call();
    client.expect_silence();
    call.reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    client.reply().assert_receipt(10, 490);
    scene.process.stop();
}
