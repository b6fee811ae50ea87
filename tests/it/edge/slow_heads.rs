//! Heads that do not come in time.

use serde_json::Value;

use crate::harness::{Api, Gateway, Process, Upstream, until};

fn scene() -> (Upstream, Process) {
    let upstream = Upstream::fine();
    let api = Api::new("weather", upstream.address());
    let process = Gateway::builder().api(api).limit("header_timeout_ms", 200).access_log().spawn();
    (upstream, process)
}

#[test]
fn a_head_that_was_begun_and_not_finished_is_answered_and_logged() {
    let (upstream, process) = scene();
    let mut client = process.connect();
    client.send(b"GET / HTTP/1.1\r\nHost:");
    let reply = client.reply();
    let problem = reply.assert_problem(408, "header-timeout");
    assert_eq!(problem["message"], problem["detail"]);
    assert_eq!(reply.field("connection"), Some("close"), "{reply:?}");
    client.expect_end();
    let line = process.access_line(reply.field("x-request-id").expect("a request id"));
    assert_eq!((&line["method"], &line["path"]), (&Value::from("-"), &Value::from("-")), "{line}");
    assert_eq!((&line["status"], &line["listener"]), (&Value::from(408), &Value::from("data")), "{line}");
    assert_eq!(line["problem"], "header-timeout", "{line}");
    let count = || process.metric("keytoll_refusals_total", &[("problem", "header-timeout")]);
    until("the refusal is counted", || count() == 1);
    process.stop();
    assert_eq!(upstream.seen(), 0);
}

#[test]
fn a_head_that_was_begun_after_a_reply_and_not_finished_is_answered() {
    let (_upstream, process) = scene();
    let customer = process.customer("weather", 500);
    let mut client = process.get("/").key(&customer.key).open();
    assert_eq!(client.reply().status(), 200);
    client.send(b"GET / HTTP/1.1\r\n");
    client.reply().assert_problem(408, "header-timeout");
    client.expect_end();
    process.stop();
}

/// The begin of the second head is read together with the first request.
#[test]
fn a_head_that_was_begun_before_a_reply_and_not_finished_is_answered() {
    let (_upstream, process) = scene();
    let customer = process.customer("weather", 500);
    let mut client = process.connect();
    let good = format!("GET / HTTP/1.1\r\nHost: a\r\nx-api-key: {}\r\n\r\n", customer.key);
    client.send(format!("{good}GET / HTTP/1.1\r\n").as_bytes());
    assert_eq!(client.reply().status(), 200);
    client.reply().assert_problem(408, "header-timeout");
    client.expect_end();
    process.stop();
}

#[test]
fn a_silent_connection_is_closed_without_a_word_counted_and_summed_up_in_the_log() {
    let (_upstream, process) = scene();
    let mut client = process.connect();
    client.expect_end();
    let labels = [("listener", "data"), ("reason", "head_timeout")];
    until("the connection is counted", || process.metric("keytoll_connections_refused_total", &labels) == 1);
    let line = process.log_line("a line about refused connections", |line| line["reason"] == "head_timeout");
    assert_eq!((&line["count"], &line["listener"]), (&Value::from(1), &Value::from("data")), "{line}");
    process.stop();
}

#[test]
fn a_kept_connection_on_which_nothing_more_was_sent_is_closed_without_a_word() {
    let (_upstream, process) = scene();
    let customer = process.customer("weather", 500);
    let mut client = process.get("/").key(&customer.key).open();
    assert_eq!(client.reply().status(), 200);
    client.expect_end();
    process.stop();
}

#[test]
fn many_refused_connections_are_summed_up() {
    let (_upstream, process) = scene();
    let mut clients: Vec<_> = (0..20).map(|_| process.connect()).collect();
    clients.iter_mut().for_each(crate::harness::Client::expect_end);
    let labels = [("listener", "data"), ("reason", "head_timeout")];
    until("all are counted", || process.metric("keytoll_connections_refused_total", &labels) == 20);
    let logged = || -> Vec<Value> { process.log_lines(|line| line["reason"] == "head_timeout") };
    let sum = |lines: &[Value]| lines.iter().map(|line| line["count"].as_u64().unwrap()).sum::<u64>();
    until("all are in the log", || sum(&logged()) == 20);
    assert!(logged().len() < 20, "{:?}", logged());
    process.stop();
}

#[test]
fn connections_that_made_room_are_summed_up_as_a_warning() {
    let upstream = Upstream::scripted();
    let builder = Gateway::builder().api(Api::new("weather", upstream.address())).limit("connections", 1);
    let process = builder.limit("probe_connections", 1).spawn();
    let customer = process.customer("weather", 500);
    let mut busy = process.get("/").key(&customer.key).open();
    let call = upstream.call();
    let silent: Vec<_> = (0..5).map(|_| process.connect()).collect();
    until("room is made", || silent.iter().filter(|client| client.has_ended()).count() >= 4);
    let line = process.log_line("a line about refused connections", |line| line["reason"] == "evicted");
    assert_eq!((&line["level"], &line["listener"]), (&Value::from("WARN"), &Value::from("data")), "{line}");
    call.reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(busy.reply().status(), 200);
    process.stop();
}
