//! Turns a panic of a service into a 500 reply, so that it ends one request and not its connection. A panic in the body of a
//! reply ends the connection.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::CatchUnwind;
use http::Response;
use pin_project_lite::pin_project;
use tower::Service;

use super::EdgeRequest;
use crate::http::problem::ProblemKind;
use crate::http::record::Record;

/// See the module.
#[derive(Clone, Debug)]
pub struct CatchPanics<S> {
    inner: S,
}

impl<S> CatchPanics<S> {
    /// Around `inner`.
    pub fn new(inner: S) -> CatchPanics<S> {
        CatchPanics { inner }
    }
}

impl<S, B> Service<EdgeRequest> for CatchPanics<S>
where
    S: Service<EdgeRequest, Response = Response<B>, Error = Infallible>,
    B: From<Bytes>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = CatchPanicsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: EdgeRequest) -> Self::Future {
        let record = request.record.clone();
        let called = catch_unwind(AssertUnwindSafe(|| self.inner.call(request)));
        let inner = called.ok().map(|future| AssertUnwindSafe(future).catch_unwind());
        CatchPanicsFuture { inner, record }
    }
}

pin_project! {
    /// The future of [`CatchPanics`].
    pub struct CatchPanicsFuture<F> {
        // None: the call has panicked.
        #[pin]
        inner: Option<CatchUnwind<AssertUnwindSafe<F>>>,
        record: Record,
    }
}

impl<F, B> Future for CatchPanicsFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: From<Bytes>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Some(inner) = this.inner.as_pin_mut()
            && let Ok(response) = ready!(inner.poll(cx))
        {
            return Poll::Ready(response);
        }
        tracing::error!(request_id = %this.record.request_id(), "a request ended with a panic");
        Poll::Ready(Ok(this.record.refuse(ProblemKind::Internal.into(), None)))
    }
}
