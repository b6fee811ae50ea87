//! What is reserved on the data listener: `/.keytoll/healthz` and `/.keytoll/readyz`, for probes.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::reply::ReplyBody;
use crate::http::Lifecycle;
use crate::store::Store;

/// The prefix of paths that are never forwarded.
pub(super) const RESERVED: &str = "/.keytoll/";

enum Probe {
    Health,
    Readiness,
}

fn probe<T>(request: &Request<T>) -> Option<Probe> {
    let name = request.uri().path().strip_prefix(RESERVED)?;
    match name {
        _ if request.method() != Method::GET && request.method() != Method::HEAD => None,
        "healthz" => Some(Probe::Health),
        "readyz" => Some(Probe::Readiness),
        _ => None,
    }
}

/// Whether a request is a probe, which the limits on requests in flight do not apply to.
pub fn is_probe<T>(request: &Request<T>) -> bool {
    probe(request).is_some()
}

/// Whether this process accepts requests.
#[derive(Clone)]
pub struct Readiness {
    store: Store,
    lifecycle: Arc<Lifecycle>,
}

impl Readiness {
    /// Ready as long as the store is, until the drain begins.
    pub fn new(store: Store, lifecycle: Arc<Lifecycle>) -> Readiness {
        Readiness { store, lifecycle }
    }

    /// Whether priced requests can be served.
    fn is_ready(&self) -> bool {
        !self.lifecycle.is_draining() && self.store.trouble().is_none()
    }

    /// The answer to a probe; `None` for any other request.
    pub(super) fn probe<T>(&self, request: &Request<T>) -> Option<Response<ReplyBody>> {
        let (status, text) = match probe(request)? {
            Probe::Health => (StatusCode::OK, "ok\n"),
            Probe::Readiness if self.is_ready() => (StatusCode::OK, "ready\n"),
            Probe::Readiness => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        };
        let mut reply = Response::new(ReplyBody::from(Bytes::from_static(text.as_bytes())));
        *reply.status_mut() = status;
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(reply)
    }
}
