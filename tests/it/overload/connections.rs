//! `connections` and `probe_connections`: who waits longest makes room, and what is past the limit serves probes.

use super::{Scene, finish, scene};
use crate::harness::{Client, Reply, until};

impl Scene {
    fn refused_connections(&self, reason: &str) -> u64 {
        self.gateway.metric("keytoll_connections_refused_total", &[("listener", "data"), ("reason", reason)])
    }

    /// Waits until a new connection takes the place of one that waits, which it may after a second.
    #[track_caller]
    fn assert_room_is_made(&self) {
        until("room is made", || self.status() == 200);
    }
}

/// A new connection is refused, in words, and closed.
#[track_caller]
fn assert_overloaded(reply: &Reply) {
    let problem = reply.assert_problem(503, "overloaded");
    assert_eq!(problem["message"], problem["detail"]);
    assert_eq!((reply.field("retry-after"), reply.field("connection")), (Some("1"), Some("close")), "{reply:?}");
}

/// One connection waits in this way beside one that is busy, and makes room for a third.
#[track_caller]
fn makes_room(wait: impl FnOnce(&Scene) -> Client) {
    let scene = scene(|builder| builder.limit("connections", 2));
    let (mut busy, call) = scene.begun();
    let mut waiting = wait(&scene);
    scene.assert_room_is_made();
    waiting.rest();
    assert!(scene.refused_connections("evicted") >= 1);
    finish(&mut busy, call);
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn a_silent_connection_makes_room() {
    makes_room(|scene| scene.gateway.connect());
}

#[test]
fn an_idle_kept_connection_makes_room() {
    makes_room(|scene| {
        let mut client = scene.gateway.get("/pages/status").open();
        assert_eq!(client.reply().status(), 200);
        client
    });
}

#[test]
fn a_connection_with_a_slow_head_makes_room() {
    makes_room(|scene| {
        let mut client = scene.gateway.connect();
        client.send(b"GET / HTTP/1.1\r\nHost:");
        client
    });
}

#[test]
fn the_connection_that_has_waited_longest_makes_room() {
    let scene = scene(|builder| builder.limit("connections", 3));
    let (mut busy, call) = scene.begun();
    let mut first = scene.gateway.connect();
    // The second one waits from the end of its last reply on, which is later, and not in the same millisecond.
    let request = scene.gateway.get("/pages/status");
    let mut second = request.open();
    assert_eq!(second.reply().status(), 200);
    std::thread::sleep(std::time::Duration::from_millis(5));
    second.send_request(&request);
    assert_eq!(second.reply().status(), 200);
    // Either may make room then, so that the longer wait alone decides.
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    let mut third = None;
    until("room is made", || {
        let mut client = request.open();
        let is_served = client.try_reply().is_some_and(|reply| reply.status() == 200);
        third = Some(client);
        is_served
    });
    first.expect_end();
    second.send_request(&request);
    assert_eq!(second.reply().status(), 200);
    finish(&mut busy, call);
}

#[test]
fn busy_connections_do_not_make_room() {
    let scene = scene(|builder| builder.limit("connections", 2));
    // One waits for its upstream, one reads a reply.
    let mut first = scene.gateway.get("/weather").key(&scene.customer.key).open();
    let first_call = scene.busy.call();
    let (mut second, second_call) = scene.begun();
    // Longer than a connection has to wait for a head before it makes room.
    let begun = std::time::Instant::now();
    until("more than a second", || {
        assert_overloaded(&scene.gateway.get("/pages/status").send());
        begun.elapsed() > std::time::Duration::from_millis(1_500)
    });
    first_call.reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(first.reply().status(), 200);
    finish(&mut second, second_call);
    scene.gateway.assert_charges(2, 0);
}

#[test]
fn probes_answer_past_the_limit_and_all_else_is_refused() {
    let scene = scene(|builder| builder.limit("connections", 1));
    let (mut busy, call) = scene.begun();
    for _ in 0..3 {
        scene.assert_probes();
        let mut client = scene.gateway.get("/pages/status").open();
        assert_overloaded(&client.reply());
        client.expect_end();
        let mut client = scene.gateway.get("/weather").key(&scene.customer.key).open();
        assert_overloaded(&client.reply());
        client.expect_end();
    }
    finish(&mut busy, call);
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn a_refusal_past_the_limit_on_connections_is_counted() {
    let scene = scene(|builder| builder.limit("connections", 1));
    let (mut busy, call) = scene.begun();
    for count in 1..=3 {
        assert_overloaded(&scene.gateway.get("/pages/status").send());
        let found = || scene.gateway.metric("keytoll_refusals_total", &[("problem", "overloaded")]);
        until("the refusal is counted", || found() == count);
    }
    finish(&mut busy, call);
}

#[test]
fn a_silent_connection_past_the_limit_is_closed_soon() {
    let scene = scene(|builder| builder.limit("connections", 1).limit("probe_header_timeout_ms", 100));
    let (mut busy, call) = scene.begun();
    let mut silent = scene.gateway.connect();
    silent.expect_end();
    finish(&mut busy, call);
}

#[test]
fn silent_connections_past_the_limit_do_not_keep_probes_out() {
    let scene = scene(|builder| {
        builder.limit("connections", 1).limit("probe_connections", 2).limit("probe_header_timeout_ms", 600_000)
    });
    let (mut busy, call) = scene.begun();
    let silent: Vec<_> = (0..10).map(|_| scene.gateway.connect()).collect();
    for _ in 0..3 {
        scene.assert_probes();
    }
    until("room is made", || silent.iter().filter(|client| client.has_ended()).count() >= 8);
    assert!(scene.refused_connections("evicted") >= 8);
    finish(&mut busy, call);
}

#[test]
fn a_place_that_became_free_is_used() {
    let scene = scene(|builder| builder.limit("connections", 1));
    let (mut busy, call) = scene.begun();
    assert_overloaded(&scene.gateway.get("/pages/status").send());
    finish(&mut busy, call);
    busy.leave();
    scene.assert_room_is_made();
}

#[test]
fn a_connection_that_is_too_old_is_closed_after_its_next_reply() {
    let scene = scene(|builder| builder.limit("connection_age_ms", 100));
    let mut client = scene.gateway.get("/weather").key(&scene.customer.key).open();
    let call = scene.busy.call();
    client.expect_silence();
    client.expect_silence();
    call.reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let reply = client.reply();
    assert_eq!((reply.status(), reply.field("connection")), (200, Some("close")), "{reply:?}");
    client.expect_end();
}

/// It hears of the end in a reply, and never loses a request to it.
#[test]
fn a_client_that_asks_all_the_time_loses_no_request_to_the_age_of_its_connection() {
    let scene = scene(|builder| builder.limit("connection_age_ms", 100));
    let request = scene.gateway.get("/pages/status");
    for _ in 0..20 {
        let mut client = request.open();
        let mut reply = client.reply();
        until("the connection's age", || {
            if reply.field("connection") == Some("close") {
                return true;
            }
            client.send_request(&request);
            reply = client.reply();
            assert_eq!(reply.status(), 200);
            false
        });
        client.expect_end();
    }
}

#[test]
fn an_idle_connection_that_is_too_old_is_closed() {
    let scene = scene(|builder| builder.limit("connection_age_ms", 300));
    let mut client = scene.gateway.get("/pages/status").open();
    assert_eq!(client.reply().status(), 200);
    client.expect_end();
}

#[test]
fn a_reply_is_not_cut_for_the_age_of_its_connection() {
    let scene = scene(|builder| builder.limit("connection_age_ms", 100));
    let (mut client, call) = scene.begun();
    client.expect_silence();
    client.expect_silence();
    finish(&mut client, call);
    client.expect_end();
    scene.gateway.assert_charges(1, 0);
}
