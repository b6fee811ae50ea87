//! What every refusal says and leaves behind, on either listener.

use std::fs;

use serde_json::Value;

use crate::harness::{Api, Gateway, Process, Request, Upstream, until};

fn process(upstream: &Upstream) -> Process {
    let api = Api::new("weather", upstream.address()).path("/weather");
    let gone = Api::new("gone", Upstream::unused_address()).path("/gone").price(0).route("path = \"/\"\npublic = true");
    let builder = Gateway::builder().api(api).api(gone).limit("request_body_bytes", 1_000);
    builder.limit("requests", 1).operators().access_log().spawn()
}

/// The problem has a message for software that shows nothing else, a line in the access log and a count.
#[track_caller]
fn assert_traced(process: &Process, listener: &str, request: &Request, status: u16, code: &str) {
    let labels = [("problem", code)];
    let before = process.metric("keytoll_refusals_total", &labels);
    let reply = request.send();
    let problem = reply.assert_problem(status, code);
    assert_eq!(problem["message"], problem["detail"]);
    assert!(problem["message"].as_str().is_some_and(|message| !message.is_empty()), "{problem}");
    let line = process.access_line(reply.field("x-request-id").expect("a request id"));
    assert_eq!((&line["status"], &line["problem"]), (&Value::from(status), &Value::from(code)), "{line}");
    assert_eq!(line["listener"], listener, "{line}");
    if listener == "data" {
        until("the refusal is counted", || process.metric("keytoll_refusals_total", &labels) == before + 1);
    }
}

#[test]
fn every_refusal_of_the_data_listener_has_a_message_a_line_and_a_count() {
    let upstream = Upstream::fine();
    let process = process(&upstream);
    let (poor, other) = (process.customer("weather", 5), process.customer("gone", 500));
    let get = |target: &str| process.get(target);
    let long = process.request("POST", "/weather").key(&poor.key).body([b'x'; 2_000]);
    for (request, status, code) in [
        (get("/weather"), 401, "missing-key"),
        (get("/weather").key("no-such-key"), 401, "invalid-key"),
        (get("/weather").key(&poor.key).key(&other.key), 400, "ambiguous-key"),
        (get("/weather").key(&other.key), 403, "wrong-api"),
        (get("/weather").key(&poor.key), 402, "insufficient-funds"),
        (get("/nothing"), 404, "no-route"),
        (get("/weather//today").key(&poor.key), 400, "bad-path"),
        (get("/weather").field("Host", "second.example"), 400, "bad-request"),
        (long, 413, "body-too-large"),
        (get("/gone/"), 502, "upstream-unreachable"),
    ] {
        assert_traced(&process, "data", &request, status, code);
    }
    assert_eq!(upstream.seen(), 0);
    process.stop();
}

#[test]
fn a_request_past_the_limit_leaves_a_line_and_a_count() {
    let upstream = Upstream::scripted();
    let process = process(&upstream);
    let customer = process.customer("weather", 500);
    let mut first = process.get("/weather").key(&customer.key).open();
    let call = upstream.call();
    let request = process.get("/weather/today?secret=1").key(&customer.key);
    let reply = request.send();
    let problem = reply.assert_problem(503, "overloaded");
    assert_eq!(problem["message"], problem["detail"]);
    assert_eq!(reply.field("retry-after"), Some("1"));
    let line = process.access_line(reply.field("x-request-id").expect("a request id"));
    assert_eq!((&line["method"], &line["path"]), (&Value::from("GET"), &Value::from("/weather/today")), "{line}");
    assert_eq!((&line["status"], &line["problem"]), (&Value::from(503), &Value::from("overloaded")), "{line}");
    assert_eq!(line["client"], "127.0.0.1", "{line}");
    until("the refusal is counted", || process.metric("keytoll_refusals_total", &[("problem", "overloaded")]) == 1);
    call.reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(first.reply().status(), 200);
    process.stop();
}

#[test]
fn a_request_on_a_connection_past_the_limit_leaves_a_line_and_a_count() {
    let upstream = Upstream::scripted();
    let api = Api::new("weather", upstream.address());
    let process = Gateway::builder().api(api).limit("connections", 1).access_log().spawn();
    let customer = process.customer("weather", 500);
    let mut first = process.get("/").key(&customer.key).open();
    let call = upstream.call();
    let reply = process.get("/today?secret=1").key(&customer.key).send();
    reply.assert_problem(503, "overloaded");
    let line = process.access_line(reply.field("x-request-id").expect("a request id"));
    assert_eq!((&line["method"], &line["path"]), (&Value::from("GET"), &Value::from("/today")), "{line}");
    assert_eq!((&line["status"], &line["problem"]), (&Value::from(503), &Value::from("overloaded")), "{line}");
    until("the refusal is counted", || process.metric("keytoll_refusals_total", &[("problem", "overloaded")]) == 1);
    call.reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(first.reply().status(), 200);
    process.stop();
}

#[test]
fn every_refusal_of_the_admin_listener_has_a_message_and_a_line() {
    let upstream = Upstream::fine();
    let process = process(&upstream);
    let stranger = Request::to_host("localhost", process.admin_address(), "GET", "/v1/users");
    let stranger = stranger.field("Authorization", "Bearer of-an-unknown-person");
    let invalid = process.post("/v1/users", &serde_json::json!({"email": "ada@example.com", "name": 7}));
    for request in [stranger, process.operate("GET", "/v1/nothing"), invalid] {
        let reply = request.send();
        let problem = reply.problem();
        assert_eq!(problem["message"], problem["detail"], "{problem}");
        let line = process.access_line(reply.field("x-request-id").expect("a request id"));
        assert_eq!(line["listener"], "admin", "{line}");
        assert_eq!((&line["status"], &line["problem"]), (&problem["status"], &problem["code"]), "{line}");
    }
    process.stop();
}

#[test]
fn a_request_of_an_operator_that_is_served_has_a_line() {
    let upstream = Upstream::fine();
    let process = process(&upstream);
    let reply = process.operate("GET", "/v1/users").send();
    assert_eq!(reply.status(), 200);
    let line = process.access_line(reply.field("x-request-id").expect("a request id"));
    assert_eq!((&line["listener"], &line["path"]), (&Value::from("admin"), &Value::from("/v1/users")), "{line}");
    assert_eq!(line.get("problem"), None, "{line}");
    process.stop();
}

#[test]
fn a_start_that_fails_says_so_in_json_where_the_log_is_json() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("auth.db"), "no database at all, and longer than the header of one\n".repeat(100))
        .unwrap();
    let upstream = Upstream::fine();
    let refused = Gateway::builder().api(Api::new("weather", upstream.address())).at(directory.path()).refused();
    assert_eq!(refused.status.code(), Some(66), "{refused:?}");
    let said = String::from_utf8(refused.stderr).unwrap();
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.iter().any(|line| line["level"] == "ERROR"), "{said}");
}
