//! What a configuration means, in words, for `keytoll check`.

use std::fmt::Write as _;

use http::StatusCode;

use super::{
    ApiConfig, ChargeOn, Config, CredentialSource, DAY, Durability, EncodedSlash, ExchangePolicy, KeyStorage,
    RepeatedSlash, RouteConfig,
};
use crate::model::Cents;

impl Config {
    /// A short summary for people, some lines of text; no secrets.
    pub fn explain(&self) -> String {
        let mut text = String::new();
        self.write_summary(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write_summary(&self, out: &mut String) -> std::fmt::Result {
        let (server, admin, database) = (&self.server, &self.admin, &self.database);
        writeln!(out, "clients   {}, {}", server.listen, plural(server.workers, "worker"))?;
        let token = if admin.token.is_some() { "with a token" } else { "without a token: /v1/* is closed" };
        let hosts: String = admin.hosts.iter().map(|host| format!(", {host}")).collect();
        writeln!(out, "admin     {}{hosts}, {token}", admin.listen)?;
        let missing = match database.create {
            true => format!("made when missing (mode {:04o})", database.file_mode),
            false => "refused when missing".to_owned(),
        };
        let survives = match database.durability {
            Durability::Full => "captures survive a power cut (durability full)",
            Durability::Normal => "captures survive the process, not a power cut (durability normal)",
        };
        let kept = match database.keep_charges {
            Some(age) => format!("charges kept for {} days", age.as_secs() / DAY.as_secs()),
            None => "charges kept for ever".to_owned(),
        };
        writeln!(out, "database  {}, {missing}; {survives}; {kept}", database.path.display())?;
        let sources: Vec<String> = self.keys.sources.iter().map(source).collect();
        let storage = match self.keys.storage {
            KeyStorage::Sha256 => "as SHA-256",
            KeyStorage::Plain => "as they are (plain)",
        };
        writeln!(out, "keys      looked for in {}; stored {storage}", sources.join(", then "))?;
        for api in &self.apis {
            write_api(out, api, &ExchangePolicy::from(&self.limits))?;
        }
        for warning in &self.warnings {
            writeln!(out, "warning   {warning}")?;
        }
        Ok(())
    }
}

fn write_api(out: &mut String, api: &ApiConfig, limits: &ExchangePolicy) -> std::fmt::Result {
    let upstreams: Vec<String> =
        api.upstreams.iter().map(|upstream| format!("http://{}{}", upstream.authority, upstream.base_path)).collect();
    let host = api.host.as_deref().unwrap_or("");
    writeln!(out, "api       {:?}: {host}{} -> {}", api.name, api.path, upstreams.join(", "))?;
    let path = if api.strip_path && &*api.path != "/" { "taken off" } else { "kept" };
    let host = if api.preserve_host { "the client's" } else { "the upstream's" };
    let encoded = match api.encoded_slash {
        EncodedSlash::Refuse => "refused",
        EncodedSlash::Pass => "passed on",
    };
    let repeated = match api.repeated_slash {
        RepeatedSlash::Refuse => "refused",
        RepeatedSlash::Pass => "passed on",
    };
    writeln!(out, "          goes upstream with the path {path} and {host} Host; %2F is {encoded}, // is {repeated}")?;
    writeln!(out, "          a request is {}", price(api.price))?;
    if !api.price.is_zero() || api.routes.iter().any(|route| !route.price.is_zero()) {
        writeln!(out, "          charged on {}", statuses(&api.charge_on))?;
    }
    if api.idempotency {
        writeln!(out, "          a priced request with an Idempotency-Key is charged once, however often it is sent")?;
    }
    if let Some(rules) = policy(&api.policy, limits) {
        writeln!(out, "          {rules}")?;
    }
    api.routes.iter().try_for_each(|route| write_route(out, api, route))
}

fn write_route(out: &mut String, api: &ApiConfig, route: &RouteConfig) -> std::fmt::Result {
    let methods: Vec<&str> = route.methods.iter().map(http::Method::as_str).collect();
    let methods = if methods.is_empty() { "any method".to_owned() } else { methods.join(", ") };
    let path = match (&*api.path, &*route.path) {
        ("/", path) | (path, "/") => path.to_owned(),
        (base, path) => format!("{base}{path}"),
    };
    let price = if route.public { "public: no key, free".to_owned() } else { price(route.price) };
    let rules = policy(&route.policy, &api.policy).map(|rules| format!("; {rules}")).unwrap_or_default();
    writeln!(out, "  route   {methods} {path}: {price}{rules}")
}

/// What a policy says that `base` says otherwise; `None` when that is nothing.
fn policy(policy: &ExchangePolicy, base: &ExchangePolicy) -> Option<String> {
    let mut rules = Vec::new();
    let waits = [
        ("upstream_head_timeout_ms", policy.head_timeout, base.head_timeout),
        ("upstream_body_idle_ms", policy.body_idle, base.body_idle),
        ("event_stream_idle_ms", policy.event_stream_idle, base.event_stream_idle),
        ("total_timeout_ms", policy.total_timeout.unwrap_or_default(), base.total_timeout.unwrap_or_default()),
    ];
    rules.extend(
        waits.iter().filter(|(_, own, base)| own != base).map(|(name, own, _)| format!("{name} = {}", own.as_millis())),
    );
    if policy.request_body_bytes != base.request_body_bytes {
        rules.push(format!("request_body_bytes = {}", policy.request_body_bytes));
    }
    let charges = [
        ("charge_on_abort", policy.charge_on_abort, base.charge_on_abort),
        ("charge_idle_cut", policy.charge_idle_cut, base.charge_idle_cut),
    ];
    rules.extend(charges.iter().filter(|(_, own, base)| own != base).map(|(name, own, _)| format!("{name} = {own}")));
    (!rules.is_empty()).then(|| rules.join(", "))
}

fn price(price: Cents) -> String {
    if price.is_zero() { "free, with a key".to_owned() } else { price.to_string() }
}

fn source(source: &CredentialSource) -> String {
    match source {
        CredentialSource::Header(name) => format!("header {name}"),
        CredentialSource::AuthorizationBearer => "Authorization: Bearer".to_owned(),
        CredentialSource::Query(name) => format!("query parameter {name}"),
    }
}

/// The codes as ranges: `101, 200-407, 409-428, 430-499`.
fn statuses(charged: &ChargeOn) -> String {
    let is_charged = |code: u16| StatusCode::from_u16(code).is_ok_and(|status| charged.contains(status));
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for code in (100..600).filter(|code| is_charged(*code)) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == code => *last = code,
            Some(_) | None => ranges.push((code, code)),
        }
    }
    if ranges.is_empty() {
        return "nothing".to_owned();
    }
    let words = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
