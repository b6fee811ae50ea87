//! Clients that break their own request off before the upstream answered: what the upstream never saw is free, what it may
//! have worked for is charged, unless the API or the route says otherwise.

use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::harness::{Api, Call, Client, Customer, Gateway, GatewayBuilder, OK, Request, Upstream, until};

/// Bodies up to this Content-Length are collected.
const COLLECTED: usize = 65_536;

struct Scene {
    upstream: Upstream,
    gateway: Gateway,
    customer: Customer,
}

impl Scene {
    fn with(api: impl FnOnce(Api) -> Api, settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Scene {
        let upstream = Upstream::scripted();
        let api = api(Api::new("weather", upstream.address()));
        let gateway = settings(Gateway::builder().api(api)).start();
        let customer = gateway.customer("weather", 500);
        Scene { upstream, gateway, customer }
    }

    fn new() -> Scene {
        Scene::with(|api| api, |builder| builder)
    }

    fn post(&self) -> Request {
        self.post_to("/")
    }

    fn post_to(&self, path: &str) -> Request {
        self.gateway.request("POST", path).key(&self.customer.key)
    }

    /// An upload of unknown length of which the upstream has a part.
    fn half_uploaded(&self, path: &str) -> (Client, Call) {
        let mut client = self.post_to(path).field("Transfer-Encoding", "chunked").open();
        client.send(b"4\r\nhalf\r\n");
        let mut call = self.upstream.call();
        call.expect(b"4\r\nhalf\r\n");
        (client, call)
    }

    /// The upstream begins a reply, and the client has it.
    fn begin_reply(client: &mut Client, call: &mut Call) {
        call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmuch\r\n");
        assert_eq!(client.head().status(), 200);
        client.expect(b"4\r\nmuch\r\n");
    }

    /// Keytoll answers that the request is at fault, and that it was charged.
    #[track_caller]
    fn assert_charged_refusal(client: &mut Client, status: u16, code: &str) {
        let reply = client.reply();
        let problem = reply.assert_problem(status, code);
        assert!(problem["detail"].as_str().unwrap().ends_with("so the request was charged."), "{problem}");
        reply.assert_receipt(10, 490);
    }

    /// Waits until the gateway has nothing in flight, and checks that nothing was ever forwarded or charged.
    #[track_caller]
    fn assert_never_forwarded(&self) {
        until("the request has ended", || self.gateway.metric("keytoll_requests_open", &[("listener", "data")]) == 0);
        self.upstream.expect_no_call();
        assert_eq!(
            (self.upstream.seen(), self.gateway.database().number("SELECT count(*) FROM keytoll_charges")),
            (0, 0)
        );
        assert_eq!(self.gateway.database().balance(self.customer.id), 500);
    }

    /// The only request was charged.
    #[track_caller]
    fn assert_captured(&self) {
        self.gateway.assert_charges(1, 0);
        assert_eq!(self.gateway.database().balance(self.customer.id), 490);
    }

    #[track_caller]
    fn assert_released(&self) {
        self.gateway.assert_charges(0, 1);
        assert_eq!(self.gateway.database().balance(self.customer.id), 500);
    }
}

#[test]
fn a_small_body_that_breaks_off_is_never_forwarded() {
    let scene = Scene::new();
    for length in [1, 100, COLLECTED] {
        for sent in [0, length / 2] {
            let mut client = scene.post().field("Content-Length", length.to_string()).open();
            client.send(&vec![b'x'; sent]);
            client.finish();
            client.reply().assert_problem(400, "bad-request");
            let mut client = scene.post().field("Content-Length", length.to_string()).open();
            client.send(&vec![b'x'; sent]);
            until("it is read", || scene.gateway.metric("keytoll_requests_open", &[("listener", "data")]) == 1);
            client.leave();
            until("it has ended", || scene.gateway.metric("keytoll_requests_open", &[("listener", "data")]) == 0);
        }
    }
    scene.assert_never_forwarded();
}

#[test]
fn a_small_body_that_stops_coming_is_never_forwarded() {
    let scene = Scene::with(|api| api, |builder| builder.limit("request_body_idle_ms", 50));
    let mut client = scene.post().field("Content-Length", "9").open();
    client.send(b"half");
    let reply = client.reply();
    reply.assert_problem(408, "body-timeout");
    assert!(reply.receipt().is_none());
    scene.assert_never_forwarded();
}

#[test]
fn a_small_body_is_forwarded_only_when_it_is_complete() {
    let scene = Scene::new();
    let mut client = scene.post().field("Content-Length", COLLECTED.to_string()).open();
    client.send(&vec![b'x'; COLLECTED - 1]);
    scene.upstream.expect_no_call();
    client.send(b"y");
    let mut call = scene.upstream.call();
    let body = call.body().unwrap();
    assert_eq!((body.len(), body.last()), (COLLECTED, Some(&b'y')));
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
    scene.assert_captured();
}

#[test]
fn bodies_are_streamed_when_there_is_no_room_to_collect_them() {
    // The second has room for nothing, or for a part of what has arrived.
    for room in [4, 6] {
        let scene = Scene::with(|api| api, |builder| builder.limit("collected_bytes", room));
        let hundred = || scene.post().field("Content-Length", "100").open();
        let mut first = hundred();
        first.send(b"half");
        scene.upstream.expect_no_call();
        let mut second = hundred();
        second.send(b"half");
        let mut call = scene.upstream.call();
        call.expect(b"half");
        second.leave();
        call.expect_end();
        scene.assert_captured();
        first.leave();
        until("the room is free", || scene.gateway.metric("keytoll_requests_open", &[("listener", "data")]) == 0);
        let mut third = hundred();
        third.send(b"half");
        scene.upstream.expect_no_call();
        third.leave();
    }
}

#[test]
fn a_body_that_outgrows_the_room_arrives_whole() {
    let scene = Scene::with(|api| api, |builder| builder.limit("collected_bytes", 10));
    let mut client = scene.post().field("Content-Length", "16").open();
    client.send(b"01234567");
    scene.upstream.expect_no_call();
    client.send(b"89abcdef");
    let mut call = scene.upstream.call();
    assert_eq!(call.body().unwrap(), b"0123456789abcdef");
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
}

#[test]
fn clients_that_announce_bodies_and_send_nothing_take_no_room() {
    let scene = Scene::with(|api| api, |builder| builder.limit("collected_bytes", 100));
    let silent: Vec<Client> =
        (0..10).map(|_| scene.post().field("Content-Length", COLLECTED.to_string()).open()).collect();
    until("they are in flight", || scene.gateway.metric("keytoll_requests_open", &[("listener", "data")]) == 10);
    let mut client = scene.post().field("Content-Length", "100").open();
    client.send(b"half");
    scene.upstream.expect_no_call();
    client.leave();
    drop(silent);
    scene.assert_never_forwarded();
}

#[test]
fn a_free_request_is_streamed() {
    let scene = Scene::with(|api| api.price(0), |builder| builder);
    let mut client = scene.post().field("Content-Length", "4").open();
    let mut call = scene.upstream.call();
    client.send(b"body");
    assert_eq!(call.body().unwrap(), b"body");
    call.reply(OK);
    assert_eq!(client.reply().status(), 200);
}

#[test]
fn a_streamed_body_that_breaks_off_is_captured() {
    for is_chunked in [true, false] {
        let scene = Scene::new();
        let (client, mut call) = if is_chunked {
            scene.half_uploaded("/")
        } else {
            let mut client = scene.post().field("Content-Length", (COLLECTED + 1).to_string()).open();
            client.send(b"half");
            let mut call = scene.upstream.call();
            call.expect(b"half");
            (client, call)
        };
        client.leave();
        call.expect_end();
        scene.assert_captured();
    }
}

#[test]
fn a_streamed_body_that_ends_early_is_answered_and_captured() {
    let scene = Scene::new();
    let (mut client, mut call) = scene.half_uploaded("/");
    client.finish();
    Scene::assert_charged_refusal(&mut client, 400, "bad-request");
    call.expect_end();
    scene.assert_captured();
}

#[test]
fn a_streamed_body_with_wrong_framing_is_captured() {
    let scene = Scene::new();
    let (mut client, mut call) = scene.half_uploaded("/");
    client.send(b"no chunk\r\n");
    Scene::assert_charged_refusal(&mut client, 400, "bad-request");
    call.expect_end();
    scene.assert_captured();
}

#[test]
fn a_streamed_body_that_stops_coming_or_grows_too_large_is_captured() {
    let limits = [("request_body_idle_ms", 50, 408, "body-timeout"), ("request_body_bytes", 4, 413, "body-too-large")];
    for (limit, value, status, code) in limits {
        let scene = Scene::with(|api| api, |builder| builder.limit(limit, value));
        let (mut client, mut call) = scene.half_uploaded("/");
        if status == 413 {
            client.send(b"1\r\nx\r\n");
        }
        Scene::assert_charged_refusal(&mut client, status, code);
        call.expect_end();
        scene.assert_captured();
    }
}

#[test]
fn an_api_and_a_route_can_leave_aborted_uploads_uncharged() {
    let off_for_all = || Scene::with(|api| api.with("charge_on_abort = false"), |builder| builder);
    let off_for_one = || Scene::with(|api| api.route("path = \"/files\"\ncharge_on_abort = false"), |builder| builder);
    let on_for_one = || {
        let api = |api: Api| api.with("charge_on_abort = false").route("path = \"/files\"\ncharge_on_abort = true");
        Scene::with(api, |builder| builder)
    };
    let scenes = [
        (off_for_all(), "/", false),
        (off_for_one(), "/files", false),
        (off_for_one(), "/", true),
        (on_for_one(), "/files", true),
        (on_for_one(), "/", false),
    ];
    for (scene, path, is_charged) in scenes {
        let (client, mut call) = scene.half_uploaded(path);
        client.leave();
        call.expect_end();
        if is_charged { scene.assert_captured() } else { scene.assert_released() }
    }
}

#[test]
fn an_early_reply_is_settled_by_its_status_whatever_the_client_does_next() {
    for (head, is_charged) in [("HTTP/1.1 200 OK", true), ("HTTP/1.1 500 Oops", false), ("HTTP/1.1 404 No", true)] {
        let scene = Scene::with(|api| api.with("charge_on_abort = false"), |builder| builder);
        let (mut client, mut call) = scene.half_uploaded("/");
        call.send(format!("{head}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmuch\r\n"));
        assert!(client.head().first_line.starts_with(head));
        client.expect(b"4\r\nmuch\r\n");
        client.leave();
        call.expect_end();
        if is_charged { scene.assert_captured() } else { scene.assert_released() }
    }
}

#[test]
fn an_upstream_that_fails_first_is_not_paid_for() {
    let scene = Scene::new();
    let (mut client, call) = scene.half_uploaded("/");
    call.break_off();
    let reply = client.reply();
    reply.assert_problem(502, "upstream-broken");
    reply.assert_receipt(0, 500);
    scene.assert_released();
}

/// A client that sends next to nothing, until it is dropped.
struct Trickle(Option<mpsc::Sender<()>>, Option<thread::JoinHandle<()>>);

impl Trickle {
    fn start(client: &Client) -> Trickle {
        let (stop, stopped) = mpsc::channel::<()>();
        let mut stream = client.sender();
        let thread = thread::spawn(move || {
            let pause = Duration::from_millis(20);
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout)
                && stream.write_all(b"1\r\nx\r\n").is_ok()
            {}
        });
        Trickle(Some(stop), Some(thread))
    }
}

impl Drop for Trickle {
    fn drop(&mut self) {
        drop(self.0.take());
        let _ = self.1.take().map(thread::JoinHandle::join);
    }
}

/// A byte now and then does not make up for the wait.
fn with_pace(builder: GatewayBuilder) -> GatewayBuilder {
    builder.limit("client_stall_ms", 100).limit("request_body_bytes_per_second", 1_000_000)
}

#[test]
fn an_upstream_that_gives_up_on_a_client_that_stalls_its_upload_is_paid() {
    for has_head in [false, true] {
        for trickles in [false, true] {
            let scene = Scene::with(|api| api, with_pace);
            let (mut client, mut call) = scene.half_uploaded("/");
            if has_head {
                Scene::begin_reply(&mut client, &mut call);
            }
            let trickle = trickles.then(|| Trickle::start(&client));
            // Longer than the client may stall.
            client.expect_silence();
            drop(trickle);
            call.break_off();
            if has_head {
                client.expect_end();
            } else {
                Scene::assert_charged_refusal(&mut client, 408, "body-timeout");
            }
            scene.assert_captured();
        }
    }
}

#[test]
fn a_timeout_that_ends_an_upload_that_trickles_is_paid() {
    let waits = [
        ("total_timeout_ms", false),
        ("upstream_head_deadline_ms", false),
        ("total_timeout_ms", true),
        ("upstream_body_idle_ms", true),
    ];
    for (wait, has_head) in waits {
        let scene = Scene::with(|api| api, |builder| with_pace(builder).limit(wait, 300));
        let (mut client, mut call) = scene.half_uploaded("/");
        if has_head {
            Scene::begin_reply(&mut client, &mut call);
        }
        let trickle = Trickle::start(&client);
        if has_head {
            client.expect_end();
        } else {
            Scene::assert_charged_refusal(&mut client, 408, "body-timeout");
        }
        drop(trickle);
        scene.assert_captured();
    }
}

/// The client waits for 100 Continue, so the upstream does not wait for the client.
#[test]
fn an_upstream_that_breaks_off_before_the_client_was_asked_is_not_paid() {
    let scene = Scene::with(|api| api, |builder| with_pace(builder).limit("expect_continue_ms", 60_000));
    let (mut client, call) = asking(&scene);
    client.expect_silence();
    call.break_off();
    let reply = client.reply();
    reply.assert_problem(502, "upstream-broken");
    reply.assert_receipt(0, 500);
    scene.assert_released();
}

/// The time before the client was asked is not its own.
#[test]
fn an_upstream_that_breaks_off_when_the_client_was_just_asked_is_not_paid() {
    let settings = |builder: GatewayBuilder| builder.limit("client_stall_ms", 1_000).limit("expect_continue_ms", 1_100);
    let scene = Scene::with(|api| api, settings);
    let (mut client, call) = asking(&scene);
    assert_eq!(client.head().status(), 100);
    call.break_off();
    let reply = client.reply();
    reply.assert_problem(502, "upstream-broken");
    reply.assert_receipt(0, 500);
    scene.assert_released();
}

#[test]
fn an_upload_that_the_gateway_cuts_when_it_stops_is_not_charged() {
    let scene = Scene::with(|api| api, |builder| builder.drain_timeout_ms(100));
    let (_client, _call) = scene.half_uploaded("/");
    let stopped = scene.gateway.stop();
    stopped.database.assert_books();
    assert_eq!((stopped.database.charges(2), stopped.database.charges(1)), (1, 0), "released, captured");
}

#[test]
fn a_client_that_asks_first_is_asked_for_a_small_body_before_it_is_forwarded() {
    let scene = Scene::new();
    let mut client = scene.post().field("Content-Length", "5").field("Expect", "100-continue").open();
    assert_eq!(client.head().status(), 100);
    scene.upstream.expect_no_call();
    client.send(b"hello");
    let mut call = scene.upstream.call();
    assert_eq!(call.head.field("expect"), None);
    assert_eq!(call.body().unwrap(), b"hello");
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
}

/// A large upload whose client waits to be asked for it.
fn asking(scene: &Scene) -> (Client, Call) {
    let length = (COLLECTED + 1).to_string();
    let client = scene.post().field("Content-Length", length).field("Expect", "100-Continue").open();
    let call = scene.upstream.call();
    assert_eq!(call.head.field("expect"), Some("100-continue"));
    (client, call)
}

#[test]
fn a_client_that_asks_first_is_asked_for_a_large_body_when_the_upstream_asks() {
    let scene = Scene::with(|api| api, |builder| builder.limit("expect_continue_ms", 60_000));
    let (mut client, mut call) = asking(&scene);
    client.expect_silence();
    call.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.head().status(), 100);
    client.send(&vec![b'x'; COLLECTED + 1]);
    assert_eq!(call.body().unwrap().len(), COLLECTED + 1);
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
}

#[test]
fn a_client_that_asks_first_is_asked_when_the_upstream_does_not_know_how_to() {
    let scene = Scene::with(|api| api, |builder| builder.limit("expect_continue_ms", 50));
    let (mut client, mut call) = asking(&scene);
    assert_eq!(client.head().status(), 100);
    client.send(&vec![b'x'; COLLECTED + 1]);
    assert_eq!(call.body().unwrap().len(), COLLECTED + 1);
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
}

#[test]
fn a_client_that_asks_first_is_not_asked_when_the_upstream_refuses() {
    let scene = Scene::with(|api| api, |builder| builder.limit("expect_continue_ms", 50));
    let (mut client, mut call) = asking(&scene);
    call.send("HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nla");
    let head = client.head();
    assert_eq!((head.status(), head.field("connection")), (413, Some("close")), "{head:?}");
    client.expect(b"la");
    // Past the time at which it would have been asked.
    client.expect_silence();
    call.send("rge");
    client.expect(b"rge");
    client.expect_end();
    scene.assert_captured();
    assert_eq!(scene.upstream.seen(), 1);
}
