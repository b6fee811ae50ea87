//! What was paid for and never answered: its retry is forwarded, and the first charge refunded.

use super::{OK, ON, OOPS, Scene};
use crate::harness::{Api, Call, Client, Gateway, Upstream, until};

#[test]
fn a_client_that_left_before_the_head_pays_once_with_its_retry() {
    let scene = Scene::new();
    let charge = scene.unanswered();
    let (mut client, call, charge) = scene.retried(charge);
    // While it is under way there is no other.
    scene.request().send().assert_problem(409, "request-in-flight");
    call.reply(OK);
    let reply = client.reply();
    assert_eq!((reply.status(), reply.text()), (200, "ok"));
    reply.assert_receipt(10, 490);
    assert_eq!(reply.receipt().unwrap().charge, charge);
    scene.assert_already_charged(charge);
    assert_eq!((scene.balance(), scene.refunds()), (490, vec![10]));
    scene.gateway.assert_charges(2, 0);
}

#[test]
fn a_retry_has_a_long_reply_whole() {
    let scene = Scene::new();
    let charge = scene.unanswered();
    let (mut client, mut call, charge) = scene.retried(charge);
    call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    assert_eq!(client.head().number("keytoll-charge-id"), Some(charge));
    client.expect(b"3\r\none\r\n");
    call.reply("3\r\ntwo\r\n0\r\n\r\n");
    client.expect(b"3\r\ntwo\r\n0\r\n\r\n");
    scene.assert_already_charged(charge);
    scene.gateway.assert_charges(2, 0);
}

#[test]
fn a_captured_retry_is_the_last_whatever_becomes_of_its_head() {
    let scene = Scene::new();
    let charge = scene.unanswered();
    let (client, call, charge) = scene.retried(charge);
    client.leave();
    call.reply(OK);
    scene.gateway.assert_charges(2, 0);
    // Otherwise the upstream could be made to work any number of times for one price.
    scene.assert_already_charged(charge);
    assert_eq!((scene.balance(), scene.refunds()), (490, vec![10]));
}

/// The retry fails: nothing is paid, and the next retry is a new request.
fn fails(end: impl FnOnce(&mut Client, Call)) {
    let scene = Scene::new();
    let charge = scene.unanswered();
    let (mut client, call, _) = scene.retried(charge);
    end(&mut client, call);
    assert_eq!((scene.balance(), scene.refunds()), (500, vec![10]));
    let (mut client, call) = scene.forwarded();
    assert_eq!(call.head.number("keytoll-retry-of"), None);
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
    assert_eq!((scene.balance(), scene.refunds()), (490, vec![10]));
    scene.gateway.assert_charges(2, 1);
}

#[test]
fn a_retry_with_an_outcome_that_is_not_charged_costs_nothing() {
    fails(|client, call| {
        call.reply(OOPS);
        let reply = client.reply();
        assert_eq!(reply.status(), 500);
        reply.assert_receipt(0, 500);
    });
}

#[test]
fn a_retry_that_the_upstream_breaks_off_before_its_head_costs_nothing() {
    fails(|client, call| {
        call.break_off();
        let reply = client.reply();
        reply.assert_problem(502, "upstream-broken");
        reply.assert_receipt(0, 500);
    });
}

#[test]
fn a_retry_whose_reply_breaks_off_costs_nothing() {
    fails(|client, mut call| {
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none");
        assert_eq!(client.head().status(), 200);
        client.expect(b"one");
        call.break_off();
        client.expect_end();
    });
}

#[test]
fn a_client_that_breaks_its_own_retry_off_pays_for_it() {
    let scene = Scene::new();
    let request = || scene.request().field("Transfer-Encoding", "chunked");
    let mut client = request().open();
    client.send(b"4\r\nbody\r\n0\r\n\r\n");
    let mut call = scene.upstream.call();
    assert_eq!(call.body().unwrap(), b"body");
    let charge = call.head.number("keytoll-charge-id").unwrap();
    client.leave();
    call.reply(OK);
    scene.gateway.assert_charges(1, 0);
    let mut client = request().open();
    client.send(b"2\r\nbo\r\n");
    let mut call = scene.upstream.call();
    assert_eq!(call.head.number("keytoll-retry-of"), Some(charge));
    let charge = call.head.number("keytoll-charge-id").unwrap();
    call.expect(b"2\r\nbo\r\n");
    client.leave();
    call.expect_end();
    scene.gateway.assert_charges(2, 0);
    assert_eq!((scene.balance(), scene.refunds()), (490, vec![10]));
    scene.assert_already_charged(charge);
}

#[test]
fn a_retry_that_is_given_up_before_it_is_forwarded_gets_nothing_back() {
    let scene = Scene::new();
    let request = || scene.request().field("Content-Length", "4");
    let mut client = request().open();
    client.send(b"body");
    let mut call = scene.upstream.call();
    assert_eq!(call.body().unwrap(), b"body");
    client.leave();
    call.reply(OK);
    scene.gateway.assert_charges(1, 0);
    // A short body is collected before anything is forwarded; this one never comes.
    let mut client = request().open();
    client.send(b"bo");
    client.leave();
    until("it has ended", || scene.gateway.metric("keytoll_requests_open", &[("listener", "data")]) == 0);
    assert_eq!((scene.balance(), scene.refunds()), (490, vec![]));
    // It is still owed.
    let mut client = request().open();
    client.send(b"body");
    let mut call = scene.upstream.call();
    assert!(call.head.number("keytoll-retry-of").is_some());
    assert_eq!(call.body().unwrap(), b"body");
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
    scene.gateway.assert_charges(2, 0);
}

#[test]
fn a_key_that_was_switched_off_meanwhile_has_no_retry() {
    let scene = Scene::new();
    scene.unanswered();
    scene.gateway.set_key_active(&scene.customer, false);
    scene.request().send().assert_problem(401, "inactive-key");
    scene.upstream.expect_no_call();
    scene.gateway.set_key_active(&scene.customer, true);
    scene.forwarded().1.reply(OK);
    scene.gateway.assert_charges(2, 0);
}

#[test]
fn a_retry_that_is_cut_with_the_gateway_costs_nothing() {
    let upstream = Upstream::scripted();
    let directory = tempfile::tempdir().unwrap();
    let api = Api::new("weather", upstream.address()).with(ON);
    let gateway = Gateway::builder().api(api).at(directory.path()).drain_timeout_ms(100).start();
    let customer = gateway.customer("weather", 500);
    let scene = Scene { upstream, gateway, customer };
    scene.unanswered();
    let (mut client, mut call) = scene.forwarded();
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none");
    assert_eq!(client.head().status(), 200);
    let stopped = scene.gateway.stop();
    stopped.database.assert_books();
    assert_eq!(stopped.database.balance(scene.customer.id), 500);
    assert_eq!(stopped.database.entries(scene.customer.id, "refund"), [10]);
}
