//! Heads of replies that are odd, and those that are refused.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use super::*;

fn fields<B>(reply: &Response<B>, name: &str) -> Vec<Vec<u8>> {
    reply.headers().get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect()
}

#[tokio::test]
async fn spaces_before_a_colon_and_folded_lines_are_cleaned() {
    for (lines, value) in [
        ("x-odd : one", "one"),
        ("x-odd \t : one", "one"),
        ("x-odd: one\r\n two", "one two"),
        ("x-odd: one\r\n\t two\r\n  three", "one two three"),
        ("x-odd: one\n two", "one two"),
        ("x-odd: one  \r\n  two", "one two"),
    ] {
        let (reply, _stream, _) = answered(&format!("{lines}\r\ncontent-length: 0\r\n")).await;
        assert_eq!(fields(&reply.unwrap(), "x-odd"), [value.as_bytes()], "{lines:?}");
    }
    for folded in ["x-odd:\r\n one", "x-odd: one\r\n \r\n two", "x-odd: one\r\n \r\n\t"] {
        let (reply, _stream, _) = answered(&format!("{folded}\r\ncontent-length: 0\r\n")).await;
        let values = fields(&reply.unwrap(), "x-odd");
        assert!(values.len() == 1 && !values[0].iter().any(|byte| b"\r\n".contains(byte)), "{folded:?} {values:?}");
    }
}

#[tokio::test]
async fn a_folded_length_counts() {
    let (reply, _stream, _) = answered("content-length:\r\n 2\r\n\r\nok").await;
    let reply = reply.unwrap();
    assert_eq!(fields(&reply, "content-length"), [b"2"]);
    let (reply, _stream, _) = answered("content-length : 2\r\n\r\nok").await;
    assert_eq!(text(reply).await, "ok");
}

#[tokio::test]
async fn more_header_fields_than_allowed_are_broken() {
    for (limit, count, is_fine) in [(100, 98, true), (100, 101, false), (200, 199, true), (200, 201, false)] {
        let (listener, config) = listen().await;
        let upstream = to(&config, UpstreamLimits { reply_headers: limit, ..limits() });
        let many = format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x: y\r\n".repeat(count - 1));
        let (reply, _stream) = first(&upstream, &listener, &many).await;
        assert_eq!(reply.is_ok(), is_fine, "{count} of {limit}");
    }
}

/// The reply to a request with this method, and how many connections are kept afterwards.
async fn replied(method: &str, reply: &str) -> (Answer, usize) {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let request = Request::builder().method(method).uri("/").body(TestBody::default()).unwrap();
    let script = async {
        let mut stream = listener.accept().await.unwrap().0;
        answer(&mut stream, reply).await;
        stream
    };
    let (reply, _stream) = tokio::join!(send(&upstream, request), script);
    (reply, upstream.targets[0].pool.len())
}

const REFUSED_LENGTHS: [&str; 11] = [
    "content-length: 5, 5",
    "content-length: +5",
    "content-length: -1",
    "content-length:",
    "content-length: x",
    "content-length: 5x",
    "content-length: 0x5",
    "content-length: 5\r\ncontent-length: 6",
    "content-length: 5\r\ncontent-length:",
    "content-length: 18446744073709551616",
    "content-length: 99999999999999999999999",
];

const REFUSED_CODINGS: [&str; 8] = [
    "transfer-encoding: gzip",
    "transfer-encoding: gzip, chunked",
    "transfer-encoding: identity",
    "transfer-encoding: chunked, chunked",
    "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    "transfer-encoding: gzip\r\ntransfer-encoding: chunked",
    "transfer-encoding:",
    "transfer-encoding: xchunked",
];

#[tokio::test]
async fn a_framing_that_can_be_read_in_two_ways_is_refused() {
    for (method, status) in [("GET", "200 OK"), ("HEAD", "200 OK"), ("GET", "204 None"), ("GET", "304 Same")] {
        for line in REFUSED_LENGTHS.iter().chain(&REFUSED_CODINGS) {
            let (reply, kept) = replied(method, &format!("HTTP/1.1 {status}\r\n{line}\r\n\r\nhello")).await;
            // hyper refuses some of them itself.
            let refused = matches!(reply, Err(SendError::BadReply { .. } | SendError::Broken { .. }));
            assert!(refused && kept == 0, "{method} {status} {line:?}");
        }
        let chunked = format!("HTTP/1.0 {status}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
        let (reply, _) = replied(method, &chunked).await;
        // hyper refuses some of them itself.
        match reply {
            Err(SendError::BadReply { reason: ReplyHeadError::TransferEncoding } | SendError::Broken { .. }) => {}
            other => panic!("HTTP/1.0 {method} {status}: {:?}", other.map(|reply| reply.status())),
        }
    }
    let (reply, _) = replied("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n").await;
    assert!(matches!(reply, Err(SendError::BadReply { reason: ReplyHeadError::ContentLength })));
    let (reply, _) = replied("GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n").await;
    assert!(matches!(reply, Err(SendError::BadReply { reason: ReplyHeadError::TransferEncoding })));
}

#[tokio::test]
async fn a_length_is_handed_on_once_without_leading_zeros() {
    for (method, status) in [("GET", "200 OK"), ("HEAD", "200 OK"), ("GET", "304 Same")] {
        for line in ["content-length: 5", "content-length: 005", "content-length: 5\r\ncontent-length: 05"] {
            let body = if method == "GET" && status == "200 OK" { "hello" } else { "" };
            let (reply, _) = replied(method, &format!("HTTP/1.1 {status}\r\n{line}\r\n\r\n{body}")).await;
            assert_eq!(fields(&reply.unwrap(), "content-length"), [b"5"], "{method} {status} {line:?}");
        }
    }
}

#[tokio::test]
async fn a_204_has_no_length_and_what_follows_it_is_no_reply() {
    for (line, kept) in [("content-length: 0", 1), ("content-length: 5", 0)] {
        let (reply, found) = replied("GET", &format!("HTTP/1.1 204 No Content\r\n{line}\r\n\r\n")).await;
        assert!(!reply.unwrap().headers().contains_key(CONTENT_LENGTH), "{line}");
        assert_eq!(found, kept, "{line}");
    }
}

#[tokio::test]
async fn of_two_framings_the_chunks_count_and_the_connection_is_not_kept() {
    let both = "content-length: 3\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n";
    let (reply, _stream, upstream) = answered(both).await;
    let reply = reply.unwrap();
    assert!(!reply.headers().contains_key(CONTENT_LENGTH) && reply.headers().contains_key(TRANSFER_ENCODING));
    assert_eq!(text(Ok(reply)).await, "ok");
    assert_eq!(upstream.targets[0].pool.len(), 0);
}

/// hyper would send a body of unknown length to it as HTTP/1.0, which is: not at all.
#[tokio::test]
async fn a_connection_that_speaks_http_10_is_not_kept() {
    let (listener, config) = listen().await;
    let upstream = to(&config, limits());
    let old = "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok";
    let (reply, _stream) = first(&upstream, &listener, old).await;
    assert_eq!(text(reply).await, "ok");
    assert_eq!(upstream.targets[0].pool.len(), 0);
}

#[tokio::test]
async fn a_101_in_http_10_is_refused() {
    let switch = "HTTP/1.0 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    let (reply, _) = replied("GET", switch).await;
    assert!(matches!(reply, Err(SendError::BadReply { reason: ReplyHeadError::Upgrade })));
}
