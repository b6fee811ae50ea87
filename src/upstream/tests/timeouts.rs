//! How long the body of a reply may take, and whose fault it is when it takes longer.

use super::*;

/// A while; what is counted in it may take longer on a busy machine, and never less.
const STEP: Duration = Duration::from_millis(50);

/// The body of a reply that has begun, and the upstream's end of the connection.
async fn begun(policy: ExchangePolicy, lines: &str) -> (UpstreamBody<TestBody>, TcpStream) {
    let (listener, config) = listen().await;
    let upstream = to_with_policy(&config, policy);
    let text = format!("HTTP/1.1 200 OK\r\n{lines}transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    let (reply, stream) = first(&upstream, &listener, &text).await;
    let mut body = reply.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    (body, stream)
}

async fn error_of(mut body: UpstreamBody<TestBody>) -> (BodyError, Duration) {
    let start = Instant::now();
    match body.frame().await {
        Some(Err(error)) => (error, start.elapsed()),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_about(found: Duration, expected: Duration) {
    // Timers count whole milliseconds, and the head of the reply took some time of it.
    assert!(expected <= found + STEP / 2 && found < LONG / 2, "{found:?}");
}

fn policy() -> ExchangePolicy {
    let total_timeout = None;
    ExchangePolicy { body_idle: STEP, event_stream_idle: STEP * 5, total_timeout, ..ExchangePolicy::default() }
}

#[tokio::test]
async fn an_event_stream_may_be_silent_for_longer() {
    for (lines, is_event_stream) in [
        ("", false),
        ("content-type: text/html\r\n", false),
        ("content-type: text/event-streams\r\n", false),
        ("content-type: text/event-stream\r\n", true),
        ("content-type: Text/Event-Stream; charset=utf-8\r\n", true),
        ("content-type: text/event-stream ;x\r\n", true),
    ] {
        let (body, _stream) = begun(policy(), lines).await;
        assert_eq!(body.is_event_stream(), is_event_stream, "{lines}");
        let (error, waited) = error_of(body).await;
        assert!(matches!(error, BodyError::Idle), "{lines} {error:?}");
        assert_about(waited, if is_event_stream { STEP * 5 } else { STEP });
    }
}

#[tokio::test]
async fn the_total_timeout_ends_a_body_while_the_upstream_is_waited_for() {
    let policy = ExchangePolicy { body_idle: LONG, total_timeout: Some(STEP * 3), ..policy() };
    let (body, mut stream) = begun(policy, "").await;
    let (error, waited) = error_of(body).await;
    assert!(matches!(error, BodyError::TotalTimeout { was_client_slow: false }), "{error:?}");
    assert_about(waited, STEP * 3);
    assert!(closed(&mut stream).await);
}

#[tokio::test]
async fn pieces_that_keep_coming_do_not_prolong_the_total_timeout() {
    let policy = ExchangePolicy { body_idle: LONG, total_timeout: Some(STEP * 3), ..policy() };
    let (mut body, mut stream) = begun(policy, "").await;
    let start = Instant::now();
    let drip = tokio::spawn(async move {
        while stream.write_all(b"1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(STEP / 4).await;
        }
    });
    let error = loop {
        match body.frame().await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BodyError::TotalTimeout { was_client_slow: false }), "{error:?}");
    assert_about(start.elapsed(), STEP * 3);
    drop(body);
    drip.await.unwrap();
}

#[tokio::test]
async fn the_total_timeout_ends_a_body_while_the_client_takes_nothing() {
    let policy = ExchangePolicy { total_timeout: Some(STEP * 3), ..policy() };
    let (body, mut stream) = begun(policy, "").await;
    stream.write_all(b"4\r\nmore\r\n").await.unwrap();
    tokio::time::sleep(STEP * 4).await;
    let (error, _) = error_of(body).await;
    assert!(matches!(error, BodyError::TotalTimeout { was_client_slow: true }), "{error:?}");
}

#[tokio::test]
async fn the_total_timeout_counts_from_the_request_and_before_the_head_as_well() {
    let (listener, config) = listen().await;
    let upstream = to_with_policy(&config, ExchangePolicy { total_timeout: Some(STEP * 2), ..policy() });
    let start = Instant::now();
    let (reply, _stream) = first(&upstream, &listener, "").await;
    assert!(matches!(reply, Err(SendError::HeadTimeout)));
    assert_about(start.elapsed(), STEP * 2);
}

#[tokio::test]
async fn without_a_total_timeout_a_body_may_take_any_time() {
    let (mut body, mut stream) = begun(ExchangePolicy { body_idle: LONG, ..policy() }, "").await;
    for _ in 0..20 {
        tokio::time::sleep(STEP / 2).await;
        stream.write_all(b"1\r\nx\r\n").await.unwrap();
        assert!(body.frame().await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn the_addresses_of_the_connection_are_known_until_the_end() {
    let (mut body, mut stream) = begun(policy(), "").await;
    let (own, peer) = body.socket_addresses().unwrap();
    assert_eq!((own, peer), (stream.peer_addr().unwrap(), stream.local_addr().unwrap()));
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert!(body.frame().await.is_none());
    assert!(body.socket_addresses().is_none());
}
