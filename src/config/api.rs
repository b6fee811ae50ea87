//! `[[api]]`, or the one API that flags and environment describe: its keys, and what several must not share.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::fault::{Fault, UrlFault};
use super::given::{Raw, set};
use super::keys::{Draft, Key};
use super::mistake::{Mistakes, Place};
use super::policy::{self, ExchangePolicy, PolicyOverrides};
use super::route::{ROUTE_KEYS, RouteParts, finish as finish_route, refuse_ties};
use super::{
    ApiConfig, ChargeOn, EncodedSlash, Environment, Limits, Overrides, RepeatedSlash, UpstreamConfig, path, value,
};
use crate::model::Cents;

/// What has been read of an API.
#[derive(Default)]
pub(super) struct ApiParts {
    name: Option<Arc<str>>,
    host: Option<Box<str>>,
    path: Option<Box<str>>,
    strip_path: bool,
    forget_host: bool,
    pass_encoded_slash: bool,
    pass_repeated_slash: bool,
    upstreams: Vec<UpstreamConfig>,
    price: Option<Cents>,
    charge_on: ChargeOn,
    idempotency: bool,
    policy: PolicyOverrides,
    pub(super) routes: Vec<Draft<RouteParts>>,
}

/// Every key of `[[api]]`; `route` is a section of its own.
pub(super) const API_KEYS: &[Key<ApiParts>] = &[
    Key::<ApiParts>::new("api.name", |to, given| to.name = given.read(value::name))
        .also("--api", "KEYTOLL_API")
        .required("write name = \"…\", the api_name that its keys have"),
    Key::new("api.host", |to, given| to.host = given.read(value::host)),
    Key::<ApiParts>::new("api.path", |to, given| to.path = given.read(path::api))
        .required("write path = \"/…\", where the API begins; \"/\" for everything"),
    Key::new("api.strip_path", |to, given| set(&mut to.strip_path, given.boolean())),
    Key::new("api.preserve_host", |to, given| set(&mut to.forget_host, given.boolean().map(|preserve| !preserve))),
    Key::new("api.encoded_slash", |to, given| {
        set(&mut to.pass_encoded_slash, given.one_of(&["refuse", "pass"], &[false, true]));
    }),
    Key::new("api.repeated_slash", |to, given| {
        set(&mut to.pass_repeated_slash, given.one_of(&["refuse", "pass"], &[false, true]));
    }),
    Key::<ApiParts>::new("api.upstreams", |to, given| {
        set(&mut to.upstreams, given.filled_list("write \"http://HOST:PORT\"", value::upstream));
    })
    .also("--upstream", "KEYTOLL_UPSTREAM")
    .required("write where the API is served: \"http://127.0.0.1:3000\""),
    Key::<ApiParts>::new("api.price_cents", |to, given| to.price = given.price())
        .also("--price", "KEYTOLL_PRICE")
        .required("write what a request costs in cents; 0 for a free API"),
    Key::new("api.charge_on", |to, given| {
        let remedy = "list what is charged, or say price_cents = 0";
        let patterns = given.filled_list(remedy, value::outcome);
        let set_of = |patterns: Vec<String>| ChargeOn::parse(patterns.iter().map(String::as_str)).ok();
        set(&mut to.charge_on, patterns.and_then(set_of));
    }),
    Key::new("api.idempotency", |to, given| {
        set(&mut to.idempotency, given.one_of(&["off", "on"], &[false, true]));
    }),
    Key::new("api.upstream_head_timeout_ms", |to, given| to.policy.head_timeout = policy::wait(given)),
    Key::new("api.upstream_body_idle_ms", |to, given| to.policy.body_idle = policy::wait(given)),
    Key::new("api.event_stream_idle_ms", |to, given| to.policy.event_stream_idle = policy::wait(given)),
    Key::new("api.total_timeout_ms", |to, given| to.policy.total_timeout = policy::total_timeout(given)),
    Key::new("api.request_body_bytes", |to, given| to.policy.request_body_bytes = policy::request_body_bytes(given)),
    Key::new("api.charge_on_abort", |to, given| to.policy.charge_on_abort = given.boolean()),
    Key::new("api.charge_idle_cut", |to, given| to.policy.charge_idle_cut = given.boolean()),
];

/// The API that flags and environment describe, when they describe one: at `/`, named `default` unless they say
/// otherwise. One beside `[[api]]` sections of the file is a mistake.
pub(super) fn from_around(
    flags: &Overrides,
    environment: &Environment,
    apis: &mut Vec<Draft<ApiParts>>,
    mistakes: &mut Mistakes,
) {
    let given_by_short_name = |place: &Place, key: &Key<ApiParts>| match place {
        Place::Variable(name) => key.variable == Some(name),
        Place::Flag(_) | Place::Line { .. } | Place::File(_) | Place::Nowhere => true,
    };
    let mut api = Draft::new(ApiParts::default(), Place::Nowhere);
    for key in API_KEYS.iter().filter(|key| key.flag.is_some()) {
        for (place, text) in key.around(flags, environment) {
            if !given_by_short_name(&place, key) {
                continue;
            }
            if !apis.is_empty() {
                mistakes.add(place, key.name, Fault::ApiGivenTwice);
                continue;
            }
            api.apply(key, place, Raw::Text(text), mistakes);
        }
    }
    if api.places.is_empty() {
        return;
    }
    for key in API_KEYS.iter().filter(|key| !matches!(key.name, "api.name" | "api.path")) {
        if let (Some(remedy), Some(flag), None) = (key.required, key.flag, api.places.get(key.name)) {
            mistakes.add(Place::Flag(flag), key.name, Fault::Missing { remedy });
        }
    }
    if !api.places.contains_key("api.name") {
        api.parts.name = Some("default".into());
    }
    api.parts.path = Some("/".into());
    apis.push(api);
}

/// Adds a mistake for each key that a section of the file needs and has not.
pub(super) fn refuse_missing<T>(section: &Draft<T>, keys: &[Key<T>], mistakes: &mut Mistakes) {
    for key in keys {
        if let (Some(remedy), None) = (key.required, section.places.get(key.name)) {
            mistakes.add(section.at.clone(), key.name, Fault::Missing { remedy });
        }
    }
}

/// Adds a mistake for each API with an upstream that is plainly one of the gateway's own listeners.
pub(super) fn refuse_loops(apis: &[Draft<ApiParts>], listeners: [SocketAddr; 2], mistakes: &mut Mistakes) {
    let is_own = |upstream: &UpstreamConfig| {
        let port = upstream.authority.port_u16().unwrap_or(80);
        let host = upstream.authority.host().trim_matches(['[', ']']);
        let address = if host == "localhost" { Ok(Ipv4Addr::LOCALHOST.into()) } else { host.parse::<IpAddr>() };
        address.is_ok_and(|ip| {
            let meets = |own: IpAddr| own == ip || (own.is_unspecified() && ip.is_loopback());
            listeners.iter().any(|own| own.port() == port && meets(own.ip()))
        })
    };
    for api in apis.iter().filter(|api| api.parts.upstreams.iter().any(is_own)) {
        mistakes.add(api.place("api.upstreams"), "api.upstreams", Fault::Url(UrlFault::OwnListener));
    }
}

/// The APIs that are complete; the mistakes that they make together are added.
pub(super) fn finish(apis: &[Draft<ApiParts>], limits: &Limits, mistakes: &mut Mistakes) -> Vec<ApiConfig> {
    let mut names: HashMap<Arc<str>, Place> = HashMap::new();
    let mut paths: HashMap<(Option<Box<str>>, Box<str>), Place> = HashMap::new();
    for api in apis {
        if let Some(name) = &api.parts.name {
            if let Some(first) = names.get(name) {
                mistakes.add(api.place("api.name"), "api.name", Fault::NameTaken { first: first.to_string() });
            } else {
                names.insert(Arc::clone(name), api.place("api.name"));
            }
        }
        if let Some(path) = &api.parts.path {
            let key = (api.parts.host.clone(), path.clone());
            if let Some(first) = paths.get(&key) {
                mistakes.add(api.place("api.path"), "api.path", Fault::PathTaken { first: first.to_string() });
            } else {
                paths.insert(key, api.place("api.path"));
            }
        }
    }
    apis.iter().filter_map(|api| finish_one(api, limits, mistakes)).collect()
}

fn finish_one(api: &Draft<ApiParts>, limits: &Limits, mistakes: &mut Mistakes) -> Option<ApiConfig> {
    let parts = &api.parts;
    let routes = &parts.routes;
    for route in routes {
        refuse_missing(route, ROUTE_KEYS, mistakes);
    }
    refuse_ties(routes, mistakes);
    let policy = parts.policy.over(&ExchangePolicy::from(limits));
    let path = parts.path.as_deref();
    let routes = routes.iter().filter_map(|route| finish_route(route, path, parts.price, &policy, mistakes)).collect();
    Some(ApiConfig {
        name: Arc::clone(parts.name.as_ref()?),
        host: parts.host.clone(),
        path: parts.path.clone()?,
        strip_path: parts.strip_path,
        preserve_host: !parts.forget_host,
        encoded_slash: if parts.pass_encoded_slash { EncodedSlash::Pass } else { EncodedSlash::Refuse },
        repeated_slash: if parts.pass_repeated_slash { RepeatedSlash::Pass } else { RepeatedSlash::Refuse },
        upstreams: parts.upstreams.clone(),
        price: parts.price?,
        charge_on: parts.charge_on.clone(),
        idempotency: parts.idempotency,
        policy,
        routes,
    })
}
