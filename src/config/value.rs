//! Single values that a text stands for: addresses, URLs, names, methods, sources of credentials.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::uri::Authority;
use http::{HeaderName, Method};
use ipnet::IpNet;

use super::fault::{Fault, FileFault, SourceFault, UrlFault};
use super::{ChargeOn, CredentialSource, UpstreamConfig, path};
use crate::model::{KeyPrefix, input};

/// Headers that belong to one connection (RFC 9110 §7.6.1) or that say where and how long a request is.
const RESERVED_HEADERS: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn address(text: &str) -> Result<SocketAddr, Fault> {
    text.parse().map_err(|_| Fault::BadAddress { found: text.to_owned() })
}

/// A network, or one address as a network of its own.
pub(super) fn network(text: &str) -> Result<IpNet, Fault> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map(|network| network.trunc()).map_err(|_| Fault::BadNetwork { found: text.to_owned() })
}

/// The permission bits of a file, in octal: `0600`, `600` or `0o600`. The owner must be able to read and write the
/// file, others must not be able to write it, and no execute bit may be set.
pub(super) fn file_mode(text: &str) -> Result<u32, Fault> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal = (3..=4).contains(&digits.len()) && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    let mode = u32::from_str_radix(digits, 8).ok().filter(|_| is_octal);
    let mode = mode.ok_or_else(|| Fault::File(FileFault::BadMode { found: text.to_owned() }))?;
    match mode {
        mode if mode & 0o7111 != 0 => Err(Fault::File(FileFault::BadMode { found: text.to_owned() })),
        mode if mode & 0o600 != 0o600 => Err(Fault::File(FileFault::OwnerLockedOut { found: text.to_owned() })),
        mode if mode & 0o002 != 0 => Err(Fault::File(FileFault::WritableByAll { found: text.to_owned() })),
        mode => Ok(mode),
    }
}

pub(super) fn prefix(text: &str) -> Result<KeyPrefix, Fault> {
    KeyPrefix::new(text).map_err(|_| Fault::BadPrefix { found: text.to_owned() })
}

pub(super) fn filter(text: &str) -> Result<String, Fault> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err(Fault::BadFilter),
    }
}

/// `header:NAME`, `authorization:bearer`, `query:NAME`.
pub(super) fn source(text: &str) -> Result<CredentialSource, Fault> {
    let read = match text.split_once(':') {
        Some(("header", name)) => header_source(name),
        Some(("query", name)) => query_source(name),
        Some(("authorization", scheme)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(CredentialSource::AuthorizationBearer)
        }
        Some(_) | None => Err(SourceFault::Unknown { found: text.to_owned() }),
    };
    read.map_err(Fault::Source)
}

fn header_source(name: &str) -> Result<CredentialSource, SourceFault> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| SourceFault::BadHeader)?;
    if name == http::header::AUTHORIZATION {
        return Err(SourceFault::Authorization);
    }
    // What clients send under Keytoll-* never counts.
    if RESERVED_HEADERS.contains(&name.as_str()) || name.as_str().replace('_', "-").starts_with("keytoll-") {
        return Err(SourceFault::ReservedHeader { name: name.as_str().to_owned() });
    }
    Ok(CredentialSource::Header(name))
}

fn query_source(name: &str) -> Result<CredentialSource, SourceFault> {
    let fits = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'));
    if fits && !name.is_empty() { Ok(CredentialSource::Query(name.into())) } else { Err(SourceFault::BadQuery) }
}

/// An API's name: what an application may have in `api_keys.api_name`, as far as a header can carry it.
pub(super) fn name(text: &str) -> Result<std::sync::Arc<str>, Fault> {
    input::api_name(text).map(Into::into).map_err(|_| Fault::BadName)
}

/// A host in lower case: a name or an address, without a port.
pub(super) fn host(text: &str) -> Result<Box<str>, Fault> {
    let host = text.to_ascii_lowercase();
    if is_host(&host) { Ok(host.into()) } else { Err(Fault::BadHost { found: text.to_owned() }) }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    host.len() <= 253 && host.split('.').all(is_label)
}

pub(super) fn method(text: &str) -> Result<Method, Fault> {
    let method = Method::from_bytes(text.as_bytes()).map_err(|_| Fault::BadMethod { found: text.to_owned() })?;
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(Fault::LowerCaseMethod { found: text.to_owned() });
    }
    Ok(method)
}

/// One pattern of `charge_on`.
pub(super) fn outcome(text: &str) -> Result<String, Fault> {
    ChargeOn::parse([text]).map(|_| text.to_owned()).map_err(|error| Fault::BadChargeOn { found: error.pattern })
}

/// `http://host:port/base`. The text is in no fault: it may hold a password.
pub(super) fn upstream(text: &str) -> Result<UpstreamConfig, Fault> {
    split_url(text).map_err(Fault::Url)
}

fn split_url(text: &str) -> Result<UpstreamConfig, UrlFault> {
    let (scheme, rest) = text.split_once("://").ok_or(UrlFault::NoScheme)?;
    if scheme.eq_ignore_ascii_case("https") {
        return Err(UrlFault::Tls);
    }
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(UrlFault::NoScheme);
    }
    if rest.contains('#') {
        return Err(UrlFault::Fragment);
    }
    if rest.contains('?') {
        return Err(UrlFault::Query);
    }
    let (authority, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(UrlFault::UserInfo);
    }
    let authority = authority.to_ascii_lowercase();
    let host_end = authority.rfind(':').filter(|at| !authority[*at..].contains(']')).unwrap_or(authority.len());
    if !is_host(&authority[..host_end]) {
        return Err(UrlFault::BadAuthority);
    }
    if let Some(port) = authority[host_end..].strip_prefix(':')
        && (!port.bytes().all(|byte| byte.is_ascii_digit()) || !port.parse::<u16>().is_ok_and(|port| port > 0))
    {
        return Err(UrlFault::BadPort);
    }
    let authority = authority.parse::<Authority>().map_err(|_| UrlFault::BadAuthority)?;
    let base_path = path::base(base).map_err(UrlFault::Path)?;
    Ok(UpstreamConfig { authority, base_path })
}
