//! The configuration: raw TOML, environment and flags in, one checked [`Config`] out.
//!
//! This module is the only reader of configuration files and of the environment. What it hands out is complete and
//! true: an address is an address, a price is not negative, no two APIs claim the same path. Each part of the
//! program is given only its own struct.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::uri::Authority;
use ipnet::IpNet;

use crate::model::{Cents, KeyPrefix};

/// Everything that a gateway needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data listener and its workers.
    pub server: ServerConfig,
    /// The admin listener.
    pub admin: AdminConfig,
    /// The database file.
    pub database: DatabaseConfig,
    /// How keys come in, are stored and are made.
    pub keys: KeysConfig,
    /// Every bound.
    pub limits: Limits,
    /// The logs.
    pub log: LogConfig,
    /// The APIs behind the gateway, in the order of the file.
    pub apis: Vec<ApiConfig>,
    /// What is not wrong but should be said at start, a sentence each.
    pub warnings: Vec<String>,
}

/// `[server]`.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// How many workers, each a thread with a runtime of its own.
    pub workers: usize,
    /// How long `/readyz` says 503 before the listener closes.
    pub drain_delay: Duration,
    /// How long requests may take to finish after the listener has closed.
    pub drain_timeout: Duration,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed and continued; those of others are replaced.
    pub trusted_proxies: Vec<IpNet>,
}

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where operators connect.
    pub listen: SocketAddr,
    /// The bearer token of `/v1/*`; without one that part is closed.
    pub token: Option<AdminToken>,
}

/// The admin plane's bearer token. Secret: says nothing in `Debug`.
#[derive(Clone)]
pub struct AdminToken(Arc<str>);

impl AdminToken {
    /// A token, at least 16 bytes of visible ASCII; `None` otherwise.
    pub fn new(text: &str) -> Option<AdminToken> {
        let fits = text.len() >= 16 && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| AdminToken(text.into()))
    }

    /// The token, for the comparison.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// `[database]`.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// The SQLite file.
    pub path: PathBuf,
    /// Whether a missing file is made; refused otherwise.
    pub create: bool,
    /// What an acknowledged capture survives.
    pub durability: Durability,
}

/// What an acknowledged capture survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A power cut.
    Full,
    /// The death of the process.
    Normal,
}

/// `[keys]`.
#[derive(Clone, Debug)]
pub struct KeysConfig {
    /// Where a credential is looked for, in this order.
    pub sources: Vec<CredentialSource>,
    /// How issued keys are stored.
    pub storage: KeyStorage,
    /// Whether `storage` was set, by anyone, rather than left at its default.
    pub storage_is_explicit: bool,
    /// What issued keys begin with.
    pub prefix: KeyPrefix,
}

/// One place of a request that a credential may stand in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// `header:NAME`: the value of a header.
    Header(http::HeaderName),
    /// `authorization:bearer`: RFC 6750 §2.1; other schemes are not this source.
    AuthorizationBearer,
    /// `query:NAME`: the value of a query parameter.
    Query(Box<str>),
}

/// How issued keys are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStorage {
    /// `sha256:` and 64 hex digits.
    Sha256,
    /// The key itself.
    Plain,
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged, in `tracing-subscriber`'s `EnvFilter` form; `RUST_LOG` when it is set.
    pub filter: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `[limits]`: the bound of every queue, cache, buffer, count and wait.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of clients open at once; past it 503 and close.
    pub connections: usize,
    /// Requests under way at once; past it 503.
    pub requests: usize,
    /// Bytes of a request's head; past it 431.
    pub header_bytes: usize,
    /// Header fields of a request; past it 431.
    pub headers: usize,
    /// From the start of a connection, or the end of its last reply, to the end of a request's head; then it is closed.
    pub header_timeout: Duration,
    /// Bytes of a request's body, which is streamed, never gathered; past it 413.
    pub request_body_bytes: u64,
    /// Between two pieces of a request's body; then 408.
    pub request_body_idle: Duration,
    /// While a client takes nothing of its reply; then it is cut off.
    pub reply_write_idle: Duration,
    /// For a connection to an upstream; then the next one is tried, or 502.
    pub connect_timeout: Duration,
    /// From the request sent to the upstream's reply head; then 504.
    pub upstream_head_timeout: Duration,
    /// Between two pieces of an upstream's body; then the reply is broken off.
    pub upstream_body_idle: Duration,
    /// How long an unused connection to an upstream is kept.
    pub upstream_keep_idle: Duration,
    /// How many unused connections to one upstream a worker keeps.
    pub upstream_keep_connections: usize,
    /// While neither side of an upgraded connection (WebSocket) says anything; then it is closed.
    pub tunnel_idle: Duration,
    /// From a request's wish for a hold to its commit; then 503.
    pub hold_timeout: Duration,
    /// From an outcome to its commit; then the reply is broken off and the hold released.
    pub settle_timeout: Duration,
    /// Charges held and not settled yet; past it 503.
    pub open_charges: usize,
    /// Holds and settlements in one transaction.
    pub batch: usize,
    /// Wallets that the writer remembers.
    pub cached_wallets: usize,
    /// Bytes of the write-ahead log past which the writer stops to let it start over.
    pub wal_bytes: u64,
    /// Bytes of a presented key; a longer one is no key.
    pub key_bytes: usize,
    /// Keys that are remembered.
    pub cached_keys: u64,
    /// How long at most.
    pub key_ttl: Duration,
    /// Unknown and inactive keys that are remembered.
    pub cached_refusals: u64,
    /// How long at most.
    pub refusal_ttl: Duration,
    /// Reads of the database waiting for a connection; past it 503.
    pub queued_reads: usize,
    /// Admin writes waiting for the writer; past it 503.
    pub queued_writes: usize,
    /// Connections of operators open at once.
    pub admin_connections: usize,
    /// Bytes of an admin request's body; past it 413.
    pub admin_body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 10_000,
            requests: 10_000,
            header_bytes: 32 * 1024,
            headers: 100,
            header_timeout: Duration::from_secs(60),
            request_body_bytes: 16 << 30,
            request_body_idle: Duration::from_secs(30),
            reply_write_idle: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(3),
            upstream_head_timeout: Duration::from_secs(60),
            upstream_body_idle: Duration::from_secs(60),
            upstream_keep_idle: Duration::from_secs(4),
            upstream_keep_connections: 512,
            tunnel_idle: Duration::from_secs(300),
            hold_timeout: Duration::from_secs(5),
            settle_timeout: Duration::from_secs(5),
            open_charges: 20_000,
            batch: 256,
            cached_wallets: 100_000,
            wal_bytes: 64 << 20,
            key_bytes: 512,
            cached_keys: 100_000,
            key_ttl: Duration::from_secs(60),
            cached_refusals: 10_000,
            refusal_ttl: Duration::from_secs(5),
            queued_reads: 1_000,
            queued_writes: 256,
            admin_connections: 64,
            admin_body_bytes: 64 * 1024,
        }
    }
}

/// `[[api]]`: a named service behind the gateway.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// What `api_keys.api_name` holds.
    pub name: Arc<str>,
    /// Only requests for this host (lower case, no port); any when `None`.
    pub host: Option<Box<str>>,
    /// Where the API begins: `/` or `/a/b`, no slash at its end, in the normal form that requests are matched in.
    pub path: Box<str>,
    /// Whether `path` is taken off before the request goes upstream.
    pub strip_path: bool,
    /// Whether the client's `Host` goes upstream; otherwise the upstream's own.
    pub preserve_host: bool,
    /// Whether `%2F` may stand in a path.
    pub encoded_slash: EncodedSlash,
    /// Where it is served; at least one.
    pub upstreams: Vec<UpstreamConfig>,
    /// The price where no route says another.
    pub price: Cents,
    /// The outcomes that are charged.
    pub charge_on: ChargeOn,
    /// Parts of the API with another price, or public.
    pub routes: Vec<RouteConfig>,
}

/// What is done with `%2F` in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    /// 400.
    Refuse,
    /// It goes upstream as it is, and is no segment's end.
    Pass,
}

/// One address of an API: `http://authority` and perhaps a base path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Host and port.
    pub authority: Authority,
    /// Put before the path: empty, or `/a/b` without a slash at its end.
    pub base_path: Box<str>,
}

/// `[[api.route]]`: a part of an API.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    /// The methods it is for (GET stands for HEAD too); every method when empty.
    pub methods: Vec<Method>,
    /// Relative to the API's path: whole segments, a prefix; `{x}` matches one segment.
    pub path: Box<str>,
    /// The price of a request.
    pub price: Cents,
    /// Needs no key and is free.
    pub public: bool,
}

/// The outcomes that are charged: a set of status codes, as `charge_on` writes it (`"2xx"`, `"404"`, `"!429"`).
#[derive(Clone, PartialEq, Eq)]
pub struct ChargeOn {
    /// A bit for each of the codes 100 to 599.
    bits: [u64; 8],
}

/// A pattern that `charge_on` cannot hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeOnError {
    /// The pattern as it was written.
    pub pattern: String,
}

impl ChargeOn {
    /// Reads patterns: a class (`2xx`), a code (`404`), or either with `!` before it, which takes out what any other
    /// pattern puts in, wherever it stands. 101 is charged whenever 200 is, unless it is named itself.
    ///
    /// # Errors
    /// The first pattern that is none of these.
    pub fn parse<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<ChargeOn, ChargeOnError> {
        let mut put = ChargeOn { bits: [0; 8] };
        let mut take = ChargeOn { bits: [0; 8] };
        for pattern in patterns {
            let (set, body) = match pattern.strip_prefix('!') {
                Some(body) => (&mut take, body),
                None => (&mut put, pattern),
            };
            let error = || ChargeOnError { pattern: pattern.to_owned() };
            if let Some(class) = body.strip_suffix("xx") {
                let class: u16 = class.parse().map_err(|_| error())?;
                if !(2..=5).contains(&class) || body.len() != 3 {
                    return Err(error());
                }
                (class * 100..class * 100 + 100).for_each(|code| set.insert(code));
                if class == 2 {
                    set.insert(101);
                }
            } else {
                let code: u16 = body.parse().map_err(|_| error())?;
                if !(100..=599).contains(&code) || body.len() != 3 {
                    return Err(error());
                }
                set.insert(code);
            }
        }
        put.bits.iter_mut().zip(take.bits).for_each(|(bits, taken)| *bits &= !taken);
        Ok(put)
    }

    /// Whether a reply with this status is charged. Codes outside of 100 to 599 are not.
    pub fn contains(&self, status: http::StatusCode) -> bool {
        let Some(bit) = status.as_u16().checked_sub(100).map(usize::from) else { return false };
        self.bits.get(bit / 64).is_some_and(|bits| bits >> (bit % 64) & 1 == 1)
    }

    fn insert(&mut self, code: u16) {
        let bit = usize::from(code - 100);
        self.bits[bit / 64] |= 1 << (bit % 64);
    }
}

/// `["2xx", "3xx", "4xx", "!408", "!429"]`.
impl Default for ChargeOn {
    fn default() -> ChargeOn {
        ChargeOn::parse(["2xx", "3xx", "4xx", "!408", "!429"]).expect("the default patterns are patterns")
    }
}

impl std::fmt::Debug for ChargeOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let charged = (100..600).filter(|code| http::StatusCode::from_u16(*code).is_ok_and(|code| self.contains(code)));
        f.debug_set().entries(charged).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> http::StatusCode {
        http::StatusCode::from_u16(code).unwrap()
    }

    #[test]
    fn by_default_a_client_pays_for_its_own_mistakes_and_not_for_the_upstreams() {
        let default = ChargeOn::default();
        for code in [101, 200, 204, 299, 301, 304, 400, 404, 499] {
            assert!(default.contains(status(code)), "{code}");
        }
        for code in [100, 103, 408, 429, 500, 502, 599, 600, 999] {
            assert!(!default.contains(status(code)), "{code}");
        }
    }

    #[test]
    fn what_is_taken_out_stays_out_wherever_it_stands() {
        let set = ChargeOn::parse(["!404", "4xx", "503"]).unwrap();
        assert!(!set.contains(status(404)) && set.contains(status(403)) && set.contains(status(503)));
        assert!(!ChargeOn::parse(["2xx", "!101"]).unwrap().contains(status(101)));
    }

    #[test]
    fn other_patterns_are_refused() {
        for pattern in ["", "xx", "1xx", "6xx", "20", "2000", "ok", "!", "!!200", "+20", "02xx"] {
            assert_eq!(ChargeOn::parse([pattern]).unwrap_err().pattern, pattern);
        }
    }
}
