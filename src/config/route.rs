//! `[[api.route]]`: its keys, its price, and which route a request belongs to when several match. No two may tie.

use std::collections::HashMap;

use http::Method;

use super::RouteConfig;
use super::fault::{Fault, PathFault};
use super::given::set;
use super::keys::{Draft, Key};
use super::mistake::{Mistakes, Place};
use super::policy::{self, ExchangePolicy, PolicyOverrides};
use super::{path, value};
use crate::model::Cents;

/// What has been read of a route.
#[derive(Default)]
pub(super) struct RouteParts {
    methods: Vec<Method>,
    path: Option<Box<str>>,
    price: Option<Cents>,
    public: bool,
    policy: PolicyOverrides,
}

/// Every key of `[[api.route]]`.
pub(super) const ROUTE_KEYS: &[Key<RouteParts>] = &[
    Key::new("api.route.methods", |to, given| {
        set(&mut to.methods, given.filled_list("leave the key out for every method", value::method));
    }),
    Key::<RouteParts>::new("api.route.path", |to, given| to.path = given.read(path::route))
        .required("write path = \"/…\", relative to the API's path"),
    Key::new("api.route.price_cents", |to, given| to.price = given.price()),
    Key::new("api.route.public", |to, given| set(&mut to.public, given.boolean())),
    Key::new("api.route.upstream_head_timeout_ms", |to, given| to.policy.head_timeout = policy::wait(given)),
    Key::new("api.route.upstream_body_idle_ms", |to, given| to.policy.body_idle = policy::wait(given)),
    Key::new("api.route.event_stream_idle_ms", |to, given| to.policy.event_stream_idle = policy::wait(given)),
    Key::new("api.route.total_timeout_ms", |to, given| to.policy.total_timeout = policy::total_timeout(given)),
    Key::new("api.route.request_body_bytes", |to, given| {
        to.policy.request_body_bytes = policy::request_body_bytes(given);
    }),
    Key::new("api.route.charge_on_abort", |to, given| to.policy.charge_on_abort = given.boolean()),
    Key::new("api.route.charge_idle_cut", |to, given| to.policy.charge_idle_cut = given.boolean()),
];

/// The route, when its path is there; the mistakes that its keys make together are added.
pub(super) fn finish(
    route: &Draft<RouteParts>,
    api_path: Option<&str>,
    api_price: Option<Cents>,
    api_policy: &ExchangePolicy,
    mistakes: &mut Mistakes,
) -> Option<RouteConfig> {
    let RouteParts { methods, path, price, public, policy } = &route.parts;
    if *public && price.is_some_and(|price| !price.is_zero()) {
        mistakes.add(route.place("api.route.public"), "api.route.public", Fault::PublicWithPrice);
    }
    let path = path.clone()?;
    if api_path == Some("/") && path::is_reserved(&path) {
        mistakes.add(route.place("api.route.path"), "api.route.path", Fault::Path(PathFault::Reserved));
    }
    let price = if *public { Cents::ZERO } else { price.or(api_price)? };
    Some(RouteConfig { methods: methods.clone(), path, price, public: *public, policy: policy.over(api_policy) })
}

/// Adds a mistake for each route that matches the same requests as an earlier one of the same API, neither being more
/// specific: the same literal and `{x}` segments, and either no methods in both or a method in common. Other patterns
/// never tie: at the first segment from the left that differs, a literal beats `{x}`; longer beats shorter; with
/// methods beats without.
pub(super) fn refuse_ties(routes: &[Draft<RouteParts>], mistakes: &mut Mistakes) {
    let mut taken: HashMap<(String, Option<Method>), Place> = HashMap::new();
    for route in routes {
        let Some(path) = &route.parts.path else { continue };
        let here = route.place("api.route.path");
        let mut first = None;
        for method in covered(&route.parts.methods) {
            let before = taken.entry((shape(path), method)).or_insert_with(|| here.clone());
            if *before != here && first.is_none() {
                first = Some(before.to_string());
            }
        }
        if let Some(first) = first {
            mistakes.add(here, "api.route.path", Fault::RouteTie { first });
        }
    }
}

/// The path without the names in braces.
fn shape(path: &str) -> String {
    let segments = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

/// The methods that a route is for; one `None` for every method. GET covers HEAD.
fn covered(methods: &[Method]) -> Vec<Option<Method>> {
    if methods.is_empty() {
        return vec![None];
    }
    let head = methods.contains(&Method::GET).then_some(Method::HEAD);
    methods.iter().cloned().chain(head).map(Some).collect()
}
