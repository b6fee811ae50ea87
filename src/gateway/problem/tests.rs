use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;

fn every_problem() -> Vec<(Problem, u16, &'static str)> {
    let api: Arc<str> = "weather".into();
    vec![
        (Problem::MissingKey { where_to: "in the header \"x-api-key\"".into() }, 401, "missing-key"),
        (Problem::MalformedKey(Malformed::Digest), 401, "invalid-key"),
        (Problem::InvalidKey, 401, "invalid-key"),
        (Problem::InactiveKey, 401, "inactive-key"),
        (Problem::AmbiguousKey, 400, "ambiguous-key"),
        (Problem::WrongApi { api }, 403, "wrong-api"),
        (Problem::InsufficientFunds { price: Cents(25), balance: Cents(3) }, 402, "insufficient-funds"),
        (Problem::NoRoute, 404, "no-route"),
        (Problem::BadPath(BadPath::Nul), 400, "bad-path"),
        (Problem::BadRequest(BadRequest::Host), 400, "bad-request"),
        (Problem::BodyTooLarge { limit_bytes: 10 }, 413, "body-too-large"),
        (Problem::BodyTimeout, 408, "body-timeout"),
        (Problem::UpstreamUnreachable, 502, "upstream-unreachable"),
        (Problem::UpstreamBroken, 502, "upstream-broken"),
        (Problem::UpstreamTimeout, 504, "upstream-timeout"),
        (Problem::BillingUnavailable, 503, "billing-unavailable"),
        (Problem::Overloaded, 503, "overloaded"),
        (Problem::Internal, 500, "internal"),
        (Problem::BadIdempotencyKey, 400, "bad-idempotency-key"),
        (Problem::RequestInFlight, 409, "request-in-flight"),
        (Problem::AlreadyCharged { charge: ChargeId(7) }, 409, "already-charged"),
        (Problem::IdempotencyKeyReused, 422, "idempotency-key-reused"),
        (Problem::IdempotencyFull, 503, "idempotency-full"),
        (Problem::LoopDetected, 508, "loop-detected"),
    ]
}

#[tokio::test]
async fn every_problem_says_what_rfc_9457_asks_and_its_code() {
    let id = RequestId::of(&http::HeaderMap::new());
    let mut seen = [false; Code::NAMES.len()];
    for (problem, status, code) in every_problem() {
        seen[problem.code().index()] = true;
        let title = problem.title();
        let detail = problem.detail();
        let response = problem.into_response(&id);
        assert_eq!(response.status(), status, "{code}");
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["x-request-id"], id.as_str());
        assert_eq!(headers.get("www-authenticate").is_some(), status == 401, "{code}");
        assert_eq!(headers.get("retry-after").is_some(), status == 503 || code == "request-in-flight", "{code}");

        let body = response.into_body().collect().await.unwrap().to_bytes();
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        let own = body.as_object_mut().unwrap();
        let money = (own.remove("price_cents"), own.remove("balance_cents"));
        let expected_money = (status == 402).then(|| (json!(25), json!(3))).unzip();
        assert_eq!(money, expected_money);
        assert_eq!(own.remove("charge_id"), (code == "already-charged").then(|| json!(7)));
        let expected = json!({
            "type": format!("urn:keytoll:problem:{code}"), "title": title, "status": status, "detail": detail,
            "code": code, "request_id": id.as_str(),
        });
        assert_eq!(body, expected);
    }
    assert_eq!(seen, [true; Code::NAMES.len()], "every code has its problem");
}

#[test]
fn a_developer_is_told_which_limit_and_what_to_do() {
    let details: Vec<_> = every_problem().into_iter().map(|(problem, ..)| problem.detail().into_owned()).collect();
    assert_eq!(details[0], "Send your API key in the header \"x-api-key\".");
    assert_eq!(details[6], "This request costs 25 cents and the wallet holds 3; top it up.");
    assert_eq!(details[10], "The request's body is limited to 10 bytes.");
}
