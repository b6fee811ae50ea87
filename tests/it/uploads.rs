//! Request bodies that are refused, that come slowly, or that outlast the reply's head.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::{Api, Client, Customer, Gateway, GatewayBuilder, OK, Request, Upstream, until};

/// Up to this a refused body is read and the connection kept.
const SMALL: usize = 65_536;
const LARGE: usize = 20 << 20;

struct Scene {
    upstream: Upstream,
    gateway: Gateway,
    customer: Customer,
}

fn scene(settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Scene {
    let upstream = Upstream::scripted();
    let api = Api::new("weather", upstream.address()).path("/weather");
    let gateway = settings(Gateway::builder().api(api)).start();
    let customer = gateway.customer("weather", 500);
    Scene { upstream, gateway, customer }
}

/// Why an upload is refused.
#[derive(Clone, Copy, Debug)]
enum Why {
    Key,
    Money,
    Route,
    Size,
    Load,
}

const WHYS: [Why; 5] = [Why::Key, Why::Money, Why::Route, Why::Size, Why::Load];

/// A gateway that refuses uploads for this reason, the upload, and the refusal.
struct Refusal {
    scene: Scene,
    /// Holds the place of the one request that may be in flight.
    occupied: Option<(Client, crate::harness::Call)>,
    request: Request,
    status: u16,
    code: &'static str,
}

fn refusal(why: Why) -> Refusal {
    let scene = scene(|builder| match why {
        Why::Size => builder.limit("request_body_bytes", 1_000),
        Why::Load => builder.limit("requests", 1),
        Why::Key | Why::Money | Why::Route => builder,
    });
    let post = |target: &str| scene.gateway.request("POST", target);
    let good = post("/weather").key(&scene.customer.key);
    let (request, status, code) = match why {
        Why::Key => (post("/weather").key("no-such-key"), 401, "invalid-key"),
        Why::Money => (post("/weather").key(&scene.gateway.customer("weather", 5).key), 402, "insufficient-funds"),
        Why::Route => (post("/nothing").key(&scene.customer.key), 404, "no-route"),
        Why::Size => (good, 413, "body-too-large"),
        Why::Load => (good, 503, "overloaded"),
    };
    let occupied = matches!(why, Why::Load).then(|| {
        let client = scene.gateway.get("/weather").key(&scene.customer.key).open();
        (client, scene.upstream.call())
    });
    Refusal { scene, occupied, request, status, code }
}

impl Refusal {
    fn with_length(&self, length: usize) -> Client {
        self.request.clone().field("Content-Length", length.to_string()).open()
    }

    /// The refusal; what it says of the connection is the result.
    #[track_caller]
    fn assert_refused(&self, client: &mut Client) -> Option<String> {
        let reply = client.reply();
        reply.assert_problem(self.status, self.code);
        assert!(reply.whole);
        reply.field("connection").map(str::to_owned)
    }

    /// The connection serves a good request.
    #[track_caller]
    fn assert_kept(mut self, mut client: Client) {
        if let Some((mut other, call)) = self.occupied.take() {
            call.reply(OK);
            assert_eq!(other.reply().status(), 200);
            until("the place is free", || self.scene.gateway.get("/nothing").send().status() == 404);
        }
        client.send_request(&self.scene.gateway.get("/weather").key(&self.scene.customer.key));
        self.scene.upstream.call().reply(OK);
        assert_eq!(client.reply().status(), 200);
    }
}

/// Sends one small piece after the other, until it is stopped or the connection ends.
struct Trickle {
    enough: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Trickle {
    fn start(client: &Client, piece: &'static [u8]) -> Trickle {
        let enough = Arc::new(AtomicBool::new(false));
        let (stop, stream) = (Arc::clone(&enough), client.sender());
        let thread = thread::spawn(move || trickle(&stream, piece, &stop));
        Trickle { enough, thread }
    }

    fn stop(self) {
        self.enough.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }

    fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

fn trickle(mut stream: &TcpStream, piece: &[u8], enough: &AtomicBool) {
    while !enough.load(Ordering::Relaxed) && stream.write_all(piece).is_ok() {
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_small_body_that_was_sent_with_its_head_keeps_the_connection() {
    for why in WHYS {
        let refusal = refusal(why);
        let mut client = refusal.request.clone().body(vec![b'x'; SMALL]).open();
        assert_eq!(refusal.assert_refused(&mut client), None, "{why:?}");
        refusal.assert_kept(client);
    }
}

#[test]
fn a_small_body_that_comes_after_its_refusal_keeps_the_connection() {
    // Small bodies are read before the price is held, so that an empty wallet refuses none before it was sent.
    for why in [Why::Key, Why::Route, Why::Size, Why::Load] {
        let refusal = refusal(why);
        let mut client = refusal.with_length(SMALL);
        assert_eq!(refusal.assert_refused(&mut client), None, "{why:?}");
        client.send(&vec![b'x'; SMALL]);
        refusal.assert_kept(client);
    }
}

#[test]
fn a_large_body_is_taken_to_its_end_and_the_connection_closed() {
    for why in WHYS {
        let refusal = refusal(why);
        let mut client = refusal.with_length(LARGE);
        // As many clients do: everything is sent before anything is read.
        client.try_send(&vec![b'x'; LARGE]).unwrap_or_else(|error| panic!("{why:?}: {error}"));
        assert_eq!(refusal.assert_refused(&mut client).as_deref(), Some("close"), "{why:?}");
        client.expect_end();
        assert_eq!(refusal.scene.upstream.seen(), usize::from(refusal.occupied.is_some()));
    }
}

#[test]
fn a_body_just_over_the_small_ones_closes_the_connection() {
    let refusal = refusal(Why::Key);
    let mut client = refusal.with_length(SMALL + 1);
    assert_eq!(refusal.assert_refused(&mut client).as_deref(), Some("close"));
    client.send(&vec![b'x'; SMALL + 1]);
    client.expect_end();
}

#[test]
fn a_chunked_body_is_taken_to_its_end_and_the_connection_closed() {
    for why in [Why::Key, Why::Money, Why::Route, Why::Load] {
        for chunks in [1, 320] {
            let refusal = refusal(why);
            let mut client = refusal.request.clone().field("Transfer-Encoding", "chunked").open();
            let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
            for _ in 0..chunks {
                client.try_send(&chunk).unwrap_or_else(|error| panic!("{why:?}: {error}"));
            }
            client.try_send(b"0\r\n\r\n").unwrap();
            assert_eq!(refusal.assert_refused(&mut client).as_deref(), Some("close"), "{why:?}");
            client.expect_end();
        }
    }
}

#[test]
fn nothing_in_a_refused_body_is_taken_for_a_request() {
    let refusal = refusal(Why::Key);
    let smuggled = format!("GET /weather HTTP/1.1\r\nHost: a\r\nx-api-key: {}\r\n\r\n", refusal.scene.customer.key);
    let mut client = refusal.with_length(LARGE);
    refusal.assert_refused(&mut client);
    client.send(smuggled.repeat(100).as_bytes());
    client.finish();
    client.expect_end();
    let mut client = refusal.request.clone().body(&smuggled).open();
    assert_eq!(refusal.assert_refused(&mut client), None);
    client.expect_silence();
    refusal.scene.upstream.expect_no_call();
}

#[test]
fn a_refused_client_that_asks_first_is_not_asked_to_go_on() {
    for why in WHYS {
        for length in [2_000, LARGE] {
            if matches!(why, Why::Money) && length <= SMALL {
                continue; // Small bodies are read before the price is held.
            }
            let refusal = refusal(why);
            let request = refusal.request.clone().field("Content-Length", length.to_string());
            let mut client = request.field("Expect", "100-continue").open();
            let head = client.head();
            assert_eq!(head.status(), refusal.status, "{why:?}: {head:?}");
            assert_eq!(head.field("content-type"), Some("application/problem+json"));
        }
    }
}

#[test]
fn a_client_that_asks_first_is_asked_to_go_on_when_its_body_is_wanted() {
    let scene = scene(|builder| builder);
    let request = scene.gateway.request("POST", "/weather").key(&scene.customer.key);
    let mut client = request.field("Content-Length", "5").field("Expect", "100-continue").open();
    assert_eq!(client.head().status(), 100);
    client.send(b"hello");
    let mut call = scene.upstream.call();
    assert_eq!(call.body().unwrap(), b"hello");
    call.reply(OK);
    assert_eq!(client.reply().status(), 200);
}

#[test]
fn a_client_that_never_stops_sending_is_cut() {
    let settings = |builder: GatewayBuilder| builder.limit("refused_body_timeout_ms", 300);
    for (framing, value, piece) in
        [("Content-Length", "1000000000", &b"x"[..]), ("Transfer-Encoding", "chunked", b"1\r\nx\r\n")]
    {
        let scene = scene(settings);
        let request = scene.gateway.request("POST", "/weather").key("no-such-key").field(framing, value);
        let mut client = request.open();
        let trickle = Trickle::start(&client, piece);
        client.reply().assert_problem(401, "invalid-key");
        until("the sender is cut", || trickle.has_ended());
    }
}

#[test]
fn a_client_that_never_stops_sending_fast_is_cut() {
    let scene = scene(|builder| builder.limit("refused_body_timeout_ms", 300));
    let request = scene.gateway.request("POST", "/weather").key("no-such-key");
    let mut client = request.field("Content-Length", "10000000000000").open();
    let piece = vec![b'x'; 1 << 16];
    until("the sender is cut", || client.try_send(&piece).is_err());
}

#[test]
fn a_refused_client_that_sends_nothing_more_is_closed() {
    let scene = scene(|builder| builder.limit("refused_body_idle_ms", 200));
    for length in [SMALL, LARGE] {
        let request = scene.gateway.request("POST", "/weather").key("no-such-key");
        let mut client = request.field("Content-Length", length.to_string()).open();
        client.reply().assert_problem(401, "invalid-key");
        client.expect_end();
    }
}

#[test]
fn a_refused_upload_takes_no_place_among_the_requests() {
    let scene = scene(|builder| builder.limit("requests", 1));
    let request = scene.gateway.request("POST", "/weather").key("no-such-key");
    let mut refused: Vec<_> =
        [SMALL, LARGE].map(|length| request.clone().field("Content-Length", length.to_string()).open()).into();
    for client in &mut refused {
        // Refused when it comes, or because the other one is just being refused.
        assert!(matches!(client.reply().status(), 401 | 503));
        client.send(b"a part of it");
    }
    let mut good = scene.gateway.get("/weather").key(&scene.customer.key).open();
    scene.upstream.call().reply(OK);
    assert_eq!(good.reply().status(), 200);
}

/// A deadline for bodies that more bytes hardly move.
fn deadline(builder: GatewayBuilder, milliseconds: u64) -> GatewayBuilder {
    builder.limit("request_body_timeout_ms", milliseconds).limit("request_body_bytes_per_second", 50_000_000)
}

#[test]
fn a_body_that_trickles_is_cut_at_its_deadline() {
    // One that is collected, which is never forwarded, and two that are streamed.
    for (framing, value, piece, captured) in [
        ("Content-Length", "60000", &b"x"[..], 0),
        ("Content-Length", "100000", b"x", 1),
        ("Transfer-Encoding", "chunked", b"1\r\nx\r\n", 1),
    ] {
        let scene = scene(|builder| deadline(builder, 300));
        let request = scene.gateway.request("POST", "/weather").key(&scene.customer.key).field(framing, value);
        let mut client = request.open();
        let trickle = Trickle::start(&client, piece);
        client.reply().assert_problem(408, "body-timeout");
        trickle.stop();
        scene.gateway.settle();
        let database = scene.gateway.database();
        database.assert_books();
        assert_eq!((database.leased(), database.charges(1)), (0, captured), "leased, captured");
        assert_eq!(database.balance(scene.customer.id), 500 - 10 * captured);
    }
}

#[test]
fn a_body_that_trickles_on_a_free_route_is_cut_at_its_deadline() {
    let upstream = Upstream::scripted();
    let api = Api::new("weather", upstream.address()).route("path = \"/status\"\npublic = true");
    let gateway = deadline(Gateway::builder().api(api), 300).start();
    let mut client = gateway.request("POST", "/status").field("Content-Length", "100000").open();
    let trickle = Trickle::start(&client, b"x");
    client.reply().assert_problem(408, "body-timeout");
    trickle.stop();
}

#[test]
fn a_body_that_comes_fast_enough_has_more_time() {
    let scene =
        scene(|builder| builder.limit("request_body_timeout_ms", 100).limit("request_body_bytes_per_second", 1));
    let request = scene.gateway.request("POST", "/weather").key(&scene.customer.key);
    let mut client = request.field("Transfer-Encoding", "chunked").open();
    let trickle =
        Trickle::start(&client, b"40\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n");
    let mut call = scene.upstream.call();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        client.expect_silence();
    }
    trickle.stop();
    client.send(b"0\r\n\r\n");
    assert!(call.body().is_some());
    call.reply(OK);
    assert_eq!(client.reply().status(), 200);
    scene.gateway.assert_charges(1, 0);
}

/// Time in which the upstream does not read is not the client's.
#[test]
fn a_client_that_waits_for_its_upstream_is_not_cut() {
    const BODY: usize = 32 << 20;
    let scene = scene(|builder| deadline(builder, 1_000));
    let request = scene.gateway.request("POST", "/weather").key(&scene.customer.key);
    let mut client = request.field("Content-Length", BODY.to_string()).open();
    let mut stream = client.sender();
    let sends = thread::spawn(move || stream.write_all(&vec![b'x'; BODY]));
    let mut call = scene.upstream.call();
    // More than the deadline, with what so many bytes add to it.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2_500) {
        client.expect_silence();
    }
    assert!(!sends.is_finished(), "the body did not have to wait");
    assert_eq!(call.body().map(|body| body.len()), Some(BODY));
    sends.join().unwrap().unwrap();
    call.reply(OK);
    assert_eq!(client.reply().status(), 200);
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn an_upload_that_goes_on_after_the_head_of_its_reply_is_not_cut() {
    // Neither the deadline of the upload nor the idle limit of the reply counts while the upload goes on.
    let scene = scene(|builder| deadline(builder, 200).limit("upstream_body_idle_ms", 200));
    let request = scene.gateway.request("POST", "/weather").key(&scene.customer.key);
    let mut client = request.field("Transfer-Encoding", "chunked").open();
    client.send(b"5\r\nfirst\r\n");
    let mut call = scene.upstream.call();
    call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n");
    assert_eq!(client.head().status(), 200);
    client.expect(b"5\r\nearly\r\n");
    let trickle = Trickle::start(&client, b"1\r\nx\r\n");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(800) {
        client.expect_silence();
    }
    trickle.stop();
    client.send(b"0\r\n\r\n");
    assert!(call.body().is_some_and(|body| body.starts_with(b"firstx")));
    call.reply("4\r\nlate\r\n0\r\n\r\n");
    client.expect(b"4\r\nlate\r\n0\r\n\r\n");
    scene.gateway.assert_charges(1, 0);
}
