//! The admin API over a running gateway: what it shares with the command line, what it ends at the data listener, and who
//! may address it.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::harness::{Api, Client, Customer, Gateway, Process, Request, Upstream, process};

fn gateway(upstream: &Upstream, directory: &Path) -> Process {
    Gateway::builder().api(Api::new("weather", upstream.address())).at(directory).operators().spawn()
}

/// Runs the program on the file of a gateway.
fn run(gateway: &Process, arguments: &[&str]) -> Output {
    let mut command = process::program();
    command.args(arguments).arg("--database").arg(gateway.database().path());
    command.output().unwrap()
}

fn rotated_by_api(gateway: &Process, customer: &Customer) -> String {
    let reply = gateway.post(&format!("/v1/keys/{}/rotate", customer.key_id), &json!({"grace_seconds": 0})).send();
    assert_eq!(reply.status(), 201, "{}", reply.text());
    let rotated: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(rotated["id"], customer.key_id);
    rotated["key"].as_str().unwrap().to_owned()
}

fn rotated_by_command(gateway: &Process, customer: &Customer) -> String {
    let output = run(gateway, &["key", "rotate", &customer.key_id.to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn a_rotation_counts_at_once_for_both_gateways_on_the_file() {
    let (directory, upstream) = (tempfile::tempdir().unwrap(), Upstream::fine());
    let gateways = [gateway(&upstream, directory.path()), gateway(&upstream, directory.path())];
    let database = gateways[0].database();
    let mut customer = database.customer("weather", 1_000_000);
    let mut clients = [Client::connect(gateways[0].address()), Client::connect(gateways[1].address())];
    let mut ask = |key: &str| -> Vec<_> {
        let requests = clients.iter_mut().zip(&gateways);
        let replies = requests.map(|(client, gateway)| {
            client.send_request(&gateway.get("/").key(key));
            client.reply()
        });
        replies.collect()
    };
    for round in 0..30 {
        assert!(ask(&customer.key).iter().all(|reply| reply.status() == 200), "round {round}");
        let key = match round % 3 {
            0 => rotated_by_api(&gateways[0], &customer),
            1 => rotated_by_api(&gateways[1], &customer),
            _ => rotated_by_command(&gateways[0], &customer),
        };
        for reply in ask(&customer.key) {
            reply.assert_problem(401, "invalid-key");
        }
        assert!(ask(&key).iter().all(|reply| reply.status() == 200), "round {round}");
        customer.key = key;
    }
    for gateway in gateways {
        gateway.stop();
    }
}

/// An amount or a text that both take: what `admin` and the command line say to it.
fn both_agree(gateway: &Process, target: &str, body: &Value, arguments: &[&str]) -> bool {
    let reply = gateway.post(target, body).send();
    let by_api = match reply.status() {
        201 => true,
        422 => false,
        status => panic!("{status} for {body}: {}", reply.text()),
    };
    let output = run(gateway, arguments);
    let by_command = match output.status.code() {
        Some(0) => true,
        Some(2) => false,
        status => panic!("{status:?} for {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)),
    };
    assert_eq!(by_api, by_command, "{body} {arguments:?}");
    by_api
}

#[test]
fn the_api_and_the_command_line_accept_the_same_values() {
    let (directory, upstream) = (tempfile::tempdir().unwrap(), Upstream::fine());
    let gateway = gateway(&upstream, directory.path());
    gateway.database().customer("weather", 1_000_000);
    let entries = "/v1/users/1/wallet/entries";
    let credit = |cents: i64| {
        let body = json!({"kind": "credit", "amount_cents": cents});
        both_agree(&gateway, entries, &body, &["wallet", "credit", "--user", "1", "--cents", &cents.to_string()])
    };
    assert_eq!([1, 1_000_000_000_000].map(credit), [true; 2]);
    assert_eq!([0, -1, i64::MIN, 1_000_000_000_001, i64::MAX].map(credit), [false; 5]);
    // One address for each of the two, of the same length.
    let add = |email: &str, name: &str, cents: i64| {
        let (first, second) = (email.replace('?', "1"), email.replace('?', "2"));
        let body = json!({"email": first, "name": name, "opening_balance_cents": cents});
        let cents = cents.to_string();
        let arguments = ["user", "add", &second, "--name", name, "--opening-cents", &cents];
        both_agree(&gateway, "/v1/users", &body, &arguments)
    };
    assert!(add("a?@b", "N", 0) && add("b?@b", "N", 1_000_000_000_000));
    assert!(!add("c?@b", "N", -1) && !add("c?@b", "N", 1_000_000_000_001));
    let email = |bytes: usize| format!("?@{}", "d".repeat(bytes - 2));
    assert!(add(&email(254), "N", 0) && !add(&email(255), "N", 0));
    for bad in ["?", "?@", "@?", "?@b@c", "? @b", "?@b\u{a0}", "?@b\n"] {
        assert!(!add(bad, "N", 0), "{bad:?}");
    }
    assert!(add("e?@b", &"ë".repeat(200), 0) && !add("f?@b", &"ë".repeat(201), 0));
    assert!(!add("f?@b", "", 0) && !add("f?@b", " ", 0) && !add("f?@b", "a\u{1b}[2J", 0));
    let entry = |field: &str, flag: &str, text: &str| {
        let body = json!({"kind": "credit", "amount_cents": 1, field: text});
        both_agree(&gateway, entries, &body, &["wallet", "credit", "--user", "1", "--cents", "1", flag, text])
    };
    for (field, flag, most, needs_text) in [("note", "--note", 500, false), ("actor", "--actor", 128, true)] {
        assert!(entry(field, flag, &"ë".repeat(most)) && !entry(field, flag, &"ë".repeat(most + 1)), "{field}");
        assert!(!entry(field, flag, "a\nb"), "{field}");
        assert_eq!((entry(field, flag, ""), entry(field, flag, " ")), (!needs_text, !needs_text), "{field}");
    }
    gateway.stop();
}

#[test]
fn a_page_of_another_origin_reaches_no_key() {
    let (directory, upstream) = (tempfile::tempdir().unwrap(), Upstream::fine());
    let configured = Gateway::builder().api(Api::new("weather", upstream.address())).at(directory.path()).operators();
    let gateway = configured.line("admin", "hosts = [\"Ops.example\"]").spawn();
    let ask = |host: &str, target: &str| {
        let request = Request::to_host(host, gateway.admin_address(), "GET", target);
        let token = gateway.token();
        request.field("Authorization", format!("Bearer {token}")).send()
    };
    ask("rebound.example", "/v1/keys").assert_problem(421, "misdirected-request");
    ask("rebound.example:8081", "/v1/nothing").assert_problem(421, "misdirected-request");
    for host in ["ops.example", "OPS.EXAMPLE:8081", "localhost", "127.0.0.1", "[::1]:8081"] {
        assert_eq!(ask(host, "/v1/keys").status(), 200, "{host}");
    }
    for target in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(ask("keytoll.monitoring", target).status(), 200, "{target}");
    }
    gateway.stop();
}
