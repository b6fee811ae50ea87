//! The rules that hold for every path.

use super::*;

#[tokio::test]
async fn without_a_configured_token_v1_is_closed_even_to_an_empty_one() {
    let plane = Plane::start_with(|settings, _| settings.token = None).await;
    for head in ["", "Authorization: Bearer \r\n", &bearer()] {
        assert_eq!(plane.send("GET", "/v1/users", head, "").await.problem(), (403, "admin-disabled"));
    }
}

#[tokio::test]
async fn v1_wants_exactly_the_token_and_says_so() {
    let plane = Plane::start().await;
    let missing = ["", "Authorization: Basic YTpi\r\n", "Authorization: Bearer\r\n", "X-Api-Key: a\r\n"];
    for head in missing {
        for path in ["/v1/users", "/v1/nothing", "/v1"] {
            let answer = plane.send("GET", path, head, "").await;
            assert_eq!(answer.problem(), (401, "missing-token"), "{path}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"keytoll-admin\""));
        }
    }
    let other = format!("Authorization: Bearer {TOKEN}x\r\n");
    let shorter = format!("Authorization: Bearer {}\r\n", &TOKEN[1..]);
    let same_length = format!("Authorization: Bearer {}x\r\n", &TOKEN[1..]);
    let twice = bearer() + &bearer();
    for head in [&other, &shorter, &same_length, &twice] {
        let answer = plane.send("GET", "/v1/users", head, "").await;
        assert_eq!(answer.problem(), (401, "invalid-token"));
        assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"));
        assert!(!answer.text.contains(TOKEN));
    }
    let head = format!("authorization: bEARER {TOKEN}\r\n");
    assert_eq!(plane.send("GET", "/v1/users", &head, "").await.status, 200);
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_told_apart() {
    let plane = Plane::start().await;
    for path in ["/", "/v1/nothing", "/v1/users/abc", "/v1/users/0", "/v1/users/01", "/v1/users/%ff", "/%761/users"] {
        assert_eq!(plane.get(path).await.problem(), (404, "no-route"), "{path}");
    }
    for path in ["/v1/users/7", "/v1/keys/7", "/v1/charges/7", "/v1/users/7/wallet", "/v1/users/7/keys"] {
        assert_eq!(plane.get(path).await.problem(), (404, "not-found"), "{path}");
    }
    let wrong = plane.send("DELETE", "/v1/users", &bearer(), "").await;
    assert_eq!((wrong.problem(), wrong.header("allow")), ((405, "wrong-method"), Some("GET,HEAD,POST")));
    let wrong = plane.send("POST", "/healthz", "", "").await;
    assert_eq!((wrong.problem(), wrong.header("allow")), ((405, "wrong-method"), Some("GET,HEAD")));
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_is_not_cached() {
    let plane = Plane::start().await;
    for (path, head) in [("/healthz", String::new()), ("/v1/users", bearer()), ("/v1/users", String::new())] {
        let answer = plane.send("GET", path, &format!("{head}X-Request-Id: my.id_1\r\n"), "").await;
        assert_eq!(answer.header("x-request-id"), Some("my.id_1"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let answer = plane.send("GET", path, &format!("{head}X-Request-Id: no id\r\n"), "").await;
        assert_eq!(answer.header("x-request-id").unwrap().len(), 32);
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused_by_what_is_wrong_with_it() {
    let plane = Plane::start().await;
    let plain = format!("{}Content-Type: text/plain\r\n", bearer());
    assert_eq!(plane.send("POST", "/v1/users", &plain, "{}").await.problem(), (415, "wrong-type"));
    assert_eq!(plane.send("POST", "/v1/users", &bearer(), "{}").await.problem(), (415, "wrong-type"));
    assert_eq!(plane.json("POST", "/v1/users", "{\"email\":").await.problem(), (400, "bad-json"));
    assert_eq!(plane.json("POST", "/v1/users", "{}{}").await.problem(), (400, "bad-json"));
    assert_eq!(plane.json("POST", "/v1/users", "[]").await.fields(), [""]);
    let charset = format!("{}Content-Type: Application/JSON; charset=utf-8\r\n", bearer());
    let body = r#"{"email":"a@b.example","name":"N"}"#;
    assert_eq!(plane.send("POST", "/v1/users", &charset, body).await.status, 201);
}

#[tokio::test]
async fn too_much_body_is_refused_announced_or_not() {
    let plane = Plane::start().await;
    let much = format!("{{\"name\":\"{}\"}}", "x".repeat(1000));
    let announced = plane.json("POST", "/v1/users", &much).await;
    assert_eq!(announced.problem(), (413, "body-too-large"));
    assert!(announced.body["detail"].as_str().unwrap().contains("1000"));
    let head = format!("POST /v1/users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}", bearer());
    let chunked = format!(
        "{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{much}\r\n0\r\n\r\n",
        much.len()
    );
    assert_eq!(plane.raw(&chunked).await.problem(), (413, "body-too-large"));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let plane = Plane::start_with(|settings, _| settings.body_timeout = Duration::from_millis(1)).await;
    let head = format!("POST /v1/users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}", bearer());
    let request = format!("{head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{{");
    assert_eq!(plane.raw(&request).await.problem(), (408, "body-timeout"));
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let plane = Plane::start().await;
    let body = r#"{"email":7,"nmae":"N","opening_balance_cents":1.5}"#;
    let mut fields = plane.json("POST", "/v1/users", body).await;
    fields.body["errors"].as_array_mut().unwrap().sort_by_key(|error| error["field"].to_string());
    assert_eq!(fields.fields(), ["email", "name", "nmae", "opening_balance_cents"]);
    let long = "x".repeat(201);
    for (body, field) in [
        (r#"{"email":"","name":"N"}"#.to_owned(), "email"),
        (r#"{"email":"nobody","name":"N"}"#.to_owned(), "email"),
        (format!(r#"{{"email":"a@{}","name":"N"}}"#, "x".repeat(319)), "email"),
        (r#"{"email":"a@b\n","name":"N"}"#.to_owned(), "email"),
        (r#"{"email":"a@b","name":" "}"#.to_owned(), "name"),
        (r#"{"email":"a@b","name":null}"#.to_owned(), "name"),
        (format!(r#"{{"email":"a@b","name":"{long}"}}"#), "name"),
        (r#"{"email":"a@b","name":"N","opening_balance_cents":-1}"#.to_owned(), "opening_balance_cents"),
        (r#"{"email":"a@b","name":"N","opening_balance_cents":1000000000001}"#.to_owned(), "opening_balance_cents"),
        (r#"{"email":"a@b","name":"N","opening_balance_cents":1e99}"#.to_owned(), "opening_balance_cents"),
    ] {
        assert_eq!(plane.json("POST", "/v1/users", &body).await.fields(), [field], "{body}");
    }
    assert!(plane.get("/v1/users").await.body["data"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn every_wrong_parameter_is_named_at_once() {
    let plane = Plane::start().await;
    for (query, fields) in [
        ("limit=0", vec!["limit"]),
        ("limit=501", vec!["limit"]),
        ("limit=x&cursor=y", vec!["limit", "cursor"]),
        ("cursor=", vec!["cursor"]),
        ("from=yesterday&to=1", vec!["from", "to"]),
        ("user_id=-1&key_id=a", vec!["user_id", "key_id"]),
        ("limit=1&limit=2", vec!["limit"]),
        ("form=2026-01-31T12:00:00Z", vec!["form"]),
    ] {
        assert_eq!(plane.get(&format!("/v1/charges?{query}")).await.fields(), fields, "{query}");
    }
    let good = "/v1/charges?limit=500&cursor=9&user_id=1&key_id=1&api_name=x&from=2026-01-31T12:00:00%2B01:00";
    assert_eq!(plane.get(good).await.status, 200);
    assert_eq!(plane.get("/v1/users?user_id=1").await.fields(), ["user_id"]);
}

#[tokio::test]
async fn probes_and_metrics_want_no_token() {
    let plane = Plane::start_with(|settings, _| settings.token = None).await;
    let health = plane.send("GET", "/healthz", "", "").await;
    assert_eq!((health.status, &health.body["status"]), (200, &"ok".into()));
    assert!(plane.send("GET", "/metrics", "", "").await.text.contains("keytoll_holds_total 0"));
    assert_eq!(plane.send("GET", "/readyz", "", "").await.body["status"], "ready");
    plane.lifecycle.begin_drain();
    let draining = plane.send("GET", "/readyz", "", "").await;
    assert_eq!((draining.status, draining.header("retry-after")), (503, Some("1")));
    assert_eq!(draining.body["reasons"][0], "the gateway is draining");
    assert_eq!(plane.send("GET", "/healthz", "", "").await.status, 200);
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_told_and_shown() {
    let plane = Plane::start().await;
    let path = plane.directory.path().join("auth.db");
    std::fs::rename(&path, plane.directory.path().join("moved.db")).unwrap();
    std::fs::write(&path, "").unwrap();
    let answer = plane.json("POST", "/v1/users", r#"{"email":"a@b","name":"N"}"#).await;
    assert_eq!((answer.problem(), answer.header("retry-after")), ((503, "database-unavailable"), Some("1")));
    let ready = plane.send("GET", "/readyz", "", "").await;
    assert_eq!((ready.status, ready.body["reasons"].as_array().unwrap().len()), (503, 1));
}

#[tokio::test]
async fn a_full_queue_is_a_503_with_a_time_to_come_back() {
    let plane = Plane::start_with(|_, limits| limits.queued_reads = 0).await;
    let answer = plane.get("/v1/users").await;
    assert_eq!((answer.problem(), answer.header("retry-after")), ((503, "database-unavailable"), Some("1")));
}

#[tokio::test]
async fn readiness_shows_how_the_books_stand() {
    let plane = Plane::start().await;
    plane.add_user("a@example.com").await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let books = loop {
        let ready = plane.send("GET", "/readyz", "", "").await;
        match ready.body.get("books") {
            Some(books) => break books.clone(),
            None => assert!(std::time::Instant::now() < deadline, "the books are not compared"),
        }
    };
    assert_eq!((&books["users"], &books["unbalanced"]), (&1.into(), &0.into()));
    assert!(books["checked_at"].as_str().unwrap().ends_with('Z'));
    let metrics = plane.send("GET", "/metrics", "", "").await;
    assert!(metrics.text.contains("keytoll_books_unbalanced_users 0"));
}

#[tokio::test]
async fn an_object_with_the_same_key_twice_changes_nothing_on_any_path() {
    let plane = Plane::start().await;
    plane.add_user("a@b.example").await;
    plane.json("POST", "/v1/users/1/keys", r#"{"api_name":"weather"}"#).await;
    let entries = "/v1/users/1/wallet/entries";
    for (method, path, body, key) in [
        ("POST", entries, r#"{"kind":"credit","amount_cents":1,"amount_cents":1000}"#, "amount_cents"),
        ("POST", entries, r#"{"kind":"credit","amount_cents":1,"a\u006dount_cents":1000}"#, "amount_cents"),
        ("POST", entries, r#"{"kind":"credit","amount_cents":1,"amount_cents":1}"#, "amount_cents"),
        ("POST", entries, r#"{"kind":"credit","amount_cents":1,"note":{"x":[{"y":1,"y":2}]}}"#, "y"),
        ("POST", "/v1/users", r#"{"email":"c@d.example","name":"N","name":"M"}"#, "name"),
        ("PATCH", "/v1/users/1", r#"{"is_active":true,"is_active":false}"#, "is_active"),
        ("POST", "/v1/users/1/keys", r#"{"api_name":"weather","api_name":"maps"}"#, "api_name"),
        ("PATCH", "/v1/keys/1", r#"{"is_active":true,"is_active":false}"#, "is_active"),
        ("POST", "/v1/keys/1/rotate", r#"{"grace_seconds":9,"grace_seconds":0}"#, "grace_seconds"),
    ] {
        let answer = plane.json(method, path, body).await;
        assert_eq!(answer.problem(), (400, "bad-json"), "{body}");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("{key:?}")) && detail.contains("more than once"), "{detail}");
    }
    assert_eq!(plane.get("/v1/users/1/wallet").await.body["balance_cents"], 500);
    assert_eq!(plane.get("/v1/users").await.body["data"].as_array().unwrap().len(), 1);
    assert_eq!(plane.get("/v1/keys").await.body["data"].as_array().unwrap().len(), 1);
    assert_eq!(plane.get("/v1/keys/1").await.body["is_active"], true);
}

/// A request that is written as it is, but for the token.
async fn raw_get(plane: &Plane, first_line: &str, hosts: &str) -> Answer {
    plane.raw(&format!("{first_line}\r\n{hosts}Connection: close\r\n{}\r\n", bearer())).await
}

#[tokio::test]
async fn a_request_for_another_host_is_misdirected_before_anything_else_is_looked_at() {
    let plane = Plane::start_with(|settings, _| {
        settings.host_check = HostCheck::new([127, 0, 0, 1].into(), &["ops.example".into()]);
    })
    .await;
    let evil = "Host: evil.example\r\n";
    for first_line in [
        "GET /v1/users HTTP/1.1",
        "GET /v1/nothing HTTP/1.1",
        "GET / HTTP/1.1",
        "PUT /v1/users HTTP/1.1",
        "GET /v1/users HTTP/1.0",
        "POST /v1/keys/1/rotate HTTP/1.1",
    ] {
        let answer = raw_get(&plane, first_line, evil).await;
        assert_eq!(answer.problem(), (421, "misdirected-request"), "{first_line}");
        assert!(answer.body["detail"].as_str().unwrap().contains("admin.hosts"));
        // Also without a token, and without a word on whether there is one.
        let answer = plane.raw(&format!("{first_line}\r\n{evil}Connection: close\r\n\r\n")).await;
        assert_eq!(answer.problem(), (421, "misdirected-request"), "{first_line}");
    }
    for hosts in ["Host: ops.example:8081\r\n", "Host: localhost\r\n", "Host: [::1]:8081\r\n", "Host: 10.0.0.7\r\n"] {
        assert_eq!(raw_get(&plane, "GET /v1/users HTTP/1.1", hosts).await.status, 200, "{hosts}");
    }
    assert_eq!(raw_get(&plane, "GET /v1/users HTTP/1.0", "").await.status, 200);
    let absolute = "GET http://evil.example/v1/users HTTP/1.1";
    assert_eq!(raw_get(&plane, absolute, "Host: localhost\r\n").await.problem(), (421, "misdirected-request"));
    let absolute = "GET http://ops.example/v1/users HTTP/1.1";
    assert_eq!(raw_get(&plane, absolute, "Host: ops.example\r\n").await.status, 200);
    assert_eq!(raw_get(&plane, absolute, evil).await.problem(), (421, "misdirected-request"));
}

#[tokio::test]
async fn probes_and_metrics_answer_under_every_name() {
    let plane = Plane::start().await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = raw_get(&plane, &format!("GET {path} HTTP/1.1"), "Host: keytoll.monitoring.svc:8081\r\n").await;
        assert_eq!(answer.status, 200, "{path}");
    }
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let plane = Plane::start().await;
    let text = plane.send("GET", "/metrics", "", "").await;
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(text.text.contains("# TYPE keytoll_holds_total counter\n") && !text.text.contains("# EOF"));
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n";
    let open_metrics = plane.send("GET", "/metrics", accept, "").await;
    assert_eq!(open_metrics.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(open_metrics.text.contains("# TYPE keytoll_holds counter\n") && open_metrics.text.ends_with("# EOF\n"));
    for answer in [&text, &open_metrics] {
        assert_eq!(answer.header("vary"), Some("accept"));
        assert!(answer.text.contains("\nprocess_cpu_seconds_total "), "{}", answer.text);
    }
    let head = plane.send("HEAD", "/metrics", accept, "").await;
    assert_eq!((head.header("content-type"), head.text.as_str()), (open_metrics.header("content-type"), ""));
}
