//! What every admin request and answer has around it: a request id, who asks, no caching, and problems written out.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::problem::Problem;
use super::request_id::{RequestId, X_REQUEST_ID};

/// Who is connected; put to a request by the listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Who asks, for the log line of a change.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) request_id: RequestId,
    pub(super) peer: Option<SocketAddr>,
}

/// The outermost layer. The request is worked on in a task of its own: a change whose client went away is made and
/// logged to its end, and a panic is one answer.
pub(super) async fn frame(mut request: Request, next: Next) -> Response {
    let request_id = RequestId::of(request.headers());
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    request.extensions_mut().insert(Caller { request_id: request_id.clone(), peer });
    let mut response = tokio::spawn(next.run(request)).await.unwrap_or_else(|error| {
        tracing::error!(%error, %request_id, "an admin request ended with a panic");
        Problem::Internal.into_response()
    });
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        *response.body_mut() = Body::from(problem.write(&request_id));
    }
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, request_id.header());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 201 with the place of what was made.
pub(super) fn created(location: &str, made: &impl Serialize) -> Response {
    let mut response = (StatusCode::CREATED, axum::Json(made)).into_response();
    let location = HeaderValue::from_str(location).expect("a path of letters and digits is visible ASCII");
    response.headers_mut().insert(LOCATION, location);
    response
}
