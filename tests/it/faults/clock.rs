//! The wall clock set back.

use serde_json::{Value, json};

use super::{CLIENTS, Scene};
use crate::harness::{Api, OK, Process, Upstream, Word, until};

const HOUR_S: i32 = 3600;

/// When a key was made, as the operators see it; and as the application does.
fn key_made(scene: &Scene, process: &Process, email: &str) -> (String, String) {
    let user = answer(&process.post("/v1/users", &json!({"email": email, "name": "Bob"})).send().body);
    let keys = format!("/v1/users/{}/keys", user["id"]);
    let key = answer(&process.post(&keys, &json!({"api_name": "weather"})).send().body);
    let application = scene.ground.database().open();
    let text = application.query_row("SELECT created_at FROM api_keys WHERE id = ?1", [key["id"].as_i64()], |row| {
        row.get::<_, String>(0)
    });
    (key["created_at"].as_str().unwrap().to_owned(), text.unwrap())
}

fn answer(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

#[test]
fn a_clock_that_is_set_back_an_hour_changes_times_and_nothing_else() {
    let scene = Scene::new();
    let slow = Upstream::scripted();
    let process = scene.gateway().api(Api::new("slow", slow.address()).path("/slow")).spawn();
    let mut waiting = process.get("/slow").key(&scene.ground.issue_key("slow")).open();
    let call = slow.call();
    let charge = call.head.number("keytoll-charge-id").unwrap();
    scene.forwarded.lock().unwrap().push(charge);
    let crowd = scene.crowd(&process);
    let before = key_made(&scene, &process, "bob@example.com");
    let database = scene.ground.database();
    let last_before = database.number("SELECT max(id) FROM keytoll_charges");
    scene.shim.set(Word::ClockBackSeconds, HOUR_S);
    // One batch may have read the clock before and not be committed yet.
    let first_after = database.number("SELECT max(id) FROM keytoll_charges") + 2 * i64::try_from(CLIENTS).unwrap();
    let more = crowd.served() + 50 * CLIENTS;
    until("service", || crowd.served() >= more);
    assert_eq!((crowd.refused(), process.trouble()), (0, None));
    // The times go back with the clock, in the form that they always have.
    let after = key_made(&scene, &process, "eve@example.com");
    for (before, after, length) in [(before.0, after.0, 20), (before.1, after.1, 26)] {
        assert!(after < before, "{after} after {before}");
        assert!(after.len() >= length && after.len() == before.len(), "{after} after {before}");
    }
    // Charges go on in the order of their ids, whatever the times say.
    let held = "SELECT max(held_at) FROM keytoll_charges WHERE id";
    let ahead =
        database.number(&format!("{held} <= {last_before}")) - database.number(&format!("{held} > {first_after}"));
    assert!((3_400_000..3_700_000).contains(&ahead), "{ahead} ms");
    // One that was held before the jump and settled after it is a charge like any other.
    call.reply(OK);
    assert_eq!(waiting.reply().receipt().unwrap().charge, charge);
    let times = database.number(&format!("SELECT settled_at - held_at FROM keytoll_charges WHERE id = {charge}"));
    assert!((-3_700_000..-3_400_000).contains(&times), "{times} ms");
    let shown = answer(&process.operate("GET", &format!("/v1/charges/{charge}")).send().body);
    assert_eq!((&shown["id"], &shown["state"]), (&json!(charge), &json!("captured")), "{shown}");
    scene.shim.set(Word::ClockBackSeconds, 0);
    let more = crowd.served() + 10 * CLIENTS;
    until("service", || crowd.served() >= more);
    scene.close(process, crowd);
}
