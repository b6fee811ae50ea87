//! Clients that go away while a request is in flight, as the edge notices it.

use std::io;

use socket2::SockRef;
use tokio::time::{Instant, timeout};

use super::super::transport::Transport;
use super::*;

/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// No timer that begins during a request wakes the connection's task: only the reset itself can.
fn without_timers() -> EdgeLimits {
    EdgeLimits { reset_check_interval: Duration::from_secs(3_600), header_timeout: LONG, ..limits() }
}

/// Returns when timers from before the request, which wake the connection's task too, have gone off.
async fn earlier_timers() {
    tokio::time::sleep(IDLE_AFTER * 2).await;
}

/// The client resets its connection.
#[expect(clippy::needless_pass_by_value, reason = "dropping it sends the reset")]
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A request in flight.
async fn waiting(running: &Running) -> TcpStream {
    let mut stream = client(&running.server).await;
    ask(&mut stream, "/wait").await;
    running.gate.came.acquire().await.unwrap().forget();
    stream
}

#[tokio::test]
async fn a_reset_wakes_its_task_and_ends_the_connection() {
    let running = running(1, without_timers()).await;
    let stream = waiting(&running).await;
    earlier_timers().await;
    reset(stream);
    timeout(PATIENCE, running.server.all_closed()).await.expect("the connection ends");
}

/// A read that fills its buffer leaves the socket reported as readable.
#[tokio::test]
async fn a_reset_after_a_head_that_fills_the_buffer_wakes_its_task_and_ends_the_connection() {
    const BUFFER: usize = 8 * 1024;
    let running = running(1, without_timers()).await;
    let mut stream = client(&running.server).await;
    let head = |padding: usize| format!("GET /wait HTTP/1.1\r\nhost: {}\r\n\r\n", "x".repeat(padding));
    stream.write_all(head(BUFFER - head(0).len()).as_bytes()).await.unwrap();
    running.gate.came.acquire().await.unwrap().forget();
    earlier_timers().await;
    reset(stream);
    timeout(PATIENCE, running.server.all_closed()).await.expect("the connection ends");
}

#[tokio::test]
async fn a_reset_after_a_body_wakes_its_task_and_ends_the_connection() {
    let running = running(1, without_timers()).await;
    let mut stream = client(&running.server).await;
    stream.write_all(b"POST /collect HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n").await.unwrap();
    tokio::time::sleep(SHORT).await;
    stream.write_all(&[b'x'; 10]).await.unwrap();
    running.gate.came.acquire().await.unwrap().forget();
    earlier_timers().await;
    reset(stream);
    timeout(PATIENCE, running.server.all_closed()).await.expect("the connection ends");
}

#[tokio::test]
async fn a_reset_is_noticed_soon_while_something_is_unread() {
    for unread in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], b""] {
        let running = running(1, EdgeLimits { reset_check_interval: SHORT, ..limits() }).await;
        let mut stream = waiting(&running).await;
        if unread.is_empty() {
            stream.shutdown().await.unwrap();
        } else {
            stream.write_all(unread).await.unwrap();
        }
        earlier_timers().await;
        assert_eq!(running.server.open_connections(), 1);
        reset(stream);
        timeout(PATIENCE, running.server.all_closed()).await.expect("the connection ends");
    }
}

#[tokio::test]
async fn requests_that_follow_each_other_without_waiting_are_served() {
    let running = running(1, limits()).await;
    let mut stream = client(&running.server).await;
    for _ in 0..10 {
        stream.write_all("GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100).as_bytes()).await.unwrap();
        for _ in 0..100 {
            assert_eq!(reply(&mut stream).await.1, "ok");
        }
    }
    for _ in 0..3 {
        ask(&mut stream, "/wait").await;
    }
    stream.shutdown().await.unwrap();
    for _ in 0..3 {
        running.gate.open.add_permits(1);
        assert_eq!(reply(&mut stream).await.1, "waited");
    }
    assert_eq!(rest(&mut stream).await, "");
    timeout(PATIENCE, running.server.all_closed()).await.expect("the connection ends");
}

/// What waits in a socket, without a wait.
fn unread(socket: &TcpStream) -> Poll<io::Result<()>> {
    socket.poll_unread(&mut Context::from_waker(std::task::Waker::noop()))
}

#[tokio::test]
async fn a_socket_tells_a_reset_from_what_is_unread() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (bytes, finishes) in [(&b""[..], false), (b"x", false), (b"", true), (b"x", true)] {
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        assert!(unread(&socket).is_pending() && socket.take_socket_error().is_none());
        stream.write_all(bytes).await.unwrap();
        if finishes {
            stream.shutdown().await.unwrap();
        }
        if finishes || !bytes.is_empty() {
            socket.readable().await.unwrap();
            for _ in 0..2 {
                assert!(matches!(unread(&socket), Poll::Ready(Ok(()))), "nothing is taken out of it");
            }
            assert!(socket.take_socket_error().is_none());
        }
        reset(stream);
        let begun = Instant::now();
        while socket.take_socket_error().is_none() {
            assert!(begun.elapsed() < PATIENCE);
            tokio::task::yield_now().await;
        }
        assert!(socket.take_socket_error().is_some(), "it stays so");
    }
}
