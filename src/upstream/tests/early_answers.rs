//! Upstreams that answer before they have the whole request, and close.

use std::io::{Read, Write};
use std::thread;

use super::*;

/// Without an end, as fast as it is taken.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
    }
}

/// An upstream on a thread of its own, as it would be: reads a head, writes these bytes and closes with the rest unread.
async fn closing_after(text: String) -> (Routed, thread::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = listener.local_addr().unwrap().to_string().parse().unwrap();
    let upstream = to(&UpstreamConfig { authority, base_path: "".into() }, limits());
    let script = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut found = Vec::new();
        while !found.windows(4).any(|window| window == b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            found.extend(byte);
        }
        stream.write_all(text.as_bytes()).unwrap();
    });
    (upstream, script)
}

#[tokio::test]
async fn an_answer_before_a_reset_is_delivered_whole() {
    let body = "b".repeat(20_000);
    for _ in 0..50 {
        let text_of =
            format!("HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 20000\r\n\r\n{body}");
        let (upstream, script) = closing_after(text_of).await;
        let reply = send(&upstream, post(Endless.boxed())).await.unwrap();
        assert_eq!(reply.status(), 413);
        assert_eq!(text(Ok(reply)).await, body);
        script.join().unwrap();
        assert_eq!(upstream.targets[0].pool.len(), 0);
    }
}

#[tokio::test]
async fn a_reset_before_an_answer_is_the_upstreams_doing() {
    for begun in ["", "HTTP/1.1 413 Content"] {
        let (upstream, script) = closing_after(begun.to_owned()).await;
        let reply = send(&upstream, post(Endless.boxed())).await;
        assert!(matches!(reply, Err(SendError::Broken { .. })));
        script.join().unwrap();
    }
}

/// A reset discards what the kernel had not sent, so that a body which only the end of the connection ends may be cut.
#[tokio::test]
async fn a_body_without_a_length_before_a_reset_is_broken_off() {
    let text_of = format!("HTTP/1.1 413 Content Too Large\r\nconnection: close\r\n\r\n{}", "b".repeat(20_000));
    let (upstream, script) = closing_after(text_of).await;
    let mut body = send(&upstream, post(Endless.boxed())).await.unwrap().into_body();
    let error = loop {
        match body.frame().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("a body that may be cut ended"),
        }
    };
    assert!(matches!(error, BodyError::Broken(_)), "{error:?}");
    script.join().unwrap();
}

/// A body that has its upstream reset the connection before its second piece, and then fails, before anything could be
/// read of the reset.
struct FailsAfterReset {
    polls: usize,
    reset: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Body for FailsAfterReset {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.polls += 1;
        match self.polls {
            1 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"first"))))),
            2 => {
                // What is written next fails.
                self.reset.take().unwrap()();
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"second")))))
            }
            3 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(Some(Err(io::Error::other("client left")))),
        }
    }
}

#[tokio::test]
async fn a_client_that_fails_after_its_upstream_did_is_not_to_blame() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = listener.local_addr().unwrap().to_string().parse().unwrap();
    let upstream = to(&UpstreamConfig { authority, base_path: "".into() }, limits());
    let reset = Box::new(move || {
        let stream = listener.accept().unwrap().0;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let body = FailsAfterReset { polls: 0, reset: Some(reset) };
    let reply = send(&upstream, post(body.boxed())).await;
    assert!(matches!(reply, Err(SendError::Broken { .. })), "{:?}", reply.err());
}

/// It may be about to close, and the next request would meet that. The connection is fine here, so that only the order of the
/// answer and the request decides.
#[tokio::test]
async fn a_connection_whose_upstream_answered_before_the_whole_request_is_not_used_again() {
    for is_early in [true, false] {
        let (listener, config) = listen().await;
        let upstream = to(&config, limits());
        let (finish, finished) = tokio::sync::oneshot::channel();
        let body = later(async move {
            finished.await.unwrap();
            Ok(Bytes::from_static(b"rest"))
        });
        let script = async {
            let mut stream = listener.accept().await.unwrap().0;
            head(&mut stream).await;
            let mut finish = Some(finish);
            if !is_early {
                upload(&mut stream, finish.take()).await;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await.unwrap();
            (stream, finish)
        };
        let (reply, (mut stream, finish)) = tokio::join!(send(&upstream, post(body)), script);
        if is_early {
            upload(&mut stream, finish).await;
        }
        stream.write_all(b"ok").await.unwrap();
        assert_eq!(text(reply).await, "ok");
        assert_eq!(upstream.targets[0].pool.len(), usize::from(!is_early), "early: {is_early}");
    }
}

/// Lets the client finish its body in the test above, and reads it.
async fn upload(stream: &mut TcpStream, finish: Option<tokio::sync::oneshot::Sender<()>>) {
    finish.unwrap().send(()).unwrap();
    let mut body = [0; 14];
    stream.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"4\r\nrest\r\n0\r\n\r\n");
}
