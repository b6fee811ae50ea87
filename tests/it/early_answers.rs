//! Upstreams that answer an upload before they have it all, and close.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::harness::{Api, Gateway, PATIENCE};

const UPLOAD: usize = 20 << 20;
const PIECE: usize = 64 * 1024;
const REPETITIONS: i64 = 200;

/// Reads a head, says this and closes at once, which resets the connection: what the client still sends was not read.
fn resetting(reply: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut found, mut piece) = (Vec::new(), [0; 1_024]);
            while !found.windows(4).any(|window| window == b"\r\n\r\n") {
                let count = stream.read(&mut piece).unwrap();
                found.extend_from_slice(&piece[..count]);
                if count == 0 {
                    return;
                }
            }
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    address
}

/// The reply to an upload, read only when as much of it was sent as can be.
fn upload(gateway: &Gateway, key: &str, framing: &str) -> String {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-API-Key: {key}\r\n{framing}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let piece = vec![b'x'; PIECE];
    for _ in 0..UPLOAD / PIECE {
        let chunk = if framing.contains("chunked") { format!("{PIECE:x}\r\n") } else { String::new() };
        let end = if framing.contains("chunked") { "\r\n" } else { "" };
        if stream.write_all(&[chunk.as_bytes(), &piece, end.as_bytes()].concat()).is_err() {
            break;
        }
    }
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8(reply).unwrap()
}

#[test]
fn an_answer_before_a_reset_reaches_the_client_every_time() {
    let body = "too large. ".repeat(1_000);
    let head = format!("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let gateway = Gateway::of(Api::new("weather", resetting(head + &body)));
    let customer = gateway.customer("weather", 10 * REPETITIONS);
    for _ in 0..REPETITIONS {
        let reply = upload(&gateway, &customer.key, &format!("Content-Length: {UPLOAD}"));
        assert!(reply.starts_with("HTTP/1.1 413 ") && reply.ends_with(&body), "{reply:.300}");
    }
    gateway.assert_charges(REPETITIONS, 0);
}

#[test]
fn an_answer_before_a_reset_reaches_the_client_of_a_chunked_upload() {
    let reply = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nlarge\r\n0\r\n\r\n";
    let gateway = Gateway::of(Api::new("weather", resetting(reply.to_owned())));
    let customer = gateway.customer("weather", 500);
    for _ in 0..20 {
        let reply = upload(&gateway, &customer.key, "Transfer-Encoding: chunked");
        assert!(reply.starts_with("HTTP/1.1 413 ") && reply.contains("large"), "{reply}");
    }
    gateway.assert_charges(20, 0);
}

/// The client is not to blame when its upstream breaks off.
#[test]
fn a_reset_without_an_answer_costs_nothing() {
    for begun in ["", "HTTP/1.1 413 Content Too"] {
        let gateway = Gateway::of(Api::new("weather", resetting(begun.to_owned())));
        let customer = gateway.customer("weather", 500);
        for _ in 0..20 {
            let reply = upload(&gateway, &customer.key, &format!("Content-Length: {UPLOAD}"));
            assert!(reply.starts_with("HTTP/1.1 502 "), "{reply}");
            assert!(reply.contains("upstream-broken") && reply.contains("keytoll-cost-cents: 0\r\n"), "{reply}");
        }
        gateway.assert_charges(0, 20);
    }
}

/// The rest of it may be lost in the reset: it is no whole reply.
#[test]
fn an_answer_that_a_reset_cuts_costs_nothing() {
    let reply = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 9\r\n\r\nhalf";
    let gateway = Gateway::of(Api::new("weather", resetting(reply.to_owned())));
    let customer = gateway.customer("weather", 500);
    for _ in 0..20 {
        let reply = upload(&gateway, &customer.key, &format!("Content-Length: {UPLOAD}"));
        assert!(reply.starts_with("HTTP/1.1 413 ") || reply.starts_with("HTTP/1.1 502 "), "{reply}");
    }
    gateway.assert_charges(0, 20);
}
