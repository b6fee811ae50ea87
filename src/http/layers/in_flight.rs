//! Sheds requests beyond the limits: of the connection, of requests in flight, and of one client address.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{Either, Ready, ready};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tower::Service;

use super::EdgeRequest;
use crate::http::client::ClientConnection;
use crate::http::keyed_limit::{AddressGroup, AddressLimitError, KeyedPermit, acquire_of_address, forwarded_client};
use crate::http::problem::{Problem, ProblemKind};

/// `X-Forwarded-For`: the addresses of clients, as proxies tell them.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// See the module.
#[derive(Clone, Debug)]
pub struct LimitInFlight<S> {
    inner: S,
}

impl<S> LimitInFlight<S> {
    /// Around `inner`.
    pub fn new(inner: S) -> LimitInFlight<S> {
        LimitInFlight { inner }
    }
}

/// Counts a request against the limits.
fn admit(request: &EdgeRequest) -> Result<(), Problem> {
    if request.is_probe {
        return Ok(());
    }
    if request.is_for_probes {
        let detail = "The gateway has as many connections as it accepts; try again shortly.";
        return Err(ProblemKind::Overloaded.with_detail(detail));
    }
    if let Some(permit) = permit_of_address(request.record.client(), request.request.headers())? {
        request.record.keep_of_address(permit);
    }
    if !request.record.count_in_flight() {
        let detail = "The gateway has as many requests in flight as it accepts; try again shortly.";
        return Err(ProblemKind::Overloaded.with_detail(detail));
    }
    Ok(())
}

/// `None` where addresses have no limit, or this one is exempt.
fn permit_of_address(
    client: &ClientConnection,
    headers: &HeaderMap,
) -> Result<Option<KeyedPermit<AddressGroup>>, Problem> {
    let Some(limit) = &client.edge.requests_of_address else { return Ok(None) };
    let trusted = client.edge.trusted_proxies();
    let forwarded = client.is_trusted_proxy().then(|| {
        let fields = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
        forwarded_client(fields, trusted)
    });
    let address = forwarded.flatten().unwrap_or_else(|| client.address());
    acquire_of_address(Some(limit), address, trusted).map_err(|AddressLimitError| {
        ProblemKind::RateLimited.with_detail("Your address has too many requests in flight; wait for one to end.")
    })
}

impl<S, B> Service<EdgeRequest> for LimitInFlight<S>
where
    S: Service<EdgeRequest, Response = Response<B>, Error = Infallible>,
    B: From<Bytes>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<B>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: EdgeRequest) -> Self::Future {
        match admit(&request) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(problem) => {
                let EdgeRequest { request, record, .. } = request;
                Either::Right(ready(Ok(record.refuse(problem, Some(request.into_body())))))
            }
        }
    }
}
