//! Upgraded connections: paid for before the client hears of it, then bytes both ways.

use std::io::Write;

use crate::harness::{Api, Call, Client, Customer, GLANCE, Gateway, Request, Upstream, until};

fn scene() -> (Upstream, Gateway, Customer) {
    let upstream = Upstream::scripted();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    (upstream, gateway, customer)
}

fn upgrade(gateway: &Gateway, customer: &Customer) -> Request {
    gateway.get("/").key(&customer.key).field("Connection", "keep-alive, Upgrade").field("Upgrade", "websocket")
}

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// What the upstream says before it ends reaches a client that has ended its own side.
#[track_caller]
fn assert_last_words_arrive(client: &mut Client, mut call: Call) {
    call.send("last words");
    call.break_off();
    client.expect(b"last words");
    client.expect_end();
}

#[test]
fn an_upgrade_is_captured_and_bytes_flow_both_ways() {
    let (upstream, gateway, customer) = scene();
    let mut client = upgrade(&gateway, &customer).open();
    let mut call = upstream.call();
    assert_eq!(call.head.field("upgrade"), Some("websocket"));
    assert_eq!(call.head.field("x-api-key"), None);
    call.send(SWITCHING);
    let reply = client.reply();
    assert_eq!((reply.status(), reply.field("upgrade")), (101, Some("websocket")));
    reply.assert_receipt(10, 490);
    assert_eq!(gateway.database().charges(1), 1);
    for round in 0..3 {
        client.send(format!("up {round}").as_bytes());
        call.expect(format!("up {round}").as_bytes());
        call.send(format!("down {round}"));
        client.expect(format!("down {round}").as_bytes());
    }
    // Each side's end goes through to the other.
    client.finish();
    call.expect_end();
    assert_last_words_arrive(&mut client, call);
    gateway.assert_charges(1, 0);
}

#[test]
fn an_upgrade_waits_for_its_capture() {
    let (upstream, gateway, customer) = scene();
    let mut client = upgrade(&gateway, &customer).open();
    let mut call = upstream.call();
    let lock = gateway.lock();
    call.send(SWITCHING);
    call.send("hello");
    client.expect_silence();
    lock.release();
    client.reply().assert_receipt(10, 490);
    client.expect(b"hello");
    gateway.assert_charges(1, 0);
}

#[test]
fn a_refused_upgrade_is_an_ordinary_reply() {
    let (upstream, gateway, customer) = scene();
    let mut client = upgrade(&gateway, &customer).open();
    upstream.call().reply("HTTP/1.1 426 Upgrade Required\r\nUpgrade: other\r\nContent-Length: 2\r\n\r\nno");
    let reply = client.reply();
    assert_eq!((reply.status(), reply.text()), (426, "no"));
    reply.assert_receipt(10, 490);
    gateway.assert_charges(1, 0);
}

#[test]
fn an_upgrade_that_nobody_asked_for_costs_nothing() {
    let (upstream, gateway, customer) = scene();
    let mut client = gateway.get("/").key(&customer.key).open();
    let mut call = upstream.call();
    call.send(SWITCHING);
    let reply = client.reply();
    reply.assert_problem(502, "upstream-broken");
    reply.assert_receipt(0, 500);
    call.expect_end();
    gateway.assert_charges(0, 1);
}

#[test]
fn a_side_that_resets_ends_the_other_one() {
    for is_client in [true, false] {
        let (upstream, gateway, customer) = scene();
        let mut client = upgrade(&gateway, &customer).open();
        let mut call = upstream.call();
        call.send(SWITCHING);
        assert_eq!(client.reply().status(), 101);
        client.send(b"up");
        call.expect(b"up");
        if is_client {
            client.leave();
            call.expect_end();
        } else {
            call.reset();
            client.expect_end();
        }
        gateway.assert_charges(1, 0);
    }
}

#[test]
fn an_upgrade_to_something_else_than_was_asked_for_costs_nothing() {
    for (version, line) in [
        ("1.1", "Upgrade: h2c\r\n"),
        ("1.1", "Upgrade: websocket, h2c\r\n"),
        ("1.1", "Upgrade: websocket\r\nUpgrade: websocket\r\n"),
        ("1.1", ""),
        ("1.0", "Upgrade: websocket\r\n"),
    ] {
        let (upstream, gateway, customer) = scene();
        let mut client = upgrade(&gateway, &customer).open();
        let mut call = upstream.call();
        call.send(format!("HTTP/{version} 101 Switching Protocols\r\nConnection: Upgrade\r\n{line}\r\n"));
        let reply = client.reply();
        reply.assert_problem(502, "upstream-broken");
        reply.assert_receipt(0, 500);
        call.expect_end();
        gateway.assert_charges(0, 1);
    }
}

#[test]
fn a_client_that_has_finished_before_the_upgrade_gets_what_the_upstream_says() {
    let (upstream, gateway, customer) = scene();
    let mut client = upgrade(&gateway, &customer).open();
    let mut call = upstream.call();
    client.finish();
    call.send(SWITCHING);
    assert_eq!(client.reply().status(), 101);
    call.expect_end();
    assert_last_words_arrive(&mut client, call);
    gateway.assert_charges(1, 0);
}

#[test]
fn an_upgrade_to_one_of_several_is_named_to_the_client_as_the_upstream_does() {
    let (upstream, gateway, customer) = scene();
    let request = gateway.get("/").key(&customer.key).field("Connection", "Upgrade").field("Upgrade", "irc, websocket");
    let mut client = request.open();
    let mut call = upstream.call();
    assert_eq!(call.head.field("upgrade"), Some("irc, websocket"));
    call.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nContent-Length: 5\r\n\r\n",
    );
    let reply = client.reply();
    assert_eq!((reply.status(), reply.field("upgrade"), reply.field("content-length")), (101, Some("WebSocket"), None));
    client.send(b"up");
    call.expect(b"up");
    gateway.assert_charges(1, 0);
}

/// HTTP/1.0 has no upgrades: a 101 to it is nothing that its client could understand.
#[test]
fn an_http_10_client_gets_no_upgrade() {
    let (upstream, gateway, customer) = scene();
    let mut client = gateway.connect();
    let lines = "Host: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
    client.send(format!("GET / HTTP/1.0\r\n{lines}X-API-Key: {}\r\n\r\n", customer.key).as_bytes());
    let mut call = upstream.call();
    assert_eq!((call.head.field("upgrade"), call.head.field("connection")), (None, None));
    call.send(SWITCHING);
    let reply = client.reply();
    reply.assert_problem(502, "upstream-broken");
    reply.assert_receipt(0, 500);
    gateway.assert_charges(0, 1);
}

/// The tunnel hears of it when the upstream is gone: no failed write is kept back from it.
#[test]
fn an_upgraded_connection_whose_upstream_is_gone_ends() {
    let (upstream, gateway, customer) = scene();
    let mut client = upgrade(&gateway, &customer).open();
    let mut call = upstream.call();
    call.send(SWITCHING);
    assert_eq!(client.reply().status(), 101);
    client.send(b"up");
    call.expect(b"up");
    client.send(b"unread");
    std::thread::sleep(GLANCE);
    // What is unread makes it a reset.
    call.break_off();
    client.expect_end();
    until("the tunnel has ended", || client.try_send(b"more").is_err());
    gateway.assert_charges(1, 0);
}

#[test]
fn an_upstream_that_ends_its_side_gets_everything_that_the_client_still_sends() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 256;
    let (upstream, gateway, customer) = scene();
    let mut client = upgrade(&gateway, &customer).open();
    let mut call = upstream.call();
    call.send(SWITCHING);
    assert_eq!(client.reply().status(), 101);
    call.finish();
    client.expect_end();
    // More than fits into buffers, for an upstream that reads only later.
    let mut sender = client.sender();
    let sending = std::thread::spawn(move || (0..PIECES).for_each(|_| sender.write_all(&[b'x'; PIECE]).unwrap()));
    std::thread::sleep(GLANCE);
    for _ in 0..PIECES {
        call.expect(&[b'x'; PIECE]);
    }
    sending.join().unwrap();
    client.finish();
    call.expect_end();
    gateway.assert_charges(1, 0);
}

/// Otherwise the rest of the upload would reach the upstream behind a request that is settled, or as another protocol.
#[test]
fn a_101_before_the_whole_request_costs_nothing_and_ends_the_upload() {
    for is_asked_for in [true, false] {
        let (upstream, gateway, customer) = scene();
        let mut request = gateway.request("POST", "/").key(&customer.key).field("Transfer-Encoding", "chunked");
        if is_asked_for {
            request = request.field("Connection", "Upgrade").field("Upgrade", "websocket");
        }
        let mut client = request.open();
        client.send(b"4\r\nhalf\r\n");
        let mut call = upstream.call();
        call.expect(b"4\r\nhalf\r\n");
        call.send(SWITCHING);
        let reply = client.reply();
        reply.assert_problem(502, "upstream-broken");
        reply.assert_receipt(0, 500);
        // The client is still there, and its request is not complete.
        call.expect_end();
        gateway.assert_charges(0, 1);
    }
}
