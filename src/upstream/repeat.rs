//! A request that is sent a second time, made from the bytes of the first.
//!
//! A kept connection may be closed by its upstream just as a request is written to it. RFC 9110 §9.2.2 allows to send a
//! request again whose method is idempotent. Instead of a copy of every such request, which costs about twenty allocations,
//! the socket keeps the bytes that hyper wrote, and they are read back here.

use bytes::Bytes;
use http::uri::Uri;
use http::{HeaderName, HeaderValue, Method, Request};

use super::RequestBody;
use super::outgoing::Outgoing;

/// Whether a request with this method and without a body may be sent again.
pub(super) fn may_repeat(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// The request whose head hyper wrote in these bytes. `None` if they are not one whole head.
pub(super) fn read_back<B: RequestBody>(written: &[u8]) -> Option<Request<Outgoing<B>>> {
    let head = Bytes::copy_from_slice(written.strip_suffix(b"\r\n\r\n")?);
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let mut request = Request::new(Outgoing::empty());
    *request.method_mut() = Method::from_bytes(words.next()?).ok()?;
    *request.uri_mut() = Uri::from_maybe_shared(head.slice_ref(words.next()?)).ok()?;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(line[colon + 1..].trim_ascii())).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}
