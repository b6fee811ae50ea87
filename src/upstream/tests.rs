//! Against scripted upstreams on raw sockets.

mod early_answers;
mod interim_replies;
mod repeats;
mod reply_heads;
mod timeouts;

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use http::HeaderName;
use http::header::{TRAILER, TRANSFER_ENCODING};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::model::Cents;

type TestBody = BoxBody<Bytes, io::Error>;

impl RequestBody for TestBody {}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn limits() -> UpstreamLimits {
    UpstreamLimits {
        connect_timeout: LONG,
        head_deadline: LONG,
        keep_idle: LONG,
        keep_connections: 8,
        reply_headers: 100,
        interim_reply_bytes: 1_024,
        client_stall: LONG,
        request_body_bytes_per_second: 500,
    }
}

async fn listen() -> (TcpListener, UpstreamConfig) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string().parse().unwrap();
    (listener, UpstreamConfig { authority, base_path: "".into() })
}

/// An upstream with the policy of the only route to it.
#[derive(Clone)]
struct Routed {
    upstream: Arc<Upstream<TestBody>>,
    policy: ExchangePolicy,
}

impl std::ops::Deref for Routed {
    type Target = Upstream<TestBody>;

    fn deref(&self) -> &Upstream<TestBody> {
        &self.upstream
    }
}

fn to(config: &UpstreamConfig, limits: UpstreamLimits) -> Routed {
    to_all(std::slice::from_ref(config), HostHeader::Replace, limits)
}

fn to_all(configs: &[UpstreamConfig], host: HostHeader, limits: UpstreamLimits) -> Routed {
    Routed { upstream: Arc::new(Upstream::new(configs, host, limits)), policy: ExchangePolicy::default() }
}

fn to_with_policy(config: &UpstreamConfig, policy: ExchangePolicy) -> Routed {
    Routed { policy, ..to(config, limits()) }
}

/// Sends what costs nothing.
async fn send(routed: &Routed, request: Request<TestBody>) -> Result<Response<UpstreamBody<TestBody>>, SendError> {
    routed.send(&Passage::free(Cents::ZERO).unwrap(), &routed.policy, request).await
}

fn get(path: &str) -> Request<TestBody> {
    Request::get(path).body(Empty::new().map_err(never).boxed()).unwrap()
}

fn post(body: TestBody) -> Request<TestBody> {
    Request::post("/").body(body).unwrap()
}

fn never(error: Infallible) -> io::Error {
    match error {}
}

/// Reads to the end of a request's head.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn answer(stream: &mut TcpStream, text: &str) -> String {
    let head = head(stream).await;
    stream.write_all(text.as_bytes()).await.unwrap();
    head
}

/// Sends a GET that the upstream answers with `text` on a new connection.
async fn first(upstream: &Routed, listener: &TcpListener, text: &str) -> (Answer, TcpStream) {
    let script = async {
        let mut stream = listener.accept().await.unwrap().0;
        answer(&mut stream, text).await;
        stream
    };
    tokio::join!(send(upstream, get("/")), script)
}

type Answer = Result<Response<UpstreamBody<TestBody>>, SendError>;

async fn text(answer: Answer) -> String {
    String::from_utf8(answer.unwrap().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// A request that the upstream answers with a head of these lines after the status line, on a new connection.
async fn answered(lines: &str) -> (Answer, TcpStream, Routed) {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let (reply, stream) = first(&upstream, &listener, &format!("HTTP/1.1 200 OK\r\n{lines}\r\n")).await;
    (reply, stream, upstream)
}

async fn closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_))
}

#[tokio::test]
async fn a_connection_is_used_again_and_the_upstream_sees_its_own_host() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let (reply, mut stream) = first(&upstream, &listener, OK).await;
    assert_eq!(text(reply).await, "ok");
    let (reply, head) = tokio::join!(send(&upstream, get("/a?b=1")), answer(&mut stream, OK));
    assert_eq!(text(reply).await, "ok");
    assert!(head.starts_with("GET /a?b=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {}\r\n", config.authority)), "{head}");
}

#[tokio::test]
async fn a_reply_without_a_body_gives_its_connection_back_at_once() {
    for empty in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n"] {
        let (listener, config) = listen().await;
        let upstream = to(&config, limits());
        let (reply, _stream) = first(&upstream, &listener, empty).await;
        let reply = reply.unwrap();
        assert_eq!(upstream.targets[0].pool.len(), 1, "{empty}");
        assert!(reply.body().is_end_stream());
    }
}

#[tokio::test]
async fn a_chunked_reply_with_trailers_gives_its_connection_back() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n";
    let (reply, _stream) = first(&upstream, &listener, chunked).await;
    let mut body = reply.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
    assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap()["x"], "y");
    assert_eq!(upstream.targets[0].pool.len(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    for _ in 0..3 {
        let (reply, stream) = first(&upstream, &listener, OK).await;
        assert_eq!(text(reply).await, "ok");
        drop(stream);
        while upstream.targets[0].pool.ready() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(upstream.targets[0].pool.len(), 1, "dead, and still kept");
    }
}

#[tokio::test]
async fn an_upstream_that_is_down_is_passed_over_and_all_down_is_unreachable() {
    let (gone, down) = listen().await;
    drop(gone);
    let (listener, up) = listen().await;
    let upstream = to_all(&[down.clone(), up], HostHeader::Replace, limits());
    let (reply, _stream) = first(&upstream, &listener, OK).await;
    assert_eq!(text(reply).await, "ok");
    let nowhere = to(&down, limits());
    assert!(matches!(send(&nowhere, get("/")).await, Err(SendError::Unreachable { .. })));
}

#[tokio::test]
async fn several_upstreams_take_turns() {
    let (one, first_config) = listen().await;
    let (two, second_config) = listen().await;
    let upstream = to_all(&[first_config, second_config], HostHeader::Replace, limits());
    let (reply, mut one) = first(&upstream, &one, OK).await;
    text(reply).await;
    let (reply, _two) = first(&upstream, &two, OK).await;
    text(reply).await;
    let (reply, _) = tokio::join!(send(&upstream, get("/")), answer(&mut one, OK));
    assert_eq!(text(reply).await, "ok");
}

#[tokio::test]
async fn an_upstream_that_says_nothing_is_a_head_timeout_and_is_left() {
    let (listener, config) = listen().await;
    let upstream = to_with_policy(&config, ExchangePolicy { head_timeout: SHORT, ..ExchangePolicy::default() });
    let (reply, mut stream) = first(&upstream, &listener, "").await;
    assert!(matches!(reply, Err(SendError::HeadTimeout)));
    assert!(closed(&mut stream).await);
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_body_is_no_head_timeout() {
    let (listener, config) = listen().await;
    let upstream = to_with_policy(&config, ExchangePolicy { head_timeout: SHORT, ..ExchangePolicy::default() });
    let slow = later(async {
        tokio::time::sleep(SHORT * 5).await;
        Ok(Bytes::from_static(b"late"))
    });
    let script = async {
        let mut stream = listener.accept().await.unwrap().0;
        head(&mut stream).await;
        let mut body = [0; 14];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"4\r\nlate\r\n0\r\n\r\n");
        stream.write_all(OK.as_bytes()).await.unwrap();
        stream
    };
    let (reply, _stream) = tokio::join!(send(&upstream, post(slow)), script);
    assert_eq!(text(reply).await, "ok");
}

/// A body of unknown length, of the one piece that `piece` comes to.
fn later(piece: impl Future<Output = io::Result<Bytes>> + Send + Sync + 'static) -> TestBody {
    Once(Some(Box::pin(piece))).boxed()
}

struct Once<F>(Option<Pin<Box<F>>>);

impl<F: Future<Output = io::Result<Bytes>>> Body for Once<F> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(piece) = &mut self.0 else { return Poll::Ready(None) };
        let piece = ready!(piece.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(Some(piece.map(Frame::data)))
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_or_has_too_large_a_head_is_broken() {
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(101));
    for nonsense in ["SSH-2.0-OpenSSH_9.2\r\n\r\n", &large, &many] {
        let (listener, config) = listen().await;
        let upstream = to(&config, limits());
        let script = async {
            let mut stream = listener.accept().await.unwrap().0;
            head(&mut stream).await;
            let _ = stream.write_all(nonsense.as_bytes()).await;
            stream
        };
        let (reply, _stream) = tokio::join!(send(&upstream, get("/")), script);
        assert!(matches!(reply, Err(SendError::Broken { .. })), "{:.20}", nonsense);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_and_never_an_end() {
    let cut = [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ];
    for cut in cut {
        let (listener, config) = listen().await;
        let upstream = to(&config, limits());
        let (reply, stream) = first(&upstream, &listener, cut).await;
        let mut body = reply.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        drop(stream);
        assert!(matches!(body.frame().await, Some(Err(BodyError::Broken(_)))), "{cut}");
        assert_eq!(upstream.targets[0].pool.len(), 0);
    }
}

#[tokio::test]
async fn a_body_that_stops_coming_is_broken_off_and_its_connection_closed() {
    let (listener, config) = listen().await;
    let upstream = to_with_policy(&config, ExchangePolicy { body_idle: SHORT, ..ExchangePolicy::default() });
    let (reply, mut stream) = first(&upstream, &listener, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
    let mut body = reply.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    assert!(matches!(body.frame().await, Some(Err(BodyError::Idle))));
    assert!(closed(&mut stream).await);
}

#[tokio::test]
async fn a_body_that_is_dropped_before_its_end_closes_the_connection() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let (reply, mut stream) = first(&upstream, &listener, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
    drop(reply);
    assert!(closed(&mut stream).await);
}

#[tokio::test]
async fn an_answer_before_the_request_was_sent_whole_is_used() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let script = async {
        let mut stream = listener.accept().await.unwrap().0;
        answer(&mut stream, "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
        stream
    };
    let (reply, mut stream) = tokio::join!(send(&upstream, post(later(pending()))), script);
    assert_eq!(reply.as_ref().unwrap().status(), 413);
    assert_eq!(text(reply).await, "big");
    assert!(closed(&mut stream).await, "a connection with half a request on it serves no other");
}

#[tokio::test]
async fn a_client_that_fails_is_told_from_an_upstream_that_does() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let failing = later(async { Err(io::Error::other("client left")) });
    let script = async { closed(&mut listener.accept().await.unwrap().0).await };
    let (reply, _) = tokio::join!(send(&upstream, post(failing)), script);
    let error = reply.err().unwrap();
    assert!(matches!(error, SendError::RequestBody { .. }), "{error:?}");
    assert_eq!(error.request_body_cause::<io::Error>().unwrap().to_string(), "client left");
}

#[tokio::test]
async fn a_body_that_fails_says_whether_anything_was_forwarded() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    for is_late in [false, true] {
        let failing = later(async move {
            if is_late {
                tokio::task::yield_now().await;
            }
            Err(io::Error::other("client left"))
        });
        let script = async {
            let mut seen = Vec::new();
            listener.accept().await.unwrap().0.read_to_end(&mut seen).await.unwrap();
            !seen.is_empty()
        };
        let (reply, is_seen) = tokio::join!(send(&upstream, post(failing)), script);
        let error = reply.err().unwrap();
        let SendError::RequestBody { was_forwarded, .. } = error else { panic!("{error:?}") };
        assert_eq!((was_forwarded, is_seen), (is_late, is_late));
    }
}

#[tokio::test]
async fn no_more_connections_are_kept_than_allowed() {
    let (listener, config) = listen().await;
    let upstream = to(&config, UpstreamLimits { keep_connections: 1, ..limits() });
    let ((one, mut first_stream), (two, mut second_stream)) =
        tokio::join!(first(&upstream, &listener, OK), first(&upstream, &listener, OK));
    text(one).await;
    text(two).await;
    assert_eq!(upstream.targets[0].pool.len(), 1);
    tokio::select! {
        closed = closed(&mut first_stream) => assert!(closed),
        closed = closed(&mut second_stream) => assert!(closed),
    }
}

#[tokio::test]
async fn an_unused_connection_is_closed_without_another_request() {
    let (listener, config) = listen().await;
    let upstream = to(&config, UpstreamLimits { keep_idle: SHORT, ..limits() });
    let (reply, mut stream) = first(&upstream, &listener, OK).await;
    text(reply).await;
    assert!(closed(&mut stream).await);
    assert_eq!(upstream.targets[0].pool.len(), 0);
}

#[tokio::test]
async fn the_base_path_stands_before_the_path_and_a_preserved_host_stays() {
    let (listener, config) = listen().await;
    let config = UpstreamConfig { base_path: "/v2".into(), ..config };
    let upstream = to_all(&[config], HostHeader::Preserve, limits());
    let mut request = get("/a%20b?c");
    request.headers_mut().insert(HOST, "api.example".parse().unwrap());
    let script = async { answer(&mut listener.accept().await.unwrap().0, OK).await };
    let (_reply, head) = tokio::join!(send(&upstream, request), script);
    assert!(head.starts_with("GET /v2/a%20b?c HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: api.example\r\n"), "{head}");
}

#[tokio::test]
async fn an_interim_reply_is_skipped() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let (reply, _stream) =
        first(&upstream, &listener, &format!("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{OK}")).await;
    assert_eq!(reply.unwrap().status(), 200);
}

#[tokio::test]
async fn an_upgraded_connection_belongs_to_its_upgrade() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhello";
    let (reply, mut stream) = first(&upstream, &listener, switch).await;
    let mut reply = reply.unwrap();
    let tunnel = hyper::upgrade::on(&mut reply).await.unwrap();
    drop(reply);
    let mut tunnel = hyper_util::rt::TokioIo::new(tunnel);
    let mut hello = [0; 5];
    tunnel.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    tunnel.write_all(b"back!").await.unwrap();
    stream.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"back!");
    assert_eq!(upstream.targets[0].pool.len(), 0);
}

#[tokio::test]
async fn a_request_with_a_whole_body_is_sent_with_its_length() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let script = async {
        let mut stream = listener.accept().await.unwrap().0;
        let head = head(&mut stream).await;
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        (head, stream)
    };
    let body = Full::new(Bytes::from_static(b"body")).map_err(never).boxed();
    let (reply, (head, _stream)) = tokio::join!(send(&upstream, post(body)), script);
    assert_eq!(text(reply).await, "ok");
    assert!(head.contains("content-length: 4\r\n"), "{head}");
    assert_eq!(upstream.targets[0].pool.len(), 1);
}

#[tokio::test]
async fn a_request_that_ends_with_trailers_is_complete_and_its_connection_is_used_again() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let trailers = http::HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("7"))]);
    let body =
        Full::new(Bytes::from_static(b"some")).map_err(never).with_trailers(async { Some(Ok(trailers)) }).boxed();
    let mut request = post(body);
    request.headers_mut().insert(TRAILER, HeaderValue::from_static("x-sum"));
    request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    let script = async {
        let mut stream = listener.accept().await.unwrap().0;
        head(&mut stream).await;
        let mut found = [0; 24];
        stream.read_exact(&mut found).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&found), "4\r\nsome\r\n0\r\nx-sum: 7\r\n\r\n");
        stream.write_all(OK.as_bytes()).await.unwrap();
        stream
    };
    let (reply, _stream) = tokio::join!(send(&upstream, request), script);
    assert_eq!(text(reply).await, "ok");
    assert_eq!(upstream.targets[0].pool.len(), 1);
}
