//! What is reserved on the data listener: `/.keytoll/healthz` and `/.keytoll/readyz`, for probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use super::headers::RequestId;
use super::problem::Problem;
use super::reply::ReplyBody;
use crate::store::Store;

/// Where nothing is ever forwarded.
pub(super) const RESERVED: &str = "/.keytoll/";

/// Whether this process wants requests.
#[derive(Clone)]
pub struct Readiness {
    store: Store,
    draining: Arc<AtomicBool>,
}

impl Readiness {
    /// Ready as long as the store is, until `draining` is set.
    pub fn new(store: Store, draining: Arc<AtomicBool>) -> Readiness {
        Readiness { store, draining }
    }

    /// Whether priced requests can be served.
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Acquire) && self.store.trouble().is_none()
    }

    /// The answer to a probe; `None` when the request is none.
    pub(super) fn probe<B>(&self, request: &Request<B>) -> Option<Response<ReplyBody>> {
        let name = request.uri().path().strip_prefix(RESERVED)?;
        let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
        let (status, text) = match name {
            "healthz" if is_read => (StatusCode::OK, "ok\n"),
            "readyz" if is_read && self.is_ready() => (StatusCode::OK, "ready\n"),
            "readyz" if is_read => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            _ => {
                let request_id = RequestId::of(request.headers());
                return Some(Problem::NoRoute.into_response(&request_id).map(ReplyBody::whole));
            }
        };
        let mut reply = Response::new(ReplyBody::whole(Full::new(Bytes::from_static(text.as_bytes()))));
        *reply.status_mut() = status;
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(reply)
    }
}
