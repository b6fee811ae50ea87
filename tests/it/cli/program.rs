//! The program by itself: help, check, health.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use serde_json::json;

use super::Desk;

const API: &str =
    "[[api]]\nname = \"weather\"\npath = \"/weather\"\nupstreams = [\"http://127.0.0.1:3000\"]\nprice_cents = 2\n";

#[test]
fn help_and_version_are_answers() {
    let desk = Desk::new();
    let help = desk.run(&["--help"]).done();
    for word in [
        "serve",
        "demo",
        "check",
        "health",
        "user",
        "key",
        "wallet",
        "doctor",
        "uninstall",
        "Examples:",
        "Exit status:",
    ] {
        assert!(help.out.contains(word), "{word} is not in: {}", help.out);
    }
    assert_eq!(help.err, "");
    assert_eq!(desk.run(&["--version"]).done().out, concat!("keytoll ", env!("CARGO_PKG_VERSION"), "\n"));
    assert!(desk.run(&["check", "--help"]).done().out.contains("Nothing is made, changed or listened on"));
    assert!(desk.run(&["serve", "--help"]).done().out.contains("KEYTOLL_ADMIN_TOKEN"));
}

#[test]
fn check_says_what_a_configuration_means() {
    let desk = Desk::new();
    desk.write("keytoll.toml", API);
    let run = desk.run(&["check"]).done();
    assert!(run.out.contains("keytoll.toml") && run.out.contains("\"weather\": /weather"), "{}", run.out);
    let answer = desk.json(&["check"]);
    assert_eq!((&answer["ok"], &answer["file"]), (&json!(true), &json!("keytoll.toml")));
    assert!(!desk.path("auth.db").exists(), "nothing is opened or made");
    let flags = Desk::new().run(&["check", "--upstream", "http://127.0.0.1:3000", "--price", "3"]).done();
    assert!(flags.out.contains("$0.03"), "{}", flags.out);
}

#[test]
fn check_says_every_mistake_with_its_place() {
    let desk = Desk::new();
    desk.write("keytoll.toml", format!("[server]\nlisten = \"here\"\n[databas]\n{API}"));
    let run = desk.run(&["check"]).refused(78, "keytoll: keytoll.toml:2:10: server.listen: ");
    assert!(run.err.contains("keytoll: keytoll.toml:3:"), "{}", run.err);
    let run = desk.run(&["check", "--json"]);
    assert_eq!((run.status, run.err.as_str()), (78, ""));
    let answer = run.json();
    assert_eq!((&answer["ok"], answer["mistakes"].as_array().unwrap().len()), (&json!(false), 2));
    assert_eq!(answer["mistakes"][0]["place"], "keytoll.toml:2:10");
}

#[test]
fn a_bad_configuration_is_78_for_every_command_that_needs_the_part() {
    let desk = Desk::with_ada();
    desk.write("keytoll.toml", "[database]\ndurability = \"quite\"\n[server]\nlisten = \"here\"\n");
    for command in [&["user", "list"][..], &["key", "list"], &["doctor"], &["uninstall", "--yes"]] {
        let run = desk.run(command).refused(78, "durability");
        assert!(!run.err.contains("listen"), "{}", run.err);
    }
    desk.run(&["health"]).refused(78, "listen");
    desk.run(&["serve"]).refused(78, "no API to serve");
    desk.run(&["user", "list", "--config", "nowhere.toml"]).refused(78, "nowhere.toml");
}

#[test]
fn a_negative_price_is_a_mistake_of_the_configuration_and_not_of_the_arguments() {
    let desk = Desk::new();
    for command in ["serve", "check"] {
        let run = desk.run(&[command, "--upstream", "http://127.0.0.1:3000", "--price", "-1"]);
        run.refused(78, "--price: -1 is out of range");
    }
}

/// A listener that answers one request; its address, and the request when it is over.
fn answer_once(answer: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (address, server)
}

#[test]
fn health_asks_the_gateway_that_is_configured() {
    let desk = Desk::new();
    let (address, server) = answer_once("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let everywhere = address.replace("127.0.0.1", "0.0.0.0");
    let run = desk.run_with(&["health"], &[("KEYTOLL_LISTEN", &everywhere)]).done();
    assert_eq!(run.out, format!("ready: the gateway on {address}\n"));
    let request = server.join().unwrap();
    assert!(
        request.starts_with("GET /.keytoll/readyz HTTP/1.1\r\n") && request.contains(&format!("Host: {address}\r\n"))
    );

    let (address, server) = answer_once("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(desk.json(&["health", "--listen", &address])["ready"], true);
    server.join().unwrap();
}

#[test]
fn a_gateway_that_is_not_ready_or_not_there_is_a_no() {
    let desk = Desk::new();
    let (address, server) = answer_once("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    desk.run(&["health", "--listen", &address]).refused(1, "answers 503");
    server.join().unwrap();
    desk.run(&["health", "--listen", &address]).refused(1, "nothing answers");
    let run = desk.run(&["health", "--json", "--listen", &address]);
    assert_eq!((run.status, &run.json()["ready"]), (1, &json!(false)));
}

#[test]
fn a_stranger_among_the_variables_is_a_warning() {
    let desk = Desk::with_ada();
    let run = desk.run_with(&["user", "list"], &[("KEYTOLL_PORT", "tcp://10.0.0.1:8080")]).done();
    assert!(run.err.starts_with("keytoll: warning: KEYTOLL_PORT "), "{}", run.err);
}
