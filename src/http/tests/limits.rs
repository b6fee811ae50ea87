//! What happens at the limits: of connections, of waits, of requests in flight, of refused bodies.

use super::*;

async fn get(stream: &mut TcpStream, path: &str) -> (String, String) {
    ask(stream, path).await;
    reply(stream).await
}

/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the connection ends, however it does.
async fn end(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the connection ends");
    rest
}

/// With clients that may go on sending what nothing reads, for longer than any test takes.
fn patient_limits() -> EdgeLimits {
    EdgeLimits { refused_body_idle: LONG * 2, refused_body_timeout: LONG * 2, ..limits() }
}

#[tokio::test]
async fn beyond_the_limit_probes_are_served_and_all_else_is_503() {
    let running = running(1, EdgeLimits { connections: 1, probe_connections: 2, ..limits() }).await;
    let mut busy = client(&running.server).await;
    ask(&mut busy, "/wait").await;
    running.gate.came.acquire().await.unwrap().forget();
    let mut second = client(&running.server).await;
    let (head, body) = get(&mut second, "/").await;
    assert!(head.starts_with("http/1.1 503 ") && head.contains("retry-after: 1\r\n"), "{head}");
    assert_problem(&head, &body, "overloaded");
    let mut probe = client(&running.server).await;
    let (head, body) = get(&mut probe, "/probe").await;
    assert!(head.starts_with("http/1.1 200 ") && body == "ok", "{head}");
    assert_eq!(running.metric("keytoll_refusals_total{listener=\"data\",problem=\"overloaded\"}"), 1);
    running.gate.open.add_permits(1);
    assert_eq!(reply(&mut busy).await.1, "waited");
    assert_eq!(get(&mut busy, "/").await.1, "ok");
}

#[tokio::test]
async fn silent_connections_cannot_shut_out_probes() {
    let running = running(1, EdgeLimits { connections: 1, probe_connections: 2, ..limits() }).await;
    let mut busy = client(&running.server).await;
    ask(&mut busy, "/wait").await;
    running.gate.came.acquire().await.unwrap().forget();
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(client(&running.server).await);
    }
    let (head, _) = get(&mut client(&running.server).await, "/probe").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    for stream in &mut silent[..9] {
        assert_eq!(end(stream).await, b"", "the longest silent ones are closed");
    }
    assert_eq!(running.metric("keytoll_connections_refused_total{listener=\"data\",reason=\"evicted\"}"), 9);
    running.gate.open.add_permits(1);
}

#[tokio::test]
async fn at_the_limit_the_connection_that_waited_longest_makes_room() {
    let running = running(1, EdgeLimits { connections: 3, probe_connections: 1, ..limits() }).await;
    let mut busy = client(&running.server).await;
    ask(&mut busy, "/wait").await;
    running.gate.came.acquire().await.unwrap().forget();
    let mut slow = client(&running.server).await;
    slow.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    let mut idle = client(&running.server).await;
    assert_eq!(get(&mut idle, "/").await.1, "ok");
    // Before that, no connection is evicted for a new one, and the new one serves only probes.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let mut fourth = client(&running.server).await;
    assert_eq!(get(&mut fourth, "/").await.1, "ok");
    let (head, body) = reply(&mut slow).await;
    assert_problem(&head, &body, "overloaded");
    let mut fifth = client(&running.server).await;
    assert_eq!(get(&mut fifth, "/").await.1, "ok");
    assert_eq!(end(&mut idle).await, b"");
    running.gate.open.add_permits(1);
    assert_eq!(reply(&mut busy).await.1, "waited", "a busy connection stays");
    assert_eq!(running.metric("keytoll_connections_refused_total{listener=\"data\",reason=\"evicted\"}"), 2);
}

#[tokio::test]
async fn a_head_that_is_complete_when_its_connection_has_made_room_is_not_served() {
    let running = running(1, EdgeLimits { connections: 3, ..limits() }).await;
    let mut slow = client(&running.server).await;
    slow.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    // From then on it may make room.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let (mut first, mut second) = (client(&running.server).await, client(&running.server).await);
    ask(&mut second, "/").await;
    assert_eq!(reply(&mut second).await.1, "ok");
    ask(&mut first, "/block").await;
    running.gate.came.acquire().await.unwrap().forget();
    // Both come while the worker is blocked. It hears of both at once then, and is blocked by the earlier one again.
    ask(&mut second, "/block").await;
    slow.write_all(b"st: x\r\n\r\n").await.unwrap();
    running.gate.open.add_permits(1);
    running.gate.came.acquire().await.unwrap().forget();
    let mut third = client(&running.server).await;
    while running.metric("keytoll_connections_refused_total{listener=\"data\",reason=\"evicted\"}") == 0 {
        tokio::task::yield_now().await;
    }
    running.gate.open.add_permits(1);
    let (head, body) = reply(&mut slow).await;
    assert!(head.starts_with("http/1.1 503 "), "{head}");
    assert_problem(&head, &body, "overloaded");
    for client in [&mut first, &mut second] {
        assert_eq!(reply(client).await.1, "blocked");
    }
    assert_eq!(get(&mut third, "/").await.1, "ok");
}

#[tokio::test]
async fn a_head_that_was_begun_and_does_not_come_is_408_and_silence_is_closed() {
    let running = running(1, EdgeLimits { header_timeout: SHORT, ..limits() }).await;
    let mut slow = client(&running.server).await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let (head, body) = reply(&mut slow).await;
    assert!(head.starts_with("http/1.1 408 "), "{head}");
    assert_problem(&head, &body, "header-timeout");
    let mut silent = client(&running.server).await;
    assert_eq!(end(&mut silent).await, b"");
    running.server.all_closed().await;
    assert_eq!(running.metric("keytoll_connections_refused_total{listener=\"data\",reason=\"head_timeout\"}"), 1);
}

#[tokio::test]
async fn a_reply_on_its_way_to_a_slow_reader_is_not_cut_by_the_head_timeout() {
    let running = running(1, EdgeLimits { header_timeout: SHORT, ..limits() }).await;
    let mut stream = client(&running.server).await;
    ask(&mut stream, "/large").await;
    tokio::time::sleep(SHORT * 10).await;
    let (_, body) = reply(&mut stream).await;
    assert_eq!(body.len(), 64 << 20);
}

#[tokio::test]
async fn a_reply_is_not_gathered_while_its_client_takes_nothing() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    ask(&mut stream, "/pieces").await;
    stream.readable().await.unwrap();
    tokio::time::sleep(SHORT * 10).await;
    // The body itself looks when it is asked.
    let (_, body) = reply(&mut stream).await;
    assert_eq!(body.len(), 64 << 20);
}

#[tokio::test]
async fn a_reply_that_began_before_the_end_of_its_request_is_not_cut_by_the_head_timeout() {
    let running = running(1, EdgeLimits { header_timeout: SHORT, ..limits() }).await;
    let mut stream = client(&running.server).await;
    stream.write_all(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n").await.unwrap();
    stream.readable().await.unwrap();
    // With it the request is over; its reply is on its way still.
    stream.write_all(b"late").await.unwrap();
    tokio::time::sleep(SHORT * 10).await;
    let (_, body) = reply(&mut stream).await;
    assert_eq!(body.len(), 64 << 20);
}

#[tokio::test]
async fn requests_in_flight_are_counted_until_their_reply_has_ended() {
    let running = running(1, EdgeLimits { requests: 1, ..limits() }).await;
    let mut reading = client(&running.server).await;
    ask(&mut reading, "/stream").await;
    running.gate.came.acquire().await.unwrap().forget();
    let mut other = client(&running.server).await;
    let (head, body) = get(&mut other, "/").await;
    assert!(head.starts_with("http/1.1 503 ") && !head.contains("connection: close"), "{head}");
    assert!(body.contains("overloaded"));
    assert_eq!(get(&mut other, "/probe").await.1, "ok", "probes are not limited");
    running.gate.open.add_permits(1);
    assert_eq!(reply(&mut reading).await.1, "streamed");
    while !get(&mut other, "/").await.0.starts_with("http/1.1 200 ") {}
}

#[tokio::test]
async fn an_old_connection_is_closed_after_its_next_reply() {
    let running = running(1, EdgeLimits { connection_age: SHORT, ..limits() }).await;
    let mut stream = client(&running.server).await;
    ask(&mut stream, "/wait").await;
    running.gate.came.acquire().await.unwrap().forget();
    tokio::time::sleep(SHORT * 2).await;
    running.gate.open.add_permits(1);
    let (head, body) = reply(&mut stream).await;
    // The request came before its time was over; the next one, if any, comes after.
    let is_last = head.contains("connection: close");
    assert_eq!(body, "waited");
    if !is_last {
        assert_eq!(end(&mut stream).await, b"");
    }
}

#[tokio::test]
async fn a_small_refused_body_is_read_and_the_connection_kept() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    for _ in 0..2 {
        stream.write_all(b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 50000\r\n\r\n").await.unwrap();
        let (head, _) = reply(&mut stream).await;
        assert!(head.starts_with("http/1.1 413 ") && !head.contains("connection: close"), "{head}");
        stream.write_all(&[0; 50_000]).await.unwrap();
    }
    assert_eq!(get(&mut stream, "/").await.1, "ok");
}

#[tokio::test]
async fn a_large_refused_body_is_read_on_after_the_reply() {
    for framing in ["content-length: 10000000", "transfer-encoding: chunked"] {
        let running = running(1, limits()).await;
        let mut stream = client(&running.server).await;
        let head = format!("POST /refuse HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // As clients do that read the reply only after they have sent everything.
        for _ in 0..100 {
            stream.write_all(&[b'0'; 100_000]).await.expect("no reset");
        }
        let (head, _) = reply(&mut stream).await;
        assert!(head.starts_with("http/1.1 413 ") && head.contains("connection: close\r\n"), "{head}");
        assert_eq!(rest(&mut stream).await, "");
    }
}

#[tokio::test]
async fn an_endless_refused_body_is_read_for_a_limited_time() {
    let limits = EdgeLimits { refused_body_timeout: SHORT * 5, refused_body_idle: SHORT * 2, ..limits() };
    let running = running(1, limits).await;
    let mut stream = client(&running.server).await;
    stream.write_all(b"POST /refuse HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    reply(&mut stream).await;
    while stream.write_all(&[b'0'; 10_000]).await.is_ok() {}
    running.server.all_closed().await;
}

#[tokio::test]
async fn a_refused_body_that_waits_for_100_is_not_asked_for() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    let head = "POST /refuse HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (head, _) = reply(&mut stream).await;
    assert!(head.starts_with("http/1.1 413 ") && head.contains("connection: close\r\n"), "{head}");
}

#[tokio::test]
async fn a_reply_that_looks_like_one_of_the_parser_arrives_as_it_is() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    stream
        .write_all(b"GET /mimic HTTP/1.1\r\nhost: x\r\n\r\nGET /mimic HTTP/1.1\r\nhost: x\r\n\r\nrubbish\r\n\r\n")
        .await
        .unwrap();
    for _ in 0..2 {
        let (head, body) = reply(&mut stream).await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert_eq!(body, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    }
    let (head, body) = reply(&mut stream).await;
    assert_problem(&head, &body, "bad-request");
}

#[tokio::test]
async fn replies_while_draining_say_that_the_connection_closes() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    assert!(!get(&mut stream, "/").await.0.contains("connection: close"));
    running.edge.lifecycle.begin_drain();
    assert!(get(&mut stream, "/").await.0.contains("connection: close\r\n"));
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_connection_that_is_being_closed_makes_room_at_once() {
    let running = running(1, EdgeLimits { connections: 1, ..patient_limits() }).await;
    for begun in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"rubbish\r\n\r\n"] {
        let mut closing = client(&running.server).await;
        closing.write_all(begun).await.unwrap();
        let (head, _) = reply(&mut closing).await;
        assert!(head.starts_with("http/1.1 400 "), "{head}");
        // It goes on sending, so that its connection lingers. Only who has waited for a second is closed for another.
        closing.write_all(b"more").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let mut other = client(&running.server).await;
        assert_eq!(get(&mut other, "/").await.1, "ok");
        end(&mut closing).await;
        drop(other);
        tokio::time::timeout(PATIENCE, running.server.all_closed()).await.expect("no connection lingers on");
    }
}

#[tokio::test]
async fn a_refused_body_that_does_not_come_makes_room_for_others() {
    let running = running(1, EdgeLimits { connections: 1, probe_connections: 1, ..patient_limits() }).await;
    let head = b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 50000\r\n\r\n";
    let mut first = client(&running.server).await;
    first.write_all(head).await.unwrap();
    assert!(reply(&mut first).await.0.starts_with("http/1.1 413 "));
    let mut for_probes = client(&running.server).await;
    for_probes.write_all(head).await.unwrap();
    let (head, _) = reply(&mut for_probes).await;
    assert!(head.starts_with("http/1.1 503 ") && head.contains("connection: close\r\n"), "{head}");
    let (head, _) = get(&mut client(&running.server).await, "/probe").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(get(&mut client(&running.server).await, "/").await.1, "ok");
    end(&mut first).await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_client_that_sends_what_nothing_reads() {
    let running = running(1, patient_limits()).await;
    let mut stream = client(&running.server).await;
    stream.write_all(b"POST /refuse HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    reply(&mut stream).await;
    running.edge.lifecycle.begin_drain();
    let sends = tokio::spawn(async move {
        while stream.write_all(b"1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(SHORT).await;
        }
    });
    assert_eq!(running.server.drain(PATIENCE).await, Drained { cut: 0 });
    sends.await.unwrap();
}
