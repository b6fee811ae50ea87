//! When a client that takes a reply counts as stalled.

use std::sync::atomic::{AtomicBool, Ordering};

use socket2::SockRef;
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep, timeout};

use super::*;

const STALL: Duration = Duration::from_millis(800);
/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn stall_limits() -> EdgeLimits {
    EdgeLimits { client_stall: STALL, ..limits() }
}

/// A client that is being sent a large reply. It has a small receive buffer, because with a large one TCP acknowledges in
/// large steps, and short segments as on a real network.
async fn asked(running: &Running) -> (TcpStream, Arc<ClientConnection>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    SockRef::from(&socket).set_tcp_mss(1_460).unwrap();
    let mut stream = socket.connect(running.server.local_addr()).await.unwrap();
    ask(&mut stream, "/large").await;
    stream.readable().await.unwrap();
    let client = running.clients.lock().unwrap().pop().unwrap();
    (stream, client)
}

fn until(what: &str, is_so: impl Fn() -> bool) -> impl Future<Output = ()> {
    let message = format!("{what} does not happen");
    async move {
        let polls = async {
            while !is_so() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, polls).await.expect(&message);
    }
}

#[tokio::test]
async fn a_client_that_acknowledges_nothing_is_stalled_until_it_reads_on() {
    let running = running(1, stall_limits()).await;
    let (mut stream, client) = asked(&running).await;
    until("a blocked write", || client.activity.is_write_blocked()).await;
    let blocked = Instant::now();
    assert!(client.stall_count() == 0 && !client.was_stalled_within(LONG));
    for count in 1..=2 {
        until("a stall", || client.stall_count() == count).await;
        assert!(count > 1 || blocked.elapsed() >= STALL - SHORT, "{:?}", blocked.elapsed());
        assert!(client.was_stalled_within(Duration::ZERO), "it goes on");
        // It reads for as long as it counts as stalled, and stops.
        let mut piece = vec![0; 64 * 1024];
        while client.was_stalled_within(Duration::ZERO) {
            stream.read_exact(&mut piece).await.unwrap();
        }
        assert!(client.was_stalled_within(LONG), "it has just ended");
        assert_eq!(client.stall_count(), count);
    }
}

#[tokio::test]
async fn a_slow_reader_is_not_stalled_although_its_socket_takes_nothing_for_a_long_time() {
    let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // Its connections inherit that.
    SockRef::from(&bound.listener).set_send_buffer_size(1 << 20).unwrap();
    let running = running_on(bound, 1, stall_limits()).await;
    let (mut stream, client) = asked(&running).await;
    until("a blocked write", || client.activity.is_write_blocked()).await;
    let has_written = Arc::new(AtomicBool::new(false));
    let written = Arc::clone(&has_written);
    client.on_next_write(Box::new(move || written.store(true, Ordering::Relaxed)));
    let (blocked, mut piece) = (Instant::now(), [0; 4 * 1024]);
    while !has_written.load(Ordering::Relaxed) {
        stream.read_exact(&mut piece).await.unwrap();
        sleep(SHORT * 2).await;
        assert_eq!(client.stall_count(), 0, "after {:?}", blocked.elapsed());
        assert!(blocked.elapsed() < PATIENCE);
    }
    assert!(blocked.elapsed() > STALL, "the socket took more after {:?}: the test shows nothing", blocked.elapsed());
    until("a stall", || client.stall_count() == 1).await;
}

#[tokio::test]
async fn a_client_that_takes_all_is_never_stalled() {
    let running = running(1, EdgeLimits { client_stall: SHORT, ..limits() }).await;
    let mut stream = client(&running.server).await;
    ask(&mut stream, "/large").await;
    let (_, body) = reply(&mut stream).await;
    assert_eq!(body.len(), 64 << 20);
    // The time in which it does not ask for anything.
    sleep(SHORT * 5).await;
    assert_eq!(running.clients.lock().unwrap()[0].stall_count(), 0);
}
