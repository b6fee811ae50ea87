//! Fields of one connection (RFC 9110 §7.6.1), which a proxy does not pass on.

use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::overrides;
use super::spelling::{self, CredentialHeaders};

/// Whether a field, by its canonical name, belongs to the connection whatever `Connection` says.
///
/// `Trailer` is not among them: it is end to end, and without it trailers could not be passed on.
pub(super) fn is_hop_by_hop(canonical: &str) -> bool {
    matches!(
        canonical,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Adds the fields that `Connection` lists to `removed`. Those that say what a message is, who sent it or what may be
/// done with it are not the connection's, whoever lists them.
fn collect_listed(headers: &HeaderMap, removed: &mut Vec<HeaderName>) {
    for token in listed(headers) {
        if matches!(token, b"close" | b"keep-alive" | b"upgrade") {
            continue; // no fields, or removed anyway
        }
        let Ok(name) = HeaderName::from_bytes(token) else { continue };
        if headers.contains_key(&name) && !is_end_to_end(name.as_str()) {
            removed.push(name);
        }
    }
}

fn is_end_to_end(name: &str) -> bool {
    let protected = matches!(
        name,
        "access-control-allow-origin"
            | "authorization"
            | "cache-control"
            | "cookie"
            | "date"
            | "etag"
            | "expect"
            | "forwarded"
            | "host"
            | "location"
            | "origin"
            | "range"
            | "referer"
            | "retry-after"
            | "set-cookie"
            | "strict-transport-security"
            | "traceparent"
            | "tracestate"
            | "trailer"
            | "vary"
            | "via"
            | "www-authenticate"
            | "x-real-ip"
            | "x-request-id"
    );
    protected || name.starts_with("content-") || name.starts_with("if-") || name.starts_with("x-forwarded-")
}

/// Removes the fields for which `must_go` is true and those that `Connection` lists. `must_go` must be true for `Connection`
/// and `TE`. Returns whether `TE` listed `trailers`.
pub(super) fn clean(headers: &mut HeaderMap, must_go: impl Fn(&str) -> bool) -> bool {
    let mut removed: Vec<HeaderName> = headers.keys().filter(|name| must_go(name.as_str())).cloned().collect();
    if removed.contains(&CONNECTION) {
        collect_listed(headers, &mut removed);
    }
    let accepts_trailers = removed.contains(&TE) && lists_trailers(headers);
    remove_all(headers, &removed);
    accepts_trailers
}

/// Whether a request's `TE` has the member `trailers` (RFC 9110 §10.1.4), which takes no weight.
fn lists_trailers(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TE).iter().flat_map(|line| tokens(line.as_bytes()));
    codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Takes these fields out. A message that came with `Transfer-Encoding` has its length from there; a `Content-Length` beside
/// it is false (RFC 9112 §6.3).
fn remove_all(headers: &mut HeaderMap, removed: &[HeaderName]) {
    for name in removed {
        if headers.remove(name).is_some() && *name == TRANSFER_ENCODING {
            headers.remove(CONTENT_LENGTH);
        }
    }
}

/// What a request asks to upgrade to: its `Upgrade`, when `Connection` lists it (RFC 9110 §7.8).
///
/// `None` also for other versions of HTTP and for TLS: behind such an upgrade one paid request would carry any number of
/// unpaid ones. The request is then forwarded as if it had not asked, as a server may do; so is one in HTTP/1.0, which has no
/// upgrades.
pub(crate) fn upgrade_requested(headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    if version == Version::HTTP_10 {
        return None;
    }
    let protocols = single_upgrade_value(headers)?;
    let carries_requests = tokens(protocols.as_bytes()).any(|protocol| {
        let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
        [&b"h2c"[..], b"h2", b"h3", b"http", b"tls"].iter().any(|refused| name.eq_ignore_ascii_case(refused))
    });
    let is_asked_for = listed(headers).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    (is_asked_for && !carries_requests).then(|| protocols.clone())
}

/// What the head of a 101 says that the connection speaks now, when that is what was `requested`: each protocol that it
/// names, and at least one.
pub(crate) fn upgrade_granted(reply: &HeaderMap, requested: &HeaderValue) -> Option<HeaderValue> {
    let protocols = single_upgrade_value(reply)?;
    let is_requested = |protocol: &[u8]| tokens(requested.as_bytes()).any(|one| one.eq_ignore_ascii_case(protocol));
    let mut names = tokens(protocols.as_bytes()).peekable();
    (names.peek().is_some() && names.all(is_requested)).then(|| protocols.clone())
}

/// The value of `Upgrade`, if it is there once.
fn single_upgrade_value(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(UPGRADE).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// Adds the hop-by-hop fields that Keytoll sends itself: an upgrade, and `TE: trailers`.
pub(super) fn add_hop_fields(headers: &mut HeaderMap, upgrade: Option<HeaderValue>, accepts_trailers: bool) {
    if accepts_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let options = match (upgrade.is_some(), accepts_trailers) {
        (false, false) => return,
        (true, false) => "upgrade",
        (false, true) => "te",
        (true, true) => "upgrade, te",
    };
    headers.insert(CONNECTION, HeaderValue::from_static(options));
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
    }
}

/// Takes out of a request's trailer section what [`clean_reply_trailers`] takes out of a reply's, and the headers that
/// credentials are looked for in: a key in a trailer is not read, and does not go upstream.
pub(crate) fn clean_request_trailers(trailers: &mut HeaderMap, credentials: &CredentialHeaders) {
    clean_trailers(trailers, |name| credentials.are_meant_by(name));
}

/// Takes out of a reply's trailer section what its header section could not have carried past Keytoll either, and what
/// frames, routes or authenticates a message (RFC 9110 §6.5.1).
pub(crate) fn clean_reply_trailers(trailers: &mut HeaderMap) {
    clean_trailers(trailers, |_| false);
}

fn clean_trailers(trailers: &mut HeaderMap, must_go: impl Fn(&str) -> bool) {
    let is_forbidden = |canonical: &str, _| {
        spelling::is_ours(canonical)
            || is_hop_by_hop(canonical)
            || overrides::shows_another_request(canonical)
            || overrides::shows_another_client(canonical)
            || is_head_only(canonical)
    };
    let removed: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| must_go(name.as_str()) || spelling::canonical(name.as_str(), is_forbidden))
        .cloned()
        .collect();
    remove_all(trailers, &removed);
}

fn is_head_only(canonical: &str) -> bool {
    matches!(
        canonical,
        "authorization"
            | "cache-control"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "cookie"
            | "expect"
            | "host"
            | "max-forwards"
            | "set-cookie"
            | "traceparent"
            | "trailer"
            | "x-request-id"
    )
}

fn listed(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(CONNECTION).iter().flat_map(|line| tokens(line.as_bytes()))
}

fn tokens(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}
