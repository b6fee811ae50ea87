//! Which key opens what, and that none is ever seen behind the gateway.

use crate::harness::{Api, Gateway, OK, Upstream};

/// A gateway with two APIs, and the upstream of both.
fn two_apis() -> (Upstream, Gateway) {
    let upstream = Upstream::scripted();
    let gateway = Gateway::builder()
        .api(Api::new("weather", upstream.address()).path("/weather"))
        .api(Api::new("maps", upstream.address()).path("/maps"))
        .line("keys", "sources = [\"header:x-api-key\", \"authorization:bearer\", \"query:key\"]")
        .start();
    (upstream, gateway)
}

#[test]
fn a_key_for_one_api_is_refused_at_another_and_nothing_is_held() {
    let (upstream, gateway) = two_apis();
    let customer = gateway.customer("weather", 500);
    gateway.get("/maps").key(&customer.key).send().assert_problem(403, "wrong-api");
    upstream.expect_no_call();
    gateway.assert_charges(0, 0);
    assert_eq!(gateway.database().balance(customer.id), 500);
}

#[test]
fn no_key_and_no_good_key_are_challenged() {
    let (upstream, gateway) = two_apis();
    let challenge = Some("Bearer realm=\"keytoll\"");
    let missing = gateway.get("/weather").send();
    missing.assert_problem(401, "missing-key");
    assert_eq!(missing.field("www-authenticate"), challenge);
    for nonsense in ["nonsense", "kt_000000000000000000000000000000000000", "Bearer x"] {
        let unknown = gateway.get("/weather").key(nonsense).send();
        unknown.assert_problem(401, "invalid-key");
        assert_eq!(unknown.field("www-authenticate"), challenge);
    }
    let customer = gateway.customer("weather", 500);
    gateway.set_key_active(&customer, false);
    let inactive = gateway.get("/weather").key(&customer.key).send();
    inactive.assert_problem(401, "inactive-key");
    assert_eq!(inactive.field("www-authenticate"), challenge);
    assert_eq!(upstream.seen(), 0);
    gateway.assert_charges(0, 0);
}

#[test]
fn a_mistyped_issued_key_is_refused_without_a_look_up() {
    let (_upstream, gateway) = two_apis();
    let customer = gateway.customer("weather", 500);
    let mut mistyped = customer.key.clone();
    let last = if mistyped.ends_with('0') { "1" } else { "0" };
    mistyped.replace_range(mistyped.len() - 1.., last);
    // In the file, as another program might have put it there: a look-up would find it.
    gateway.database().execute("UPDATE api_keys SET \"key\" = ?1 WHERE id = ?2", (&mistyped, customer.key_id));
    gateway.get("/weather").key(&mistyped).send().assert_problem(401, "invalid-key");
}

#[test]
fn what_can_be_no_key_is_refused() {
    let (upstream, gateway) = two_apis();
    let customer = gateway.customer("weather", 500);
    let stored: String = gateway
        .database()
        .open()
        .query_row("SELECT \"key\" FROM api_keys WHERE id = ?1", [customer.key_id], |row| row.get(0))
        .unwrap();
    assert!(stored.starts_with("sha256:"));
    let long = "k".repeat(10_000);
    let rubbish: &[u8] = b"\xff\xfe\x80key\xc3\x28";
    for key in [stored.as_bytes(), stored.to_uppercase().as_bytes(), long.as_bytes(), rubbish, b"a b", b""] {
        gateway.get("/weather").field("x-api-key", key).send().assert_problem(401, "invalid-key");
    }
    assert_eq!(upstream.seen(), 0);
    gateway.assert_charges(0, 0);
}

#[test]
fn two_keys_are_ambiguous() {
    let (upstream, gateway) = two_apis();
    let (one, other) = (gateway.customer("weather", 500), gateway.customer("weather", 500));
    let twice = gateway.get("/weather").key(&one.key).key(&one.key).send();
    twice.assert_problem(400, "ambiguous-key");
    let two = gateway.get("/weather").key(&one.key).field("Authorization", format!("Bearer {}", other.key)).send();
    two.assert_problem(400, "ambiguous-key");
    let query = gateway.get(&format!("/weather?key={}", other.key)).key(&one.key).send();
    query.assert_problem(400, "ambiguous-key");
    assert_eq!(upstream.seen(), 0);
    gateway.assert_charges(0, 0);
}

#[test]
fn the_same_key_in_two_places_is_taken_out_of_both() {
    let (upstream, gateway) = two_apis();
    let customer = gateway.customer("weather", 500);
    let target = format!("/weather?a=1&key={}&b=2", customer.key);
    let mut client =
        gateway.get(&target).key(&customer.key).field("Authorization", format!("Bearer {}", customer.key)).open();
    let call = upstream.call();
    assert_eq!(call.head.target(), "/weather?a=1&b=2");
    assert!(!format!("{:?}", call.head).contains(&customer.key), "{:?}", call.head);
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
}

#[test]
fn a_key_from_any_source_never_reaches_the_upstream() {
    let (upstream, gateway) = two_apis();
    let customer = gateway.customer("weather", 500);
    let key = &customer.key;
    for request in [
        gateway.get("/weather").key(key),
        gateway.get("/weather").field("X-API-KEY", key),
        gateway.get("/weather").field("Authorization", format!("bearer  {key}")),
        gateway.get(&format!("/weather?key={key}")),
        gateway.get(&format!("/weather?x=%20&k%65y={key}&y")),
    ] {
        let mut client = request.open();
        let call = upstream.call();
        assert!(!format!("{:?}", call.head).contains(key.as_str()), "{:?}", call.head);
        call.reply(OK);
        assert_eq!(client.reply().status(), 200);
    }
    gateway.assert_charges(5, 0);
}

/// Another spelling is no source of keys, and for upstreams that do not tell it apart it is the header itself.
#[test]
fn a_key_under_another_spelling_of_its_header_is_not_read_and_not_forwarded() {
    let (upstream, gateway) = two_apis();
    let (customer, other) = (gateway.customer("weather", 500), gateway.customer("weather", 500));
    for name in ["X_API_KEY", "x.api.key", "X-Api_Key", "x~api-key"] {
        gateway.get("/weather").field(name, &customer.key).send().assert_problem(401, "missing-key");
        for value in [&customer.key, &other.key, "anything"] {
            let mut client = gateway.get("/weather").key(&customer.key).field(name, value).open();
            let call = upstream.call();
            assert_eq!(call.head.field(&name.to_ascii_lowercase()), None, "{name}");
            call.reply(OK);
            assert_eq!(client.reply().status(), 200);
        }
    }
    gateway.assert_charges(12, 0);
    assert_eq!(gateway.database().balance(other.id), 500);
}

#[test]
fn a_key_under_another_spelling_of_its_header_is_not_forwarded_on_a_public_route() {
    let upstream = Upstream::scripted();
    let gateway = Gateway::of(Api::new("weather", upstream.address()).route("path = \"/status\"\npublic = true"));
    let customer = gateway.customer("weather", 500);
    let mut client = gateway.get("/status").field("X_Api_Key", &customer.key).open();
    let call = upstream.call();
    assert!(!format!("{:?}", call.head).contains(&customer.key), "{:?}", call.head);
    call.reply(OK);
    assert_eq!(client.reply().status(), 200);
}

#[test]
fn a_key_in_a_trailer_is_not_forwarded() {
    let (upstream, gateway) = two_apis();
    let customer = gateway.customer("weather", 500);
    let names = ["X-API-Key", "X_Api.Key", "Authorization"];
    let mut client = gateway.connect();
    let head = "POST /weather HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n";
    let listed = format!("{head}Trailer: X-Check, {}\r\nX-API-Key: {}\r\n\r\n", names.join(", "), customer.key);
    client.send(listed.as_bytes());
    let lines = names.map(|name| format!("{name}: {}\r\n", customer.key)).concat();
    client.send(format!("5\r\nhello\r\n0\r\nX-Check: passes\r\n{lines}\r\n").as_bytes());
    let mut call = upstream.call();
    let (body, trailers) = call.body_and_trailers().unwrap();
    assert_eq!(body, b"hello");
    assert_eq!(trailers, [("x-check".to_owned(), "passes".to_owned())]);
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
}

#[test]
fn a_token_of_the_application_beside_a_key_is_forwarded_untouched() {
    let (upstream, gateway) = two_apis();
    let customer = gateway.customer("weather", 500);
    let token = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln";
    let mut client = gateway.get("/weather").key(&customer.key).field("Authorization", token).open();
    let call = upstream.call();
    assert_eq!(call.head.field("authorization"), Some(token));
    assert_eq!(call.head.field("x-api-key"), None);
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
}

#[test]
fn another_key_of_the_same_user_opens_another_api() {
    let (upstream, gateway) = two_apis();
    let customer = gateway.customer("weather", 500);
    let maps = gateway.key(&customer, "maps");
    let mut client = gateway.get("/maps").key(&maps).open();
    upstream.call().reply(OK);
    client.reply().assert_receipt(10, 490);
    gateway.get("/weather").key(&maps).send().assert_problem(403, "wrong-api");
    gateway.assert_charges(1, 0);
}

#[test]
fn a_refused_request_is_not_asked_for_its_body() {
    let (upstream, gateway) = two_apis();
    let customer = gateway.customer("weather", 500);
    let post = gateway.request("POST", "/weather").field("Content-Length", "5").field("Expect", "100-continue");
    let mut refused = post.open();
    assert_eq!(refused.head().status(), 401);
    let mut client = post.key(&customer.key).open();
    assert_eq!(client.head().first_line, "HTTP/1.1 100 Continue");
    client.send(b"hello");
    let mut call = upstream.call();
    assert_eq!(call.body().unwrap(), b"hello");
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
}
