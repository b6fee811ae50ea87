//! Heads that the HTTP parser refuses.

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::{Api, Client, Gateway, Process, Upstream, until};

/// More than `header_bytes` of [`scene`], which is more than the longest URI that the parser takes.
const TOO_LARGE: usize = 200_000;
const HEADER_BYTES: u64 = 131_072;
const LONG_URI: usize = 100_000;

fn scene() -> (Upstream, Process) {
    let upstream = Upstream::fine();
    let api = Api::new("weather", upstream.address());
    let process = Gateway::builder().api(api).limit("header_bytes", HEADER_BYTES).operators().access_log().spawn();
    (upstream, process)
}

/// Sends a head that is refused, and asserts that the answer is this problem and the last on its connection. The line
/// of the access log, in which no method and no path are claimed.
#[track_caller]
fn refused(process: &Process, address: SocketAddr, head: &str, status: u16, code: &str) -> Value {
    let mut client = Client::connect(address);
    // The gateway may answer and close before it has read everything.
    let _ = client.try_send(head.as_bytes());
    let reply = client.reply();
    let problem = reply.assert_problem(status, code);
    assert_eq!(problem["message"], problem["detail"]);
    assert_eq!(reply.field("connection"), Some("close"), "{reply:?}");
    client.expect_end();
    let line = process.access_line(reply.field("x-request-id").expect("a request id"));
    assert_eq!((&line["method"], &line["path"]), (&Value::from("-"), &Value::from("-")), "{line}");
    assert_eq!((&line["status"], &line["problem"]), (&Value::from(status), &Value::from(code)), "{line}");
    assert_eq!(line.get("settlement"), None, "{line}");
    line
}

/// The same on the data listener of a gateway of its own, with its count.
#[track_caller]
fn refused_and_counted(head: &str, status: u16, code: &str) {
    let (upstream, process) = scene();
    let line = refused(&process, process.address(), head, status, code);
    assert_eq!(line["listener"], "data", "{line}");
    until("the refusal is counted", || process.metric("keytoll_refusals_total", &[("problem", code)]) == 1);
    process.stop();
    assert_eq!(upstream.seen(), 0);
}

#[test]
fn a_method_that_is_no_token_is_refused() {
    refused_and_counted("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request");
}

#[test]
fn a_version_that_is_unknown_is_refused() {
    refused_and_counted("GET / HTTP/3.7\r\nHost: a\r\n\r\n", 400, "bad-request");
}

#[test]
fn a_field_without_a_colon_is_refused() {
    refused_and_counted("GET / HTTP/1.1\r\nHost: a\r\nno field\r\n\r\n", 400, "bad-request");
}

#[test]
fn a_uri_that_is_too_long_is_refused() {
    let head = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "u".repeat(LONG_URI));
    refused_and_counted(&head, 414, "uri-too-long");
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "x".repeat(TOO_LARGE));
    refused_and_counted(&head, 431, "header-too-large");
}

#[test]
fn a_head_with_too_many_fields_is_refused() {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(101));
    refused_and_counted(&head, 431, "header-too-large");
}

#[test]
fn a_length_that_is_no_number_is_refused() {
    refused_and_counted("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: some\r\n\r\n", 400, "bad-request");
}

#[test]
fn two_lengths_are_refused() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc";
    refused_and_counted(head, 400, "bad-request");
}

#[test]
fn a_body_that_is_not_chunked_in_the_end_is_refused() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: gzip\r\n\r\nabc";
    refused_and_counted(head, 400, "bad-request");
}

#[test]
fn both_framings_are_refused_from_an_http_10_client() {
    let head = "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    refused_and_counted(head, 400, "bad-request");
}

#[test]
fn the_preface_of_http_2_is_refused() {
    refused_and_counted("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad-request");
}

#[test]
fn a_handshake_of_tls_is_refused() {
    refused_and_counted("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0", 400, "bad-request");
}

#[test]
fn the_admin_listener_answers_and_logs_the_same() {
    let (_upstream, process) = scene();
    let line = refused(&process, process.admin_address(), "no HTTP at all\r\n\r\n", 400, "bad-request");
    assert_eq!(line["listener"], "admin", "{line}");
    process.stop();
}
