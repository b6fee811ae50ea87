//! What was paid for and never answered: one forward more, for the same charge.

use super::{OK, ON, OOPS, Scene};
use crate::harness::{Api, Call, Client, Gateway, Upstream, until};

#[test]
fn a_client_that_left_before_the_head_has_one_forward_more_for_the_same_charge() {
    let scene = Scene::new();
    let charge = scene.unanswered();
    let (mut client, call) = scene.forwarded();
    assert_eq!(call.head.number("keytoll-charge-id"), Some(charge), "the upstream can tell");
    // While it is under way there is no other.
    scene.request().send().assert_problem(409, "request-in-flight");
    call.reply(OK);
    let reply = client.reply();
    assert_eq!((reply.status(), reply.text()), (200, "ok"));
    reply.assert_receipt(10, 490);
    assert_eq!(reply.receipt().unwrap().charge, charge);
    scene.assert_already_charged(charge);
    assert_eq!((scene.balance(), scene.given_back()), (490, vec![]));
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn a_forward_once_more_has_a_long_reply_whole() {
    let scene = Scene::new();
    let charge = scene.unanswered();
    let (mut client, mut call) = scene.forwarded();
    call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    assert_eq!(client.head().number("keytoll-charge-id"), Some(charge));
    client.expect(b"3\r\none\r\n");
    call.reply("3\r\ntwo\r\n0\r\n\r\n");
    client.expect(b"3\r\ntwo\r\n0\r\n\r\n");
    scene.assert_already_charged(charge);
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn a_forward_once_more_is_the_last_whatever_becomes_of_its_head() {
    let scene = Scene::new();
    let charge = scene.unanswered();
    let (client, call) = scene.forwarded();
    client.leave();
    call.reply(OK);
    until("it is over", || scene.gateway.database().number("SELECT count(again_by) FROM keytoll_requests") == 0);
    scene.assert_already_charged(charge);
    scene.gateway.assert_charges(1, 0);
}

/// The second forward fails; what it cost is given back, once, and the next retry pays anew.
fn fails(end: impl FnOnce(&mut Client, Call)) {
    let scene = Scene::new();
    let charge = scene.unanswered();
    let (mut client, call) = scene.forwarded();
    end(&mut client, call);
    assert_eq!((scene.balance(), scene.given_back()), (500, vec![10]));
    let (mut client, call) = scene.forwarded();
    assert_ne!(call.head.number("keytoll-charge-id"), Some(charge));
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
    assert_eq!((scene.balance(), scene.given_back()), (490, vec![10]));
    scene.gateway.assert_charges(2, 0);
}

#[test]
fn a_forward_once_more_that_ends_in_an_outcome_that_is_not_charged_is_given_back() {
    fails(|client, call| {
        call.reply(OOPS);
        let reply = client.reply();
        assert_eq!(reply.status(), 500);
        reply.assert_receipt(0, 500);
    });
}

#[test]
fn a_forward_once_more_that_the_upstream_breaks_off_before_its_head_is_given_back() {
    fails(|client, call| {
        call.break_off();
        let reply = client.reply();
        reply.assert_problem(502, "upstream-broken");
        reply.assert_receipt(0, 500);
    });
}

#[test]
fn a_forward_once_more_whose_reply_breaks_off_is_given_back() {
    fails(|client, mut call| {
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none");
        assert_eq!(client.head().status(), 200);
        client.expect(b"one");
        call.break_off();
        client.expect_end();
    });
}

#[test]
fn a_client_that_breaks_its_own_retry_off_gets_nothing_back() {
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
    assert_eq!(call.head.number("keytoll-charge-id"), Some(charge));
    call.expect(b"2\r\nbo\r\n");
    client.leave();
    call.expect_end();
    until("it is over", || scene.gateway.database().number("SELECT count(again_by) FROM keytoll_requests") == 0);
    assert_eq!((scene.balance(), scene.given_back()), (490, vec![]));
    // Otherwise the upstream could be made to work any number of times for one price.
    scene.assert_already_charged(charge);
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn a_key_that_was_switched_off_meanwhile_has_no_forward_more() {
    let scene = Scene::new();
    scene.unanswered();
    scene.gateway.set_key_active(&scene.customer, false);
    scene.request().send().assert_problem(401, "inactive-key");
    scene.upstream.expect_no_call();
    scene.gateway.set_key_active(&scene.customer, true);
    scene.forwarded().1.reply(OK);
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn a_forward_once_more_is_cut_with_the_gateway_and_given_back() {
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
    assert_eq!(stopped.database.entries(scene.customer.id, "credit"), [10]);
}
