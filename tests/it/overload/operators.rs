//! The admin listener has limits of its own, which keep no operator and no probe out.

use super::scene;
use crate::harness::{Client, Request, until};

const PROBES: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

#[test]
fn silent_clients_do_not_keep_probes_of_the_admin_listener_out() {
    let scene = scene(|builder| builder.limit("admin_connections", 3));
    let admin = scene.gateway.admin();
    let _silent: Vec<_> = (0..3).map(|_| Client::connect(admin)).collect();
    for _ in 0..3 {
        for probe in PROBES {
            let reply = Request::new(admin, "GET", probe).send();
            assert_eq!(reply.status(), 200, "{probe}: {reply:?}");
        }
    }
}

#[test]
fn many_silent_clients_do_not_keep_probes_of_the_admin_listener_out() {
    let scene = scene(|builder| builder.limit("admin_connections", 3).limit("probe_connections", 2));
    let admin = scene.gateway.admin();
    let _silent: Vec<_> = (0..50).map(|_| Client::connect(admin)).collect();
    for _ in 0..3 {
        for probe in PROBES {
            let reply = Request::new(admin, "GET", probe).send();
            assert_eq!(reply.status(), 200, "{probe}: {reply:?}");
        }
    }
}

#[test]
fn silent_clients_make_room_for_operators() {
    let scene = scene(|builder| builder.limit("admin_connections", 3));
    let admin = scene.gateway.admin();
    let silent: Vec<_> = (0..3).map(|_| Client::connect(admin)).collect();
    // Without a token it is refused; what counts is by whom.
    let request = Request::to_host("localhost", admin, "GET", "/v1/users");
    until("an operator is served", || matches!(request.send().status(), 401 | 403));
    // Which of them has waited longest is decided in milliseconds.
    until("one of them is closed", || silent.iter().any(Client::has_ended));
    let labels = [("listener", "admin"), ("reason", "evicted")];
    assert!(scene.gateway.metric("keytoll_connections_refused_total", &labels) >= 1);
}

#[test]
fn full_listeners_do_not_shut_each_other_out() {
    let scene = scene(|builder| builder.limit("connections", 1).limit("admin_connections", 1));
    let (_busy, _call) = scene.begun();
    let admin = scene.gateway.admin();
    let _silent = Client::connect(admin);
    for probe in PROBES {
        assert_eq!(Request::new(admin, "GET", probe).send().status(), 200, "{probe}");
    }
    scene.assert_probes();
}
