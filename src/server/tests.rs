//! With raw clients on loopback sockets.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::*;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

fn limits() -> ServerLimits {
    ServerLimits {
        connections: 100,
        header_bytes: 16 * 1024,
        headers: 100,
        header_timeout: LONG,
        reply_write_idle: LONG,
    }
}

/// What requests of the path `/wait` wait for, and how many have come so far.
#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    came: Arc<Semaphore>,
}

async fn answer(request: Request<Incoming>, gate: Gate) -> Result<Response<Full<Bytes>>, Infallible> {
    let reply = |text: &'static str| Response::new(Full::from(text));
    Ok(match request.uri().path() {
        "/wait" => {
            gate.came.add_permits(1);
            gate.open.acquire().await.unwrap().forget();
            reply("waited")
        }
        "/panic" => panic!("on purpose"),
        "/large" => Response::new(Full::from(vec![b'x'; 64 << 20])),
        "/refuse" => {
            let mut refused = reply("too large");
            *refused.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            refused
        }
        _ => reply("ok"),
    })
}

struct Running {
    workers: Workers,
    server: Server,
    gate: Gate,
}

async fn running(count: usize, limits: ServerLimits) -> Running {
    running_on(bind("127.0.0.1:0".parse().unwrap()).unwrap(), count, limits).await
}

async fn running_on(bound: Bound, count: usize, limits: ServerLimits) -> Running {
    let gate = Gate { open: Arc::new(Semaphore::new(0)), came: Arc::new(Semaphore::new(0)) };
    let shared = gate.clone();
    let workers = Workers::start(count, limits, move |_| {
        let gate = shared.clone();
        async move {
            move |_: ConnInfo| {
                let gate = gate.clone();
                service_fn(move |request| answer(request, gate.clone()))
            }
        }
    })
    .await
    .unwrap();
    let server = workers.serve(bound).unwrap();
    Running { workers, server, gate }
}

async fn client(server: &Server) -> TcpStream {
    TcpStream::connect(server.local_addr()).await.unwrap()
}

async fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// Reads one reply with a Content-Length: head and body.
async fn reply(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// All until the other side closes in order; a reset fails.
async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    String::from_utf8(rest).unwrap()
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let running = running(2, limits()).await;
    let mut stream = client(&running.server).await;
    for _ in 0..3 {
        ask(&mut stream, "/").await;
        assert_eq!(reply(&mut stream).await.1, "ok");
    }
    drop(stream);
    assert_eq!(running.server.drain(LONG).await, Drained { cut: 0 });
    running.workers.stop().await;
}

#[tokio::test]
async fn connections_are_spread_over_the_workers() {
    let running = running(2, limits()).await;
    let mut streams = [client(&running.server).await, client(&running.server).await];
    for stream in &mut streams {
        ask(stream, "/").await;
        reply(stream).await;
    }
    for worker in &running.workers.handles {
        assert_eq!(worker.open.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn past_the_limit_a_client_is_told_to_come_back() {
    let running = running(1, ServerLimits { connections: 1, ..limits() }).await;
    let mut first = client(&running.server).await;
    ask(&mut first, "/").await;
    reply(&mut first).await;
    let mut second = client(&running.server).await;
    ask(&mut second, "/").await;
    let (head, body) = reply(&mut second).await;
    assert!(head.starts_with("http/1.1 503 ") && head.contains("retry-after: 1\r\n"), "{head}");
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["status"], 503);
    assert_eq!(rest(&mut second).await, "");
    ask(&mut first, "/").await;
    assert_eq!(reply(&mut first).await.1, "ok");
}

#[tokio::test]
async fn a_head_that_does_not_come_closes_the_connection() {
    let running = running(1, ServerLimits { header_timeout: SHORT, ..limits() }).await;
    let mut stream = client(&running.server).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    assert!(matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn the_time_for_a_head_begins_anew_after_each_reply() {
    let header_timeout = SHORT * 20;
    let running = running(1, ServerLimits { header_timeout, ..limits() }).await;
    let mut stream = client(&running.server).await;
    ask(&mut stream, "/wait").await;
    running.gate.came.acquire().await.unwrap().forget();
    tokio::time::sleep(header_timeout * 2).await;
    running.gate.open.add_permits(1);
    assert_eq!(reply(&mut stream).await.1, "waited");
    ask(&mut stream, "/").await;
    assert_eq!(reply(&mut stream).await.1, "ok");
}

#[tokio::test]
async fn a_connection_that_rested_serves_the_next_request() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    for _ in 0..2 {
        tokio::time::sleep(connection::REST_AFTER * 2).await;
        ask(&mut stream, "/").await;
        assert_eq!(reply(&mut stream).await.1, "ok");
    }
    // A head in two pieces, with a rest between them.
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    tokio::time::sleep(connection::REST_AFTER * 2).await;
    stream.write_all(b"host: x\r\n\r\n").await.unwrap();
    assert_eq!(reply(&mut stream).await.1, "ok");
    // One that takes long is under way all the time.
    ask(&mut stream, "/wait").await;
    tokio::time::sleep(connection::REST_AFTER * 2).await;
    running.gate.open.add_permits(1);
    assert_eq!(reply(&mut stream).await.1, "waited");
    drop(stream);
    running.server.census_emptied().await;
}

#[tokio::test]
async fn a_connection_that_rests_is_closed_when_its_next_head_does_not_come() {
    let limit = connection::REST_AFTER * 2;
    let running = running(1, ServerLimits { header_timeout: limit, ..limits() }).await;
    let mut stream = client(&running.server).await;
    ask(&mut stream, "/").await;
    assert_eq!(reply(&mut stream).await.1, "ok");
    let asked = std::time::Instant::now();
    assert_eq!(rest(&mut stream).await, "");
    assert!(asked.elapsed() >= limit - SHORT, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_drain_closes_connections_that_rest_and_serves_one_that_asks_then() {
    let running = running(1, limits()).await;
    let mut idle = client(&running.server).await;
    ask(&mut idle, "/").await;
    assert_eq!(reply(&mut idle).await.1, "ok");
    let mut fresh = client(&running.server).await;
    tokio::time::sleep(connection::REST_AFTER * 2).await;
    let drain = tokio::spawn(running.server.drain(LONG));
    assert_eq!(rest(&mut idle).await, "");
    ask(&mut fresh, "/").await;
    assert_eq!(reply(&mut fresh).await.1, "ok");
    assert_eq!(rest(&mut fresh).await, "");
    drop((idle, fresh));
    assert_eq!(drain.await.unwrap().cut, 0);
}

#[tokio::test]
async fn a_head_that_is_too_large_or_has_too_many_fields_is_431() {
    let running = running(1, ServerLimits { headers: 10, ..limits() }).await;
    let large = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(11));
    for head in [large, many] {
        let mut stream = client(&running.server).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_parsed_is_400_and_its_answer_arrives() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    stream.write_all(format!("no HTTP at all\r\n\r\n{}", "x".repeat(50_000)).as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn what_follows_a_request_that_cannot_be_parsed_is_no_request() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    let follows = "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(format!("GET / HTTP/1.1\r\ncontent-length: abc\r\n\r\n{follows}").as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // The client stays, and says it again.
    stream.write_all(follows.as_bytes()).await.unwrap();
    tokio::select! {
        () = running.server.census_emptied() => {}
        _ = running.gate.came.acquire() => panic!("it was served"),
    }
}

#[tokio::test]
async fn an_answer_given_before_the_body_was_read_arrives_whole() {
    let running = running(1, limits()).await;
    let (mut from, mut to) = client(&running.server).await.into_split();
    let sender = tokio::spawn(async move {
        to.write_all(b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n").await.unwrap();
        // It is cut off at some point, which is the server's right.
        let _ = to.write_all(&vec![0; 10_000_000]).await;
    });
    let mut answer = Vec::new();
    while !answer.ends_with(b"too large") {
        answer.push(from.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 413 "));
    sender.await.unwrap();
}

#[tokio::test]
async fn a_client_that_still_sends_after_its_answer_is_not_reset() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    stream.write_all(b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n").await.unwrap();
    assert_eq!(reply(&mut stream).await.1, "too large");
    assert_eq!(rest(&mut stream).await, "");
    for _ in 0..4 {
        stream.write_all(&[0; 50_000]).await.expect("no reset, which would take an unread answer with it");
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let running = running(1, ServerLimits { reply_write_idle: SHORT, ..limits() }).await;
    let mut stream = client(&running.server).await;
    ask(&mut stream, "/large").await;
    stream.readable().await.unwrap();
    running.server.census_emptied().await;
}

#[tokio::test]
async fn all_that_waits_for_a_clients_socket_is_told_of_the_next_write_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (outlet, (told, mut heard)) = (io::Outlet::default(), tokio::sync::mpsc::unbounded_channel());
    let mut io = io::ClientIo::new(listener.accept().await.unwrap().0, LONG, outlet.clone(), None);
    let mut next = 0;
    for count in [2, 0, 3] {
        for _ in 0..count {
            let told = told.clone();
            outlet.at_next_write(Box::new(move || told.send(next).unwrap()));
            next += 1;
        }
        assert!(heard.is_empty(), "nothing was written");
        io.write_all(b"x").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
        for number in next - count..next {
            assert_eq!(heard.try_recv(), Ok(number));
        }
    }
    assert!(heard.is_empty());
}

#[tokio::test]
async fn a_panic_ends_its_connection_and_not_the_worker() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    ask(&mut stream, "/panic").await;
    assert!(matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)));
    let mut stream = client(&running.server).await;
    ask(&mut stream, "/").await;
    assert_eq!(reply(&mut stream).await.1, "ok");
    assert_eq!(running.server.open_connections(), 1);
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way_and_takes_no_more() {
    let running = running(1, limits()).await;
    let address = running.server.local_addr();
    let (mut busy, mut idle) = (client(&running.server).await, client(&running.server).await);
    ask(&mut idle, "/").await;
    reply(&mut idle).await;
    ask(&mut busy, "/wait").await;
    running.gate.came.acquire().await.unwrap().forget();
    let drain = tokio::spawn(running.server.drain(LONG));
    assert_eq!(rest(&mut idle).await, "", "an idle connection is closed while another is busy");
    assert!(TcpStream::connect(address).await.is_err(), "no one listens");
    running.gate.open.add_permits(1);
    let (head, body) = reply(&mut busy).await;
    assert_eq!(body, "waited");
    assert!(head.contains("connection: close\r\n"), "{head}");
    drop((busy, idle));
    assert_eq!(drain.await.unwrap(), Drained { cut: 0 });
    running.workers.stop().await;
}

#[tokio::test]
async fn who_connected_before_the_drain_is_served() {
    let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(bound.local_addr()).await.unwrap();
        ask(&mut stream, "/").await;
        streams.push(stream);
    }
    let running = running_on(bound, 1, limits()).await;
    let drain = tokio::spawn(running.server.drain(LONG));
    for mut stream in streams {
        assert_eq!(reply(&mut stream).await.1, "ok");
    }
    assert_eq!(drain.await.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn at_the_deadline_what_is_left_is_cut() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    ask(&mut stream, "/wait").await;
    running.gate.came.acquire().await.unwrap().forget();
    assert_eq!(running.server.drain(SHORT).await, Drained { cut: 1 });
    assert!(matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)));
    running.workers.stop().await;
}

#[tokio::test]
async fn what_a_worker_does_besides_goes_on_after_the_drain_until_it_is_stopped() {
    let (go, went) = tokio::sync::oneshot::channel::<()>();
    let (done, is_done) = tokio::sync::oneshot::channel();
    let task = std::sync::Mutex::new(Some((went, done)));
    let workers = Workers::start(1, limits(), move |_| {
        let (went, done) = task.lock().unwrap().take().unwrap();
        async move {
            tokio::spawn(async move {
                went.await.unwrap();
                done.send(()).unwrap();
            });
            |_: ConnInfo| service_fn(async |_| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
        }
    })
    .await
    .unwrap();
    let server = workers.serve(bind("127.0.0.1:0".parse().unwrap()).unwrap()).unwrap();
    server.drain(LONG).await;
    go.send(()).unwrap();
    is_done.await.unwrap();
    workers.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_with_its_address() {
    let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let error = bind(first.local_addr()).unwrap_err();
    assert_eq!(error.address, first.local_addr());
    assert_eq!(error.cause.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_worker_whose_hook_panics_does_not_come_up() {
    fn broken() -> fn(ConnInfo) -> hyper_util::service::TowerToHyperService<Refuses> {
        panic!("on purpose")
    }
    let started = Workers::start(1, limits(), |_| async { broken() }).await;
    assert_eq!(started.err().unwrap().worker, WorkerIndex(0));
}

/// A tower service, as the gateway is one.
#[derive(Clone)]
struct Refuses;

impl tower::Service<Request<Incoming>> for Refuses {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Incoming>) -> Self::Future {
        std::future::ready(Ok(Response::default()))
    }
}
