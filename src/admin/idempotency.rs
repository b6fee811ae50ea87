//! The `Idempotency-Key` of a request that may be sent again.

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderName, HeaderValue};

use super::AdminState;
use crate::http::Problem;
use crate::model::IdempotencyKey;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The key, if there is one.
pub(super) struct Key(pub(super) Option<IdempotencyKey>);

impl FromRequestParts<AdminState> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AdminState) -> Result<Key, Problem> {
        let lines = parts.headers.get_all(IDEMPOTENCY_KEY).iter().map(HeaderValue::as_bytes);
        Ok(IdempotencyKey::of_lines(lines).map(Key)?)
    }
}
