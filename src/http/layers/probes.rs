//! Marks probes, which the limits on requests in flight do not apply to.

use std::convert::Infallible;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use tower::{Layer, Service};

use super::EdgeRequest;

/// Whether a request is a probe.
pub type IsProbe = fn(&Request<Incoming>) -> bool;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct ProbeLayer {
    is_probe: IsProbe,
}

impl ProbeLayer {
    /// `is_probe` decides which requests are never limited; the service behind the layers answers them.
    pub fn new(is_probe: IsProbe) -> ProbeLayer {
        ProbeLayer { is_probe }
    }
}

impl<S> Layer<S> for ProbeLayer {
    type Service = MarkProbes<S>;

    fn layer(&self, inner: S) -> MarkProbes<S> {
        MarkProbes { inner, is_probe: self.is_probe }
    }
}

/// The service that the layer makes.
#[derive(Clone, Debug)]
pub struct MarkProbes<S> {
    inner: S,
    is_probe: IsProbe,
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
