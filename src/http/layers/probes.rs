//! Marks probes, which the limits on requests in flight do not apply to.

use std::convert::Infallible;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use tower::Service;

use super::EdgeRequest;

/// Whether a request is a probe.
pub type IsProbe = fn(&Request<Incoming>) -> bool;

/// See the module.
#[derive(Clone, Debug)]
pub struct MarkProbes<S> {
    inner: S,
    is_probe: IsProbe,
}

impl<S> MarkProbes<S> {
    /// Around `inner`, which answers probes like any other request.
    pub fn new(inner: S, is_probe: IsProbe) -> MarkProbes<S> {
        MarkProbes { inner, is_probe }
    }
}

impl<S, B> Service<EdgeRequest> for MarkProbes<S>
where
    S: Service<EdgeRequest, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: EdgeRequest) -> Self::Future {
        request.is_probe = (self.is_probe)(&request.request);
        self.inner.call(request)
    }
}
