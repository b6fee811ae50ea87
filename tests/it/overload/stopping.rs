//! Stopping: clients are sent elsewhere first, and one deadline bounds all of it.

use std::time::{Duration, Instant};

use super::{BEGUN, builder, finish};
use crate::harness::{Client, GatewayBuilder, Process, Started, Upstream, until};

struct Scene {
    busy: Upstream,
    _fine: Upstream,
    process: Process,
    key: String,
}

fn scene(settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Scene {
    let (busy, fine) = (Upstream::scripted(), Upstream::fine());
    let process = settings(builder(&busy, &fine)).operators().spawn();
    let key = process.customer("weather", 500).key;
    Scene { busy, _fine: fine, process, key }
}

impl Scene {
    /// A stop has begun, and the listener is open still.
    fn stop_begun(&self) {
        self.process.signal("TERM");
        until("the stop", || self.process.get("/.keytoll/readyz").send().status() == 503);
    }
}

#[test]
fn replies_before_the_listener_closes_send_their_clients_elsewhere() {
    let settings = "drain_delay_ms = 600000";
    let scene = scene(|builder| builder.line("server", settings).drain_timeout_ms(1_200_000));
    let request = scene.process.get("/pages/status");
    // One connection was kept before, one reply begins before and ends after, one connection comes then.
    let mut kept = request.open();
    let first = kept.reply();
    assert_eq!((first.status(), first.field("connection")), (200, None), "{first:?}");
    let mut waiting = scene.process.get("/weather").key(&scene.key).open();
    let call = scene.busy.call();
    scene.stop_begun();
    call.reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    kept.send_request(&request);
    let mut fresh = request.open();
    for client in [&mut kept, &mut waiting, &mut fresh] {
        let reply = client.reply();
        assert_eq!((reply.status(), reply.field("connection")), (200, Some("close")), "{reply:?}");
        client.expect_end();
    }
}

#[test]
fn one_deadline_bounds_the_delay_and_both_listeners() {
    let (delay, timeout) = (Duration::from_secs(3), Duration::from_secs(4));
    let mut scene = scene(|builder| builder.line("server", "drain_delay_ms = 3000").drain_timeout_ms(4_000));
    let mut client = scene.process.get("/weather").key(&scene.key).open();
    let mut call = scene.busy.call();
    call.send(BEGUN);
    assert_eq!(client.head().status(), 200);
    client.expect(b"5\r\nfirst\r\n");
    // An operator's request whose body never comes, and one who says nothing.
    let operator = scene.process.operate("POST", "/v1/users").field("Content-Type", "application/json");
    let mut operator = operator.field("Content-Length", "100").open();
    operator.send(b"{");
    let mut silent = Client::connect(scene.process.admin_address());
    let begun = Instant::now();
    scene.process.signal("TERM");
    let status = scene.process.wait();
    assert!(status.success(), "{status}");
    // A deadline for each of them would take longer.
    let taken = begun.elapsed();
    assert!(taken < delay + timeout - Duration::from_secs(1), "{taken:?}");
    client.rest();
    operator.rest();
    silent.rest();
    let charges = scene.process.database();
    charges.assert_books();
    assert_eq!((charges.leased(), charges.charges(1), charges.charges(2)), (0, 0, 1), "leased, captured, released");
}

#[test]
fn the_delay_is_a_part_of_the_deadline() {
    let (busy, fine) = (Upstream::scripted(), Upstream::fine());
    let settings = builder(&busy, &fine).line("server", "drain_delay_ms = 600000").drain_timeout_ms(300);
    match settings.try_spawn(None) {
        Started::Serving(mut process) => {
            process.signal("TERM");
            assert!(process.wait().success());
        }
        // A delay that cannot end before the deadline may also be a mistake of the configuration.
        Started::Ended(status) => assert_eq!(status.code(), Some(78)),
    }
}

/// Who watches the stop sees it to its end.
#[test]
fn operators_are_answered_until_the_last_request_has_ended() {
    let mut scene = scene(|builder| builder.drain_timeout_ms(600_000));
    let mut client = scene.process.get("/weather").key(&scene.key).open();
    let mut call = scene.busy.call();
    call.send(BEGUN);
    assert_eq!(client.head().status(), 200);
    client.expect(b"5\r\nfirst\r\n");
    scene.process.signal("TERM");
    until("the port for clients is closed", || Client::try_connect(scene.process.address()).is_err());
    for (target, status) in [("/healthz", 200), ("/readyz", 503), ("/metrics", 200), ("/v1/users", 200)] {
        assert_eq!(scene.process.operate("GET", target).send().status(), status, "{target}");
    }
    assert_eq!(scene.process.metric("keytoll_requests_open", &[("listener", "data")]), 1);
    finish(&mut client, call);
    let status = scene.process.wait();
    assert!(status.success(), "{status}");
    assert!(Client::try_connect(scene.process.admin_address()).is_err());
}

#[test]
fn a_second_signal_ends_the_delay() {
    let settings = "drain_delay_ms = 600000";
    let mut scene = scene(|builder| builder.line("server", settings).drain_timeout_ms(1_200_000));
    scene.stop_begun();
    scene.process.signal("TERM");
    let status = scene.process.wait();
    assert!(status.success(), "{status}");
}

#[test]
fn a_hangup_is_logged_and_ignored() {
    let mut scene = scene(|builder| builder);
    let mut client = scene.process.get("/weather").key(&scene.key).open();
    let call = scene.busy.call();
    scene.process.signal("HUP");
    until("the signal", || {
        assert!(scene.process.ended().is_none(), "the gateway ended");
        scene.process.has_said("SIGHUP")
    });
    call.reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.reply().status(), 200);
    assert_eq!(scene.process.get("/pages/status").send().status(), 200);
    scene.process.stop();
}
