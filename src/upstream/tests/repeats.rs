//! Kept connections that end without a byte of reply.

use http_body_util::StreamBody;

use super::*;
use crate::upstream::socket::UpstreamSocket;
use crate::upstream::socket_state::SocketState;

/// An upstream with one kept connection.
async fn kept() -> (Routed, TcpListener, TcpStream) {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let (reply, stream) = first(&upstream, &listener, OK).await;
    assert_eq!(text(reply).await, "ok");
    assert_eq!(upstream.targets[0].pool.len(), 1);
    (upstream, listener, stream)
}

/// How a connection ends.
fn end(stream: TcpStream, with_reset: bool) {
    if with_reset {
        stream.set_zero_linger().unwrap();
    }
    drop(stream);
}

fn with_method(method: &str) -> Request<TestBody> {
    let request = Request::builder().method(method).uri("/a%20b?c=d&e");
    let request = request.header("x-empty", "").header("x-bytes", &b"\xe4 \xc3\xa4"[..]).header("x-two", "1");
    request.header("x-two", "2").body(TestBody::default()).unwrap()
}

/// A head without its line for the host, sorted: hyper writes fields in no promised order.
fn sorted(head: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<_> = head.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines[1..].sort_unstable();
    lines
}

async fn raw_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    head
}

fn is_second_connection(listener: &TcpListener) -> bool {
    pin!(listener.accept()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[tokio::test]
async fn a_request_without_an_answer_is_sent_again_on_a_new_connection() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        for with_reset in [false, true] {
            let (upstream, listener, mut stream) = kept().await;
            let script = async {
                let first_head = raw_head(&mut stream).await;
                end(stream, with_reset);
                let mut fresh = listener.accept().await.unwrap().0;
                let second_head = raw_head(&mut fresh).await;
                fresh.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                (first_head, second_head, fresh)
            };
            let (reply, (first_head, second_head, _fresh)) = tokio::join!(send(&upstream, with_method(method)), script);
            assert_eq!(reply.unwrap().status(), 200, "{method}");
            assert!(first_head.starts_with(format!("{method} /a%20b?c=d&e HTTP/1.1\r\n").as_bytes()));
            assert_eq!(sorted(&first_head), sorted(&second_head));
            assert_eq!(upstream.targets[0].pool.len(), 1);
        }
    }
}

#[tokio::test]
async fn a_request_is_sent_again_only_once() {
    let (upstream, listener, mut stream) = kept().await;
    let script = async {
        head(&mut stream).await;
        drop(stream);
        head(&mut listener.accept().await.unwrap().0).await;
    };
    let (reply, ()) = tokio::join!(send(&upstream, get("/")), script);
    assert!(matches!(reply, Err(SendError::Broken { .. })));
    assert!(!is_second_connection(&listener), "no third connection");
}

#[tokio::test]
async fn another_kept_connection_is_not_used_for_it() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let ((one, first_stream), (two, second_stream)) =
        tokio::join!(first(&upstream, &listener, OK), first(&upstream, &listener, OK));
    text(one).await;
    text(two).await;
    assert_eq!(upstream.targets[0].pool.len(), 2);
    let script = async {
        // Whichever of the two is used.
        let (mut one, mut two) = (first_stream, second_stream);
        let idle = tokio::select! {
            read = one.read_u8() => { read.unwrap(); drop(one); two }
            read = two.read_u8() => { read.unwrap(); drop(two); one }
        };
        let mut fresh = listener.accept().await.unwrap().0;
        answer(&mut fresh, OK).await;
        (idle, fresh)
    };
    let (reply, _streams) = tokio::join!(send(&upstream, get("/")), script);
    assert_eq!(text(reply).await, "ok");
}

#[tokio::test]
async fn one_byte_of_a_reply_is_an_answer() {
    let (upstream, listener, mut stream) = kept().await;
    let script = async {
        answer(&mut stream, "H").await;
        drop(stream);
    };
    let (reply, ()) = tokio::join!(send(&upstream, get("/")), script);
    assert!(matches!(reply, Err(SendError::Broken { .. })));
    assert!(!is_second_connection(&listener));
}

#[tokio::test]
async fn other_requests_are_not_sent_again() {
    let bodies = || {
        let whole = Full::new(Bytes::from_static(b"x")).map_err(never).boxed();
        let chunk = Ok(Frame::data(Bytes::from_static(b"x")));
        let chunked = StreamBody::new(futures_util::stream::iter([chunk])).boxed();
        [TestBody::default(), whole, chunked]
    };
    for (method, with_body) in [("POST", 0), ("DELETE", 0), ("PUT", 0), ("GET", 1), ("GET", 2), ("POST", 1)] {
        let (upstream, listener, mut stream) = kept().await;
        let mut request = with_method(method);
        *request.body_mut() = bodies().into_iter().nth(with_body).unwrap();
        let script = async {
            head(&mut stream).await;
            drop(stream);
        };
        // Latin-1 is no String.
        request.headers_mut().remove("x-bytes");
        let (reply, ()) = tokio::join!(send(&upstream, request), script);
        assert!(matches!(reply, Err(SendError::Broken { .. })), "{method}");
        assert!(!is_second_connection(&listener), "{method}");
    }
}

#[tokio::test]
async fn a_new_connection_that_ends_is_not_tried_again() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let script = async { head(&mut listener.accept().await.unwrap().0).await };
    let (reply, _) = tokio::join!(send(&upstream, get("/")), script);
    assert!(matches!(reply, Err(SendError::Broken { .. })));
    assert!(!is_second_connection(&listener));
}

#[tokio::test]
async fn an_upstream_that_is_gone_the_second_time_is_broken_and_not_unreachable() {
    let (upstream, listener, mut stream) = kept().await;
    let script = async {
        head(&mut stream).await;
        drop(listener);
        drop(stream);
    };
    let (reply, ()) = tokio::join!(send(&upstream, get("/")), script);
    assert!(matches!(reply, Err(SendError::Broken { .. })), "the first one may have been seen");
}

/// Both times together have the time of one.
#[tokio::test]
async fn the_second_time_has_the_deadlines_of_the_first() {
    const STEP: Duration = Duration::from_millis(100);
    let (mut upstream, listener, mut stream) = kept().await;
    upstream.policy.head_timeout = STEP * 10;
    let start = Instant::now();
    let script = async {
        head(&mut stream).await;
        tokio::time::sleep(STEP * 7).await;
        drop(stream);
        let mut fresh = listener.accept().await.unwrap().0;
        head(&mut fresh).await;
        closed(&mut fresh).await
    };
    let (reply, _) = tokio::join!(send(&upstream, get("/")), script);
    assert!(matches!(reply, Err(SendError::HeadTimeout)));
    let taken = start.elapsed();
    assert!(STEP * 10 <= taken + STEP && taken < STEP * 16, "{taken:?}");
}

/// The rest of a body could look like the head of a request.
#[tokio::test]
async fn a_request_behind_the_rest_of_another_is_not_kept() {
    for is_flushed in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let state = Arc::new(SocketState::new(&stream));
        let mut socket = UpstreamSocket::new(stream, Arc::clone(&state));
        socket.write_all(b"the rest of a body").await.unwrap();
        if is_flushed {
            socket.flush().await.unwrap();
        }
        state.begin(1_000, true);
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut upstream = listener.accept().await.unwrap().0;
        head(&mut upstream).await;
        drop(upstream);
        assert_eq!(socket.read(&mut [0; 8]).await.unwrap(), 0);
        let kept = state.take_unanswered();
        assert_eq!(kept.as_deref(), is_flushed.then_some(&b"GET / HTTP/1.1\r\n\r\n"[..]));
    }
}

#[test]
fn only_a_whole_head_is_read_back() {
    assert!(repeat::read_back::<TestBody>(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").is_some());
    for part in [&b""[..], b"GET / HTTP/1.1\r\nhost: a\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nhost\r\n\r\n"] {
        assert!(repeat::read_back::<TestBody>(part).is_none());
    }
}
