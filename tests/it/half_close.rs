//! Clients that end their sending side: that alone is not leaving (RFC 9112 §9.6). Leaving is a reset, or a write that
//! fails.

use keytoll::http::{SocketInfo, TcpState};

use crate::harness::{Api, Call, Client, Customer, Gateway, OK, Upstream, until};

/// What a request to `/weather` costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Price {
    Cents(i64),
    Free,
}

const PRICES: [Price; 2] = [Price::Cents(10), Price::Free];

struct Scene {
    price: Price,
    upstream: Upstream,
    gateway: Gateway,
    customer: Customer,
}

fn scene(price: Price) -> Scene {
    let upstream = Upstream::scripted();
    let cents = match price {
        Price::Cents(cents) => cents,
        Price::Free => 0,
    };
    let gateway = Gateway::of(Api::new("weather", upstream.address()).price(cents));
    let customer = gateway.customer("weather", 500);
    Scene { price, upstream, gateway, customer }
}

const BEGUN: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";

impl Scene {
    fn head(&self, method: &str, fields: &str) -> String {
        format!("{method} / HTTP/1.1\r\nHost: a\r\nx-api-key: {}\r\n{fields}\r\n", self.customer.key)
    }

    /// A request at the upstream.
    fn forwarded(&self) -> (Client, Call) {
        let mut client = self.gateway.connect();
        client.send(self.head("GET", "").as_bytes());
        (client, self.upstream.call())
    }

    fn begun(&self) -> (Client, Call) {
        let (mut client, mut call) = self.forwarded();
        call.send(BEGUN);
        assert_eq!(client.head().status(), 200);
        client.expect(b"5\r\nfirst\r\n");
        (client, call)
    }

    /// The client ends its side, and the gateway's only worker has been told.
    #[track_caller]
    fn finish(&self, client: &mut Client) {
        let (local, peer) = client.addresses();
        client.finish();
        self.await_end(local, peer);
    }

    /// The client closes its connection, without a reset.
    #[track_caller]
    fn close(&self, client: Client) {
        let (local, peer) = client.addresses();
        drop(client);
        self.await_end(local, peer);
    }

    #[track_caller]
    fn await_end(&self, client: std::net::SocketAddr, gateway: std::net::SocketAddr) {
        let is_open = |info: SocketInfo| info.state == TcpState::Established;
        until("the end arrives", || {
            !SocketInfo::look_up(gateway, client).is_ok_and(|found| found.is_some_and(is_open))
        });
        // It comes after that to the same worker.
        assert_eq!(self.gateway.get("/.keytoll/healthz").field("Connection", "close").send().status(), 200);
    }

    fn open(&self, metric: &str) -> u64 {
        self.gateway.metric(metric, &[("listener", "data")])
    }

    /// The client is served still.
    #[track_caller]
    fn assert_in_flight(&self) {
        until("the probe's connection is closed", || self.open("keytoll_connections_open") == 1);
        assert_eq!(self.open("keytoll_requests_open"), 1);
    }

    #[track_caller]
    fn await_gone(&self) {
        until("the connection is closed", || self.open("keytoll_connections_open") == 0);
    }

    /// So many requests were charged and released if they have a price, and nothing is in flight.
    #[track_caller]
    fn assert_settled(&self, captured: i64, released: i64) {
        self.await_gone();
        until("nothing is in flight", || self.open("keytoll_requests_open") == 0);
        let (captured, released) = if self.price == Price::Free { (0, 0) } else { (captured, released) };
        self.gateway.assert_charges(captured, released);
    }

    /// So many requests were settled for this reason, if they have a price.
    #[track_caller]
    fn assert_reason(&self, reason: &str, count: u64) {
        let count = if self.price == Price::Free { 0 } else { count };
        until(reason, || self.gateway.metric("keytoll_settlements_total", &[("reason", reason)]) == count);
    }
}

#[test]
fn a_client_that_finishes_at_once_gets_its_reply() {
    for price in PRICES {
        let scene = scene(price);
        let mut client = scene.gateway.connect();
        client.send(scene.head("GET", "").as_bytes());
        client.finish();
        scene.upstream.call().reply(OK);
        let reply = client.reply();
        assert_eq!((reply.status(), reply.text(), reply.whole), (200, "ok", true), "{price:?}");
        client.expect_end();
        scene.assert_settled(1, 0);
    }
}

#[test]
fn a_client_that_finishes_with_its_whole_body_gets_its_reply() {
    for price in PRICES {
        for (fields, body) in
            [("Content-Length: 5\r\n", "hello"), ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")]
        {
            let scene = scene(price);
            let mut client = scene.gateway.connect();
            client.send((scene.head("POST", fields) + body).as_bytes());
            client.finish();
            let mut call = scene.upstream.call();
            assert_eq!(call.body().unwrap(), b"hello");
            call.reply(OK);
            assert_eq!(client.reply().text(), "ok", "{price:?} {fields}");
            client.expect_end();
            scene.assert_settled(1, 0);
        }
    }
}

#[test]
fn a_client_that_finishes_while_the_upstream_works_gets_its_reply() {
    for price in PRICES {
        let scene = scene(price);
        let (mut client, call) = scene.forwarded();
        scene.finish(&mut client);
        scene.assert_in_flight();
        call.reply(OK);
        assert_eq!(client.reply().text(), "ok", "{price:?}");
        client.expect_end();
        scene.assert_settled(1, 0);
    }
}

#[test]
fn a_client_that_finishes_during_its_reply_gets_the_rest() {
    for price in PRICES {
        let scene = scene(price);
        let (mut client, call) = scene.begun();
        scene.finish(&mut client);
        scene.assert_in_flight();
        call.reply("4\r\nrest\r\n0\r\n\r\n");
        client.expect(b"4\r\nrest\r\n0\r\n\r\n");
        client.expect_end();
        scene.assert_settled(1, 0);
        scene.assert_reason("captured", 1);
    }
}

#[test]
fn a_client_that_sends_two_requests_and_finishes_gets_both_replies() {
    for price in PRICES {
        let scene = scene(price);
        let mut client = scene.gateway.connect();
        client.send(scene.head("GET", "").repeat(2).as_bytes());
        client.finish();
        for text in ["one", "two"] {
            scene.upstream.call().reply(format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{text}"));
            assert_eq!(client.reply().text(), text, "{price:?}");
        }
        client.expect_end();
        scene.assert_settled(2, 0);
    }
}

#[test]
fn a_client_that_finishes_during_the_first_of_two_requests_gets_both_replies() {
    for price in PRICES {
        let scene = scene(price);
        let (mut client, call) = scene.forwarded();
        client.send(scene.head("GET", "").as_bytes());
        scene.finish(&mut client);
        call.reply(OK);
        assert_eq!(client.reply().status(), 200);
        scene.upstream.call().reply(OK);
        assert_eq!(client.reply().text(), "ok", "{price:?}");
        client.expect_end();
        scene.assert_settled(2, 0);
    }
}

#[test]
fn a_client_that_finishes_after_its_reply_is_closed() {
    for price in PRICES {
        let scene = scene(price);
        let (mut client, call) = scene.forwarded();
        call.reply(OK);
        assert_eq!(client.reply().status(), 200);
        client.finish();
        client.expect_end();
        scene.assert_settled(1, 0);
    }
}

/// The request is not whole, so that this breaks it off.
#[test]
fn a_client_that_finishes_in_the_middle_of_its_body_breaks_it_off() {
    for price in PRICES {
        for (fields, begin) in
            [("Content-Length: 100000\r\n", "half"), ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n")]
        {
            let scene = scene(price);
            let mut client = scene.gateway.connect();
            client.send((scene.head("POST", fields) + begin).as_bytes());
            let mut call = scene.upstream.call();
            call.expect(begin.as_bytes());
            client.finish();
            call.expect_end();
            client.reply().assert_problem(400, "bad-request");
            client.expect_end();
            scene.assert_settled(0, 1);
        }
    }
}

#[test]
fn a_stop_waits_for_a_client_that_has_finished() {
    for price in PRICES {
        let mut scene = scene(price);
        let (mut client, call) = scene.forwarded();
        scene.finish(&mut client);
        scene.gateway.begin_stop();
        until("it stops", || scene.gateway.get("/").try_connect().is_none());
        call.reply(OK);
        assert_eq!(client.reply().text(), "ok", "{price:?}");
        client.expect_end();
        let stopped = scene.gateway.stop();
        assert_eq!(stopped.database.charges(1), i64::from(price != Price::Free));
    }
}

/// A client that resets its connection, and what it does before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    Finishes,
    SendsAnotherRequest,
    SendsAndFinishes,
}

#[test]
fn a_client_that_resets_while_the_upstream_works_has_left() {
    for price in PRICES {
        for before in [Before::Nothing, Before::Finishes, Before::SendsAnotherRequest, Before::SendsAndFinishes] {
            for (reply, captured) in [(200, 1), (500, 0)] {
                let scene = scene(price);
                let (mut client, mut call) = scene.forwarded();
                if matches!(before, Before::SendsAnotherRequest | Before::SendsAndFinishes) {
                    client.send(scene.head("GET", "").as_bytes());
                }
                if matches!(before, Before::Finishes | Before::SendsAndFinishes) {
                    scene.finish(&mut client);
                    scene.assert_in_flight();
                }
                client.leave();
                scene.await_gone();
                if price != Price::Free {
                    // The head is waited for, and decides.
                    call.send(format!("HTTP/1.1 {reply} Whatever\r\nContent-Length: 100\r\n\r\nhalf"));
                }
                call.expect_end();
                scene.assert_settled(captured, 1 - captured);
                scene.upstream.expect_no_call();
            }
        }
    }
}

#[test]
fn a_client_that_resets_during_an_idle_stream_has_left() {
    for price in PRICES {
        for before in [Before::Nothing, Before::Finishes, Before::SendsAnotherRequest] {
            let scene = scene(price);
            let (mut client, mut call) = scene.begun();
            match before {
                Before::Finishes => scene.finish(&mut client),
                Before::SendsAnotherRequest => client.send(scene.head("GET", "").as_bytes()),
                Before::Nothing | Before::SendsAndFinishes => {}
            }
            client.leave();
            call.expect_end();
            scene.assert_settled(1, 0);
            scene.assert_reason("client_left", 1);
        }
    }
}

/// To close without reading on looks like to finish. What is sent next tells the difference.
#[test]
fn a_client_that_closes_during_an_idle_stream_has_left_when_the_next_event_cannot_be_delivered() {
    for price in PRICES {
        let scene = scene(price);
        let (client, mut call) = scene.begun();
        scene.close(client);
        scene.assert_in_flight();
        assert_eq!(scene.gateway.metric("keytoll_settlements_total", &[]), 0);
        call.send("4\r\nnext\r\n");
        call.expect_end();
        scene.assert_settled(1, 0);
        scene.assert_reason("client_left", 1);
    }
}
