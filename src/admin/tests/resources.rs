//! One resource after the other.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::*;
use crate::model::{ApiKey, Cents};
use crate::store::{Found, HoldRequest};

#[tokio::test]
async fn a_user_is_made_shown_changed_and_listed() {
    let plane = Plane::start().await;
    let body = r#"{"email":"a@b.example","name":"Ada","opening_balance_cents":7}"#;
    let made = plane.json("POST", "/v1/users", body).await;
    let user = json!({"id": 1, "email": "a@b.example", "name": "Ada", "is_active": true});
    assert_eq!((made.status, made.header("location"), &made.body), (201, Some("/v1/users/1"), &user));
    assert_eq!(plane.get("/v1/users/1").await.body, user);
    assert_eq!(plane.get("/v1/users/1/wallet").await.body, json!({"user_id": 1, "balance_cents": 7}));
    assert_eq!(plane.json("POST", "/v1/users", body).await.problem(), (409, "duplicate"));
    let changed = plane.json("PATCH", "/v1/users/1", r#"{"is_active":false}"#).await;
    assert_eq!(
        (changed.status, &changed.body["is_active"], &changed.body["name"]),
        (200, &json!(false), &json!("Ada"))
    );
    let second = plane.add_user("c@d.example").await;
    let taken = plane.json("PATCH", &format!("/v1/users/{second}"), r#"{"email":"a@b.example"}"#).await;
    assert_eq!(taken.problem(), (409, "duplicate"));
    assert_eq!(plane.json("PATCH", "/v1/users/1", r#"{"is_active":1}"#).await.fields(), ["is_active"]);
    assert_eq!(plane.json("PATCH", "/v1/users/99", "{}").await.problem(), (404, "not-found"));
    let first = plane.get("/v1/users?limit=1").await.body;
    assert_eq!((first["data"].as_array().unwrap().len(), &first["next_cursor"]), (1, &json!(1)));
    let rest = plane.get("/v1/users?cursor=1").await.body;
    assert_eq!((&rest["data"][0]["id"], &rest["next_cursor"]), (&json!(2), &Value::Null));
}

#[tokio::test]
async fn a_key_is_shown_once_and_good_when_the_answer_is_there() {
    let plane = Plane::start().await;
    plane.add_user("a@b.example").await;
    let made = plane.json("POST", "/v1/users/1/keys", r#"{"api_name":"weather"}"#).await;
    assert_eq!((made.status, made.header("location")), (201, Some("/v1/keys/1")));
    let key = ApiKey::new(made.body["key"].as_str().unwrap()).unwrap();
    assert!(matches!(plane.store.find_key(key.clone()).await.unwrap(), Found::Active { .. }));
    let mut record = made.body.clone();
    record.as_object_mut().unwrap().remove("key");
    for field in ["id", "user_id", "api_name", "is_active", "created_at", "hint"] {
        assert!(record.as_object_mut().unwrap().contains_key(field), "{field}");
    }
    assert!(record["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(plane.get("/v1/keys/1").await.body, record);
    for path in ["/v1/keys", "/v1/keys?user_id=1&api_name=weather", "/v1/users/1/keys"] {
        assert_eq!(plane.get(path).await.body, json!({"data": [record], "next_cursor": null}), "{path}");
    }
    assert_eq!(plane.get("/v1/keys?api_name=maps").await.body["data"], json!([]));
    let off = plane.json("PATCH", "/v1/keys/1", r#"{"is_active":false}"#).await;
    assert_eq!((off.status, &off.body["is_active"]), (200, &json!(false)));
    assert!(matches!(plane.store.find_key(key.clone()).await.unwrap(), Found::Inactive));
    let gone = plane.send("DELETE", "/v1/keys/1", &bearer(), "").await;
    assert_eq!((gone.status, gone.text.as_str()), (204, ""));
    assert!(matches!(plane.store.find_key(key).await.unwrap(), Found::Unknown));
    assert_eq!(plane.send("DELETE", "/v1/keys/1", &bearer(), "").await.problem(), (404, "not-found"));
}

#[tokio::test]
async fn a_key_is_issued_once_for_a_configured_api_and_a_user_that_is_there() {
    let plane = Plane::start().await;
    plane.add_user("a@b.example").await;
    let wrong = plane.json("POST", "/v1/users/1/keys", r#"{"api_name":"wether"}"#).await;
    assert_eq!(wrong.fields(), ["api_name"]);
    assert!(wrong.text.contains("weather, maps"));
    assert_eq!(plane.json("POST", "/v1/users/1/keys", "{}").await.fields(), ["api_name"]);
    let body = r#"{"api_name":"maps"}"#;
    assert_eq!(plane.json("POST", "/v1/users/9/keys", body).await.problem(), (404, "not-found"));
    assert_eq!(plane.json("POST", "/v1/users/1/keys", body).await.status, 201);
    assert_eq!(plane.json("POST", "/v1/users/1/keys", body).await.problem(), (409, "duplicate"));
    assert_eq!(plane.json("PATCH", "/v1/keys/1", "{}").await.fields(), ["is_active"]);
}

#[tokio::test]
async fn a_rotated_key_is_the_same_row_with_another_secret() {
    let plane = Plane::start().await;
    plane.add_user("a@b.example").await;
    let made = plane.json("POST", "/v1/users/1/keys", r#"{"api_name":"weather"}"#).await;
    let rotated = plane.json("POST", "/v1/keys/1/rotate", r#"{"grace_seconds":0}"#).await;
    assert_eq!((rotated.status, rotated.header("location")), (201, Some("/v1/keys/1")));
    for field in ["id", "user_id", "api_name", "is_active", "created_at"] {
        assert_eq!(rotated.body[field], made.body[field], "{field}");
    }
    assert_ne!(rotated.body["hint"], made.body["hint"]);
    let [old, new] = [&made, &rotated].map(|answer| ApiKey::new(answer.body["key"].as_str().unwrap()).unwrap());
    assert!(matches!(plane.store.find_key(old).await.unwrap(), Found::Unknown));
    assert!(matches!(plane.store.find_key(new).await.unwrap(), Found::Active { .. }));
    let mut record = rotated.body.clone();
    record.as_object_mut().unwrap().remove("key");
    assert_eq!(plane.get("/v1/keys/1").await.body, record);
    // Without a body, or with an empty object, the old secret ends at once too.
    for answer in [
        plane.send("POST", "/v1/keys/1/rotate", &bearer(), "").await,
        plane.json("POST", "/v1/keys/1/rotate", "{}").await,
    ] {
        assert_eq!(answer.status, 201);
        assert_ne!(answer.body["key"], rotated.body["key"]);
    }
    // A key that is switched off stays so, and the answer says it.
    plane.json("PATCH", "/v1/keys/1", r#"{"is_active":false}"#).await;
    let inactive = plane.json("POST", "/v1/keys/1/rotate", "{}").await;
    assert_eq!((inactive.status, &inactive.body["is_active"]), (201, &json!(false)));
    let key = ApiKey::new(inactive.body["key"].as_str().unwrap()).unwrap();
    assert!(matches!(plane.store.find_key(key).await.unwrap(), Found::Inactive));
}

#[tokio::test]
async fn a_rotation_that_is_refused_leaves_the_key_as_it_was() {
    let plane = Plane::start().await;
    plane.add_user("a@b.example").await;
    let made = plane.json("POST", "/v1/users/1/keys", r#"{"api_name":"weather"}"#).await;
    let path = "/v1/keys/1/rotate";
    for grace in ["1", "-1", "0.5", "0.0", "\"0\"", "null", "true", "86400", "18446744073709551616"] {
        let answer = plane.json("POST", path, &format!(r#"{{"grace_seconds":{grace}}}"#)).await;
        assert_eq!(answer.fields(), ["grace_seconds"], "{grace}");
        assert!(answer.body["errors"][0]["message"].as_str().unwrap().contains("only 0 is supported"));
    }
    assert_eq!(plane.json("POST", path, r#"{"grace":0}"#).await.fields(), ["grace"]);
    assert_eq!(plane.json("POST", path, "[]").await.fields(), [""]);
    assert_eq!(plane.send("POST", path, &bearer(), "{}").await.problem(), (415, "wrong-type"));
    assert_eq!(plane.send("POST", path, "", "").await.problem(), (401, "missing-token"));
    assert_eq!(plane.json("POST", "/v1/keys/7/rotate", "{}").await.problem(), (404, "not-found"));
    let wrong = plane.get(path).await;
    assert_eq!((wrong.problem(), wrong.header("allow")), ((405, "wrong-method"), Some("POST")));
    let key = ApiKey::new(made.body["key"].as_str().unwrap()).unwrap();
    assert!(matches!(plane.store.find_key(key).await.unwrap(), Found::Active { .. }));
    assert_eq!(plane.get("/v1/keys/1").await.body["hint"], made.body["hint"]);
}

/// A credit or debit with this `Idempotency-Key` in its head.
async fn book(plane: &Plane, key: &str, body: &str) -> Answer {
    let head = format!("{}Content-Type: application/json\r\nIdempotency-Key: {key}\r\n", bearer());
    plane.send("POST", "/v1/users/1/wallet/entries", &head, body).await
}

#[tokio::test]
async fn an_entry_is_made_once_under_its_key_and_shown_again() {
    let plane = Plane::start().await;
    plane.add_user("a@b.example").await;
    let body = r#"{"kind":"debit","amount_cents":500,"note":"refund"}"#;
    let made = book(&plane, "one", body).await;
    assert_eq!((made.status, &made.body["actor"]), (201, &json!("admin")));
    for key in ["one", "\"one\""] {
        let again = book(&plane, key, body).await;
        assert_eq!((again.status, again.header("location"), &again.body), (201, made.header("location"), &made.body));
    }
    assert_eq!(plane.get("/v1/users/1/wallet").await.body["balance_cents"], 0);
    assert_eq!(plane.get("/v1/users/1/wallet/entries").await.body["data"].as_array().unwrap().len(), 2);
    let other = book(&plane, "one", r#"{"kind":"credit","amount_cents":7,"note":"refund"}"#).await;
    assert_eq!(other.problem(), (422, "idempotency-key-reused"));
    let fields: Vec<_> = other.body["errors"].as_array().unwrap().iter().map(|error| error["field"].clone()).collect();
    assert_eq!(fields, ["kind", "amount_cents"]);
    for odd in ["", "a b", "\"a", "a\r\nIdempotency-Key: a"] {
        assert_eq!(book(&plane, odd, body).await.problem(), (400, "bad-idempotency-key"), "{odd:?}");
    }
    assert_eq!(plane.get("/v1/users/1/wallet").await.body["balance_cents"], 0);
}

#[tokio::test]
async fn an_entry_tells_who_made_it_and_why() {
    let plane = Plane::start().await;
    plane.add_user("a@b.example").await;
    let path = "/v1/users/1/wallet/entries";
    let body = r#"{"kind":"credit","amount_cents":1,"note":"invoice 17","actor":"Ada, billing"}"#;
    let made = plane.json("POST", path, body).await;
    assert_eq!((&made.body["actor"], &made.body["note"]), (&json!("Ada, billing"), &json!("invoice 17")));
    assert_eq!(plane.get("/v1/users/1/wallet/entries/2").await.body, made.body);
    let list = plane.get(path).await.body;
    assert_eq!((&list["data"][0]["actor"], &list["data"][1]), (&Value::Null, &made.body));
    for actor in [r#""""#, r#"" ""#, "null", "7", r#""a\nb""#, &format!("{:?}", "x".repeat(129))] {
        let body = format!(r#"{{"kind":"credit","amount_cents":1,"actor":{actor}}}"#);
        assert_eq!(plane.json("POST", path, &body).await.fields(), ["actor"], "{actor}");
    }
}

#[tokio::test]
async fn money_goes_in_and_out_and_never_below_zero() {
    let plane = Plane::start().await;
    plane.add_user("a@b.example").await;
    let path = "/v1/users/1/wallet/entries";
    let credit = plane.json("POST", path, r#"{"kind":"credit","amount_cents":1000,"note":"paid"}"#).await;
    assert_eq!((credit.status, credit.header("location")), (201, Some("/v1/users/1/wallet/entries/2")));
    assert_eq!(plane.get("/v1/users/1/wallet/entries/2").await.body, credit.body);
    assert_eq!((&credit.body["amount_cents"], &credit.body["note"]), (&json!(1000), &json!("paid")));
    let over = plane.json("POST", path, r#"{"kind":"debit","amount_cents":1501}"#).await;
    assert_eq!((over.problem(), &over.body["balance_cents"]), ((409, "overdrawn"), &json!(1500)));
    let debit = plane.json("POST", path, r#"{"kind":"debit","amount_cents":1500,"note":null}"#).await;
    assert_eq!((debit.status, &debit.body["amount_cents"]), (201, &json!(1500)));
    assert_eq!(plane.get("/v1/users/1/wallet").await.body["balance_cents"], 0);
    let kinds: Vec<_> =
        plane.get(path).await.body["data"].as_array().unwrap().iter().map(|e| e["kind"].clone()).collect();
    assert_eq!(kinds, ["opening", "credit", "debit"]);
    for (body, field) in [
        (r#"{"kind":"opening","amount_cents":1}"#, "kind"),
        (r#"{"kind":"credit","amount_cents":0}"#, "amount_cents"),
        (r#"{"kind":"debit","amount_cents":-1}"#, "amount_cents"),
        (r#"{"kind":"credit","amount_cents":1000000000001}"#, "amount_cents"),
        (r#"{"kind":"credit","amount_cents":"1"}"#, "amount_cents"),
        (r#"{"kind":"credit","amount_cents":1,"note":5}"#, "note"),
    ] {
        assert_eq!(plane.json("POST", path, body).await.fields(), [field], "{body}");
    }
    let nobody = plane.json("POST", "/v1/users/9/wallet/entries", r#"{"kind":"credit","amount_cents":1}"#).await;
    assert_eq!(nobody.problem(), (404, "not-found"));
}

#[tokio::test]
async fn charges_are_shown_and_keep_their_key() {
    let plane = Plane::start().await;
    plane.add_user("a@b.example").await;
    let made = plane.json("POST", "/v1/users/1/keys", r#"{"api_name":"weather"}"#).await;
    let key = ApiKey::new(made.body["key"].as_str().unwrap()).unwrap();
    let (ledger, answers) = plane.store.ledger();
    tokio::spawn(answers);
    let generation = plane.store.generation();
    let Found::Active { principal, .. } = plane.store.find_key(key).await.unwrap() else { panic!("not active") };
    let route = plane.store.route_id("weather", "/").await.unwrap();
    let held = ledger.hold(HoldRequest { principal, generation, route, price: Cents(2) }, None).await.unwrap();
    held.charge.capture(200).await;
    let list = plane.get("/v1/charges?user_id=1").await.body;
    let charge = &list["data"][0];
    let id = &charge["id"];
    assert_eq!((&charge["user_id"], &charge["key_id"], &charge["api_name"]), (&json!(1), &json!(1), &json!("weather")));
    assert_eq!((&charge["cents"], &charge["state"], &charge["status"]), (&json!(2), &json!("captured"), &json!(200)));
    assert!(charge["held_at"].as_str().unwrap().ends_with('Z') && charge["settled_at"].is_string());
    assert_eq!(&plane.get(&format!("/v1/charges/{id}")).await.body, charge);
    assert_eq!(plane.get("/v1/charges?to=2020-01-01T00:00:00Z").await.body["data"], json!([]));
    let refused = plane.send("DELETE", "/v1/keys/1", &bearer(), "").await;
    assert_eq!(refused.problem(), (409, "has-charges"));
    assert!(refused.body["detail"].as_str().unwrap().contains("/rotate"));
    let rotated = plane.json("POST", "/v1/keys/1/rotate", "{}").await;
    assert_eq!((rotated.status, &rotated.body["id"]), (201, &json!(1)));
    assert_eq!(&plane.get(&format!("/v1/charges/{id}")).await.body, charge);
}

/// A log that is kept in memory.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_change_leaves_a_line_and_no_secret_in_the_log() {
    let kept = Kept::default();
    let writer = kept.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    // With one subscriber alone, tracing asks that of whichever thread comes first whether a line is wanted at all.
    let _other = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let plane = Plane::start().await;
    plane.add_user("a@b.example").await;
    let made = plane.json("POST", "/v1/users/1/keys", r#"{"api_name":"weather"}"#).await;
    plane.json("POST", "/v1/users/1/wallet/entries", r#"{"kind":"credit","amount_cents":31,"note":"n"}"#).await;
    plane.json("PATCH", "/v1/users/1", r#"{"name":"M"}"#).await;
    plane.json("PATCH", "/v1/keys/1", r#"{"is_active":true}"#).await;
    let rotated = plane.json("POST", "/v1/keys/1/rotate", "{}").await;
    plane.send("DELETE", "/v1/keys/1", &bearer(), "").await;
    let log = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(LOG_TARGET)).collect();
    assert_eq!(lines.len(), 7, "{log}");
    assert!(lines.iter().all(|line| line.contains("127.0.0.1") && line.contains("request_id=")));
    assert!(lines[2].contains("cents=31") && lines[2].contains("user_id=1"));
    assert!(lines[5].contains("key rotated") && lines[5].contains("key_id=1") && lines[5].contains("user_id=1"));
    for secret in [made.body["key"].as_str().unwrap(), rotated.body["key"].as_str().unwrap(), TOKEN] {
        assert!(!log.contains(secret));
    }
}
