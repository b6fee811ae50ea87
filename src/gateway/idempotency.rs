//! The client's `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), where an API says that it counts, and
//! what the request asks for under it. The header goes upstream as it is, whether it counts here or not.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::route::Match;
use super::target::Target;
use crate::http::Problem;
use crate::model::{IdempotencyKey, IdempotentRequest, RequestDigest};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// RFC 9530 §2.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// Whether the client of a priced request may send it again, and what tells it from another. The key must be out of the
/// target already.
pub(super) fn read<B>(
    found: &Match<'_>,
    target: &Target,
    request: &Request<B>,
) -> Result<Option<Box<IdempotentRequest>>, Problem> {
    if !found.api.idempotency || found.route.price.is_zero() {
        return Ok(None);
    }
    let lines = request.headers().get_all(IDEMPOTENCY_KEY).iter().map(HeaderValue::as_bytes);
    let Some(key) = IdempotencyKey::of_lines(lines)? else {
        return Ok(None);
    };
    let (path, query) = target.forwarded();
    let (content_type, content_length, content_digest) = (
        all(request.headers(), &CONTENT_TYPE),
        all(request.headers(), &CONTENT_LENGTH),
        all(request.headers(), &CONTENT_DIGEST),
    );
    let request = RequestDigest::of([
        Some(request.method().as_str().as_bytes()),
        Some(path.as_bytes()),
        query.map(str::as_bytes),
        content_type.as_deref(),
        content_length.as_deref(),
        content_digest.as_deref(),
    ]);
    Ok(Some(Box::new(IdempotentRequest { key, request })))
}

/// The lines of a field as one value (RFC 9110 §5.3); `None` when there is none.
fn all(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    (!lines.is_empty()).then(|| lines.join(&b", "[..]))
}
