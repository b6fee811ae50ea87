//! The edge with raw clients on loopback sockets, and how hyper behaves where the edge relies on it.

mod contract;
mod limits;
mod resets;
#[cfg(target_os = "linux")]
mod socket_info;
#[cfg(target_os = "linux")]
mod stalls;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tower::ServiceBuilder;
use tower::layer::layer_fn;

use super::connection::IDLE_AFTER;
use super::*;
use crate::config::Limits;
use crate::telemetry::metrics::{Format, MetricNames, Metrics};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);
const PIECE: usize = 1024;

pub(super) fn limits() -> EdgeLimits {
    EdgeLimits { connections: 100, header_bytes: 16 * 1024, ..EdgeLimits::data(&Limits::default()) }
}

/// What requests of the path `/wait` wait for, and how many have come so far.
#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    came: Arc<Semaphore>,
}

/// The body of a reply: whole, or with an end that waits, or many small pieces.
#[derive(Default)]
struct TestBody {
    whole: Full<Bytes>,
    waits: Option<BoxFuture<'static, ()>>,
    pieces: Option<Pieces>,
}

/// Pieces of a reply. The test fails when one is polled while an earlier write to the client is blocked.
struct Pieces {
    left: usize,
    client: Arc<ClientConnection>,
}

impl From<Bytes> for TestBody {
    fn from(bytes: Bytes) -> TestBody {
        TestBody { whole: Full::new(bytes), ..TestBody::default() }
    }
}

impl Body for TestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(pieces) = &mut self.pieces {
            assert!(!pieces.client.activity.is_write_blocked(), "the client does not take what it was sent before");
            let piece = pieces.left.checked_sub(1).map(|left| {
                pieces.left = left;
                Ok(Frame::data(Bytes::from_static(&[b'x'; PIECE])))
            });
            return Poll::Ready(piece);
        }
        if let Some(waits) = &mut self.waits {
            std::task::ready!(waits.as_mut().poll(cx));
            self.waits = None;
        }
        Pin::new(&mut self.whole).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.as_ref().map_or_else(|| self.whole.is_end_stream(), |pieces| pieces.left == 0)
    }

    fn size_hint(&self) -> SizeHint {
        let of_pieces = |pieces: &Pieces| SizeHint::with_exact((pieces.left * PIECE) as u64);
        self.pieces.as_ref().map_or_else(|| self.whole.size_hint(), of_pieces)
    }
}

/// The service behind the layers.
#[derive(Clone)]
struct Answers {
    gate: Gate,
}

impl tower::Service<EdgeRequest> for Answers {
    type Response = Response<TestBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<TestBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: EdgeRequest) -> Self::Future {
        assert_ne!(request.request.uri().path(), "/panic-at-once", "on purpose");
        Box::pin(answer(request, self.gate.clone()))
    }
}

async fn answer(request: EdgeRequest, gate: Gate) -> Result<Response<TestBody>, Infallible> {
    let EdgeRequest { request, record, .. } = request;
    let reply = |text: &'static str| Response::new(TestBody::from(Bytes::from(text)));
    Ok(match request.uri().path() {
        "/wait" => {
            gate.came.add_permits(1);
            gate.open.acquire().await.unwrap().forget();
            reply("waited")
        }
        "/collect" => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            gate.came.add_permits(body.len().min(1));
            std::future::pending().await
        }
        // The worker does nothing else meanwhile.
        "/block" => {
            gate.came.add_permits(1);
            while gate.open.try_acquire().map(SemaphorePermit::forget).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
            reply("blocked")
        }
        "/panic" => panic!("on purpose"),
        "/large" => Response::new(TestBody::from(Bytes::from(vec![b'x'; 64 << 20]))),
        "/pieces" => {
            let pieces = Pieces { left: (64 << 20) / PIECE, client: Arc::clone(record.client()) };
            Response::new(TestBody { pieces: Some(pieces), ..TestBody::default() })
        }
        "/early" => {
            tokio::spawn(request.into_body().collect());
            Response::new(TestBody::from(Bytes::from(vec![b'x'; 64 << 20])))
        }
        "/stream" => {
            gate.came.add_permits(1);
            let waits = async move { gate.open.acquire().await.unwrap().forget() };
            Response::new(TestBody {
                whole: Full::from("streamed"),
                waits: Some(Box::pin(waits)),
                ..TestBody::default()
            })
        }
        "/read" => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            reply(if body.is_empty() { "nothing" } else { "something" })
        }
        "/refuse" => {
            let problem = ProblemKind::BodyTooLarge.with_detail("too large");
            record.refuse(problem, Some(request.into_body()))
        }
        "/mimic" => reply("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
        _ => reply("ok"),
    })
}

pub(super) struct Running {
    pub(super) workers: Workers,
    server: Server,
    gate: Gate,
    pub(super) edge: Arc<Edge>,
    metrics: Metrics,
    /// Those that have connected.
    clients: Clients,
}

type Clients = Arc<std::sync::Mutex<Vec<Arc<ClientConnection>>>>;

impl Running {
    /// The value of a metric.
    #[track_caller]
    fn metric(&self, line: &str) -> u64 {
        let text = self.metrics.encode(Format::PrometheusText);
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {line} in {text}")).parse().unwrap()
    }
}

pub(super) async fn running(count: usize, limits: EdgeLimits) -> Running {
    running_on(bind("127.0.0.1:0".parse().unwrap()).unwrap(), count, limits).await
}

async fn running_on(bound: Bound, count: usize, limits: EdgeLimits) -> Running {
    let names =
        MetricNames { problems: ProblemKind::CODES, refusal_reasons: &RefusalReason::NAMES, ..MetricNames::default() };
    let metrics = Metrics::new(&names, None);
    let (own, gateway) = (Arc::clone(&metrics.data), Arc::clone(&metrics.gateway));
    let edge = Edge::new(Listener::Data, limits, &[], own, gateway, Arc::default());
    let gate = Gate { open: Arc::new(Semaphore::new(0)), came: Arc::new(Semaphore::new(0)) };
    let clients = Clients::default();
    let shared = (gate.clone(), Arc::clone(&clients));
    let hook = move |_| {
        let (gate, clients) = shared.clone();
        async move {
            move |client: &Arc<ClientConnection>| {
                clients.lock().unwrap().push(Arc::clone(client));
                ServiceBuilder::new()
                    .layer(layer_fn(RequestIds::new))
                    .layer(layer_fn(AccessLog::new))
                    .layer(layer_fn(CatchPanics::new))
                    .layer(layer_fn(|inner| MarkProbes::new(inner, |request| request.uri().path() == "/probe")))
                    .layer(layer_fn(LimitInFlight::new))
                    .service(Answers { gate: gate.clone() })
            }
        }
    };
    let workers = Workers::start("test", count, &edge, hook).await.unwrap();
    let server = workers.serve(bound).unwrap();
    Running { workers, server, gate, edge, metrics, clients }
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
    let length = head.split("\ncontent-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
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
async fn the_head_timeout_restarts_after_each_reply() {
    let header_timeout = SHORT * 20;
    let running = running(1, EdgeLimits { header_timeout, ..limits() }).await;
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
async fn an_idle_connection_serves_the_next_request() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    for _ in 0..2 {
        tokio::time::sleep(IDLE_AFTER * 2).await;
        ask(&mut stream, "/").await;
        assert_eq!(reply(&mut stream).await.1, "ok");
    }
    // A head in two pieces, with a rest between them.
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    tokio::time::sleep(IDLE_AFTER * 2).await;
    stream.write_all(b"host: x\r\n\r\n").await.unwrap();
    assert_eq!(reply(&mut stream).await.1, "ok");
    // One that takes long is under way all the time.
    ask(&mut stream, "/wait").await;
    tokio::time::sleep(IDLE_AFTER * 2).await;
    running.gate.open.add_permits(1);
    assert_eq!(reply(&mut stream).await.1, "waited");
    drop(stream);
    running.server.all_closed().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_its_next_head_does_not_come() {
    let limit = IDLE_AFTER * 2;
    let running = running(1, EdgeLimits { header_timeout: limit, ..limits() }).await;
    let mut stream = client(&running.server).await;
    // The wait begins later, with the reply.
    let asked = std::time::Instant::now();
    ask(&mut stream, "/").await;
    assert_eq!(reply(&mut stream).await.1, "ok");
    assert_eq!(rest(&mut stream).await, "");
    assert!(asked.elapsed() >= limit - SHORT, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_drain_closes_idle_connections_and_serves_one_that_asks_then() {
    let running = running(1, limits()).await;
    let mut idle = client(&running.server).await;
    ask(&mut idle, "/").await;
    assert_eq!(reply(&mut idle).await.1, "ok");
    let mut fresh = client(&running.server).await;
    tokio::time::sleep(IDLE_AFTER * 2).await;
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
    let running = running(1, EdgeLimits { headers: 10, ..limits() }).await;
    let large = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(11));
    for head in [large, many] {
        let mut stream = client(&running.server).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let (head, body) = reply(&mut stream).await;
        assert!(head.starts_with("http/1.1 431 "), "{head}");
        assert_problem(&head, &body, "header-too-large");
    }
}

/// What every problem has that the edge itself writes.
#[track_caller]
fn assert_problem(head: &str, body: &str, code: &str) {
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["code"], code, "{body}");
    assert_eq!(problem["message"], problem["detail"]);
    let id = problem["request_id"].as_str().unwrap();
    assert!(head.contains(&format!("\r\nx-request-id: {id}\r\n")), "{head}");
    assert!(head.contains("\r\nconnection: close\r\n") && head.contains("\r\ndate: "), "{head}");
}

#[tokio::test]
async fn a_request_that_cannot_be_parsed_is_400_and_its_answer_arrives() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    stream.write_all(format!("no HTTP at all\r\n\r\n{}", "x".repeat(50_000)).as_bytes()).await.unwrap();
    let (head, body) = reply(&mut stream).await;
    assert!(head.starts_with("http/1.1 400 "), "{head}");
    assert_problem(&head, &body, "bad-request");
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
    assert_eq!(running.metric("keytoll_refusals_total{listener=\"data\",problem=\"bad-request\"}"), 1);
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
        () = running.server.all_closed() => {}
        _ = running.gate.came.acquire() => panic!("it was served"),
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let running = running(1, EdgeLimits { reply_write_idle: SHORT, ..limits() }).await;
    let mut stream = client(&running.server).await;
    ask(&mut stream, "/large").await;
    stream.readable().await.unwrap();
    running.server.all_closed().await;
}

#[tokio::test]
async fn a_panic_is_one_reply() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    // In the service's future, and before there is one.
    for path in ["/panic", "/panic-at-once"] {
        ask(&mut stream, path).await;
        let (head, _) = reply(&mut stream).await;
        assert!(head.starts_with("http/1.1 500 "), "{path}: {head}");
    }
    ask(&mut stream, "/").await;
    assert_eq!(reply(&mut stream).await.1, "ok");
    assert_eq!(running.server.open_connections(), 1);
}

#[tokio::test]
async fn a_drain_finishes_requests_in_flight_and_takes_no_more() {
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
    let edge = running(1, limits()).await.edge;
    let workers = Workers::start("test", 1, &edge, move |_| {
        let (went, done) = task.lock().unwrap().take().unwrap();
        async move {
            tokio::spawn(async move {
                went.await.unwrap();
                done.send(()).unwrap();
            });
            |_: &Arc<ClientConnection>| Refuses
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
    fn broken() -> fn(&Arc<ClientConnection>) -> Refuses {
        panic!("on purpose")
    }
    let edge = running(1, limits()).await.edge;
    let started = Workers::start("test", 1, &edge, |_| async { broken() }).await;
    assert_eq!(started.err().unwrap().worker, WorkerIndex(0));
}

/// A service without layers.
#[derive(Clone)]
struct Refuses;

impl tower::Service<layers::ReceivedRequest> for Refuses {
    type Response = Response<TestBody>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: layers::ReceivedRequest) -> Self::Future {
        std::future::ready(Ok(Response::default()))
    }
}
