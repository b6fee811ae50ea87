//! The `Idempotency-Key` of a request that may be sent again.

use axum::extract::FromRequestParts;
use http::HeaderName;
use http::request::Parts;

use super::AdminState;
use super::problem::Problem;
use crate::model::IdempotencyKey;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The key, if there is one.
pub(super) struct Key(pub(super) Option<IdempotencyKey>);

impl FromRequestParts<AdminState> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AdminState) -> Result<Key, Problem> {
        let mut lines = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(line) = lines.next() else { return Ok(Key(None)) };
        let key = IdempotencyKey::parse(line.as_bytes()).filter(|_| lines.next().is_none());
        key.map(|key| Key(Some(key))).ok_or(Problem::BadIdempotencyKey)
    }
}
