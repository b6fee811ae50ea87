//! `requests`: how many are in flight at once.

use std::time::Instant;

use super::{BEGUN, Scene, finish, scene};
use crate::harness::{GLANCE, until};

impl Scene {
    /// Nothing is served for as long as it is looked for.
    #[track_caller]
    fn assert_full(&self) {
        let begun = Instant::now();
        while begun.elapsed() < GLANCE {
            let reply = self.gateway.get("/pages/status").send();
            reply.assert_problem(503, "overloaded");
            assert_eq!(reply.field("retry-after"), Some("1"));
        }
        self.assert_probes();
    }

    #[track_caller]
    fn assert_served_soon(&self) {
        until("a request is served", || self.status() == 200);
    }
}

#[test]
fn a_request_counts_until_its_reply_has_ended() {
    let scene = scene(|builder| builder.limit("requests", 3));
    let mut streams: Vec<_> = (0..3).map(|_| scene.begun()).collect();
    scene.assert_full();
    let (mut client, call) = streams.pop().unwrap();
    finish(&mut client, call);
    scene.assert_served_soon();
    for (mut client, call) in streams {
        finish(&mut client, call);
    }
    scene.gateway.assert_charges(3, 0);
}

#[test]
fn a_request_counts_while_its_upstream_works() {
    let scene = scene(|builder| builder.limit("requests", 1));
    let mut client = scene.gateway.get("/weather").key(&scene.customer.key).open();
    let mut call = scene.busy.call();
    scene.assert_full();
    call.send(BEGUN);
    assert_eq!(client.head().status(), 200);
    client.expect(b"5\r\nfirst\r\n");
    finish(&mut client, call);
    scene.assert_served_soon();
}

#[test]
fn a_request_counts_until_it_is_settled_although_its_client_has_left() {
    let scene = scene(|builder| builder.limit("requests", 1));
    let client = scene.gateway.get("/weather").key(&scene.customer.key).open();
    let call = scene.busy.call();
    client.leave();
    scene.assert_full();
    call.reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    scene.assert_served_soon();
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn a_reply_that_its_client_leaves_counts_no_longer() {
    let scene = scene(|builder| builder.limit("requests", 1));
    let (client, _call) = scene.begun();
    scene.assert_full();
    client.leave();
    scene.assert_served_soon();
}

#[test]
fn an_upgraded_connection_counts_until_it_ends() {
    let scene = scene(|builder| builder.limit("requests", 1));
    let request = scene.gateway.get("/weather").key(&scene.customer.key);
    let mut client = request.field("Connection", "Upgrade").field("Upgrade", "websocket").open();
    let mut call = scene.busy.call();
    call.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.reply().status(), 101);
    client.send(b"up");
    call.expect(b"up");
    scene.assert_full();
    client.finish();
    call.expect_end();
    // Both sides have to end.
    drop(call);
    scene.assert_served_soon();
}

#[test]
fn a_refused_request_keeps_its_connection() {
    let scene = scene(|builder| builder.limit("requests", 1));
    let (mut client, call) = scene.begun();
    let request = scene.gateway.get("/pages/status");
    let mut refused = request.open();
    refused.reply().assert_problem(503, "overloaded");
    finish(&mut client, call);
    until("the same connection is served", || {
        refused.send_request(&request);
        refused.reply().status() == 200
    });
}
