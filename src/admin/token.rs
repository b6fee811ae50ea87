//! The door to `/v1/*`: the bearer token (RFC 6750 §2.1).

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;

use super::AdminState;
use crate::http::{Problem, ProblemKind};

/// Lets a request through that carries the configured token.
pub(super) async fn demand(State(admin): State<AdminState>, request: Request, next: Next) -> Result<Response, Problem> {
    let Some(token) = &admin.settings.token else { return Err(ProblemKind::AdminDisabled.into()) };
    let presented = presented(request.headers())?;
    // Comparing takes as long whatever the first difference is, so that a token cannot be guessed byte by byte.
    if !bool::from(presented.ct_eq(token.expose().as_bytes())) {
        return Err(ProblemKind::InvalidToken.into());
    }
    Ok(next.run(request).await)
}

/// The token of a request that carries exactly one.
fn presented(headers: &HeaderMap) -> Result<&[u8], Problem> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Err(ProblemKind::MissingToken.into()) };
    if lines.next().is_some() {
        return Err(ProblemKind::InvalidToken.into());
    }
    match line.as_bytes().split_at_checked("Bearer ".len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => Ok(token.trim_ascii()),
        Some(_) | None => Err(ProblemKind::MissingToken.into()),
    }
}
