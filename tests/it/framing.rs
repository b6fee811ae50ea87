//! Framings that can be used to get more than is paid for, or less.

use crate::harness::{Api, Gateway, Upstream, until};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn an_http_10_client_has_no_whole_reply_before_it_is_paid() {
    let upstream = Upstream::scripted();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    let mut client = gateway.connect();
    client.send(format!("GET / HTTP/1.0\r\nhost: weather\r\nx-api-key: {}\r\n\r\n", customer.key).as_bytes());
    let mut call = upstream.call();
    let lock = gateway.lock();
    call.send(CHUNKED);
    call.send("3\r\none\r\n");
    call.send("3\r\ntwo\r\n");
    call.reply("0\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    client.expect(b"one");
    client.expect_silence();
    lock.release();
    client.expect(b"two");
    client.expect_end();
    gateway.assert_charges(1, 0);
}

#[test]
fn a_chunked_body_of_a_get_reaches_the_upstream() {
    let upstream = Upstream::scripted();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    let mut client = gateway.connect();
    let head = "GET /search HTTP/1.1\r\nhost: weather\r\ntransfer-encoding: chunked\r\n";
    client.send(format!("{head}x-api-key: {}\r\n\r\n5\r\nquery\r\n0\r\n\r\n", customer.key).as_bytes());
    let mut call = upstream.call();
    assert_eq!(call.body().unwrap(), b"query");
    call.reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    client.reply().assert_receipt(10, 490);
}

#[test]
fn a_client_that_leaves_a_free_route_leaves_nothing_behind() {
    let upstream = Upstream::scripted();
    let gateway = Gateway::of(Api::new("weather", upstream.address()).route("path = \"/status\"\npublic = true"));
    let client = gateway.get("/status").open();
    let mut call = upstream.call();
    client.leave();
    call.expect_end();
}

#[test]
fn readiness_comes_back_without_any_traffic() {
    let upstream = Upstream::fine();
    let gateway = Gateway::builder().api(Api::new("weather", upstream.address())).limit("hold_timeout_ms", 50).start();
    let customer = gateway.customer("weather", 500);
    let lock = gateway.lock();
    gateway.get("/").key(&customer.key).send().assert_problem(503, "billing-unavailable");
    lock.release();
    until("ready again", || gateway.get("/.keytoll/readyz").send().status() == 200);
}

/// hyper would decode the chunks and forget the other coding, so that the upstream would take compressed octets for the
/// content.
#[test]
fn another_transfer_coding_than_chunked_is_refused() {
    let upstream = Upstream::fine();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    for lines in [
        &["gzip, chunked"][..],
        &["chunked, chunked"],
        &["gzip", "chunked"],
        &["identity, chunked"],
        &["chunked", "chunked"],
    ] {
        let mut request = gateway.request("POST", "/").key(&customer.key);
        for line in lines {
            request = request.field("Transfer-Encoding", line);
        }
        let mut client = request.open();
        client.send(b"0\r\n\r\n");
        client.reply().assert_problem(400, "bad-request");
    }
    assert_eq!(upstream.seen(), 0);
    let mut client = gateway.request("POST", "/").key(&customer.key).field("Transfer-Encoding", "Chunked").open();
    client.send(b"0\r\n\r\n");
    client.reply().assert_receipt(10, 490);
}
