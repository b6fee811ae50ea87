//! Opens the record of every request, and closes it when the reply's body has ended.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Buf;
use http::header::CONNECTION;
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tower::Service;

use super::{EdgeRequest, IdentifiedRequest, ReceivedRequest};
use crate::http::client::ClientConnection;
use crate::http::record::Record;

/// See the module.
#[derive(Clone, Debug)]
pub struct AccessLog<S> {
    inner: S,
}

impl<S> AccessLog<S> {
    /// Around `inner`.
    pub fn new(inner: S) -> AccessLog<S> {
        AccessLog { inner }
    }
}

impl<S, B> Service<IdentifiedRequest> for AccessLog<S>
where
    S: Service<EdgeRequest, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<LoggedBody<B>>;
    type Error = Infallible;
    type Future = AccessLogFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, identified: IdentifiedRequest) -> Self::Future {
        let IdentifiedRequest { received: ReceivedRequest { request, client, is_for_probes }, id } = identified;
        let record = Record::new(id, client, &request);
        let inner = self.inner.call(EdgeRequest { request, record: record.clone(), is_for_probes, is_probe: false });
        AccessLogFuture { inner, record: Some(record), is_for_probes }
    }
}

pin_project! {
    /// The future of [`AccessLog`].
    pub struct AccessLogFuture<F> {
        #[pin]
        inner: F,
        record: Option<Record>,
        is_for_probes: bool,
    }
}

impl<F, B> Future for AccessLogFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<LoggedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        let record = this.record.take().expect("a future is not polled after its end");
        record.replied(response.status());
        let is_closing =
            record.closes_for_unread_body() || *this.is_for_probes || record.client().is_closing(record.started());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            record.client().activity.upgrade();
        } else if is_closing {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| LoggedBody { body, record })))
    }
}

/// The body of a reply, and the record that ends with it.
pub struct LoggedBody<B> {
    body: B,
    record: Record,
}

impl<B: Body + Unpin> Body for LoggedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        // hyper gathers what it can get, also while the client reads nothing. The write that is blocked wakes the task.
        if self.record.client().activity.is_write_blocked() {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.record.sent(data.remaining() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for LoggedBody<B> {
    /// hyper has taken the whole reply. A small refused body is read now, so that the connection can serve the next
    /// request; earlier, hyper would answer it with `100 Continue`.
    fn drop(&mut self) {
        if let Some(unread) = self.record.take_unread_body()
            && let Ok(runtime) = Handle::try_current()
        {
            let client = Arc::clone(self.record.client());
            // Meanwhile the connection makes room for others.
            client.activity.discard(true);
            client.waiting.begin(Instant::now());
            runtime.spawn(discard(unread, client));
        }
    }
}

/// Reads a refused body to its end, within the limits for that, and not while the gateway stops.
async fn discard(mut body: Incoming, client: Arc<ClientConnection>) {
    let limits = &client.edge.limits;
    let to_end = async {
        while let Ok(Some(Ok(_))) = timeout(limits.refused_body_idle, body.frame()).await
            && !client.edge.lifecycle.is_draining()
        {}
    };
    // A body that is not read to its end closes the connection.
    let _ = timeout(limits.refused_body_timeout, to_end).await;
}
