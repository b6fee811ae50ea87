//! When the client of a request with `Expect: 100-continue` is asked for a body that is streamed (RFC 9110 §10.1.1): when the
//! upstream says 100 Continue, or when it has said nothing for a while.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, StatusCode};
use tokio::sync::Notify;
use tokio::time::timeout;

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
