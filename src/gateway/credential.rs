//! Takes the credential out of a request, so that it is looked up and never forwarded.
//!
//! The first source, in the configured order, that is present gives the key, good or malformed, and is removed. In any
//! other source the same value is removed as well; another value stays (it may be the application's own token), and is
//! handed back for a look-up: if it turns out to be a key too, the request is ambiguous. So is one source given twice.
//!
//! On public routes no key is needed and none is looked up: [`strip`] only keeps issued keys from being forwarded.

mod query;

use std::borrow::Cow;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use crate::config::CredentialSource;
use crate::model::{ApiKey, KeyPrefix, KeyShape};

/// What was taken out of a request.
#[derive(Debug)]
pub(super) struct Taken<'q> {
    /// The key, not looked up yet.
    pub key: ApiKey,
    /// Values of other sources that could be keys and differ from `key`; still in the request. Mostly empty.
    pub others: Vec<ApiKey>,
    /// The query to forward.
    pub query: Option<Cow<'q, str>>,
}

/// Why a request has no usable credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No source is present.
    Missing,
    /// The first source that is present holds what cannot be a key.
    Malformed(Malformed),
    /// One source is given twice.
    Ambiguous,
}

/// Why a value cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// It is empty.
    Empty,
    /// It is longer than keys may be.
    TooLong,
    /// It has a byte that is not visible ASCII.
    NotVisibleAscii,
    /// It is the stored form of a key, `sha256:…`.
    Digest,
}

/// Takes the credential out of `headers` and `query`. `key_bytes`: the length that keys may have. The secret is copied
/// once, into the key; an unchanged query is borrowed.
///
/// # Errors
/// When there is no key to look up. The request is not to be forwarded then, and what is left of it is unspecified.
pub(super) fn take<'q>(
    headers: &mut HeaderMap,
    query: Option<&'q str>,
    sources: &[CredentialSource],
    key_bytes: usize,
) -> Result<Taken<'q>, Refusal> {
    let mut key: Option<ApiKey> = None;
    let mut others = Vec::new();
    let mut query = query.map(Cow::Borrowed);
    for source in sources {
        let Some(value) = present(headers, query.as_deref(), source)? else { continue };
        let parsed = parse(&value, key_bytes);
        match (&key, parsed) {
            (None, parsed) => key = Some(parsed.map_err(Refusal::Malformed)?),
            (Some(key), Ok(other)) if *key == other => {}
            (Some(_), Ok(other)) => {
                others.push(other);
                continue;
            }
            (Some(_), Err(_)) => continue,
        }
        match source {
            CredentialSource::Header(name) => drop(headers.remove(name)),
            CredentialSource::AuthorizationBearer => drop(headers.remove(AUTHORIZATION)),
            CredentialSource::Query(name) => query = query::without(query, |parameter| parameter.is_named(name)),
        }
    }
    key.map(|key| Taken { key, others, query }).ok_or(Refusal::Missing)
}

/// Keeps keys from being forwarded on a public route, and gives the query to forward. What stands in a source of keys is
/// removed. Only a bearer token may as well be the application's own: it is removed when it has the shape of an issued
/// key, rightly typed or not.
pub(super) fn strip<'q>(
    headers: &mut HeaderMap,
    query: Option<&'q str>,
    sources: &[CredentialSource],
    prefix: &KeyPrefix,
) -> Option<Cow<'q, str>> {
    let is_ours = |value: &[u8]| {
        let key = std::str::from_utf8(value).ok().and_then(ApiKey::new);
        key.is_some_and(|key| match key.shape(prefix) {
            KeyShape::Issued | KeyShape::Mistyped => true,
            KeyShape::Foreign => false,
        })
    };
    let mut query = query.map(Cow::Borrowed);
    for source in sources {
        match source {
            CredentialSource::Header(name) => {
                headers.remove(name);
            }
            CredentialSource::AuthorizationBearer => {
                remove_if(headers, &AUTHORIZATION, |line| bearer(line).is_some_and(is_ours));
            }
            CredentialSource::Query(name) => {
                query = query::without(query, |parameter| parameter.is_named(name));
            }
        }
    }
    query
}

fn remove_if(headers: &mut HeaderMap, name: &HeaderName, wanted: impl Fn(&[u8]) -> bool) {
    if headers.get_all(name).iter().any(|line| wanted(line.as_bytes().trim_ascii())) {
        headers.remove(name);
    }
}

/// The value of a source; `None` when it is not present.
fn present<'r>(
    headers: &'r HeaderMap,
    query: Option<&'r str>,
    source: &CredentialSource,
) -> Result<Option<Cow<'r, [u8]>>, Refusal> {
    match source {
        CredentialSource::Header(name) => Ok(only_line(headers, name)?.map(Cow::Borrowed)),
        CredentialSource::AuthorizationBearer => {
            Ok(only_line(headers, &AUTHORIZATION)?.and_then(bearer).map(Cow::Borrowed))
        }
        CredentialSource::Query(name) => {
            let mut values = query::parameters(query.unwrap_or_default()).filter(|parameter| parameter.is_named(name));
            let first = values.next();
            if values.next().is_some() { Err(Refusal::Ambiguous) } else { Ok(first.map(|parameter| parameter.value())) }
        }
    }
}

fn only_line<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Result<Option<&'r [u8]>, Refusal> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next();
    if lines.next().is_some() { Err(Refusal::Ambiguous) } else { Ok(first.map(|line| line.as_bytes().trim_ascii())) }
}

/// What follows the scheme `Bearer`, in any case (RFC 9110 §11.1, RFC 6750 §2.1); `None` for other schemes.
fn bearer(line: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer";
    let (scheme, rest) = line.split_at_checked(SCHEME.len())?;
    let ends = rest.first().is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    (ends && scheme.eq_ignore_ascii_case(SCHEME)).then(|| rest.trim_ascii())
}

fn parse(value: &[u8], key_bytes: usize) -> Result<ApiKey, Malformed> {
    if value.is_empty() {
        return Err(Malformed::Empty);
    }
    if value.len() > key_bytes {
        return Err(Malformed::TooLong);
    }
    if !value.iter().all(u8::is_ascii_graphic) {
        return Err(Malformed::NotVisibleAscii);
    }
    let text = std::str::from_utf8(value).map_err(|_| Malformed::NotVisibleAscii)?;
    ApiKey::new(text).ok_or(Malformed::Digest)
}

/// Tells a developer where a key is looked for: `in the header "x-api-key" or as "Authorization: Bearer KEY"`.
pub(super) fn describe(sources: &[CredentialSource]) -> String {
    let places: Vec<String> = sources
        .iter()
        .map(|source| match source {
            CredentialSource::Header(name) => format!("in the header \"{name}\""),
            CredentialSource::AuthorizationBearer => "as \"Authorization: Bearer KEY\"".to_owned(),
            CredentialSource::Query(name) => format!("in the query parameter \"{name}\""),
        })
        .collect();
    places.join(" or ")
}

#[cfg(test)]
mod tests;
