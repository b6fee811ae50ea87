//! `requests_per_address` and `requests_per_user`: one client or user does not take what all others need.

use super::{BEGUN, Scene, finish, scene};
use crate::harness::{Call, Client, GatewayBuilder, Request, until};

fn per_address(builder: GatewayBuilder) -> GatewayBuilder {
    let proxies = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]";
    builder.line("server", proxies).limit("requests_per_address", 1)
}

/// The request as proxies hand it on, with the addresses that they found.
fn from(request: Request, addresses: &str) -> Request {
    request.field("X-Forwarded-For", addresses)
}

impl Scene {
    /// A reply that has begun, for a client at this address.
    fn begun_from(&self, addresses: &str) -> (Client, Call) {
        let mut client = from(self.gateway.get("/weather").key(&self.customer.key), addresses).open();
        let mut call = self.busy.call();
        call.send(BEGUN);
        assert_eq!(client.head().status(), 200);
        client.expect(b"5\r\nfirst\r\n");
        (client, call)
    }

    #[track_caller]
    fn assert_limited(&self, addresses: &str) {
        let reply = from(self.gateway.get("/pages/status"), addresses).send();
        let problem = reply.assert_problem(429, "rate-limited");
        assert_eq!(problem["message"], problem["detail"]);
        assert_eq!(reply.field("retry-after"), Some("1"), "{reply:?}");
    }

    #[track_caller]
    fn assert_served(&self, addresses: &str) {
        assert_eq!(from(self.gateway.get("/pages/status"), addresses).send().status(), 200, "{addresses}");
    }
}

#[test]
fn an_address_has_so_many_requests_in_flight() {
    let scene = scene(per_address);
    let (mut client, call) = scene.begun_from("203.0.113.7");
    scene.assert_limited("203.0.113.7");
    scene.assert_served("203.0.113.8");
    finish(&mut client, call);
    let request = from(scene.gateway.get("/pages/status"), "203.0.113.7");
    until("a request after the reply's end", || request.send().status() == 200);
    let count = || scene.gateway.metric("keytoll_refusals_total", &[("problem", "rate-limited")]);
    assert!(count() >= 1);
}

#[test]
fn the_rightmost_address_that_is_no_proxy_counts() {
    let scene = scene(per_address);
    let (_client, _call) = scene.begun_from("203.0.113.7");
    // What a client claims itself comes first, and does not hide it.
    scene.assert_limited("198.51.100.1, 203.0.113.7");
    scene.assert_limited("198.51.100.1, 203.0.113.7, 10.1.2.3");
    scene.assert_limited("203.0.113.7, 10.1.2.3, 10.4.5.6");
    scene.assert_served("203.0.113.7, 198.51.100.1");
}

#[test]
fn addresses_of_ipv6_count_by_network() {
    let scene = scene(per_address);
    let (_client, _call) = scene.begun_from("2001:db8:0:1::1");
    scene.assert_limited("2001:db8:0:1::1");
    scene.assert_limited("2001:db8:0:1:ffff:ffff:ffff:ffff");
    scene.assert_served("2001:db8:0:2::1");
}

#[test]
fn loopback_and_trusted_proxies_are_exempt() {
    let scene = scene(per_address);
    let (_first, _call) = scene.begun();
    assert_eq!(scene.status(), 200);
    let (_second, _other) = scene.begun_from("10.1.2.3");
    scene.assert_served("10.1.2.3");
}

#[test]
fn what_a_stranger_says_of_addresses_does_not_count() {
    let scene = scene(|builder| builder.limit("requests_per_address", 1));
    let (_client, _call) = scene.begun_from("203.0.113.7");
    // The peer is on loopback, and no proxy whose word counts.
    scene.assert_served("203.0.113.7");
}

#[test]
fn probes_are_not_limited_by_address() {
    let scene = scene(per_address);
    let (_client, _call) = scene.begun_from("203.0.113.7");
    for probe in ["/.keytoll/healthz", "/.keytoll/readyz"] {
        assert_eq!(from(scene.gateway.get(probe), "203.0.113.7").send().status(), 200, "{probe}");
    }
}

#[test]
fn a_user_has_so_many_requests_in_flight_over_all_keys() {
    let scene = scene(|builder| builder.limit("requests_per_user", 1));
    // A user has one key for each API.
    let second_key = scene.gateway.key(&scene.customer, "pages");
    let second = scene.gateway.get("/pages/today").key(&second_key);
    let other = scene.gateway.customer("pages", 500);
    let (mut client, call) = scene.begun();
    for request in [&scene.gateway.get("/weather").key(&scene.customer.key), &second] {
        let reply = request.send();
        let problem = reply.assert_problem(429, "rate-limited");
        assert_eq!(problem["message"], problem["detail"]);
        assert_eq!(reply.field("retry-after"), Some("1"), "{reply:?}");
    }
    assert_eq!(scene.gateway.get("/pages/today").key(&other.key).send().status(), 200);
    finish(&mut client, call);
    until("a request after the reply's end", || second.send().status() == 200);
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn a_user_whose_client_has_left_still_has_that_request_in_flight() {
    let scene = scene(|builder| builder.limit("requests_per_user", 1));
    let client = scene.gateway.get("/weather").key(&scene.customer.key).open();
    let call = scene.busy.call();
    client.leave();
    let begun = std::time::Instant::now();
    while begun.elapsed() < crate::harness::GLANCE {
        scene.gateway.get("/weather").key(&scene.customer.key).send().assert_problem(429, "rate-limited");
    }
    call.reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    scene.gateway.assert_charges(1, 0);
}
