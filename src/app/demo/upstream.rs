//! The sample application that the demo's gateway stands in front of: a few endpoints, no keys, no prices.
//!
//! It plays somebody else's program, so that the statuses here are its own.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

/// Lines of the slow reply.
const SLOW_LINES: usize = 5;
/// Between them.
const SLOW_STEP: Duration = Duration::from_millis(400);

type Reply = Response<BoxBody<Bytes, hyper::Error>>;

/// Starts it on any free port of this runtime; it ends with the runtime.
///
/// # Errors
/// The operating system gives no port.
pub(super) async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(
                TokioIo::new(stream),
                service_fn(|request| async { Ok::<_, Infallible>(answer(request)) }),
            );
            tokio::spawn(connection);
        }
    });
    Ok(address)
}

fn answer(request: Request<Incoming>) -> Reply {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => json(StatusCode::OK, r#"{"message":"hello from the sample API"}"#),
        (&Method::GET, "/forecast") => json(StatusCode::OK, r#"{"city":"Bern","sky":"clear","celsius":17}"#),
        (&Method::GET, "/status") => json(StatusCode::OK, r#"{"status":"up"}"#),
        (&Method::POST, "/reports") => json(StatusCode::CREATED, r#"{"report":1,"pages":12}"#),
        (&Method::POST, "/echo") => echo(request),
        (&Method::GET, "/slow") => slow(),
        (&Method::GET, "/fail") => json(StatusCode::INTERNAL_SERVER_ERROR, r#"{"error":"the sample API failed"}"#),
        (_, "/" | "/forecast" | "/status" | "/reports" | "/echo" | "/slow" | "/fail") => {
            json(StatusCode::METHOD_NOT_ALLOWED, r#"{"error":"not with this method"}"#)
        }
        (_, _) => json(StatusCode::NOT_FOUND, r#"{"error":"nothing here"}"#),
    }
}

fn json(status: StatusCode, text: &'static str) -> Reply {
    let body = Full::from(format!("{text}\n")).map_err(|never| match never {}).boxed();
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// Sends the body back as it comes.
fn echo(request: Request<Incoming>) -> Reply {
    let content_type = request.headers().get(CONTENT_TYPE).cloned();
    let mut reply = Response::new(request.into_body().boxed());
    if let Some(content_type) = content_type {
        reply.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    reply
}

/// A chunked reply that takes its time.
fn slow() -> Reply {
    let lines = futures_util::stream::unfold(0, |line| async move {
        if line == SLOW_LINES {
            return None;
        }
        if line > 0 {
            tokio::time::sleep(SLOW_STEP).await;
        }
        let text = format!("line {} of {SLOW_LINES}\n", line + 1);
        Some((Ok(Frame::data(Bytes::from(text))), line + 1))
    });
    let mut reply = Response::new(BodyExt::boxed(StreamBody::new(lines)));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    reply
}
