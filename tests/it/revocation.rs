//! Revocation is exact for priced requests, whoever revokes; for free ones it follows by itself.

use std::thread::JoinHandle;

use crate::harness::{Api, Client, Customer, Gateway, Reply, Upstream, until};

const ROUNDS: usize = 60;

fn gateway(upstream: &Upstream) -> Gateway {
    let api = Api::new("weather", upstream.address()).route("path = \"/free\"\nprice_cents = 0");
    Gateway::builder().workers(2).api(api).start()
}

/// A priced request on a connection that is open already.
fn ask(gateway: &Gateway, client: &mut Client, customer: &Customer) -> u16 {
    client.send_request(&gateway.get("/").key(&customer.key));
    client.reply().status()
}

/// Four clients that use the key until they get another status than 200. Returns threads that end with that reply.
fn use_until_refused(gateway: &Gateway, customer: &Customer) -> Vec<JoinHandle<Reply>> {
    let use_it = |_| {
        let (address, request) = (gateway.address(), gateway.get("/").key(&customer.key));
        std::thread::spawn(move || {
            let mut client = Client::connect(address);
            loop {
                client.send_request(&request);
                let reply = client.reply();
                if reply.status() != 200 {
                    return reply;
                }
            }
        })
    };
    (0..4).map(use_it).collect()
}

/// Revokes in one way after a request that was paid, restores, and again: the very next request is always right.
fn revoked_and_restored(revoke: &str, restore: &str, of_user: bool) {
    let upstream = Upstream::fine();
    let gateway = gateway(&upstream);
    let customer = gateway.customer("weather", 1_000_000);
    let id = if of_user { customer.id } else { customer.key_id };
    let other = gateway.database().open();
    let mut clients = [gateway.connect(), gateway.connect(), gateway.connect()];
    for round in 0..ROUNDS {
        for client in &mut clients {
            // Nothing confirms a refusal, so that one that was just given may be given again for a moment.
            until("a key that is good again is served", || ask(&gateway, client, &customer) == 200);
        }
        other.execute(revoke, [id]).unwrap();
        for client in &mut clients {
            assert_eq!(ask(&gateway, client, &customer), 401, "round {round}: revoked at once");
        }
        other.execute(restore, [id]).unwrap();
    }
    assert_eq!(upstream.seen(), 3 * ROUNDS);
    gateway.assert_charges(i64::try_from(3 * ROUNDS).unwrap(), 0);
}

#[test]
fn a_key_that_another_program_switches_off_is_refused_at_once() {
    let revoke = "UPDATE api_keys SET is_active = 0 WHERE id = ?1";
    revoked_and_restored(revoke, "UPDATE api_keys SET is_active = 1 WHERE id = ?1", false);
}

#[test]
fn a_key_that_is_neither_on_nor_off_is_refused_at_once() {
    let revoke = "UPDATE api_keys SET is_active = NULL WHERE id = ?1";
    revoked_and_restored(revoke, "UPDATE api_keys SET is_active = 1 WHERE id = ?1", false);
}

#[test]
fn the_keys_of_a_user_that_another_program_switches_off_are_refused_at_once() {
    let revoke = "UPDATE users SET is_active = 0 WHERE id = ?1";
    revoked_and_restored(revoke, "UPDATE users SET is_active = 1 WHERE id = ?1", true);
}

#[test]
fn a_key_that_another_program_moves_to_another_api_is_refused_at_once() {
    let upstream = Upstream::fine();
    let gateway = gateway(&upstream);
    let customer = gateway.customer("weather", 500);
    assert_eq!(gateway.get("/").key(&customer.key).send().status(), 200);
    gateway.database().execute("UPDATE api_keys SET api_name = 'maps' WHERE id = ?1", [customer.key_id]);
    gateway.get("/").key(&customer.key).send().assert_problem(403, "wrong-api");
    gateway.database().execute("UPDATE api_keys SET api_name = 'weather' WHERE id = ?1", [customer.key_id]);
    until("a key that came back is served", || gateway.get("/").key(&customer.key).send().status() == 200);
    gateway.assert_charges(2, 0);
}

#[test]
fn a_key_that_another_program_deletes_is_refused_at_once() {
    let upstream = Upstream::fine();
    let gateway = gateway(&upstream);
    let mut client = gateway.connect();
    for round in 0..ROUNDS {
        let customer = gateway.customer("weather", 500);
        assert_eq!(ask(&gateway, &mut client, &customer), 200, "round {round}");
        gateway.database().execute("DELETE FROM api_keys WHERE id = ?1", [customer.key_id]);
        assert_eq!(ask(&gateway, &mut client, &customer), 401, "round {round}");
    }
    gateway.assert_charges(i64::try_from(ROUNDS).unwrap(), 0);
}

#[test]
fn a_key_that_is_revoked_while_others_use_it_buys_nothing_more() {
    let upstream = Upstream::fine();
    let gateway = gateway(&upstream);
    let other = gateway.database().open();
    for round in 0..20 {
        let customer = gateway.customer("weather", 1_000_000);
        let before = upstream.seen();
        let users = use_until_refused(&gateway, &customer);
        until("traffic", || upstream.seen() >= before + 8);
        other.execute("UPDATE api_keys SET is_active = 0 WHERE id = ?1", [customer.key_id]).unwrap();
        gateway.get("/").key(&customer.key).send().assert_problem(401, "inactive-key");
        for user in users {
            assert_eq!(user.join().unwrap().status(), 401, "round {round}");
        }
    }
    gateway.settle();
    gateway.database().assert_books();
}

#[test]
fn what_the_gateway_itself_changes_is_in_force_when_it_is_answered() {
    let upstream = Upstream::fine();
    let gateway = gateway(&upstream);
    let customer = gateway.customer("weather", 10_000);
    for _ in 0..ROUNDS {
        assert_eq!(gateway.get("/").key(&customer.key).send().status(), 200);
        assert_eq!(gateway.get("/free").key(&customer.key).send().status(), 200);
        gateway.set_key_active(&customer, false);
        gateway.get("/free").key(&customer.key).send().assert_problem(401, "inactive-key");
        gateway.get("/").key(&customer.key).send().assert_problem(401, "inactive-key");
        gateway.set_key_active(&customer, true);
    }
    gateway.assert_charges(i64::try_from(ROUNDS).unwrap(), 0);
}

#[test]
fn a_rotated_key_is_refused_and_its_successor_served_when_the_rotation_is_answered() {
    let upstream = Upstream::fine();
    let gateway = gateway(&upstream);
    let mut customer = gateway.customer("weather", 10_000);
    let mut clients = [gateway.connect(), gateway.connect(), gateway.connect()];
    for round in 0..ROUNDS {
        for client in &mut clients {
            assert_eq!(ask(&gateway, client, &customer), 200, "round {round}");
        }
        assert_eq!(gateway.get("/free").key(&customer.key).send().status(), 200);
        let rotated = gateway.rotate(&customer);
        for client in &mut clients {
            client.send_request(&gateway.get("/").key(&customer.key));
            client.reply().assert_problem(401, "invalid-key");
        }
        gateway.get("/free").key(&customer.key).send().assert_problem(401, "invalid-key");
        assert_eq!(gateway.get("/free").key(&rotated.key).send().status(), 200);
        customer = rotated;
    }
    gateway.assert_charges(i64::try_from(3 * ROUNDS).unwrap(), 0);
}

#[test]
fn a_key_that_is_rotated_while_others_use_it_buys_nothing_more() {
    let upstream = Upstream::fine();
    let gateway = gateway(&upstream);
    let mut customer = gateway.customer("weather", 1_000_000);
    for round in 0..20 {
        let before = upstream.seen();
        let users = use_until_refused(&gateway, &customer);
        until("traffic", || upstream.seen() >= before + 8);
        let rotated = gateway.rotate(&customer);
        gateway.get("/").key(&customer.key).send().assert_problem(401, "invalid-key");
        assert_eq!(gateway.get("/").key(&rotated.key).send().status(), 200, "round {round}");
        for user in users {
            user.join().unwrap().assert_problem(401, "invalid-key");
        }
        customer = rotated;
    }
    gateway.settle();
    gateway.database().assert_books();
}

#[test]
fn a_free_route_follows_a_revocation_and_its_end() {
    let upstream = Upstream::fine();
    let gateway = gateway(&upstream);
    let customer = gateway.customer("weather", 0);
    let free = || gateway.get("/free").key(&customer.key).send().status();
    for _ in 0..5 {
        until("a good key opens a free route", || free() == 200);
        gateway.database().execute("UPDATE api_keys SET is_active = 0 WHERE id = ?1", [customer.key_id]);
        until("a revoked key is refused on a free route", || free() == 401);
        gateway.database().execute("UPDATE api_keys SET is_active = 1 WHERE id = ?1", [customer.key_id]);
    }
    gateway.assert_charges(0, 0);
}
