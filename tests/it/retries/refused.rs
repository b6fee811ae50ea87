//! What is not the same request, what is no key, where keys do not count, and how many there may be.

use super::{OK, ON, Scene, already_charged};
use crate::harness::{Api, Gateway, Request, Upstream, until};

#[test]
fn another_request_under_the_same_key_is_refused() {
    let scene = Scene::new();
    let key = |method: &str, target: &str| {
        scene.gateway.request(method, target).key(&scene.customer.key).field("Idempotency-Key", "one")
    };
    let first =
        || key("POST", "/buy?a=1").field("Content-Type", "text/plain").field("Content-Digest", "x=:a:").body("one");
    let (mut client, mut call) = (first().open(), scene.upstream.call());
    assert_eq!(call.body().unwrap(), b"one");
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
    already_charged(&first());
    let plain = |request: Request| request.field("Content-Type", "text/plain").field("Content-Digest", "x=:a:");
    let others = [
        plain(key("PUT", "/buy?a=1")).body("one"),
        plain(key("POST", "/buy/?a=1")).body("one"),
        plain(key("POST", "/buy?a=2")).body("one"),
        plain(key("POST", "/buy")).body("one"),
        plain(key("POST", "/buy?a=1")).body("four"),
        plain(key("POST", "/buy?a=1")),
        key("POST", "/buy?a=1").field("Content-Type", "text/html").field("Content-Digest", "x=:a:").body("one"),
        key("POST", "/buy?a=1").field("Content-Type", "text/plain").field("Content-Digest", "x=:b:").body("one"),
        key("POST", "/buy?a=1").field("Content-Type", "text/plain").body("one"),
    ];
    for other in others {
        other.send().assert_problem(422, "idempotency-key-reused");
    }
    // Another spelling of the same path is the same request; a key in the query is none of it.
    already_charged(&plain(key("POST", "/%62uy?a=1")).body("one"));
    scene.upstream.expect_no_call();
    assert_eq!(scene.balance(), 490);
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn what_is_no_key_is_refused_before_it_costs_anything() {
    let scene = Scene::new();
    let request = || scene.gateway.get("/").key(&scene.customer.key);
    let long = "x".repeat(256);
    for odd in ["", "\"\"", "a b", "\"a", "\u{e4}", long.as_str()] {
        request().field("Idempotency-Key", odd).send().assert_problem(400, "bad-idempotency-key");
    }
    let twice = request().field("Idempotency-Key", "a").field("Idempotency-Key", "a");
    twice.send().assert_problem(400, "bad-idempotency-key");
    scene.upstream.expect_no_call();
    scene.gateway.assert_charges(0, 0);
    // Without a good API key nothing else is said.
    let stranger = scene.gateway.get("/").key("stranger").field("Idempotency-Key", "");
    stranger.send().assert_problem(401, "invalid-key");
}

#[test]
fn with_the_feature_off_the_header_is_the_upstreams_own_affair() {
    let upstream = Upstream::answering(|head, _| {
        let keys = head.fields.iter().filter(|(name, _)| name == "idempotency-key").map(|(_, value)| value.as_str());
        let keys: Vec<&str> = keys.collect();
        let keys = keys.join("+");
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{keys}", keys.len()).into_bytes()
    });
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    let request = || gateway.get("/").key(&customer.key);
    for _ in 0..2 {
        assert_eq!(request().field("Idempotency-Key", "one").send().text(), "one");
    }
    assert_eq!(request().field("Idempotency-Key", "a b").field("idempotency-key", "").send().text(), "a b+");
    gateway.assert_charges(3, 0);
    assert_eq!(gateway.database().number("SELECT count(*) FROM keytoll_requests"), 0);
}

#[test]
fn on_a_free_route_and_without_a_key_nothing_is_remembered() {
    let upstream = Upstream::fine();
    let api = Api::new("weather", upstream.address()).with(ON).route("path = \"/free\"\nprice_cents = 0");
    let gateway = Gateway::of(api.route("path = \"/public\"\npublic = true"));
    let customer = gateway.customer("weather", 500);
    for _ in 0..2 {
        assert_eq!(gateway.get("/free").key(&customer.key).field("Idempotency-Key", "one").send().status(), 200);
        assert_eq!(gateway.get("/public").field("Idempotency-Key", "one").send().status(), 200);
        // What would be no key does not count either.
        assert_eq!(gateway.get("/free").key(&customer.key).field("Idempotency-Key", "a b").send().status(), 200);
        assert_eq!(gateway.get("/").key(&customer.key).send().status(), 200);
    }
    gateway.assert_charges(2, 0);
    assert_eq!(gateway.database().number("SELECT count(*) FROM keytoll_requests"), 0);
}

#[test]
fn keys_are_each_users_and_each_apis_own() {
    let upstream = Upstream::fine();
    let gateway = Gateway::builder()
        .api(Api::new("weather", upstream.address()).path("/weather").with(ON))
        .api(Api::new("maps", upstream.address()).path("/maps").with(ON))
        .start();
    let (one, two) = (gateway.customer("weather", 500), gateway.customer("weather", 500));
    let maps = gateway.key(&one, "maps");
    for (target, key) in [("/weather", &one.key), ("/weather", &two.key), ("/maps", &maps)] {
        let request = gateway.get(target).key(key).field("Idempotency-Key", "one");
        request.send().assert_receipt(10, if target == "/maps" { 480 } else { 490 });
        already_charged(&request);
    }
    gateway.assert_charges(3, 0);
}

#[test]
fn past_their_number_new_keys_are_refused_and_known_ones_are_not() {
    let upstream = Upstream::fine();
    let api = Api::new("weather", upstream.address()).with(ON);
    let gateway = Gateway::builder().api(api).limit("idempotency_keys", 2).start();
    let customer = gateway.customer("weather", 500);
    let request = |key: &str| gateway.get("/").key(&customer.key).field("Idempotency-Key", key);
    request("one").send().assert_receipt(10, 490);
    request("two").send().assert_receipt(10, 480);
    let refused = request("three").send();
    refused.assert_problem(503, "idempotency-full");
    assert!(refused.field("retry-after").is_some());
    already_charged(&request("one"));
    gateway.get("/").key(&customer.key).send().assert_receipt(10, 470);
    gateway.assert_charges(3, 0);
}

#[test]
fn a_user_whose_share_is_full_is_refused_alone_and_requests_that_cost_nothing_take_none_of_it() {
    let upstream = Upstream::answering(|head, _| {
        let status = if head.field("idempotency-key") == Some("fails") { "429 Wait" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let api = Api::new("weather", upstream.address()).with(ON);
    let gateway = Gateway::builder().api(api).limit("idempotency_keys_per_user", 1).start();
    let (one, two) = (gateway.customer("weather", 500), gateway.customer("weather", 500));
    let request = |key: &str, name: &str| gateway.get("/").key(key).field("Idempotency-Key", name);
    for _ in 0..3 {
        request(&one.key, "fails").send().assert_receipt(0, 500);
    }
    request(&one.key, "first").send().assert_receipt(10, 490);
    let refused = request(&one.key, "second").send();
    refused.assert_problem(503, "idempotency-full");
    assert!(refused.field("retry-after").is_some());
    request(&two.key, "second").send().assert_receipt(10, 490);
    gateway.assert_charges(2, 3);
}

#[test]
fn after_its_time_a_key_is_new_and_its_row_goes_by_itself() {
    let upstream = Upstream::fine();
    let api = Api::new("weather", upstream.address()).with(ON);
    let gateway = Gateway::builder().api(api).limit("idempotency_ttl_ms", 1).limit("idempotency_keys", 1).start();
    let customer = gateway.customer("weather", 500);
    let request = gateway.get("/").key(&customer.key).field("Idempotency-Key", "one");
    request.send().assert_receipt(10, 490);
    until("its time is over", || request.send().status() == 200);
    until("it is forgotten", || gateway.database().number("SELECT count(*) FROM keytoll_requests") == 0);
    gateway.settle();
    gateway.database().assert_books();
}

#[test]
fn clients_that_send_one_request_at_once_pay_once() {
    let upstream = Upstream::fine();
    let api = Api::new("weather", upstream.address()).with(ON);
    let gateway = Gateway::builder().workers(2).api(api).start();
    let customer = gateway.customer("weather", 10_000);
    for round in 0..20 {
        let request = gateway.get("/").key(&customer.key).field("Idempotency-Key", round.to_string());
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let request = request.clone();
                std::thread::spawn(move || request.send().status())
            })
            .collect();
        let served = threads.into_iter().map(|thread| thread.join().unwrap()).filter(|status| *status == 200).count();
        // None of them was answered twice.
        assert_eq!(served, 1);
        already_charged(&request);
    }
    gateway.assert_charges(20, 0);
    assert_eq!((gateway.database().balance(customer.id), upstream.seen()), (10_000 - 200, 20));
}
