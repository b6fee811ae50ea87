//! Gives every request an id, and its reply the same id in `X-Request-Id`.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Response};
use pin_project_lite::pin_project;
use tower::Service;

use super::{IdentifiedRequest, ReceivedRequest};
use crate::http::request_id::{RequestId, X_REQUEST_ID};

/// See the module.
#[derive(Clone, Debug)]
pub struct RequestIds<S> {
    inner: S,
}

impl<S> RequestIds<S> {
    /// Around `inner`.
    pub fn new(inner: S) -> RequestIds<S> {
        RequestIds { inner }
    }
}

impl<S, B> Service<ReceivedRequest> for RequestIds<S>
where
    S: Service<IdentifiedRequest, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = RequestIdFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, received: ReceivedRequest) -> Self::Future {
        let id = RequestId::of(received.request.headers());
        let header = id.header().clone();
        RequestIdFuture { inner: self.inner.call(IdentifiedRequest { received, id }), header }
    }
}

pin_project! {
    /// The future of [`RequestIds`].
    pub struct RequestIdFuture<F> {
        #[pin]
        inner: F,
        header: HeaderValue,
    }
}

impl<F, B> Future for RequestIdFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        response.headers_mut().insert(X_REQUEST_ID, this.header.clone());
        Poll::Ready(Ok(response))
    }
}
