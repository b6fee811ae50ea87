//! Replies that are odd: what of them is cleaned, what is refused, and that nothing is paid for a refused one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::harness::{Api, Customer, Gateway, PATIENCE, Upstream};

/// Reads to the end of a head, byte by byte.
fn raw_head(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    head
}

/// An upstream that answers each request with these bytes and closes the connection; what it was sent, in bytes.
fn raw_upstream(reply: Vec<u8>) -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, seen) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = raw_head(&mut stream);
            stream.write_all(&reply).unwrap();
            if heads.send(head).is_err() {
                return;
            }
        }
    });
    (address, seen)
}

/// Sends these bytes; what comes until the connection ends.
fn raw_exchange(gateway: &Gateway, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    reply
}

fn get(customer: &Customer, lines: &[u8]) -> Vec<u8> {
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-api-key: {}\r\n", customer.key);
    [head.as_bytes(), lines, b"\r\n"].concat()
}

fn has(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[test]
fn folded_lines_and_spaces_before_a_colon_reach_the_client_clean() {
    let reply = "HTTP/1.1 200 OK\r\nX-Folded: one\r\n two\r\n\t three\r\nX-Spaced \t: four\r\nKeytoll-Cost-Cents : 0\r\n\
                 Keytoll-\r\n : 1\r\nContent-Length : 2\r\n\r\nok";
    // A name is not folded: the line above is no header, and a reply with it is refused.
    for (reply, is_fine) in [(reply.replace("Keytoll-\r\n : 1\r\n", ""), true), (reply.to_owned(), false)] {
        let (upstream, _seen) = raw_upstream(reply.into_bytes());
        let gateway = Gateway::of(Api::new("weather", upstream));
        let customer = gateway.customer("weather", 500);
        let reply = raw_exchange(&gateway, &get(&customer, b""));
        if is_fine {
            for line in ["x-folded: one two three\r\n", "x-spaced: four\r\n", "keytoll-cost-cents: 10\r\n"] {
                assert!(has(&reply, line.as_bytes()), "{line} {}", String::from_utf8_lossy(&reply));
            }
            assert!(has(&reply, b"content-length: 2\r\n") && reply.ends_with(b"\r\n\r\nok"));
            gateway.assert_charges(1, 0);
        } else {
            assert!(reply.starts_with(b"HTTP/1.1 502 "), "{}", String::from_utf8_lossy(&reply));
            gateway.assert_charges(0, 1);
        }
    }
}

/// In a request they hide a header from one of the two that read it.
#[test]
fn folded_lines_and_spaces_before_a_colon_are_refused_in_requests() {
    let (upstream, seen) = raw_upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec());
    let gateway = Gateway::of(Api::new("weather", upstream));
    let customer = gateway.customer("weather", 500);
    for line in [&b"x-folded: one\r\n two\r\n"[..], b"x-spaced : one\r\n"] {
        let reply = raw_exchange(&gateway, &get(&customer, line));
        assert!(reply.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&reply));
    }
    assert!(seen.try_recv().is_err());
    gateway.assert_charges(0, 0);
}

#[test]
fn values_in_latin_1_and_utf_8_pass_byte_for_byte() {
    let lines: [&[u8]; 3] = [
        b"x-latin-1: gr\xfc\xdf \xe4\xff\x80\r\n",
        b"x-utf-8: gr\xc3\xbc\xc3\x9f \xf0\x9f\x8c\xa7\r\n",
        b"x-tab: a\tb\r\n",
    ];
    let reply = [b"HTTP/1.1 200 OK\r\n", &lines.concat()[..], b"Content-Length: 0\r\n\r\n"].concat();
    let (upstream, seen) = raw_upstream(reply);
    let gateway = Gateway::of(Api::new("weather", upstream));
    let customer = gateway.customer("weather", 500);
    let reply = raw_exchange(&gateway, &get(&customer, &lines.concat()));
    let head = seen.recv_timeout(PATIENCE).unwrap();
    for line in lines {
        assert!(has(&head, line), "to the upstream: {}", String::from_utf8_lossy(line));
        assert!(has(&reply, line), "to the client: {}", String::from_utf8_lossy(line));
    }
    gateway.assert_charges(1, 0);
}

/// An upstream that answers the request for `/N` with the N-th of these replies.
fn by_number(replies: Vec<String>) -> (Upstream, Gateway, Customer) {
    let upstream = Upstream::answering(move |head, _| {
        let number: usize = head.target()[1..].parse().unwrap();
        replies[number].clone().into_bytes()
    });
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 5_000);
    (upstream, gateway, customer)
}

#[test]
fn a_framing_that_can_be_read_in_two_ways_is_refused_and_costs_nothing() {
    const LINES: [&str; 14] = [
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length:",
        "Content-Length: five",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 18446744073709551616",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
    ];
    const STATUSES: [(&str, &str); 4] =
        [("GET", "200 OK"), ("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")];
    let mut cases = Vec::new();
    for (method, status) in STATUSES {
        for line in LINES {
            cases.push((method, format!("HTTP/1.1 {status}\r\n{line}\r\n\r\n")));
        }
        cases.push((method, format!("HTTP/1.0 {status}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")));
    }
    let (_upstream, gateway, customer) = by_number(cases.iter().map(|(_, reply)| reply.clone()).collect());
    for (number, (method, reply)) in cases.iter().enumerate() {
        let refused = gateway.request(method, &format!("/{number}")).key(&customer.key).send();
        assert_eq!(refused.status(), 502, "{method} {reply:?}");
        refused.assert_receipt(0, 5_000);
        if *method == "GET" {
            refused.assert_problem(502, "upstream-broken");
        }
    }
    gateway.assert_charges(0, i64::try_from(cases.len()).unwrap());
}

#[test]
fn a_length_reaches_the_client_once_in_plain_digits() {
    let mut cases = Vec::new();
    for (method, status, body, length) in [
        ("GET", "200 OK", "hello", Some("5")),
        ("HEAD", "200 OK", "", Some("5")),
        ("GET", "304 Not Modified", "", Some("5")),
        ("HEAD", "304 Not Modified", "", Some("5")),
        ("GET", "204 No Content", "", None),
        ("HEAD", "204 No Content", "", None),
    ] {
        for line in ["5", "005", "5\r\nContent-Length: 5"] {
            cases.push((method, format!("HTTP/1.1 {status}\r\nContent-Length: {line}\r\n\r\n{body}"), length));
        }
    }
    let (_upstream, gateway, customer) = by_number(cases.iter().map(|(_, reply, _)| reply.clone()).collect());
    let mut client = gateway.connect();
    for (number, (method, text, length)) in cases.iter().enumerate() {
        client.send_request(&gateway.request(method, &format!("/{number}")).key(&customer.key));
        let reply = client.reply();
        assert_eq!((reply.field("content-length"), reply.whole), (*length, true), "{method} {text:?} {reply:?}");
    }
    gateway.assert_charges(i64::try_from(cases.len()).unwrap(), 0);
}

#[test]
fn a_304_of_a_free_route_keeps_its_length() {
    let upstream = Upstream::saying("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n");
    let gateway = Gateway::of(Api::new("weather", upstream.address()).route("path = \"/status\"\npublic = true"));
    let mut client = gateway.connect();
    for _ in 0..2 {
        client.send_request(&gateway.get("/status"));
        assert_eq!(client.reply().field("content-length"), Some("7"));
    }
}

#[test]
fn a_length_goes_upstream_in_plain_digits() {
    let upstream = Upstream::scripted();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    for lines in ["Content-Length: 005\r\n", "Content-Length: 5\r\nContent-Length: 05\r\n", "Content-Length: 5\r\n"] {
        let mut client = gateway.connect();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n{lines}\r\nhello", customer.key);
        client.send(head.as_bytes());
        let mut call = upstream.call();
        assert_eq!(call.head.field("content-length"), Some("5"), "{lines:?}");
        assert_eq!(call.body().unwrap(), b"hello");
        call.reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.reply().status(), 200);
    }
    gateway.assert_charges(3, 0);
}

#[test]
fn more_header_fields_than_allowed_cost_nothing() {
    let many = |count: usize| format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(count - 1));
    let (_upstream, gateway, customer) = by_number(vec![many(100), many(101)]);
    assert_eq!(gateway.get("/0").key(&customer.key).send().status(), 200);
    gateway.get("/1").key(&customer.key).send().assert_problem(502, "upstream-broken");
    gateway.assert_charges(1, 1);
}

/// One worker serves both: the flood, and those who go on meanwhile.
#[test]
fn a_flood_of_interim_replies_costs_nothing_and_holds_up_nobody() {
    let (flood, calm) = (Upstream::scripted(), Upstream::fine());
    let apis = (Api::new("flood", flood.address()).path("/flood"), Api::new("calm", calm.address()).path("/calm"));
    let gateway = Gateway::builder().api(apis.0).api(apis.1).start();
    let (customer, other) = (gateway.customer("flood", 500), gateway.customer("calm", 5_000));
    let mut client = gateway.get("/flood").key(&customer.key).open();
    let mut call = flood.call();
    // Less than the limit: the reply is still awaited.
    call.send("HTTP/1.1 100 Continue\r\n\r\n".repeat(2_000));
    client.expect_silence();
    let sends = thread::spawn(move || while call.try_send("HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000)).is_ok() {});
    for served in 1..=100 {
        gateway.get("/calm").key(&other.key).send().assert_receipt(10, 5_000 - 10 * served);
    }
    let reply = client.reply();
    reply.assert_problem(502, "upstream-broken");
    reply.assert_receipt(0, 500);
    sends.join().unwrap();
    gateway.assert_charges(100, 1);
}

#[test]
fn interim_replies_within_the_limit_are_skipped() {
    let interim = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(30_000));
    let reply = format!("{interim}{interim}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (_upstream, gateway, customer) = by_number(vec![reply]);
    for paid in 1..=3 {
        let reply = gateway.get("/0").key(&customer.key).send();
        assert_eq!(reply.text(), "ok");
        reply.assert_receipt(10, 5_000 - 10 * paid);
    }
    gateway.assert_charges(3, 0);
}
