//! What an upstream is told.

use std::net::IpAddr;

use http::header::{EXPECT, HOST, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::spelling::CredentialHeaders;
use super::{
    KEYTOLL_API, KEYTOLL_CHARGE_ID, KEYTOLL_KEY_ID, KEYTOLL_RETRY_OF, KEYTOLL_USER_ID, X_FORWARDED_HOST,
    X_FORWARDED_PREFIX, X_FORWARDED_PROTO, hop, number, overrides, spelling, trace,
};
use crate::http::{RequestId, X_FORWARDED_FOR, X_REQUEST_ID, is_plain_content_length, normalize_content_length};
use crate::model::{ChargeId, KeyId, UserId};

/// How many fields [`to_upstream`] adds, except for an upgrade or a retry. The table grows for them once, not with one after the other.
const MOST_ADDED: usize = 11;

/// Who is at the other end of a client's connection; made once a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    text: HeaderValue,
    is_trusted: bool,
}

impl Peer {
    /// `is_trusted`: whether it is a proxy whose `X-Forwarded-*` and `Forwarded` are believed.
    pub(crate) fn new(address: IpAddr, is_trusted: bool) -> Peer {
        let text = address.to_canonical().to_string();
        Peer { text: HeaderValue::try_from(text).expect("an address is visible ASCII"), is_trusted }
    }
}

/// Whose request it is, on a route that needs a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// The owner of the key.
    pub user_id: UserId,
    /// The key.
    pub key_id: KeyId,
    /// What the request is paid with; `None` when it is free.
    pub charge_id: Option<ChargeId>,
    /// The refunded charge of an earlier request that this one repeats.
    pub retry_of: Option<ChargeId>,
}

/// What Keytoll says about a request.
#[derive(Clone, Debug)]
pub(crate) struct ForUpstream<'a> {
    /// The request's id.
    pub request_id: &'a RequestId,
    /// The API's name.
    pub api: &'a HeaderValue,
    /// `None` on a public route.
    pub identity: Option<Identity>,
    /// Who is connected.
    pub peer: &'a Peer,
    /// Where keys are looked for. Other spellings of these headers are removed.
    pub credentials: &'a CredentialHeaders,
    /// This gateway's entry in `Via`.
    pub via: &'a HeaderValue,
    /// What was taken off the path, if anything.
    pub stripped_prefix: Option<&'a HeaderValue>,
    /// What [`super::upgrade_requested`] said, when the upgrade is to be tried.
    pub upgrade: Option<HeaderValue>,
    /// Whether the upstream is asked to say 100 Continue before the body is sent (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// The version in which the request was received. Trailers are not passed on to HTTP/1.0.
    pub version: Version,
}

#[cfg(test)]
impl<'a> ForUpstream<'a> {
    /// About an HTTP/1.1 request on a public route without a stripped prefix.
    pub(crate) fn public(
        request_id: &'a RequestId,
        api: &'a HeaderValue,
        peer: &'a Peer,
        credentials: &'a CredentialHeaders,
        via: &'a HeaderValue,
    ) -> ForUpstream<'a> {
        ForUpstream {
            request_id,
            api,
            identity: None,
            peer,
            credentials,
            via,
            stripped_prefix: None,
            upgrade: None,
            expects_continue: false,
            version: Version::HTTP_11,
        }
    }
}

/// Turns a client's header section into the one that goes upstream. `Host` stays, and `Content-Length` in its plainest form;
/// the credential must be out already.
pub(crate) fn to_upstream(headers: &mut HeaderMap, about: ForUpstream<'_>) {
    let trusted = about.peer.is_trusted;
    let accepts_trailers =
        hop::clean(headers, |name| must_go(name, trusted) || about.credentials.are_respelled_by(name));

    headers.reserve(MOST_ADDED);
    let present = Present::of(headers);
    if present.has_unnormalized_length {
        // hyper has read it, so that it is a number; it leaves `005` as it is.
        let _ = normalize_content_length(headers);
    }
    let via = if present.via { joined(headers, &VIA, b", ", about.via) } else { about.via.clone() };
    headers.insert(VIA, via);
    set_forwarded(headers, about.peer, about.stripped_prefix, present.forwarded);
    headers.insert(X_REQUEST_ID, about.request_id.header().clone());
    if present.traceparent {
        trace::continue_or_start(headers, about.request_id);
    } else {
        trace::start(headers, about.request_id);
    }
    headers.insert(KEYTOLL_API, about.api.clone());
    if let Some(identity) = about.identity {
        headers.insert(KEYTOLL_USER_ID, number(identity.user_id.0));
        headers.insert(KEYTOLL_KEY_ID, number(identity.key_id.0));
        if let Some(charge_id) = identity.charge_id {
            headers.insert(KEYTOLL_CHARGE_ID, number(charge_id.0));
        }
        if let Some(charge_id) = identity.retry_of {
            headers.insert(KEYTOLL_RETRY_OF, number(charge_id.0));
        }
    }
    hop::add_hop_fields(headers, about.upgrade, accepts_trailers && about.version != Version::HTTP_10);
    if about.expects_continue {
        headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
    }
}

/// What is left of the fields that Keytoll continues, found in one pass: most requests have none of them, and to look each
/// one up costs more than to read all names.
#[derive(Default)]
struct Present {
    forwarded: bool,
    traceparent: bool,
    via: bool,
    /// A `Content-Length` that is not written in the plainest form.
    has_unnormalized_length: bool,
}

impl Present {
    fn of(headers: &HeaderMap) -> Present {
        let mut present = Present::default();
        for (name, value) in headers {
            match name.as_str() {
                "content-length" => present.has_unnormalized_length = !is_plain_content_length(value),
                "traceparent" => present.traceparent = true,
                "via" => present.via = true,
                name => present.forwarded |= name.starts_with("x-forwarded-"),
            }
        }
        present
    }
}

/// Whether a client's field must not reach the upstream. The first letter settles it for most.
fn must_go(name: &str, peer_is_trusted: bool) -> bool {
    if !matches!(name.as_bytes().first(), Some(b'c' | b'e' | b'f' | b'h' | b'k' | b'p' | b't' | b'u' | b'x')) {
        return false;
    }
    spelling::canonical(name, |canonical, is_respelled| {
        spelling::is_ours(canonical)
            || hop::is_hop_by_hop(canonical)
            // `Proxy` becomes HTTP_PROXY in CGI programs.
            || matches!(canonical, "expect" | "proxy")
            || overrides::shows_another_request(canonical)
            || (overrides::shows_another_client(canonical) && (is_respelled || !peer_is_trusted))
            || (is_respelled && matches!(canonical, "content-length" | "content-type" | "x-request-id"))
    })
}

/// Continues what a trusted proxy said; what is left of it at this point is from one. For others it starts anew. `is_said`:
/// whether anything is left of it; where nothing is, nothing needs to be looked up.
fn set_forwarded(headers: &mut HeaderMap, peer: &Peer, stripped_prefix: Option<&HeaderValue>, is_said: bool) {
    let said = |headers: &HeaderMap, name: &HeaderName, separator: &[u8], last: &HeaderValue| {
        if is_said { joined(headers, name, separator, last) } else { last.clone() }
    };
    let chain = said(headers, &X_FORWARDED_FOR, b", ", &peer.text);
    headers.insert(X_FORWARDED_FOR, chain);
    if !(is_said && headers.contains_key(X_FORWARDED_PROTO)) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !(is_said && headers.contains_key(X_FORWARDED_HOST))
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
    if let Some(prefix) = stripped_prefix {
        let whole = said(headers, &X_FORWARDED_PREFIX, b"", prefix);
        headers.insert(X_FORWARDED_PREFIX, whole);
    }
}

/// The lines that a field has already, and the last one, in one value.
fn joined(headers: &HeaderMap, name: &HeaderName, separator: &[u8], last: &HeaderValue) -> HeaderValue {
    let mut bytes = Vec::new();
    for line in headers.get_all(name).iter().map(|line| line.as_bytes().trim_ascii()).filter(|line| !line.is_empty()) {
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(separator);
    }
    if bytes.is_empty() {
        return last.clone();
    }
    bytes.extend_from_slice(last.as_bytes());
    HeaderValue::try_from(bytes).expect("header values put together are a header value")
}
