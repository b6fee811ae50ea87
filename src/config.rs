//! The configuration: raw TOML, environment and flags in, one checked [`Config`] out.
//!
//! This module is the only reader of configuration files and of the environment. What it hands out is complete and
//! true: an address is an address, a price is not negative, no two APIs claim the same path. Each part of the
//! program is given only its own struct. [`load()`] is for the gateway; [`load_database`] and [`load_listeners`] are for
//! commands that need less.

mod api;
mod charge_on;
mod environment;
mod explain;
mod fault;
mod file;
mod given;
mod keys;
mod limits;
mod load;
mod mistake;
mod path;
mod policy;
mod route;
mod suggest;
mod token;
mod value;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::uri::Authority;
use ipnet::IpNet;

use crate::failpoint::FailPoint;
use crate::model::{Cents, KeyPrefix};

pub use charge_on::{ChargeOn, ChargeOnError};
pub use environment::{Environment, Overrides};
pub use fault::{Expected, Fault, FileFault, PathFault, SourceFault, UrlFault};
pub use limits::Limits;
pub use load::{DatabaseSettings, Listeners, Loaded, load, load_database, load_listeners};
pub use mistake::{ConfigErrors, Mistake, Place};
pub use policy::ExchangePolicy;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// Where a test has the process killed; none in a build without fail points.
    pub fail_point: Option<FailPoint>,
}

impl Config {
    /// The names of the configured APIs, in order.
    pub fn api_names(&self) -> Vec<Arc<str>> {
        self.apis.iter().map(|api| Arc::clone(&api.name)).collect()
    }
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
    /// From the signal to stop to the end of the process, `drain_delay` included.
    pub drain_timeout: Duration,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed and continued; those of others are replaced.
    pub trusted_proxies: Vec<IpNet>,
}

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where operators connect.
    pub listen: SocketAddr,
    /// Names (lower case, without a port) that are served in `Host`, besides addresses and `localhost`.
    pub hosts: Vec<Box<str>>,
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
    /// The SQLite file; a relative path starts at the current directory, wherever it was given.
    pub path: PathBuf,
    /// Whether a missing file is made; refused otherwise.
    pub create: bool,
    /// The permission bits of a file that is made; an existing one keeps its own.
    pub file_mode: u32,
    /// What an acknowledged capture survives.
    pub durability: Durability,
    /// How long a settled charge keeps its row, before it becomes usage by hour; for ever when `None`.
    pub keep_charges: Option<Duration>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Whether `//` may stand in a path.
    pub repeated_slash: RepeatedSlash,
    /// Where it is served; at least one.
    pub upstreams: Vec<UpstreamConfig>,
    /// The price where no route says another.
    pub price: Cents,
    /// The outcomes that are charged.
    pub charge_on: ChargeOn,
    /// Whether a priced request's `Idempotency-Key` counts; otherwise it is the upstream's own affair.
    pub idempotency: bool,
    /// The rules of exchanges where no route says another.
    pub policy: ExchangePolicy,
    /// Parts of the API with another price, or public.
    pub routes: Vec<RouteConfig>,
}

/// What is done with `%2F` in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    /// 400.
    Refuse,
    /// It goes upstream as it is, and is no segment's end; 400 where another reading of the path has another route.
    Pass,
}

/// What is done with `//` in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepeatedSlash {
    /// 400.
    Refuse,
    /// It goes upstream as it is, with an empty segment; 400 where another reading of the path has another route.
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
    /// The rules of its exchanges.
    pub policy: ExchangePolicy,
}
