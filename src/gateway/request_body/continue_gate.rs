//! When the client of a request with `Expect: 100-continue` is asked for a body that is streamed (RFC 9110 §10.1.1): when the
//! upstream says 100 Continue, or when it has said nothing for a while.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::EXPECT;
use http::{HeaderValue, Request, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Whether the client waits for `100 Continue` before it sends its body. HTTP/1.0 has none (RFC 9110 §10.1.1).
pub(crate) fn expects_continue(request: &Request<Option<Incoming>>) -> bool {
    let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    request.version() > Version::HTTP_10
        && request.body().as_ref().is_some_and(|incoming| !incoming.is_end_stream())
        && request.headers().get(EXPECT).is_some_and(expects)
}

/// Closed until the client is to be asked for its body. hyper asks it at the first poll of the body.
pub(crate) struct ContinueGate(Pin<Box<dyn Future<Output = ()> + Send>>);

impl ContinueGate {
    /// The gate of the body of `request`, which is about to be sent. Opens at the upstream's 100 Continue, and `limit` after
    /// the first poll at the latest.
    pub(crate) fn new<B>(request: &mut Request<B>, limit: Duration) -> ContinueGate {
        let asked = Arc::new(Notify::new());
        let notified = Arc::clone(&asked);
        hyper::ext::on_informational(request, move |reply| {
            if reply.status() == StatusCode::CONTINUE {
                asked.notify_one();
            }
        });
        // The gate opens at either end of the wait.
        ContinueGate(Box::pin(async move { drop(timeout(limit, notified.notified()).await) }))
    }

    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}
