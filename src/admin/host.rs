//! The check of `Host`, against DNS rebinding.
//!
//! A web page can have its own host name resolve to 127.0.0.1, and then its scripts reach the listener as their own
//! origin. The browser still sends the page's name in `Host`, so only names that belong to this listener are served.
//! An IP address cannot be rebound, `localhost` is resolved by the operating system, and a request without `Host`
//! (HTTP/1.0) does not come from a browser.
//!
//! `/healthz`, `/readyz` and `/metrics` are exempt: orchestrators and Prometheus reach them under names of their own,
//! and they reveal neither keys nor balances.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use http::Uri;
use http::header::HOST;

use super::AdminState;
use crate::http::{Problem, ProblemKind};

/// Which values of `Host` are served.
#[derive(Clone, Debug)]
pub enum HostCheck {
    /// Any value.
    Off,
    /// IP addresses, `localhost`, and these names (lower case, without a port).
    Only(Arc<[Box<str>]>),
}

impl HostCheck {
    /// The check of a listener on this address. Off loopback, where other machines use names that are not known here,
    /// there is a check only if names are configured.
    pub fn new(listen: IpAddr, hosts: &[Box<str>]) -> HostCheck {
        if listen.to_canonical().is_loopback() || !hosts.is_empty() {
            HostCheck::Only(hosts.into())
        } else {
            HostCheck::Off
        }
    }

    /// Whether a request with this target and these headers is served. In an absolute-form target the authority counts
    /// (RFC 9112 §3.2.2); it and every `Host` have to pass.
    fn allows(&self, target: &Uri, headers: &HeaderMap) -> bool {
        let HostCheck::Only(names) = self else { return true };
        let is_own = |authority: &str| host_of(authority).is_some_and(|host| is_address(host) || is_name(host, names));
        target.authority().is_none_or(|authority| is_own(authority.as_str()))
            && headers.get_all(HOST).iter().all(|line| line.to_str().is_ok_and(is_own))
    }
}

/// Lets a request through whose `Host` belongs to this listener.
pub(super) async fn check(State(admin): State<AdminState>, request: Request, next: Next) -> Result<Response, Problem> {
    if !admin.settings.host_check.allows(request.uri(), request.headers()) {
        return Err(ProblemKind::Misdirected.into());
    }
    Ok(next.run(request).await)
}

/// The host of `host[:port]` (RFC 9110 §7.2); `None` when the text has another form, such as one with user information.
fn host_of(authority: &str) -> Option<&str> {
    let host_end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(host_end);
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    is_port.then_some(host)
}

fn is_address(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    }
}

/// Names are compared without regard to case and to the dot of the DNS root at the end.
fn is_name(host: &str, names: &[Box<str>]) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || names.iter().any(|name| host.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn allows(check: &HostCheck, target: &str, hosts: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        check.allows(&target.parse().unwrap(), &headers)
    }

    fn of(listen: &str, hosts: &[&str]) -> HostCheck {
        let hosts: Vec<Box<str>> = hosts.iter().map(|name| (*name).into()).collect();
        HostCheck::new(listen.parse().unwrap(), &hosts)
    }

    #[test]
    fn addresses_localhost_and_configured_names_are_served() {
        let check = of("127.0.0.1", &["keytoll.internal"]);
        for host in [
            "127.0.0.1",
            "127.0.0.1:8081",
            "10.1.2.3:1",
            "[::1]",
            "[::1]:8081",
            "[fe80::1]",
            "localhost",
            "LocalHost:8081",
            "localhost.:8081",
            "localhost:",
            "keytoll.internal",
            "Keytoll.Internal.:80",
        ] {
            assert!(allows(&check, "/v1/users", &[host]), "{host}");
        }
    }

    #[test]
    fn other_names_and_other_forms_are_not() {
        let check = of("127.0.0.1", &["keytoll.internal"]);
        for host in [
            "",
            ".",
            "evil.example",
            "evil.example:8081",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "a.localhost",
            "localhost..",
            "keytoll.internal.evil",
            "xkeytoll.internal",
            "127.0.0.1@evil.example",
            "evil.example@localhost",
            "localhost:80@evil.example",
            "127.0.0.1:80:90",
            "127.0.0.1:x",
            "[::1",
            "::1",
            "[::1]x",
            "[localhost]",
            "127.1",
            "127.0.0.1, evil.example",
            "localhost evil",
            "l\u{f6}calhost",
        ] {
            assert!(!allows(&check, "/v1/users", &[host]), "{host:?}");
        }
        assert!(!allows(&check, "/v1/users", &["127.0.0.1", "evil.example"]));
        assert!(!allows(&check, "/v1/users", &["evil.example", "127.0.0.1"]));
    }

    #[test]
    fn a_request_without_host_is_no_browsers() {
        assert!(allows(&of("127.0.0.1", &[]), "/v1/users", &[]));
    }

    #[test]
    fn an_absolute_target_counts_beside_host() {
        let check = of("127.0.0.1", &[]);
        assert!(allows(&check, "http://127.0.0.1:8081/v1/users", &["127.0.0.1:8081"]));
        assert!(allows(&check, "http://localhost/v1/users", &[]));
        assert!(!allows(&check, "http://evil.example/v1/users", &["127.0.0.1"]));
        assert!(!allows(&check, "http://127.0.0.1@evil.example/v1/users", &["127.0.0.1"]));
        assert!(!allows(&check, "http://127.0.0.1/v1/users", &["evil.example"]));
    }

    #[test]
    fn elsewhere_than_on_loopback_names_have_to_be_configured_first() {
        for listen in ["0.0.0.0", "::", "10.0.0.7", "2001:db8::1"] {
            assert!(allows(&of(listen, &[]), "/v1/users", &["any.example"]), "{listen}");
            assert!(!allows(&of(listen, &["ops.example"]), "/v1/users", &["any.example"]), "{listen}");
            assert!(allows(&of(listen, &["ops.example"]), "/v1/users", &["ops.example:8081"]), "{listen}");
            assert!(allows(&of(listen, &["ops.example"]), "/v1/users", &["10.0.0.7:8081"]), "{listen}");
        }
        for listen in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(!allows(&of(listen, &[]), "/v1/users", &["any.example"]), "{listen}");
        }
    }
}
