//! What every admin request and reply has around it: who sent it, no caching, and problems written out.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::http::{Problem, ProblemKind, Record, RequestId};

/// Who sent a request, for the log line of a change.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) request_id: RequestId,
    pub(super) peer: SocketAddr,
}

/// The outermost layer of the router. The request is worked on in a task of its own: a change whose client went away is
/// made and logged to its end, and a panic is one reply. `record`: of the request.
pub(super) async fn frame(record: Record, mut request: Request, next: Next) -> Response {
    let request_id = record.request_id();
    let peer = record.client().peer();
    request.extensions_mut().insert(Caller { request_id: request_id.clone(), peer });
    let work = next.run(request);
    let held = record.clone();
    let task = tokio::spawn(async move {
        // The request counts as in flight until its change is made.
        let _held = held;
        work.await
    });
    let mut response = task.await.unwrap_or_else(|error| {
        tracing::error!(%error, %request_id, "an admin request ended with a panic");
        ProblemKind::Internal.into_response()
    });
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        record.note_problem(problem.kind());
        *response.body_mut() = Body::from(problem.document(request_id));
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 201 with the place of what was made.
pub(super) fn created(location: &str, made: &impl Serialize) -> Response {
    let mut response = (StatusCode::CREATED, axum::Json(made)).into_response();
    let location = HeaderValue::from_str(location).expect("a path of letters and digits is visible ASCII");
    response.headers_mut().insert(LOCATION, location);
    response
}
