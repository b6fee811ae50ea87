//! What follows a good request on its connection and is no request: the good reply arrives whole, and after the refusal
//! nothing is served.

use crate::harness::{Api, Call, Client, Customer, GLANCE, Gateway, Upstream};

const GARBAGE: &str = "this is no HTTP\r\n\r\n";

/// Refusals as HTTP servers write them, which an upstream may send as a part of a body.
const LOOKALIKES: [&str; 2] = [
    "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: Fri, 27 Nov 2026 20:00:00 GMT\r\n\r\n",
    "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
];

struct Scene {
    upstream: Upstream,
    gateway: Gateway,
    customer: Customer,
}

fn scene() -> Scene {
    let upstream = Upstream::scripted();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    Scene { upstream, gateway, customer }
}

impl Scene {
    /// A good request as text.
    fn request(&self) -> String {
        format!("GET / HTTP/1.1\r\nHost: a\r\nx-api-key: {}\r\n\r\n", self.customer.key)
    }

    /// A connection on which a good request, garbage and another good request were sent together.
    fn open(&self) -> (Client, Call) {
        let mut client = self.gateway.connect();
        let request = self.request();
        client.send(format!("{request}{GARBAGE}{request}").as_bytes());
        (client, self.upstream.call())
    }

    /// The garbage is refused, and neither what followed it nor what the client sends afterwards is served.
    #[track_caller]
    fn assert_refused(self, mut client: Client) {
        let refusal = client.reply();
        refusal.assert_problem(400, "bad-request");
        assert_eq!(refusal.field("connection"), Some("close"), "{refusal:?}");
        let _ = client.try_send(self.request().as_bytes());
        client.expect_end();
        self.upstream.expect_no_call();
        assert_eq!(self.upstream.seen(), 1);
        self.gateway.assert_charges(1, 0);
    }
}

fn sized(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn chunk(data: &str) -> String {
    format!("{:X}\r\n{data}\r\n", data.len())
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn garbage_after_a_good_request_is_refused_after_the_good_reply() {
    let scene = scene();
    let (mut client, call) = scene.open();
    call.reply(sized("good"));
    let reply = client.reply();
    assert_eq!((reply.status(), reply.text()), (200, "good"));
    scene.assert_refused(client);
}

#[test]
fn garbage_that_comes_during_a_reply_does_not_harm_it() {
    let scene = scene();
    let mut client = scene.gateway.get("/").key(&scene.customer.key).open();
    let mut call = scene.upstream.call();
    call.send(format!("{CHUNKED}{}", chunk("first")));
    assert_eq!(client.head().status(), 200);
    client.expect(chunk("first").as_bytes());
    client.send(GARBAGE.as_bytes());
    client.expect_silence();
    call.reply(format!("{}0\r\n\r\n", chunk("second")));
    client.expect(format!("{}0\r\n\r\n", chunk("second")).as_bytes());
    scene.assert_refused(client);
}

#[test]
fn a_reply_that_ends_like_a_refusal_arrives_whole_before_the_refusal() {
    for lookalike in LOOKALIKES {
        for body in [lookalike.to_owned(), format!("some text, then {lookalike}"), lookalike.repeat(2)] {
            let scene = scene();
            let (mut client, call) = scene.open();
            call.reply(sized(&body));
            let reply = client.reply();
            assert_eq!((reply.status(), reply.text()), (200, body.as_str()));
            scene.assert_refused(client);
        }
    }
}

/// The last frame is held back until the capture is durable, so it is a write of its own.
#[test]
fn a_last_piece_that_looks_like_a_refusal_is_a_part_of_the_reply() {
    for lookalike in LOOKALIKES {
        let scene = scene();
        let (mut client, mut call) = scene.open();
        let length = "first".len() + lookalike.len();
        call.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nfirst"));
        assert_eq!(client.head().status(), 200);
        client.expect(b"first");
        call.reply(lookalike);
        client.expect(lookalike.as_bytes());
        scene.assert_refused(client);
    }
}

#[test]
fn a_chunk_that_looks_like_a_refusal_is_a_part_of_the_reply() {
    for lookalike in LOOKALIKES {
        let scene = scene();
        let (mut client, mut call) = scene.open();
        call.send(format!("{CHUNKED}{}", chunk("first")));
        assert_eq!(client.head().status(), 200);
        client.expect(chunk("first").as_bytes());
        call.reply(format!("{}0\r\n\r\n", chunk(lookalike)));
        client.expect(format!("{}0\r\n\r\n", chunk(lookalike)).as_bytes());
        scene.assert_refused(client);
    }
}

#[test]
fn a_body_without_a_length_that_ends_like_a_refusal_arrives_whole() {
    for lookalike in LOOKALIKES {
        let scene = scene();
        let mut client = scene.gateway.connect();
        let head = format!("GET / HTTP/1.0\r\nHost: a\r\nx-api-key: {}\r\n\r\n", scene.customer.key);
        client.send(head.as_bytes());
        let mut call = scene.upstream.call();
        call.send(format!("{CHUNKED}{}", chunk("first")));
        call.reply(format!("{}0\r\n\r\n", chunk(lookalike)));
        let reply = client.reply();
        assert_eq!((reply.status(), reply.text()), (200, format!("first{lookalike}").as_str()));
        scene.gateway.assert_charges(1, 0);
    }
}

#[test]
fn a_connection_goes_on_after_a_reply_that_ends_like_a_refusal() {
    for lookalike in LOOKALIKES {
        let scene = scene();
        let mut client = scene.gateway.connect();
        for _ in 0..2 {
            client.send(scene.request().as_bytes());
            scene.upstream.call().reply(sized(lookalike));
            let reply = client.reply();
            assert_eq!((reply.status(), reply.text()), (200, lookalike));
        }
        scene.gateway.assert_charges(2, 0);
    }
}

#[test]
fn what_is_sent_after_a_refusal_is_not_served() {
    let scene = scene();
    let mut client = scene.gateway.connect();
    client.send(GARBAGE.as_bytes());
    client.reply().assert_problem(400, "bad-request");
    // The client has not heard that the connection ends, and goes on for a while.
    let until = std::time::Instant::now() + GLANCE;
    while std::time::Instant::now() < until && client.try_send(scene.request().as_bytes()).is_ok() {}
    client.expect_end();
    scene.upstream.expect_no_call();
    scene.gateway.assert_charges(0, 0);
}
