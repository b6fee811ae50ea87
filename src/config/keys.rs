//! The table of keys: each once, with its reader, its flag and its short variable. The file, the environment, the
//! flags, the suggestions for unknown keys and the test of the sample file all go by this table.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::environment::{Environment, Overrides};
use super::given::{DAY_MS, Given, HOUR_MS, Raw, set};
use super::mistake::{Mistakes, Place};
use super::{
    CredentialSource, DAY, DatabaseConfig, Durability, KeyStorage, KeysConfig, Limits, LogConfig, LogFormat,
    ServerConfig,
};
use super::{policy, value};
use crate::model::KeyPrefix;

/// One key of the configuration, of a section that fills a `T`.
pub(super) struct Key<T: 'static> {
    /// With its section: `limits.batch`, `api.route.path`.
    pub(super) name: &'static str,
    /// The flag that gives it too.
    pub(super) flag: Option<&'static str>,
    /// The variable that gives it too, besides `KEYTOLL_SECTION__KEY`.
    pub(super) variable: Option<&'static str>,
    /// What to write when it is missing; `None`: it need not be there.
    pub(super) required: Option<&'static str>,
    put: fn(&mut T, &mut Given<'_>),
}

impl<T> Key<T> {
    pub(super) const fn new(name: &'static str, put: fn(&mut T, &mut Given<'_>)) -> Key<T> {
        Key { name, flag: None, variable: None, required: None, put }
    }

    pub(super) const fn also(mut self, flag: &'static str, variable: &'static str) -> Key<T> {
        self.flag = Some(flag);
        self.variable = Some(variable);
        self
    }

    const fn also_variable(mut self, variable: &'static str) -> Key<T> {
        self.variable = Some(variable);
        self
    }

    pub(super) const fn required(mut self, remedy: &'static str) -> Key<T> {
        self.required = Some(remedy);
        self
    }

    /// `KEYTOLL_LIMITS__BATCH`.
    pub(super) fn long_variable(&self) -> String {
        format!("KEYTOLL_{}", self.name.to_ascii_uppercase().replace('.', "__"))
    }

    /// What the environment and then the flags give for this key, later ones beating earlier ones. `RUST_LOG` that
    /// is set to nothing counts as not set.
    pub(super) fn around<'a>(&self, flags: &'a Overrides, environment: &'a Environment) -> Vec<(Place, &'a OsStr)> {
        let of = |name: String| environment.get(&name).map(|value| (Place::Variable(name), value));
        let long = of(self.long_variable());
        let short = self.variable.and_then(|name| of(name.to_owned()));
        let short = short.filter(|(_, value)| self.name != "log.filter" || !value.is_empty());
        let flag = self.flag.and_then(|flag| Some((Place::Flag(flag), flags.value(flag)?)));
        [long, short, flag].into_iter().flatten().collect()
    }
}

/// What has been read of a section so far, and where each key was last given.
pub(super) struct Draft<T> {
    pub(super) parts: T,
    /// Where the section begins.
    pub(super) at: Place,
    pub(super) places: BTreeMap<&'static str, Place>,
}

impl<T> Draft<T> {
    pub(super) fn new(parts: T, at: Place) -> Draft<T> {
        Draft { parts, at, places: BTreeMap::new() }
    }

    /// Reads one value into its part.
    pub(super) fn apply(&mut self, key: &'static Key<T>, place: Place, raw: Raw<'_>, mistakes: &mut Mistakes) {
        self.places.insert(key.name, place.clone());
        (key.put)(&mut self.parts, &mut Given { key: key.name, place, raw, mistakes });
    }

    /// Where a key was given; where its section begins when it was not.
    pub(super) fn place(&self, key: &str) -> Place {
        self.places.get(key).unwrap_or(&self.at).clone()
    }
}

/// Everything but the APIs, at its defaults until something else is read.
pub(super) struct Settings {
    pub(super) server: ServerConfig,
    pub(super) admin_listen: SocketAddr,
    pub(super) admin_hosts: Vec<Box<str>>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) database: DatabaseConfig,
    pub(super) keys: KeysConfig,
    pub(super) limits: Limits,
    pub(super) log: LogConfig,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            server: ServerConfig {
                listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
                workers: 0,
                drain_delay: Duration::ZERO,
                drain_timeout: Duration::from_secs(25),
                trusted_proxies: Vec::new(),
            },
            admin_listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081),
            admin_hosts: Vec::new(),
            token_file: None,
            database: DatabaseConfig {
                path: "auth.db".into(),
                create: false,
                file_mode: 0o600,
                durability: Durability::Full,
                keep_charges: Some(90 * DAY),
            },
            keys: KeysConfig {
                sources: vec![
                    CredentialSource::Header(http::HeaderName::from_static("x-api-key")),
                    CredentialSource::AuthorizationBearer,
                ],
                storage: KeyStorage::Sha256,
                storage_is_explicit: false,
                prefix: KeyPrefix::new("kt").expect("two letters are a prefix"),
            },
            limits: Limits::default(),
            log: LogConfig { format: LogFormat::Auto, filter: "info".to_owned() },
        }
    }
}

const MIB: i64 = 1 << 20;

/// The sections of single values.
pub(super) const SECTIONS: [&str; 6] = ["server", "admin", "database", "keys", "limits", "log"];

/// Every key of the sections of single values. In `server.workers` 0 stands for one worker a processor.
pub(super) const KEYS: &[Key<Settings>] = &[
    Key::<Settings>::new("server.listen", |to, given| set(&mut to.server.listen, given.read(value::address)))
        .also("--listen", "KEYTOLL_LISTEN"),
    Key::new("server.workers", |to, given| set(&mut to.server.workers, given.count(0..=1_024))),
    Key::new("server.drain_delay_ms", |to, given| set(&mut to.server.drain_delay, given.millis(0..=HOUR_MS))),
    Key::new("server.drain_timeout_ms", |to, given| set(&mut to.server.drain_timeout, given.millis(0..=HOUR_MS))),
    Key::new("server.trusted_proxies", |to, given| set(&mut to.server.trusted_proxies, given.list(value::network))),
    Key::<Settings>::new("admin.listen", |to, given| set(&mut to.admin_listen, given.read(value::address)))
        .also("--admin-listen", "KEYTOLL_ADMIN_LISTEN"),
    Key::new("admin.hosts", |to, given| set(&mut to.admin_hosts, given.list(value::host))),
    Key::new("admin.token_file", |to, given| to.token_file = given.path()),
    Key::<Settings>::new("database.path", |to, given| set(&mut to.database.path, given.path()))
        .also("--database", "KEYTOLL_DATABASE"),
    Key::<Settings>::new("database.create", |to, given| set(&mut to.database.create, given.boolean()))
        .also("--create", "KEYTOLL_CREATE"),
    Key::new("database.file_mode", |to, given| set(&mut to.database.file_mode, given.read(value::file_mode))),
    Key::new("database.durability", |to, given| {
        set(&mut to.database.durability, given.one_of(&["full", "normal"], &[Durability::Full, Durability::Normal]));
    }),
    Key::new("database.keep_charges_days", |to, given| {
        let days = given.count(0..=36_500).map(|days| u32::try_from(days).unwrap_or(u32::MAX));
        set(&mut to.database.keep_charges, days.map(|days| (days > 0).then(|| DAY * days)));
    }),
    Key::new("keys.sources", |to, given| {
        set(&mut to.keys.sources, given.filled_list("write \"header:x-api-key\"", value::source));
    }),
    Key::new("keys.storage", |to, given| {
        to.keys.storage_is_explicit = true;
        set(&mut to.keys.storage, given.one_of(&["sha256", "plain"], &[KeyStorage::Sha256, KeyStorage::Plain]));
    }),
    Key::new("keys.prefix", |to, given| set(&mut to.keys.prefix, given.read(value::prefix))),
    Key::new("log.format", |to, given| {
        let formats = [LogFormat::Auto, LogFormat::Text, LogFormat::Json];
        set(&mut to.log.format, given.one_of(&["auto", "text", "json"], &formats));
    }),
    Key::<Settings>::new("log.filter", |to, given| set(&mut to.log.filter, given.read(value::filter)))
        .also_variable("RUST_LOG"),
    Key::new("limits.connections", |to, given| set(&mut to.limits.connections, given.count(1..=1_000_000))),
    Key::new("limits.probe_connections", |to, given| set(&mut to.limits.probe_connections, given.count(1..=10_000))),
    Key::new("limits.probe_header_timeout_ms", |to, given| {
        set(&mut to.limits.probe_header_timeout, given.millis(1..=HOUR_MS));
    }),
    Key::new("limits.connections_per_address", |to, given| {
        set(&mut to.limits.connections_per_address, given.count(0..=1_000_000));
    }),
    Key::new("limits.connection_age_ms", |to, given| {
        set(&mut to.limits.connection_age, given.millis(1..=365 * DAY_MS));
    }),
    // The kernel counts in seconds.
    Key::new("limits.tcp_keepalive_ms", |to, given| {
        set(&mut to.limits.tcp_keepalive, given.millis(1_000..=DAY_MS));
    }),
    Key::new("limits.tcp_user_timeout_ms", |to, given| {
        set(&mut to.limits.tcp_user_timeout, given.millis(1_000..=DAY_MS));
    }),
    Key::new("limits.requests", |to, given| set(&mut to.limits.requests, given.count(1..=1_000_000))),
    Key::new("limits.requests_per_address", |to, given| {
        set(&mut to.limits.requests_per_address, given.count(0..=1_000_000));
    }),
    Key::new("limits.requests_per_user", |to, given| {
        set(&mut to.limits.requests_per_user, given.count(0..=1_000_000));
    }),
    // hyper's buffer is never smaller than 8 KiB.
    Key::new("limits.header_bytes", |to, given| set(&mut to.limits.header_bytes, given.count(8_192..=MIB))),
    Key::new("limits.headers", |to, given| set(&mut to.limits.headers, given.count(1..=10_000))),
    Key::new("limits.header_timeout_ms", |to, given| set(&mut to.limits.header_timeout, given.millis(1..=HOUR_MS))),
    Key::new("limits.collected_body_bytes", |to, given| {
        set(&mut to.limits.collected_body_bytes, given.count(0..=16 * MIB));
    }),
    Key::new("limits.collected_bytes", |to, given| set(&mut to.limits.collected_bytes, given.count(0..=64 << 30))),
    Key::new("limits.expect_continue_ms", |to, given| {
        set(&mut to.limits.expect_continue, given.millis(1..=HOUR_MS));
    }),
    Key::new("limits.request_body_bytes", |to, given| {
        set(&mut to.limits.request_body_bytes, policy::request_body_bytes(given));
    }),
    Key::new("limits.request_body_idle_ms", |to, given| {
        set(&mut to.limits.request_body_idle, given.millis(1..=DAY_MS));
    }),
    Key::new("limits.request_body_timeout_ms", |to, given| {
        set(&mut to.limits.request_body_timeout, given.millis(1..=DAY_MS));
    }),
    Key::new("limits.request_body_bytes_per_second", |to, given| {
        set(&mut to.limits.request_body_bytes_per_second, given.large(1..=1 << 40));
    }),
    Key::new("limits.refused_body_bytes", |to, given| {
        set(&mut to.limits.refused_body_bytes, given.large(0..=1 << 30));
    }),
    Key::new("limits.refused_body_idle_ms", |to, given| {
        set(&mut to.limits.refused_body_idle, given.millis(1..=HOUR_MS));
    }),
    Key::new("limits.refused_body_timeout_ms", |to, given| {
        set(&mut to.limits.refused_body_timeout, given.millis(1..=HOUR_MS));
    }),
    Key::new("limits.reply_write_idle_ms", |to, given| set(&mut to.limits.reply_write_idle, given.millis(1..=DAY_MS))),
    Key::new("limits.client_stall_ms", |to, given| set(&mut to.limits.client_stall, given.millis(100..=HOUR_MS))),
    Key::new("limits.connect_timeout_ms", |to, given| set(&mut to.limits.connect_timeout, given.millis(1..=HOUR_MS))),
    Key::new("limits.upstream_head_timeout_ms", |to, given| {
        set(&mut to.limits.upstream_head_timeout, given.millis(1..=DAY_MS));
    }),
    Key::new("limits.upstream_head_deadline_ms", |to, given| {
        set(&mut to.limits.upstream_head_deadline, given.millis(1..=DAY_MS));
    }),
    Key::new("limits.upstream_body_idle_ms", |to, given| {
        set(&mut to.limits.upstream_body_idle, given.millis(1..=DAY_MS));
    }),
    Key::new("limits.event_stream_idle_ms", |to, given| {
        set(&mut to.limits.event_stream_idle, given.millis(1..=DAY_MS));
    }),
    Key::new("limits.total_timeout_ms", |to, given| {
        set(&mut to.limits.total_timeout, policy::total_timeout(given));
    }),
    Key::new("limits.reply_headers", |to, given| set(&mut to.limits.reply_headers, given.count(1..=10_000))),
    Key::new("limits.interim_reply_bytes", |to, given| {
        set(&mut to.limits.interim_reply_bytes, given.count(1_024..=16 * MIB));
    }),
    Key::new("limits.upstream_keep_idle_ms", |to, given| {
        set(&mut to.limits.upstream_keep_idle, given.millis(1..=DAY_MS));
    }),
    Key::new("limits.upstream_keep_connections", |to, given| {
        set(&mut to.limits.upstream_keep_connections, given.count(0..=100_000));
    }),
    Key::new("limits.tunnel_idle_ms", |to, given| set(&mut to.limits.tunnel_idle, given.millis(1..=DAY_MS))),
    Key::new("limits.hold_timeout_ms", |to, given| set(&mut to.limits.hold_timeout, given.millis(1..=HOUR_MS))),
    Key::new("limits.settle_timeout_ms", |to, given| set(&mut to.limits.settle_timeout, given.millis(1..=HOUR_MS))),
    Key::new("limits.sync_late_ms", |to, given| set(&mut to.limits.sync_late, given.millis(1..=HOUR_MS))),
    Key::new("limits.idempotency_ttl_ms", |to, given| {
        set(&mut to.limits.idempotency_ttl, given.millis(1..=DAY_MS));
    }),
    Key::new("limits.idempotency_keys", |to, given| {
        set(&mut to.limits.idempotency_keys, given.count(1..=1_000_000_000));
    }),
    Key::new("limits.idempotency_keys_per_user", |to, given| {
        set(&mut to.limits.idempotency_keys_per_user, given.count(1..=1_000_000_000));
    }),
    Key::new("limits.open_charges", |to, given| set(&mut to.limits.open_charges, given.count(1..=10_000_000))),
    Key::new("limits.instance_timeout_ms", |to, given| {
        set(&mut to.limits.instance_timeout, given.millis(1_000..=HOUR_MS));
    }),
    Key::new("limits.batch", |to, given| set(&mut to.limits.batch, given.count(1..=10_000))),
    Key::new("limits.cached_wallets", |to, given| set(&mut to.limits.cached_wallets, given.count(1..=100_000_000))),
    Key::new("limits.wal_bytes", |to, given| set(&mut to.limits.wal_bytes, given.large(MIB..=64 << 30))),
    // The longest key that Keytoll issues has 53.
    Key::new("limits.key_bytes", |to, given| set(&mut to.limits.key_bytes, given.count(64..=16_384))),
    Key::new("limits.cached_keys", |to, given| set(&mut to.limits.cached_keys, given.large(1..=100_000_000))),
    Key::new("limits.key_ttl_ms", |to, given| set(&mut to.limits.key_ttl, given.millis(1..=DAY_MS))),
    Key::new("limits.cached_refusals", |to, given| set(&mut to.limits.cached_refusals, given.large(0..=100_000_000))),
    Key::new("limits.refusal_ttl_ms", |to, given| set(&mut to.limits.refusal_ttl, given.millis(1..=DAY_MS))),
    Key::new("limits.queued_reads", |to, given| set(&mut to.limits.queued_reads, given.count(1..=1_000_000))),
    Key::new("limits.queued_writes", |to, given| set(&mut to.limits.queued_writes, given.count(1..=1_000_000))),
    Key::new("limits.admin_connections", |to, given| {
        set(&mut to.limits.admin_connections, given.count(1..=100_000));
    }),
    Key::new("limits.admin_body_bytes", |to, given| {
        set(&mut to.limits.admin_body_bytes, given.count(1_024..=16 * MIB));
    }),
];
