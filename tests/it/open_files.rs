//! The limit on open files: raised as far as the settings may need, and said when that is not allowed.

use crate::harness::{Api, Gateway, Upstream};

#[test]
fn the_usual_limit_on_open_files_does_not_bound_connections() {
    let upstream = Upstream::scripted();
    let api = Api::new("weather", upstream.address());
    let gateway = Gateway::builder().api(api).open_files("-Sn 64").spawn();
    let customer = gateway.customer("weather", 1000);
    // All at once, each with a connection to the upstream as well.
    let mut clients: Vec<_> = (0..60).map(|_| gateway.get("/").key(&customer.key).open()).collect();
    let calls: Vec<_> = clients.iter().map(|_| upstream.call()).collect();
    calls.into_iter().for_each(|call| call.reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    assert!(clients.iter_mut().all(|client| client.reply().status() == 200));
    gateway.stop();
}

#[test]
fn a_limit_that_the_settings_fit_into_is_not_spoken_of() {
    let upstream = Upstream::fine();
    let api = || Api::new("weather", upstream.address());
    // 120 connections of clients and as many to upstreams fit, however many requests may be in flight.
    let gateway = Gateway::builder().api(api()).limit("connections", 120).open_files("-n 600").spawn();
    assert!(!gateway.has_said("open files"));
    gateway.stop();
    let gateway = Gateway::builder().api(api()).limit("connections", 160).open_files("-n 600").spawn();
    assert!(gateway.has_said("or set limits.connections to at most 138"));
    gateway.stop();
}

#[test]
fn a_limit_that_cannot_be_raised_is_said() {
    let upstream = Upstream::fine();
    let api = Api::new("weather", upstream.address());
    let gateway = Gateway::builder().api(api).open_files("-n 500").spawn();
    assert!(gateway.has_said("open files (10000 connections of clients, 10000 to upstreams, 64 of operators"));
    assert!(gateway.has_said("the operating system allows 500: raise its hard limit"));
    let customer = gateway.customer("weather", 1000);
    gateway.get("/").key(&customer.key).send().assert_receipt(10, 990);
    gateway.stop();
}
