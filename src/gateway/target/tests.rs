use std::collections::BTreeSet;

use http::uri::Authority;
use proptest::prelude::*;

use super::*;
use crate::config::{ApiConfig, ChargeOn, EncodedSlash, ExchangePolicy, RepeatedSlash, RouteConfig};
use crate::model::Cents;

proptest! {
    /// What is told without the parser is told as the parser does.
    #[test]
    fn a_host_is_what_the_parser_takes_but_for_user_information(text in "[a-zA-Z0-9.:@%_-]{0,12}|[\\[\\]:.a-f0-9]{0,12}") {
        let parsed = text.parse::<Authority>().is_ok_and(|host| !host.as_str().contains('@'));
        prop_assert_eq!(is_host(&text), text.is_empty() || parsed, "{}", text);
    }
}

#[test]
fn names_addresses_and_ports_are_hosts() {
    for text in ["", "example.com", "example.com:8080", "127.0.0.1:80", "[::1]:80", "xn--bcher-kva.example", "a_b"] {
        assert!(is_host(text), "{text}");
    }
    for text in ["a@b", "a/b", "a b", "[::1", "a:b:c"] {
        assert!(!is_host(text), "{text}");
    }
}

fn api(path: &str, strip_path: bool, (encoded, repeated): (bool, bool), routes: &[String]) -> ApiConfig {
    let route = |path: &String| RouteConfig {
        methods: Vec::new(),
        path: (**path).into(),
        price: Cents(25),
        public: false,
        policy: ExchangePolicy::default(),
    };
    ApiConfig {
        name: path.into(),
        host: None,
        path: path.into(),
        strip_path,
        preserve_host: true,
        encoded_slash: if encoded { EncodedSlash::Pass } else { EncodedSlash::Refuse },
        repeated_slash: if repeated { RepeatedSlash::Pass } else { RepeatedSlash::Refuse },
        upstreams: Vec::new(),
        price: Cents(2),
        charge_on: ChargeOn::default(),
        idempotency: false,
        policy: ExchangePolicy::default(),
        routes: routes.iter().map(route).collect(),
    }
}

fn target(path: &str) -> Target {
    Target::of(&mut Request::get(path).header("host", "h").body(()).unwrap()).unwrap()
}

/// The reason for which a path is refused; `None` when it is accepted, or belongs to no API.
fn refused(table: &RouteTable, path: &str) -> Option<BadPath> {
    let mut target = target(path);
    let problem = target.route(table, &Method::GET).err().filter(|problem| problem.kind() != ProblemKind::NoRoute)?;
    let reasons = [BadPath::EmptySegment, BadPath::EncodedSlash, BadPath::EncodedSlashBesideSlash, BadPath::OtherRoute];
    let reason = reasons.into_iter().find(|reason| reason.reason() == problem.detail());
    Some(reason.unwrap_or_else(|| panic!("{path}: {problem:?}")))
}

#[test]
fn a_path_whose_readings_have_several_routes_is_refused() {
    let routes = ["/reports", "/a/b", "/{x}/c", "/d/{x}"].map(str::to_owned);
    let table = RouteTable::new(&[
        api("/", false, (true, true), &routes),
        api("/cut", true, (true, true), &["/reports".to_owned(), "/".to_owned()]),
        api("/cut/deep", true, (true, true), &[]),
    ]);
    for path in [
        "//reports",
        "/%2Freports",
        "/%2freports/x",
        "///reports",
        "/x%2Fc",
        "/a%2Fb",
        "/a//b",
        "/a/%2Fb",
        "/a%2F/b",
        "/a%2F;p/b",
        "/a%3Bp%2Fb",
        "/a;p%2Fb",
        "/d/;x",
        "/d/%3bx",
        "/d%2Fy",
        "//host/reports",
        "/%2Fhost/reports",
        "/%2Fhost%2Freports",
        "//.keytoll/me",
        "/.keytoll%2Fhealthz",
        "/%2F.keytoll%2Fhealthz",
        "/cut//reports",
        "/cut/%2Freports",
        "/cut//host/reports",
        "/cut//deep/x",
        "/cut%2Fx",
        "//cut/x",
        "/cut;x%2Fdeep/y",
    ] {
        assert_eq!(refused(&table, path), Some(BadPath::OtherRoute), "{path}");
    }
    for path in [
        "/reports//x",
        "/reports/%2Fx",
        "/reports/x%2F",
        "/reports/;x",
        "/reports;p%2Fx/",
        "/x%2Fy",
        "/x//y",
        "/x//",
        "/d//",
        "/d%2F",
        "/a%252Fb",
        "//x",
        "/cut//x/y",
        "/cut/x%2Fy",
        "/cut/deep//x%2F",
    ] {
        assert_eq!(refused(&table, path), None, "{path}");
    }
}

#[test]
fn a_repeated_slash_that_belongs_to_no_api_is_refused_as_such() {
    let table = RouteTable::new(&[api("/weather", false, (true, true), &[])]);
    assert_eq!(refused(&table, "//weather/x"), Some(BadPath::EmptySegment));
    assert_eq!(refused(&table, "/weather//x"), None);
}

/// What upstreams may do with a path, one after the other: an independent model of the readings.
#[derive(Clone, Copy, Debug)]
enum Step {
    Decode,
    Merge,
    LeaveParametersOut,
}

impl Step {
    fn apply(self, path: &str) -> String {
        let segments = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
        match self {
            Step::Decode => segments(&path.replace("%2f", "%2F")).join("/").split("%2F").collect::<Vec<_>>().join("/"),
            Step::Merge => {
                let all = segments(path);
                let last = all.len() - 1;
                let kept = all.iter().enumerate().filter(|(at, one)| *at == 0 || *at == last || !one.is_empty());
                kept.map(|(_, one)| one.as_str()).collect::<Vec<_>>().join("/")
            }
            Step::LeaveParametersOut => {
                let cut =
                    |one: String| one.replace("%3B", ";").replace("%3b", ";").split(';').next().unwrap().to_owned();
                segments(path).into_iter().map(cut).collect::<Vec<_>>().join("/")
            }
        }
    }
}

fn without_host(path: &str) -> Option<String> {
    let mut segments: Vec<&str> = path.split('/').collect();
    if !path.starts_with("//") {
        return None;
    }
    segments.drain(1..=2);
    if segments.len() == 1 {
        segments.push("");
    }
    Some(segments.join("/"))
}

/// Every path that an upstream may make of this one in up to four steps.
fn modelled_readings(path: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::from([path.to_owned()]);
    all.extend(without_host(path));
    all.extend(without_host(&Step::Decode.apply(path)));
    for _ in 0..4 {
        let steps = [Step::Decode, Step::Merge, Step::LeaveParametersOut];
        let next: Vec<_> = all.iter().flat_map(|path| steps.map(|step| step.apply(path))).collect();
        all.extend(next);
    }
    all
}

/// Whether the path, once its slashes are decoded, has a segment before the last one that is empty or has only parameters.
fn has_empty_segment(path: &str) -> bool {
    let decoded = Step::LeaveParametersOut.apply(&Step::Decode.apply(path));
    let segments: Vec<_> = decoded.split('/').collect();
    segments[1..segments.len() - 1].iter().any(|segment| segment.is_empty())
}

fn segments(pieces: &'static [&'static str], count: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(pieces), count).prop_map(|all| all.concat())
}

fn apis() -> impl Strategy<Value = Vec<ApiConfig>> {
    let routes = prop::collection::btree_set(segments(&["/a", "/b", "/c", "/{x}"], 1..4), 0..4);
    let one = (any::<bool>(), any::<(bool, bool)>(), routes);
    prop::collection::vec(one, 4).prop_flat_map(|parts| {
        let paths = ["/", "/a", "/a/b", "/c"];
        let all: Vec<_> = parts
            .into_iter()
            .zip(paths)
            .map(|((strips, passes, routes), path)| api(path, strips, passes, &Vec::from_iter(routes)))
            .collect();
        prop::sample::subsequence(all, 1..=4)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// No reading of an accepted path has another route; and a path is not refused without a reason.
    #[test]
    fn an_accepted_path_has_one_route_however_it_is_read(
        configs in apis(),
        path in segments(&["/", "/a", "/b", "/c", "a", "b", "%2F", "%2f", ";p", "%3Bp", "%252F", "/.keytoll"], 1..8),
    ) {
        let path = format!("/{}", path.trim_start_matches('/'));
        check_readings(&configs, &path)?;
        check_readings(&configs, &format!("/{path}"))?;
    }
}

fn check_readings(configs: &[ApiConfig], path: &str) -> Result<(), TestCaseError> {
    let table = RouteTable::new(configs);
    let index = |path: &str| {
        let found = table.find(Some("h"), &Method::GET, path);
        found.filter(|_| !path.starts_with("/.keytoll/")).map(|found| found.route.index)
    };
    let Some(found) = table.find(Some("h"), &Method::GET, path).filter(|_| index(path).is_some()) else {
        prop_assert!(target(path).route(&table, &Method::GET).is_err(), "{}", path);
        return Ok(());
    };
    let has_encoded = path.to_ascii_lowercase().contains("%2f");
    let refuses_encoded = has_encoded && found.api.encoded_slash == EncodedSlash::Refuse;
    let refuses_repeated = has_empty_segment(path) && found.api.repeated_slash == RepeatedSlash::Refuse;
    let mut readings = modelled_readings(path);
    if found.api.stripped_prefix.is_some() {
        // What the upstream sees begins after the segments of the API's own path.
        let own = found.api.path.matches('/').count();
        let (seen, cut): (Vec<_>, Vec<_>) =
            (path.split('/').skip(own + 1).collect(), path.split('/').take(own + 1).collect());
        let seen = format!("/{}", seen.join("/"));
        readings.extend(modelled_readings(&seen).iter().map(|rest| format!("{}{rest}", cut.join("/"))));
    }
    // Other path parameters are priced with their segment, without a look at other readings.
    let last = path.rsplit('/').next().unwrap_or_default();
    let is_looked_at = has_encoded || has_empty_segment(path) || last.starts_with(';') || last.starts_with("%3B");
    let one_route = readings.iter().all(|reading| index(reading) == index(path));
    let is_refused = refuses_encoded || refuses_repeated || (is_looked_at && !one_route);
    let accepted = target(path).route(&table, &Method::GET).map(|found| found.route.index);
    match accepted {
        Ok(route) => prop_assert!(!is_refused && Some(route) == index(path), "{} {:?}", path, readings),
        Err(problem) => prop_assert!(is_refused, "{} {:?} {:?}", path, problem, readings),
    }
    let route = |path: &String| table.find(Some("h"), &Method::GET, path).map(|found| found.route.index);
    prop_assert!(is_refused || readings.iter().all(|reading| route(reading) == index(path)), "{} {:?}", path, readings);
    Ok(())
}
