//! Which API and which route a request is for, and so what it costs.
//!
//! APIs: by host and whole-segment path. The longest path wins; at the same path the one that names the host wins.
//! Routes inside an API: whole-segment prefixes, compared segment by segment from the left. Literal beats `{x}`, longer
//! beats shorter, with methods beats without. GET covers HEAD. A route for other methods is passed over, and where no
//! route is left the API's own price holds.
//!
//! A literal also matches a segment that differs from it only in percent-encoding (`%3A` for `:`) or, for whatever is
//! not public, in path parameters (`reports;x`): upstreams that read them as one resource must not make the price a
//! matter of spelling.

mod pattern;

use std::cmp::Ordering;
use std::sync::Arc;

use http::{HeaderValue, Method};

use self::pattern::{Pattern, Spelling, patterns, prefix_bytes};
use crate::config::{ApiConfig, ChargeOn, EncodedSlash, ExchangePolicy, RepeatedSlash, RouteConfig};
use crate::model::Cents;

/// The label of what no route of an API claims.
const DEFAULT_LABEL: &str = "/";

/// An API as the request path needs it.
#[derive(Clone, Debug)]
pub struct Api {
    /// Its place in the configuration, for arrays kept per API.
    pub index: usize,
    /// What `api_keys.api_name` holds.
    pub name: Arc<str>,
    /// The name as a header value, for `Keytoll-Api`; percent-encoded where a header could not hold it.
    pub name_value: HeaderValue,
    /// Where it begins; `/` or `/a/b`.
    pub path: Box<str>,
    /// `path`, when it is taken off before forwarding: for `X-Forwarded-Prefix`.
    pub stripped_prefix: Option<HeaderValue>,
    /// Whether the client's `Host` goes upstream.
    pub preserve_host: bool,
    /// Whether `%2F` may stand in a path.
    pub encoded_slash: EncodedSlash,
    /// Whether `//` may stand in a path.
    pub repeated_slash: RepeatedSlash,
    /// The outcomes that are charged.
    pub charge_on: ChargeOn,
    /// Whether an `Idempotency-Key` counts.
    pub idempotency: bool,
    host: Option<Box<str>>,
    segments: Vec<Pattern>,
    /// In order of precedence, the default last.
    routes: Vec<Candidate>,
}

/// A part of an API with its price.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its place among all routes of all APIs, dense from 0, for arrays kept per route.
    pub index: usize,
    /// The place of its API in the configuration.
    pub api: usize,
    /// For people: `POST /reports`, `/health`; `/` for what no route claims.
    pub label: Arc<str>,
    /// The price of a request.
    pub price: Cents,
    /// Needs no key and is free.
    pub public: bool,
    /// The rules of its exchanges.
    pub policy: ExchangePolicy,
}

/// All APIs and routes. Read-only, shared by all workers.
#[derive(Debug)]
pub struct RouteTable {
    apis: Vec<Api>,
    routes: Vec<Route>,
    /// Places in `apis`: longest path first, and at the same path those with a host first.
    by_precedence: Vec<usize>,
}

/// What a request is for.
#[derive(Clone, Copy, Debug)]
pub struct Match<'a> {
    /// The API.
    pub api: &'a Api,
    /// Its route.
    pub route: &'a Route,
    /// How many bytes of the request's path the API's own path takes.
    prefix_bytes: usize,
}

impl Match<'_> {
    /// The path to forward, before the upstream's base path is put in front: without the API's path if that is taken
    /// off (`/weather` gives `/`, `/weather/x` gives `/x`). `normalized` is the path that was found.
    pub fn forward_path<'p>(&self, normalized: &'p str) -> &'p str {
        if self.api.stripped_prefix.is_none() {
            return normalized;
        }
        match normalized.get(self.prefix_bytes..) {
            None | Some("") => "/",
            Some(rest) => rest,
        }
    }
}

impl RouteTable {
    /// The table of a checked configuration.
    pub fn new(configs: &[ApiConfig]) -> RouteTable {
        let mut table = RouteTable { apis: Vec::new(), routes: Vec::new(), by_precedence: Vec::new() };
        for (index, config) in configs.iter().enumerate() {
            let api = Api::new(index, config, &mut table.routes);
            table.apis.push(api);
        }
        table.by_precedence = (0..configs.len()).collect();
        table.by_precedence.sort_by_key(|index| {
            let api = &table.apis[*index];
            (std::cmp::Reverse(api.segments.len()), api.host.is_none())
        });
        table
    }

    /// What a request is for. `host`: its `Host`, any case, with or without a port. `path`: in normal form.
    /// `None`: no API begins there.
    pub fn find(&self, host: Option<&str>, method: &Method, path: &str) -> Option<Match<'_>> {
        let host = host.map(without_port);
        let (api, prefix_bytes) = self.by_precedence.iter().find_map(|index| {
            let api = &self.apis[*index];
            let host_fits = match (&api.host, host) {
                (None, Some(_) | None) => true,
                (Some(wanted), Some(host)) => host.eq_ignore_ascii_case(wanted),
                (Some(_), None) => false,
            };
            let prefix_bytes = if host_fits { prefix_bytes(&api.segments, path, Spelling::Loose) } else { None };
            Some((api, prefix_bytes?))
        })?;
        let rest = &path[prefix_bytes..];
        let candidate = api.routes.iter().find(|candidate| candidate.matches(method, rest))?;
        Some(Match { api, route: &self.routes[candidate.route], prefix_bytes })
    }

    /// All APIs, in the order of the configuration.
    pub fn apis(&self) -> &[Api] {
        &self.apis
    }

    /// All routes, by [`Route::index`].
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

impl Api {
    fn new(index: usize, config: &ApiConfig, routes: &mut Vec<Route>) -> Api {
        let segments = patterns(&config.path, Pattern::literal);
        let mut candidates: Vec<Candidate> = Vec::with_capacity(config.routes.len() + 1);
        let default = RouteConfig {
            methods: Vec::new(),
            path: "/".into(),
            price: config.price,
            public: false,
            policy: config.policy,
        };
        for (place, route) in config.routes.iter().chain([&default]).enumerate() {
            let label = if place == config.routes.len() { DEFAULT_LABEL.into() } else { label(route) };
            candidates.push(Candidate::new(route, routes.len()));
            let RouteConfig { price, public, policy, .. } = *route;
            routes.push(Route { index: routes.len(), api: index, label, price, public, policy });
        }
        // Stable: the default, pushed last, stays behind a route of the same pattern.
        candidates.sort_by(Candidate::precedence);
        let strips = config.strip_path && !segments.is_empty();
        Api {
            index,
            name: config.name.clone(),
            name_value: header_value(&config.name),
            path: config.path.clone(),
            stripped_prefix: strips.then(|| header_value(&config.path)),
            preserve_host: config.preserve_host,
            encoded_slash: config.encoded_slash,
            repeated_slash: config.repeated_slash,
            charge_on: config.charge_on.clone(),
            idempotency: config.idempotency,
            host: config.host.clone(),
            segments,
            routes: candidates,
        }
    }
}

/// A route as it is compared with requests.
#[derive(Clone, Debug)]
struct Candidate {
    segments: Vec<Pattern>,
    methods: Vec<Method>,
    spelling: Spelling,
    /// Its place in [`RouteTable::routes`].
    route: usize,
}

impl Candidate {
    fn new(config: &RouteConfig, route: usize) -> Candidate {
        let spelling = if config.public { Spelling::Strict } else { Spelling::Loose };
        Candidate { segments: patterns(&config.path, Pattern::new), methods: config.methods.clone(), spelling, route }
    }

    fn matches(&self, method: &Method, path: &str) -> bool {
        let method_fits = self.methods.is_empty()
            || self.methods.contains(method)
            || (*method == Method::HEAD && self.methods.contains(&Method::GET));
        method_fits && prefix_bytes(&self.segments, path, self.spelling).is_some()
    }

    /// The better of two comes first. Naming HEAD itself beats covering it by GET.
    fn precedence(&self, other: &Candidate) -> Ordering {
        for (mine, theirs) in self.segments.iter().zip(&other.segments) {
            let order = mine.precedence(theirs);
            if order != Ordering::Equal {
                return order;
            }
        }
        let rank = |candidate: &Candidate| (candidate.methods.is_empty(), !candidate.methods.contains(&Method::HEAD));
        other.segments.len().cmp(&self.segments.len()).then_with(|| rank(self).cmp(&rank(other)))
    }
}

/// A host without port and without the dot that may end a full name. `[::1]:80` gives `[::1]`.
fn without_port(host: &str) -> &str {
    let name_end = host.rfind(']').map_or(0, |bracket| bracket + 1);
    let end = host[name_end..].find(':').map_or(host.len(), |colon| name_end + colon);
    let name = &host[..end];
    name.strip_suffix('.').unwrap_or(name)
}

fn label(route: &RouteConfig) -> Arc<str> {
    let methods: Vec<&str> = route.methods.iter().map(Method::as_str).collect();
    if methods.is_empty() { (&*route.path).into() } else { format!("{} {}", methods.join(","), route.path).into() }
}

fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| {
        let encoded = text.bytes().map(|byte| match byte {
            b'!'..=b'$' | b'&'..=b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        });
        HeaderValue::from_str(&encoded.collect::<String>()).expect("only visible ASCII is left")
    })
}

#[cfg(test)]
mod tests;
