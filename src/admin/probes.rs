//! `/healthz`, `/readyz` and `/metrics`: for whoever watches the process; no token.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, VARY};
use serde::Serialize;

use super::AdminState;
use super::metrics_format::preferred_format;
use crate::store::{BooksState, Unavailable};

#[derive(Serialize)]
struct Probe {
    status: &'static str,
    /// Why not ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<&'static str>,
    /// How wallets and books compared last. What does not balance there is for `keytoll doctor` to explain, and no reason
    /// to send requests elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    books: Option<BooksState>,
}

/// The process answers.
pub(super) async fn health() -> Response {
    Json(Probe { status: "ok", reasons: Vec::new(), books: None }).into_response()
}

/// Whether requests should be sent here, and why not.
pub(super) async fn readiness(State(admin): State<AdminState>) -> Response {
    let mut reasons = Vec::new();
    if admin.lifecycle.is_draining() {
        reasons.push("the gateway is draining");
    }
    reasons.extend(admin.store.trouble().map(Unavailable::reason));
    let books = admin.store.books_state();
    if reasons.is_empty() {
        return Json(Probe { status: "ready", reasons, books }).into_response();
    }
    let body = Json(Probe { status: "not ready", reasons, books });
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], body).into_response()
}

/// Everything that is counted, in the format that the client prefers.
pub(super) async fn metrics(State(admin): State<AdminState>, headers: HeaderMap) -> Response {
    let format = preferred_format(&headers);
    let head = [(CONTENT_TYPE, format.content_type()), (VARY, ACCEPT.as_str())];
    (head, admin.metrics.encode(format)).into_response()
}
