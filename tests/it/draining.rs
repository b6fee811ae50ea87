//! Stopping: what is under way is finished or given back, and nothing new is begun.

use std::net::TcpStream;

use crate::harness::{Api, Gateway, Upstream, until};

#[test]
fn a_request_under_way_is_finished_before_the_gateway_stops() {
    let upstream = Upstream::scripted();
    let mut gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    let mut client = gateway.get("/").key(&customer.key).open();
    let mut call = upstream.call();
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none");
    assert_eq!(client.head().status(), 200);
    client.expect(b"one");
    gateway.begin_stop();
    until("the port is closed", || TcpStream::connect(gateway.address()).is_err());
    // However long the upstream takes, within the time to finish.
    client.expect_silence();
    call.reply("two");
    client.expect(b"two");
    client.expect_end();
    let stopped = gateway.stop();
    stopped.database.assert_books();
    assert_eq!((stopped.database.charges(1), stopped.database.leased()), (1, 0));
    assert_eq!(stopped.database.balance(customer.id), 490);
    assert!(TcpStream::connect(stopped.address).is_err());
}

#[test]
fn what_is_cut_at_the_deadline_is_given_back() {
    let upstream = Upstream::scripted();
    let api = Api::new("weather", upstream.address());
    let gateway = Gateway::builder().api(api).drain_timeout_ms(50).start();
    let customer = gateway.customer("weather", 500);
    let request = gateway.get("/").key(&customer.key);
    // One without a head, one in mid reply, one whose client has left, one whose request is not complete.
    let (_waits, _waiting) = (request.open(), upstream.call());
    let (mut reads, mut writing) = (request.open(), upstream.call());
    writing.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none");
    assert_eq!(reads.head().status(), 200);
    reads.expect(b"one");
    let (left, _alone) = (request.open(), upstream.call());
    left.leave();
    let post = gateway.request("POST", "/").key(&customer.key).field("Transfer-Encoding", "chunked");
    let (mut sends, mut taking) = (post.open(), upstream.call());
    taking.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none");
    assert_eq!(sends.head().status(), 200);
    sends.expect(b"one");
    let stopped = gateway.stop();
    reads.expect_end();
    stopped.database.assert_books();
    assert_eq!((stopped.database.charges(2), stopped.database.leased()), (4, 0), "released, leased");
    assert_eq!(stopped.database.balance(customer.id), 500);
}

#[test]
fn what_is_cut_on_a_kept_connection_leaves_a_released_charge_as_well() {
    let upstream = Upstream::scripted();
    let api = Api::new("weather", upstream.address());
    let gateway = Gateway::builder().api(api).drain_timeout_ms(50).start();
    let customer = gateway.customer("weather", 500);
    let request = gateway.get("/").key(&customer.key);
    let mut first = request.open();
    let call = upstream.call();
    let connection = call.peer();
    call.reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    first.reply().assert_receipt(10, 490);
    let (_waits, waiting) = (request.open(), upstream.call());
    assert_eq!(waiting.peer(), connection, "the connection was kept");
    let stopped = gateway.stop();
    stopped.database.assert_books();
    let charges = (stopped.database.charges(1), stopped.database.charges(2), stopped.database.leased());
    assert_eq!(charges, (1, 1, 0), "captured, released, leased");
    assert_eq!(stopped.database.balance(customer.id), 490);
}
