//! `Via` (RFC 9110 §7.6.3): says to upstreams that a request came through this gateway, and shows the gateway its own
//! requests when they come back.

use http::header::VIA;
use http::{HeaderMap, HeaderValue, Version};

/// This process in `Via`: a pseudonym, random at each start, so that two gateways in a chain differ.
#[derive(Debug)]
pub(crate) struct Via {
    pseudonym: Box<str>,
    /// The whole entry, by the version of HTTP in which the request was received.
    http_10: HeaderValue,
    http_11: HeaderValue,
    http_2: HeaderValue,
}

impl Via {
    /// A new pseudonym: `keytoll-` and 16 random hex digits.
    pub(crate) fn new() -> Via {
        let pseudonym = format!("keytoll-{:016x}", fastrand::u64(..));
        // Made once for each start and never freed: a copy of a static value needs no counter that all workers share.
        let entry = |version: &str| HeaderValue::from_static(format!("{version} {pseudonym}").leak());
        Via { http_10: entry("1.0"), http_11: entry("1.1"), http_2: entry("2"), pseudonym: pseudonym.into() }
    }

    /// The entry for a request that was received in this version.
    pub(crate) fn entry(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_10 => &self.http_10,
            Version::HTTP_2 => &self.http_2,
            _ => &self.http_11,
        }
    }

    /// Whether a request has been through this gateway before.
    pub(crate) fn is_loop(&self, headers: &HeaderMap) -> bool {
        headers.get_all(VIA).iter().any(|line| {
            let mut words = line.as_bytes().split(|byte| matches!(byte, b',' | b' ' | b'\t'));
            words.any(|word| word.eq_ignore_ascii_case(self.pseudonym.as_bytes()))
        })
    }
}
