//! What the edge relies on in hyper. When a new version of hyper behaves in another way, a test here fails.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::head_wait::HeadWaitTimer;
use super::super::refused_head::find_parser_reply;
use super::super::write_observer::WriteObserver;
use super::*;

/// A pipe to hyper that takes note of what hyper does with it, as the edge's own stream does.
struct Watched<'a> {
    read: &'a [u8],
    heads: HeadWaitTimer,
    seen: &'a Seen,
    /// Whether the next flush fails.
    is_broken: &'a AtomicBool,
}

#[derive(Default)]
struct Seen {
    writes: std::sync::Mutex<Vec<(bool, Vec<u8>)>>,
    reads: AtomicUsize,
    /// With whether the edge takes it for one while a head is waited for.
    flushes: std::sync::Mutex<Vec<bool>>,
    observer: WriteObserver,
}

impl AsyncRead for Watched<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.seen.reads.fetch_add(1, Ordering::Relaxed);
        if self.read.is_empty() {
            return Poll::Pending;
        }
        let most = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..most]);
        self.read = &self.read[most..];
        self.heads.note_read();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.seen.observer.written();
        self.seen.writes.lock().unwrap().push((self.heads.has_refused_head(), buf.to_vec()));
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.seen.flushes.lock().unwrap().push(self.heads.is_waiting());
        if self.is_broken.load(Ordering::Relaxed) {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Lets hyper serve these bytes until it does nothing more: what it wrote, each time with whether the edge takes it for a
/// reply of the parser, and whether it waited for a head at the end.
async fn served(read: &[u8]) -> (Vec<(bool, String)>, bool) {
    let (heads, seen) = (HeadWaitTimer::default(), Seen::default());
    let mut http = http1::Builder::new();
    http.timer(heads.timer()).header_read_timeout(LONG).writev(false);
    let service = service_fn(async |_| Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("served"))));
    let watched = Watched { read, heads: heads.clone(), seen: &seen, is_broken: &AtomicBool::new(false) };
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(watched), service));
    let mut is_waiting = true;
    std::future::poll_fn(|cx| {
        for _ in 0..4 {
            let (end, wait) = heads.watch(is_waiting, || connection.as_mut().poll(cx));
            is_waiting = (is_waiting && !wait.has_ended) || wait.has_begun;
            if end.is_ready() {
                break;
            }
        }
        Poll::Ready(())
    })
    .await;
    let is_polled = heads.is_polled();
    let writes = std::mem::take(&mut *seen.writes.lock().unwrap());
    (writes.into_iter().map(|(refused, bytes)| (refused, String::from_utf8(bytes).unwrap())).collect(), is_polled)
}

const GOOD: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn the_replies_of_the_parser_are_calls_from_those_of_the_service() {
    for refused in [
        "no HTTP at all\r\n\r\n",
        "GET / HTTP/7.0\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        "GET / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
        "\u{1}\r\n\r\n",
    ] {
        let (writes, is_polled) = served(refused.as_bytes()).await;
        let [(is_refused, text)] = &writes[..] else { panic!("{refused}: {writes:?}") };
        assert!(*is_refused && !is_polled, "{refused}: {text}");
        assert_eq!(find_parser_reply(text.as_bytes()), Some((0, ProblemKind::BadRequest)), "{text}");
        let (writes, _) = served([GOOD, refused].concat().as_bytes()).await;
        let all: String = writes.iter().map(|(_, text)| text.as_str()).collect();
        assert!(all.contains("served") && writes.last().unwrap().0, "{refused}: {writes:?}");
        for (is_refused, text) in &writes {
            assert_eq!(*is_refused, text.contains("400 Bad Request"), "{refused}: {writes:?}");
        }
    }
    for good in [GOOD, &GOOD.repeat(3), &[GOOD, "GET / HT"].concat(), "GET / HT", "\r\n"] {
        let (writes, is_polled) = served(good.as_bytes()).await;
        assert!(writes.iter().all(|(is_refused, _)| !is_refused) && is_polled, "{good}: {writes:?}");
    }
}

#[tokio::test]
async fn hypers_parser_replies_with_the_statuses_that_have_a_problem() {
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101));
    for (refused, kind) in [(long, ProblemKind::UriTooLong), (many, ProblemKind::HeaderTooLarge)] {
        let (writes, _) = served(refused.as_bytes()).await;
        let (is_refused, text) = writes.last().unwrap();
        assert!(is_refused, "{text}");
        assert_eq!(find_parser_reply(text.as_bytes()), Some((0, kind)), "{text}");
    }
}

#[tokio::test]
async fn the_first_write_after_a_reply_was_handed_over_has_its_head() {
    let (seen, handed_over, calls) = (Seen::default(), AtomicBool::new(false), Arc::new(AtomicUsize::new(0)));
    let service = service_fn(async |_| {
        handed_over.store(true, Ordering::Relaxed);
        let calls = Arc::clone(&calls);
        seen.observer.on_next_write(Box::new(move || {
            calls.fetch_add(1, Ordering::Relaxed);
        }));
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("served")))
    });
    let (heads, is_broken) = (HeadWaitTimer::default(), AtomicBool::new(false));
    let watched = Watched { read: GOOD.as_bytes(), heads, seen: &seen, is_broken: &is_broken };
    let mut connection = std::pin::pin!(http1::Builder::new().serve_connection(TokioIo::new(watched), service));
    std::future::poll_fn(|cx| {
        connection.as_mut().poll(cx).map(drop).is_pending().then_some(()).map_or(Poll::Pending, Poll::Ready)
    })
    .await;
    assert!(handed_over.load(Ordering::Relaxed));
    let writes = seen.writes.lock().unwrap();
    assert!(writes[0].1.starts_with(b"HTTP/1.1 200 OK\r\n"), "{:?}", writes[0]);
    assert_eq!(calls.load(Ordering::Relaxed), 1, "the callback runs once");
}

#[tokio::test]
async fn while_a_request_is_in_flight_hyper_reads_nothing_flushes_in_each_poll_and_ends_when_that_fails() {
    struct Guard<'a>(&'a AtomicBool);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (heads, seen) = (HeadWaitTimer::default(), Seen::default());
    let (is_broken, is_dropped) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut http = http1::Builder::new();
    http.timer(heads.timer()).header_read_timeout(LONG).writev(false).half_close(true);
    let service = service_fn(async |_| {
        let _guard = Guard(&is_dropped);
        std::future::pending::<()>().await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("served")))
    });
    let two = GOOD.repeat(2);
    let watched = Watched { read: two.as_bytes(), heads: heads.clone(), seen: &seen, is_broken: &is_broken };
    let mut connection = Box::pin(http.serve_connection(TokioIo::new(watched), service));
    let mut poll = |is_waiting| {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        heads.watch(is_waiting, || connection.as_mut().poll(&mut cx)).0
    };
    assert!(poll(true).is_pending());
    let reads = seen.reads.load(Ordering::Relaxed);
    for _ in 0..3 {
        seen.flushes.lock().unwrap().clear();
        assert!(poll(false).is_pending());
        assert!(seen.flushes.lock().unwrap().contains(&false), "{:?}", seen.flushes);
    }
    assert_eq!(seen.reads.load(Ordering::Relaxed), reads);
    is_broken.store(true, Ordering::Relaxed);
    assert!(matches!(poll(false), Poll::Ready(Err(_))));
    drop(connection);
    assert!(is_dropped.load(Ordering::Relaxed));
    assert!(seen.writes.lock().unwrap().is_empty());
}
