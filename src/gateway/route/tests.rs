use super::*;

fn api(name: &str, path: &str) -> ApiConfig {
    ApiConfig {
        name: name.into(),
        host: None,
        path: path.into(),
        strip_path: false,
        preserve_host: true,
        encoded_slash: EncodedSlash::Refuse,
        repeated_slash: RepeatedSlash::Refuse,
        upstreams: Vec::new(),
        price: Cents(2),
        idempotency: false,
        policy: ExchangePolicy::default(),
        charge_on: ChargeOn::default(),
        routes: Vec::new(),
    }
}

fn with_host(mut api: ApiConfig, host: &str) -> ApiConfig {
    api.host = Some(host.into());
    api
}

fn stripping(mut api: ApiConfig) -> ApiConfig {
    api.strip_path = true;
    api
}

/// `"GET,POST /a/{x} 5"`, `"/health public"`.
fn route(line: &str) -> RouteConfig {
    let (target, price) = line.rsplit_once(' ').unwrap();
    let (methods, path) = target.split_once(' ').unwrap_or(("", target));
    let methods = methods.split(',').filter(|name| !name.is_empty()).map(|name| name.parse().unwrap()).collect();
    let public = price == "public";
    RouteConfig {
        methods,
        path: path.into(),
        price: Cents(if public { 0 } else { price.parse().unwrap() }),
        public,
        policy: ExchangePolicy::default(),
    }
}

fn with_routes(mut api: ApiConfig, lines: &[&str]) -> ApiConfig {
    api.routes = lines.iter().map(|line| route(line)).collect();
    api
}

fn label_of(table: &RouteTable, method: &str, path: &str) -> String {
    table.find(None, &method.parse().unwrap(), path).unwrap().route.label.to_string()
}

#[test]
fn the_longest_path_wins_and_segments_are_whole() {
    let table = RouteTable::new(&[api("root", "/a"), api("deep", "/a/b/c"), api("mid", "/a/b")]);
    for (path, name) in [
        ("/a", Some("root")),
        ("/a/", Some("root")),
        ("/a/bc", Some("root")),
        ("/a/b", Some("mid")),
        ("/a/b/cd", Some("mid")),
        ("/a/b/c", Some("deep")),
        ("/a/b/c/d", Some("deep")),
        ("/ab", None),
        ("/", None),
        ("/A", None),
    ] {
        let found = table.find(Some("any"), &Method::GET, path).map(|found| found.api.name.to_string());
        assert_eq!(found.as_deref(), name, "{path}");
    }
}

#[test]
fn a_host_beats_none_at_the_same_path_only() {
    let table = RouteTable::new(&[
        api("any", "/a"),
        with_host(api("here", "/a"), "api.example"),
        api("any-deep", "/a/b"),
        with_host(api("root-here", "/"), "api.example"),
        with_host(api("six", "/a"), "[::1]"),
    ]);
    for (host, path, name) in [
        (Some("api.example"), "/a", Some("here")),
        (Some("API.Example:8080"), "/a/x", Some("here")),
        (Some("api.example.:80"), "/a", Some("here")),
        (Some("api.example"), "/a/b", Some("any-deep")),
        (Some("api.example"), "/z", Some("root-here")),
        (Some("other.example"), "/a", Some("any")),
        (Some("api.example.evil"), "/a", Some("any")),
        (Some("[::1]:8080"), "/a", Some("six")),
        (Some("[::1]"), "/a", Some("six")),
        (None, "/a", Some("any")),
        (None, "/z", None),
        (Some(""), "/z", None),
    ] {
        let found = table.find(host, &Method::GET, path).map(|found| found.api.name.to_string());
        assert_eq!(found.as_deref(), name, "{host:?} {path}");
    }
}

#[test]
fn the_more_exact_route_wins_whatever_the_order_of_the_file() {
    let mut lines = vec![
        "/{a} 1",
        "/x 2",
        "/{a}/y 3",
        "/x/{b} 4",
        "/x/y 5",
        "POST /x/y 6",
        "GET /x/y 7",
        "/x/y/{c}/w 8",
        "GET /{a}/{b}/v 9",
    ];
    let expected = [
        ("GET", "/", "/"),
        ("GET", "/q", "/{a}"),
        ("GET", "/x", "/x"),
        ("GET", "/xx", "/{a}"),
        ("GET", "/x/", "/x"),
        ("GET", "/q/y", "/{a}/y"),
        ("GET", "/q/z", "/{a}"),
        ("GET", "/x/z", "/x/{b}"),
        ("GET", "/x/z/v", "/x/{b}"),
        ("GET", "/q/z/v", "GET /{a}/{b}/v"),
        ("PUT", "/q/z/v", "/{a}"),
        ("GET", "/x/y", "GET /x/y"),
        ("HEAD", "/x/y", "GET /x/y"),
        ("POST", "/x/y/z", "POST /x/y"),
        ("PUT", "/x/y", "/x/y"),
        ("get", "/x/y", "/x/y"),
        ("POST", "/x/y/q/w", "/x/y/{c}/w"),
    ];
    for _ in 0..lines.len() {
        lines.rotate_left(1);
        let table = RouteTable::new(&[with_routes(api("all", "/"), &lines)]);
        for (method, path, label) in expected {
            assert_eq!(label_of(&table, method, path), label, "{method} {path} of {lines:?}");
        }
    }
}

#[test]
fn a_route_for_other_methods_leaves_the_next_best_or_the_apis_own_price() {
    let table = RouteTable::new(&[with_routes(api("w", "/w"), &["POST /reports 25", "GET /h 2", "HEAD /h 1"])]);
    let price = |method: &str, path| table.find(None, &method.parse().unwrap(), path).unwrap().route.price;
    assert_eq!(price("POST", "/w/reports"), Cents(25));
    assert_eq!(price("GET", "/w/reports"), Cents(2));
    assert_eq!(price("POST", "/w/reportsx"), Cents(2));
    assert_eq!(price("HEAD", "/w/h"), Cents(1), "HEAD itself beats GET covering it");
    assert_eq!(price("GET", "/w/h"), Cents(2));
}

#[test]
fn the_price_is_no_matter_of_spelling() {
    let table = RouteTable::new(&[
        with_routes(api("models", "/v1:x"), &["/m:run 25", "/caf%C3%A9 9", "/health public", "/v 6", "/v;1 7"]),
        api("rest", "/"),
    ]);
    for path in ["/v1:x/m:run", "/v1%3Ax/m%3arun", "/v1:x/m:run;a=b", "/v1:x;p/m:run%3Bq/more"] {
        let found = table.find(None, &Method::GET, path).unwrap();
        assert_eq!((&*found.api.name, found.route.price), ("models", Cents(25)), "{path}");
    }
    assert_eq!(label_of(&table, "GET", "/v1:x/caf%c3%a9"), "/caf%C3%A9");
    assert_eq!(label_of(&table, "GET", "/v1:x/v;1"), "/v;1");
    assert_eq!(label_of(&table, "GET", "/v1:x/health"), "/health");
    assert_eq!(label_of(&table, "GET", "/v1:x/health;x"), "/", "public is only what was said to be");
}

#[test]
fn a_stripped_path_begins_with_a_slash_again() {
    let table = RouteTable::new(&[stripping(api("s", "/we:ather")), api("k", "/keep"), stripping(api("r", "/"))]);
    for (path, forwarded) in [
        ("/we:ather", "/"),
        ("/we:ather/", "/"),
        ("/we:ather/x/y", "/x/y"),
        ("/we%3Aather/x", "/x"),
        ("/keep/x", "/keep/x"),
        ("/other", "/other"),
    ] {
        let found = table.find(None, &Method::GET, path).unwrap();
        assert_eq!(found.forward_path(path), forwarded);
        assert_eq!(found.api.stripped_prefix.is_some(), &*found.api.name == "s");
    }
}

#[test]
fn routes_are_numbered_densely_over_all_apis() {
    let table = RouteTable::new(&[with_routes(api("a", "/a"), &["GET,POST /r 1", "/ 3"]), api("b", "/b")]);
    let routes: Vec<_> = table.routes().iter().map(|route| (route.index, route.api, &*route.label)).collect();
    assert_eq!(routes, [(0, 0, "GET,POST /r"), (1, 0, "/"), (2, 0, "/"), (3, 1, "/")]);
    assert_eq!(
        table.find(None, &Method::GET, "/a").unwrap().route.index,
        1,
        "a route for everything beats the default"
    );
    assert_eq!(table.find(None, &Method::HEAD, "/a/r").unwrap().route.index, 0);
}

#[test]
fn a_name_that_no_header_can_hold_is_encoded() {
    let table = RouteTable::new(&[api("wétter\n", "/")]);
    assert_eq!(table.apis()[0].name_value, "w%C3%A9tter%0A");
}
