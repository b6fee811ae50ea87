//! Exactly once: every form of a reply is captured once, and its end waits for that.

use crate::harness::{Api, Call, Client, Customer, Gateway, Lock, OK, Upstream};

struct Scene {
    upstream: Upstream,
    gateway: Gateway,
    customer: Customer,
}

fn scene() -> Scene {
    scene_with(5_000)
}

fn scene_with(settle_timeout_ms: u64) -> Scene {
    let upstream = Upstream::scripted();
    let api = Api::new("weather", upstream.address());
    let gateway = Gateway::builder().api(api).limit("settle_timeout_ms", settle_timeout_ms).start();
    let customer = gateway.customer("weather", 500);
    Scene { upstream, gateway, customer }
}

impl Scene {
    /// A request at the upstream.
    fn forwarded(&self, method: &str) -> (Client, Call) {
        let client = self.gateway.request(method, "/").key(&self.customer.key).open();
        (client, self.upstream.call())
    }

    /// A request at the upstream, and then the write lock in the hands of another program: nothing can be captured.
    fn locked(&self, method: &str) -> (Client, Call, Lock) {
        let (client, call) = self.forwarded(method);
        (client, call, self.gateway.lock())
    }
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn every_form_of_a_reply_is_captured_once() {
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: ";
    let forms: &[(&str, &[String], &str)] = &[
        ("HEAD", &[format!("{sized}100\r\n\r\n")], ""),
        ("HEAD", &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into()], ""),
        ("GET", &["HTTP/1.1 204 No Content\r\n\r\n".into()], ""),
        ("GET", &["HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\nETag: \"a\"\r\n\r\n".into()], ""),
        ("GET", &[format!("{sized}0\r\n\r\n")], ""),
        ("GET", &[format!("{sized}5\r\n\r\nshort")], "short"),
        ("GET", &[format!("{sized}5\r\n\r\n"), "short".into()], "short"),
        ("GET", &[format!("{sized}9\r\n\r\none"), "two".into(), "six".into()], "onetwosix"),
        ("GET", &[format!("{CHUNKED}0\r\n\r\n")], ""),
        ("GET", &[CHUNKED.into(), "0\r\n\r\n".into()], ""),
        ("GET", &[format!("{CHUNKED}5\r\nshort\r\n0\r\n\r\n")], "short"),
        ("GET", &[CHUNKED.into(), "3\r\none\r\n".into(), "3\r\ntwo\r\n0\r\n".into(), "\r\n".into()], "onetwo"),
        ("GET", &["HTTP/1.1 200 OK\r\n\r\nto the ".into(), "end".into()], "to the end"),
        ("POST", &["HTTP/1.1 100 Continue\r\n\r\n".into(), format!("{sized}2\r\n\r\nok")], "ok"),
        ("GET", &["HTTP/1.1 103 Early Hints\r\n\r\n".into(), format!("{sized}2\r\n\r\nok")], "ok"),
    ];
    let scene = scene();
    for (count, (method, pieces, body)) in (1..).zip(forms) {
        let (mut client, mut call) = scene.forwarded(method);
        for piece in *pieces {
            call.send(piece);
        }
        call.break_off();
        let reply = client.reply();
        assert_eq!((reply.whole, reply.text()), (true, *body), "{method} {pieces:?}");
        reply.assert_receipt(10, 500 - 10 * count);
        // The reply is whole, so that its capture is committed: nothing needs to be waited for.
        let database = scene.gateway.database();
        assert_eq!((database.charges(1), database.leased()), (count, 0), "{method} {pieces:?}");
    }
    scene.gateway.assert_charges(i64::try_from(forms.len()).unwrap(), 0);
}

#[test]
fn trailers_come_through_and_are_captured_once() {
    let scene = scene();
    let (mut client, call) = scene.forwarded("GET");
    call.reply("HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\nx-sum: 7\r\nkeytoll-user-id: 9\r\n\r\n");
    let reply = client.reply();
    assert_eq!((reply.whole, reply.text()), (true, "one"));
    assert!(!reply.trailers.iter().any(|(name, _)| name.starts_with("keytoll-")), "{reply:?}");
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn a_long_reply_in_many_pieces_is_captured_once() {
    let scene = scene();
    let (mut client, mut call) = scene.forwarded("GET");
    let piece = vec![b'a'; 100_000];
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n");
    let reader = std::thread::spawn(move || client.reply());
    for _ in 0..20 {
        call.send(&piece);
    }
    let reply = reader.join().unwrap();
    assert_eq!((reply.whole, reply.body.len()), (true, 2_000_000));
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn the_last_byte_under_a_length_waits_for_the_capture() {
    let scene = scene();
    let (mut client, mut call, lock) = scene.locked("GET");
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\none");
    assert_eq!(client.head().status(), 200);
    client.expect(b"one");
    call.send("two");
    client.expect(b"two");
    call.reply("end");
    client.expect_silence();
    lock.release();
    client.expect(b"end");
    assert_eq!(scene.gateway.database().charges(1), 1);
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn the_end_of_a_chunked_reply_waits_for_the_capture() {
    let scene = scene();
    let (mut client, mut call, lock) = scene.locked("GET");
    call.send(format!("{CHUNKED}3\r\none\r\n"));
    assert_eq!(client.head().status(), 200);
    client.expect(b"3\r\none\r\n");
    call.send("3\r\ntwo\r\n");
    client.expect(b"3\r\ntwo\r\n");
    call.reply("0\r\n\r\n");
    client.expect_silence();
    lock.release();
    client.expect(b"0\r\n\r\n");
    assert_eq!(scene.gateway.database().charges(1), 1);
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn the_trailers_of_a_reply_wait_for_the_capture() {
    let scene = scene();
    let client = scene.gateway.get("/").key(&scene.customer.key).field("TE", "trailers");
    let (mut client, mut call) = (client.open(), scene.upstream.call());
    let lock = scene.gateway.lock();
    call.send("HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    assert_eq!(client.head().status(), 200);
    client.expect(b"3\r\none\r\n");
    call.reply("0\r\nx-sum: 7\r\n\r\n");
    client.expect_silence();
    lock.release();
    client.expect(b"0\r\nx-sum: 7\r\n\r\n");
    scene.gateway.assert_charges(1, 0);
}

/// A reply that is already complete, or has no body: its head waits.
fn head_waits(method: &str, reply: &str) {
    let scene = scene();
    let (mut client, call, lock) = scene.locked(method);
    call.reply(reply);
    client.expect_silence();
    lock.release();
    let found = client.reply();
    assert!(found.whole);
    found.assert_receipt(10, 490);
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn the_head_of_a_reply_without_content_waits_for_the_capture() {
    head_waits("GET", "HTTP/1.1 204 No Content\r\n\r\n");
    head_waits("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n");
    head_waits("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn the_head_of_a_reply_to_head_waits_for_the_capture() {
    head_waits("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
}

/// A reply whose end cannot be captured in time: what the client has of it is not a whole one, and it is given back.
fn never_captured(method: &str, begin: &str, beginning: &[u8], rest: &str) {
    let scene = scene_with(100);
    let (mut client, mut call, lock) = scene.locked(method);
    call.send(begin);
    assert_eq!(client.head().status(), 200);
    client.expect(beginning);
    call.reply(rest);
    client.expect_end();
    lock.release();
    scene.gateway.assert_charges(0, 1);
    assert_eq!(scene.gateway.database().balance(scene.customer.id), 500);
    // And it goes on by itself.
    let (mut client, call) = scene.forwarded("GET");
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
    scene.gateway.assert_charges(1, 1);
}

#[test]
fn a_reply_whose_capture_takes_too_long_is_broken_off_within_its_length() {
    never_captured("GET", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none", b"one", "two");
}

#[test]
fn a_chunked_reply_whose_capture_takes_too_long_is_broken_off() {
    never_captured("GET", &format!("{CHUNKED}3\r\none\r\n"), b"3\r\none\r\n", "0\r\n\r\n");
}

#[test]
fn a_short_reply_whose_capture_takes_too_long_is_a_problem_that_costs_nothing() {
    for reply in ["HTTP/1.1 204 No Content\r\n\r\n", OK] {
        let scene = scene_with(100);
        let (mut client, call, lock) = scene.locked("GET");
        call.reply(reply);
        let found = client.reply();
        found.assert_problem(503, "billing-unavailable");
        assert_eq!(found.head.number("keytoll-cost-cents"), Some(0));
        lock.release();
        scene.gateway.assert_charges(0, 1);
        assert_eq!(scene.gateway.database().balance(scene.customer.id), 500);
    }
}
