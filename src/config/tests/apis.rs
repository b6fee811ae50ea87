use super::super::{Duration, ExchangePolicy};
use super::*;

/// An API whose four keys are told, and then whatever `more` says; they stand in lines 2 to 5.
fn api(name: &str, path: &str, upstreams: &str, price: &str, more: &str) -> String {
    format!("[[api]]\nname = {name}\npath = {path}\nupstreams = {upstreams}\nprice_cents = {price}\n{more}")
}

#[test]
fn each_mistake_in_an_api_is_told() {
    let cases = [
        (
            "[[api]]\nname = \"a\"\npath = \"/\"\nupstreams = [\"http://u\"]",
            "1:1: api.price_cents: missing; write what a request costs in cents; 0 for a free API",
        ),
        (
            "[[api]]\npath = \"/\"\nupstreams = [\"http://u\"]\nprice_cents = 1",
            "1:1: api.name: missing; write name = \"…\", the api_name that its keys have",
        ),
        (
            "[[api]]\nname = \"a\"\nupstreams = [\"http://u\"]\nprice_cents = 1",
            "1:1: api.path: missing; write path = \"/…\", where the API begins; \"/\" for everything",
        ),
        (
            "[[api]]\nname = \"a\"\npath = \"/\"\nprice_cents = 1",
            "1:1: api.upstreams: missing; write where the API is served: \"http://127.0.0.1:3000\"",
        ),
        (
            "[api]\nname = \"a\"",
            "1:1: api: is a single section; write the name in double brackets, [[api]] or [[api.route]], its keys below",
        ),
        (
            "[server]\n",
            " api: no API to serve; write an [[api]] section, or give --upstream URL and --price CENTS on the command line",
        ),
    ];
    assert_each(&cases, str::to_owned);
    let one = "[\"http://u\"]";
    for (text, expected) in [
        (
            api("\"\"", "\"/\"", one, "1", ""),
            "2:8: api.name: is no name of an API; write 1 to 128 printable ASCII characters, without spaces at the ends",
        ),
        (
            api("\" a\"", "\"/\"", one, "1", ""),
            "2:8: api.name: is no name of an API; write 1 to 128 printable ASCII characters, without spaces at the ends",
        ),
        (
            api("\"café\"", "\"/\"", one, "1", ""),
            "2:8: api.name: is no name of an API; write 1 to 128 printable ASCII characters, without spaces at the ends",
        ),
        (
            api("\"a\"", "\"/a//b\"", one, "1", ""),
            "3:8: api.path: has \"//\"; requests with it are refused, so write single slashes",
        ),
        (
            api("\"a\"", "\"/.keytoll/x\"", one, "1", ""),
            "3:8: api.path: is under /.keytoll, which is reserved; choose another path",
        ),
        (api("\"a\"", "\"/\"", "[]", "1", ""), "4:13: api.upstreams: is empty; write \"http://HOST:PORT\""),
        (
            api("\"a\"", "\"/\"", one, "-1", ""),
            "5:15: api.price_cents: -1 is out of range; write a number from 0 to 100000000000",
        ),
        (
            api("\"a\"", "\"/\"", one, "0.5", ""),
            "5:15: api.price_cents: is a float; write a whole number of cents, without quotes",
        ),
        (
            api("\"a\"", "\"/\"", one, "1", "host = \"h:80\""),
            "6:8: api.host: \"h:80\" is no host name; write it without scheme, port, path or wildcard: \"api.example.com\"",
        ),
        (
            api("\"a\"", "\"/\"", one, "1", "charge_on = [\"2xx\", \"ok\"]"),
            "6:21: api.charge_on: \"ok\" is no outcome; write a class \"2xx\" to \"5xx\", a status \"404\", or either with \"!\" before it",
        ),
        (
            api("\"a\"", "\"/\"", one, "1", "charge_on = []"),
            "6:13: api.charge_on: is empty; list what is charged, or say price_cents = 0",
        ),
        (
            api("\"a\"", "\"/\"", one, "1", "encoded_slash = \"keep\""),
            "6:17: api.encoded_slash: \"keep\" is not known here; write one of \"refuse\", \"pass\"",
        ),
        (api("\"a\"", "\"/\"", one, "1", "price = 1"), "6:1: api.price: unknown key; did you mean \"price_cents\"?"),
        (
            api(
                "\"a\"",
                "\"/\"",
                one,
                "1",
                "[[api]]\nname = \"a\"\npath = \"/b\"\nupstreams = [\"http://u\"]\nprice_cents = 1",
            ),
            "7:8: api.name: the API at keytoll.toml:2:8 has this name; choose another",
        ),
        (
            api(
                "\"a\"",
                "\"/x\"",
                one,
                "1",
                "host = \"H\"\n[[api]]\nname = \"b\"\nhost = \"h\"\npath = \"/%78/\"\nupstreams = [\"http://u\"]\nprice_cents = 1",
            ),
            "10:8: api.path: the API at keytoll.toml:3:8 has this path on the same host; choose another path or host",
        ),
    ] {
        assert_eq!(only(&text), expected, "{text}");
    }
}

#[test]
fn each_mistake_in_an_upstream_is_told_without_showing_the_url() {
    for (url, expected) in [
        ("https://u", "TLS to an upstream is not supported yet; use http://"),
        ("u:3000", "is no URL of an upstream; write \"http://HOST:PORT\", such as \"http://127.0.0.1:3000\""),
        ("ftp://u", "is no URL of an upstream; write \"http://HOST:PORT\", such as \"http://127.0.0.1:3000\""),
        ("http://", "has no valid host; write \"http://HOST:PORT\", such as \"http://127.0.0.1:3000\""),
        ("http://a b", "has no valid host; write \"http://HOST:PORT\", such as \"http://127.0.0.1:3000\""),
        ("http://me:secret@u", "has a user name or password; take out what stands before \"@\""),
        ("http://u?x=1", "has a query; take out \"?\" and what follows"),
        ("http://u/#x", "has a fragment; take out \"#\" and what follows"),
        ("http://u:0", "has no valid port; write a number from 1 to 65535 after \":\", or neither for port 80"),
        ("http://u:99999", "has no valid port; write a number from 1 to 65535 after \":\", or neither for port 80"),
        (
            "http://u/a/../b",
            "the URL's path has a segment \".\" or \"..\"; requests with it are refused, so write the path without",
        ),
    ] {
        let text = api("\"a\"", "\"/\"", &format!("[\"{url}\"]"), "1", "");
        assert_eq!(only(&text), format!("4:14: api.upstreams: {expected}"), "{url}");
    }
}

#[test]
fn each_mistake_in_a_route_is_told() {
    let cases = [
        ("price_cents = 1", "7:1: api.route.path: missing; write path = \"/…\", relative to the API's path"),
        (
            "path = \"/a{x}\"",
            "8:8: api.route.path: has braces inside a segment; write a whole segment with a name of letters, digits and \"_\": \"/orders/{id}\"",
        ),
        (
            "path = \"/.keytoll/healthz\"",
            "8:8: api.route.path: is under /.keytoll, which is reserved; choose another path",
        ),
        (
            "path = \"/a\"\npublic = true\nprice_cents = 1",
            "9:10: api.route.public: a public route is free; take out price_cents, or take out public = true",
        ),
        (
            "path = \"/a\"\nmethods = [\"get\"]",
            "9:12: api.route.methods: \"get\": methods are case-sensitive; write \"GET\"",
        ),
        (
            "path = \"/a\"\nmethods = [\"G T\"]",
            "9:12: api.route.methods: \"G T\" is no method; write one such as \"GET\" or \"POST\"",
        ),
        ("path = \"/a\"\nmethods = []", "9:11: api.route.methods: is empty; leave the key out for every method"),
        (
            "path = \"/a\"\nmethods = [\"PUT\", \"PUT\"]",
            "9:19: api.route.methods: \"PUT\" stands here twice; take one out",
        ),
        ("path = \"/a\"\nprize_cents = 3", "9:1: api.route.prize_cents: unknown key; did you mean \"price_cents\"?"),
    ];
    assert_each(&cases, |route| api("\"a\"", "\"/\"", "[\"http://u\"]", "1", &format!("\n[[api.route]]\n{route}")));
}

#[test]
fn routes_that_tie_are_refused_and_others_are_not() {
    let both = |first: &str, second: &str| {
        let routes = format!("[[api.route]]\n{first}\n[[api.route]]\n{second}");
        mistakes(&api("\"a\"", "\"/\"", "[\"http://u\"]", "1", &routes), &[], &Overrides::default())
    };
    for (first, second) in [
        ("path = \"/a\"", "path = \"/a/\""),
        ("path = \"/{x}/b\"", "path = \"/{y}/b\""),
        ("path = \"/a\"\nmethods = [\"GET\"]", "path = \"/a\"\nmethods = [\"POST\", \"GET\"]"),
        ("path = \"/a\"\nmethods = [\"GET\"]", "path = \"/a\"\nmethods = [\"HEAD\"]"),
    ] {
        let found = both(first, second);
        assert_eq!(found.len(), 1, "{first} {second} {found:?}");
        assert!(found[0].contains("the route at keytoll.toml:7:8 matches the same requests; change"), "{found:?}");
    }
    for (first, second) in [
        ("path = \"/{a}/b\"", "path = \"/a/{b}\""),
        ("path = \"/a\"", "path = \"/a/b\""),
        ("path = \"/a\"", "path = \"/{x}\""),
        ("path = \"/a\"", "path = \"/a\"\nmethods = [\"GET\"]"),
        ("path = \"/a\"\nmethods = [\"GET\"]", "path = \"/a\"\nmethods = [\"POST\"]"),
        ("path = \"/a\"\nmethods = [\"GET\", \"HEAD\"]", "path = \"/b\""),
    ] {
        assert_eq!(both(first, second), Vec::<String>::new(), "{first} {second}");
    }
}

#[test]
fn an_upstream_that_is_the_gateway_itself_is_refused() {
    for (listen, url, is_own) in [
        ("127.0.0.1:9000", "http://127.0.0.1:9000", true),
        ("127.0.0.1:9000", "http://localhost:9000/x", true),
        ("0.0.0.0:9000", "http://127.0.0.1:9000", true),
        ("127.0.0.1:80", "http://127.0.0.1", true),
        ("[::1]:9000", "http://[::1]:9000", true),
        ("127.0.0.1:9000", "http://127.0.0.1:8081", true),
        ("127.0.0.1:9000", "http://127.0.0.1:9001", false),
        ("127.0.0.1:9000", "http://10.0.0.1:9000", false),
    ] {
        let text = api("\"a\"", "\"/\"", &format!("[\"{url}\"]"), "1", "");
        let found = mistakes(&text, &[("KEYTOLL_LISTEN", listen)], &Overrides::default());
        assert_eq!(
            found.iter().any(|line| line.contains("4:13: api.upstreams: is this gateway's own")),
            is_own,
            "{url}"
        );
        assert_eq!(found.len(), usize::from(is_own), "{found:?}");
    }
}

#[test]
fn a_route_beats_its_api_which_beats_the_limits() {
    let text = "[limits]\nupstream_head_timeout_ms = 1\nupstream_body_idle_ms = 2\nevent_stream_idle_ms = 3\n\
                total_timeout_ms = 4\nrequest_body_bytes = 5\n\
                [[api]]\nname = \"a\"\npath = \"/\"\nupstreams = [\"http://u\"]\nprice_cents = 1\n\
                upstream_body_idle_ms = 20\ntotal_timeout_ms = 40\ncharge_on_abort = false\n\
                [[api.route]]\npath = \"/r\"\nevent_stream_idle_ms = 300\ntotal_timeout_ms = 0\nrequest_body_bytes = 500\n\
                charge_idle_cut = false\n";
    let config = good(text);
    let api = ExchangePolicy {
        head_timeout: Duration::from_millis(1),
        body_idle: Duration::from_millis(20),
        event_stream_idle: Duration::from_millis(3),
        total_timeout: Some(Duration::from_millis(40)),
        request_body_bytes: 5,
        charge_on_abort: false,
        charge_idle_cut: true,
    };
    let route = ExchangePolicy {
        event_stream_idle: Duration::from_millis(300),
        total_timeout: None,
        request_body_bytes: 500,
        charge_idle_cut: false,
        ..api
    };
    assert_eq!((config.apis[0].policy, config.apis[0].routes[0].policy), (api, route));
}
