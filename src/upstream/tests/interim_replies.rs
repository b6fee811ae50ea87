//! 1xx replies before the final one: skipped, and not without end.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::upstream::connection::HEAD_BYTES;

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn interim(bytes: usize) -> String {
    let (line, end) = ("HTTP/1.1 103 Early Hints\r\nx: ", "\r\n\r\n");
    format!("{line}{}{end}", "x".repeat(bytes - line.len() - end.len()))
}

#[tokio::test]
async fn interim_replies_are_skipped_up_to_their_limit() {
    for (extra, is_fine) in [(0, true), (1, false)] {
        let (listener, config) = listen().await;
        let upstream = to(&config, limits());
        let most = HEAD_BYTES + limits().interim_reply_bytes;
        let last = "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
        let before = most - last.len() + extra;
        let text = [interim(40_000), interim(before - 40_000), last.to_owned(), "x".repeat(100_000)].concat();
        let script = async {
            let mut stream = listener.accept().await.unwrap().0;
            head(&mut stream).await;
            let _ = stream.write_all(text.as_bytes()).await;
            stream
        };
        let (reply, _stream) = tokio::join!(send(&upstream, get("/")), script);
        match reply {
            Ok(reply) => {
                assert!(is_fine, "over the limit");
                assert_eq!(reply.collect().await.unwrap().to_bytes().len(), 100_000, "the body is not limited");
            }
            Err(error) => {
                assert!(!is_fine, "within the limit");
                assert!(matches!(error, SendError::BadReply { reason: ReplyHeadError::InterimReplies }), "{error:?}");
            }
        }
    }
}

#[tokio::test]
async fn each_request_on_a_connection_has_the_whole_limit() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let text_of = format!("{}{OK}", interim(40_000));
    let (reply, mut stream) = first(&upstream, &listener, &text_of).await;
    assert_eq!(text(reply).await, "ok");
    for _ in 0..3 {
        let (reply, _) = tokio::join!(send(&upstream, get("/")), answer(&mut stream, &text_of));
        assert_eq!(text(reply).await, "ok");
    }
}

#[tokio::test]
async fn a_flood_of_interim_replies_is_broken_off_and_holds_up_nobody() {
    let (listener, config) = listen().await;
    let (calm, calm_config) = listen().await;
    let (upstream, other) = (to(&config, limits()), to(&calm_config, limits()));
    let flood = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        head(&mut stream).await;
        let piece = CONTINUE.repeat(1_000);
        while stream.write_all(piece.as_bytes()).await.is_ok() {}
    });
    let others = async {
        for _ in 0..10 {
            let (reply, _stream) = first(&other, &calm, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
            assert!(reply.is_ok());
        }
    };
    let (reply, ()) = tokio::join!(send(&upstream, get("/")), others);
    assert!(matches!(reply, Err(SendError::BadReply { reason: ReplyHeadError::InterimReplies })));
    flood.await.unwrap();
}

/// What is in a request's extensions reaches hyper: it calls back for each interim reply.
#[tokio::test]
async fn a_callback_receives_each_interim_reply() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let seen = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let mut request = post(Full::new(Bytes::from_static(b"x")).map_err(never).boxed());
        request.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
        let count = Arc::clone(&seen);
        hyper::ext::on_informational(&mut request, move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let script = async {
            let mut stream = listener.accept().await.unwrap().0;
            let head = head(&mut stream).await;
            let close = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(format!("{CONTINUE}{CONTINUE}{close}").as_bytes()).await.unwrap();
            (head, stream)
        };
        let (reply, (head, _stream)) = tokio::join!(send(&upstream, request), script);
        assert_eq!(reply.unwrap().status(), 200);
        assert!(head.contains("expect: 100-continue\r\n"), "{head}");
    }
    assert_eq!(seen.load(Ordering::Relaxed), 4);
}
