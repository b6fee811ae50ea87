use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::scene::{Scene, usual_or_free};
use super::show::{self, Line};
use crate::http;
use crate::model::Cents;
use crate::telemetry::watch::Seen;

fn any(_: u16) -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Sends what a curl line of the demo sends, and gives back the reply's head and body.
async fn paste(line: &str) -> String {
    let words = shell_words(line);
    let mut method = if words.iter().any(|word| word == "-d") { "POST" } else { "GET" };
    let (mut url, mut fields, mut body) = (String::new(), String::new(), "");
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-i" | "-N" => {}
            "-X" => method = words.next().unwrap(),
            "-H" => fields.push_str(&format!("{}\r\n", words.next().unwrap())),
            "-d" => body = words.next().unwrap(),
            word => url = word.strip_prefix("http://").unwrap().to_owned(),
        }
    }
    let (host, path) = url.split_once('/').unwrap();
    let head = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}");
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

/// Words as a shell splits them, with single quotes.
fn shell_words(line: &str) -> Vec<String> {
    let quoted = |(index, part): (usize, &str)| match index % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    };
    line.split('\'').enumerate().flat_map(quoted).collect()
}

#[tokio::test]
async fn the_lines_to_paste_do_what_is_said_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let scene = Scene::set(directory.path(), any).await.unwrap();
    let mut text = Vec::new();
    show::welcome(&mut text, &scene.facts);
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
    let expected = [
        ("200", "\"sky\":\"clear\""),
        ("201", "keytoll-cost-cents: 25"),
        ("401", "invalid-key"),
        ("200", "\"status\":\"up\""),
        ("500", "keytoll-cost-cents: 0"),
        ("200", "line 5 of 5"),
        // 500 - 2 - 25 - 2, in the order of the lines.
        ("200", "\"balance_cents\":471"),
        ("201", "\"amount_cents\":1000"),
    ];
    assert_eq!(lines.len(), expected.len());
    for (line, (status, part)) in lines.into_iter().zip(expected) {
        let reply = paste(line).await;
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")) && reply.contains(part), "{line}\n{reply}");
    }
    let wallet = scene.running.store().wallet(scene.facts.user).await.unwrap().unwrap();
    assert_eq!(wallet.balance_cents, Cents(1471));
    scene.running.drain().await;
}

#[test]
fn a_request_is_shown_with_its_cost_and_the_balance_after_it() {
    let seen =
        Seen { method: "GET".into(), path: "/weather/forecast".into(), status: 200, cost_cents: 2, ..Seen::default() };
    let line = Line { seen: &seen, balance: Some(Cents(498)) }.to_string();
    assert_eq!(line, "GET /weather/forecast         200  cost $0.02  balance $4.98");
    let seen = Seen { status: 401, cost_cents: 0, problem: Some("invalid-key".into()), ..seen };
    let line = Line { seen: &seen, balance: None }.to_string();
    assert_eq!(line, "GET /weather/forecast         401  cost $0.00  (invalid-key)");
}

#[test]
fn a_taken_port_gives_way_to_any_other() {
    let taken = http::bind(any(0)).unwrap();
    assert_eq!(usual_or_free(taken.local_addr().port()).port(), 0);
}
