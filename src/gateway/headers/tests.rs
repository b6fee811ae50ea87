mod ids;

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::*;
use crate::config::CredentialSource;
use crate::http::RequestId;
use crate::model::{Cents, ChargeId, KeyId, UserId};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    map
}

fn id() -> RequestId {
    RequestId::of(&headers(&[("x-request-id", "id-1")]))
}

fn credentials() -> CredentialHeaders {
    let header = |name| CredentialSource::Header(HeaderName::from_static(name));
    CredentialHeaders::of(&[header("x-api-key"), header("token_2"), CredentialSource::AuthorizationBearer])
}

fn via() -> HeaderValue {
    HeaderValue::from_static("1.1 keytoll-0123")
}

/// What goes upstream of a paid request with these lines, without what every request gets.
fn sent_by(lines: &[(&str, &str)], trusted: bool) -> HeaderMap {
    sent_as(lines, trusted, None)
}

/// The same, where the request repeats one that was charged.
fn sent_as(lines: &[(&str, &str)], trusted: bool, retry_of: Option<ChargeId>) -> HeaderMap {
    let mut map = headers(lines);
    let upgrade = upgrade_requested(&map, Version::HTTP_11);
    let identity = Identity { user_id: UserId(7), key_id: KeyId(8), charge_id: Some(ChargeId(9)), retry_of };
    let (id, api, peer) = (id(), HeaderValue::from_static("weather"), Peer::new(PEER, trusted));
    let (credentials, via, prefix) = (credentials(), via(), HeaderValue::from_static("/weather"));
    let about = ForUpstream {
        identity: Some(identity),
        stripped_prefix: Some(&prefix),
        upgrade,
        ..ForUpstream::public(&id, &api, &peer, &credentials, &via)
    };
    to_upstream(&mut map, about);
    map
}

fn sent(lines: &[(&str, &str)]) -> HeaderMap {
    sent_by(lines, false)
}

fn values<'m>(map: &'m HeaderMap, name: &str) -> Vec<&'m str> {
    map.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

const SET_ALWAYS: [&str; 11] = [
    "keytoll-api",
    "keytoll-charge-id",
    "keytoll-key-id",
    "keytoll-user-id",
    "traceparent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-request-id",
];

#[test]
fn the_upstream_is_told_who_pays_and_who_asks() {
    let map = sent(&[("host", "api.example:80"), ("accept", "x"), ("content-length", "3")]);
    for (name, value) in [
        ("keytoll-user-id", "7"),
        ("keytoll-key-id", "8"),
        ("keytoll-charge-id", "9"),
        ("keytoll-api", "weather"),
        ("x-request-id", "id-1"),
        ("x-forwarded-for", "10.0.0.9"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "api.example:80"),
        ("x-forwarded-prefix", "/weather"),
        ("host", "api.example:80"),
        ("accept", "x"),
        ("content-length", "3"),
    ] {
        assert_eq!(values(&map, name), [value], "{name}");
    }
    assert_eq!(map.len(), 3 + SET_ALWAYS.len());
}

#[test]
fn the_upstream_of_a_retry_learns_which_charge_was_refunded() {
    for name in ["Keytoll-Retry-Of", "keytoll_retry_of"] {
        let lines = [(name, "6"), ("host", "h")];
        let map = sent_as(&lines, true, Some(ChargeId(5)));
        assert_eq!((values(&map, "keytoll-retry-of"), values(&map, "keytoll-charge-id")), (vec!["5"], vec!["9"]));
        assert_eq!(map.len(), 2 + SET_ALWAYS.len());
    }
}

#[test]
fn a_public_request_has_no_identity() {
    let mut map = headers(&[("keytoll-user-id", "1"), ("keytoll-charge-id", "1")]);
    let (api, peer) = (HeaderValue::from_static("a"), Peer::new(PEER, false));
    to_upstream(&mut map, ForUpstream::public(&id(), &api, &peer, &credentials(), &via()));
    let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["keytoll-api", "traceparent", "via", "x-forwarded-for", "x-forwarded-proto", "x-request-id"]);
}

#[test]
fn nothing_that_shows_another_identity_method_url_or_connection_gets_through() {
    for name in [
        "Keytoll-User-Id",
        "keytoll_user_id",
        "KEYTOLL-whatever",
        "keytoll.user.id",
        "keytoll_User-id",
        "Keytoll-Retry-Of",
        "keytoll_retry_of",
        "X-HTTP-Method-Override",
        "x_http_method_override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-URL",
        "X_Original_URL",
        "X-Rewrite-URL",
        "X-Original-URI",
        "X-Original-Method",
        "X-Forwarded-Uri",
        "X-Forwarded-Method",
        "X-Forwarded-Path",
        "x_forwarded_for",
        "x_forwarded-proto",
        "x_request_id",
        "x_real_ip",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authorization",
        "Proxy",
        "TE",
        "Transfer-Encoding",
        "transfer_encoding",
        "content_length",
        "Expect",
        "Upgrade",
        "HTTP2-Settings",
        "Connection",
    ] {
        for trusted in [false, true] {
            let map = sent_by(&[(name, "evil"), ("host", "h")], trusted);
            assert!(map.values().all(|value| value != "evil"), "{name}");
            assert_eq!(map.len(), 1 + SET_ALWAYS.len(), "{name}");
        }
    }
}

#[test]
fn an_ordinary_field_is_left_as_it_is() {
    for name in [
        "accept",
        "x-custom",
        "x_custom",
        "keytollish",
        "x-forward",
        "trailer",
        "cookie",
        "authorization",
        "x-http-version",
    ] {
        assert_eq!(values(&sent(&[(name, "a"), (name, "b")]), name), ["a", "b"], "{name}");
    }
}

#[test]
fn connection_lists_what_it_may_and_nothing_else() {
    let map = sent(&[
        ("connection", "close, X-Hop , keytoll-user-id,host,content-length, authorization"),
        ("connection", "x-forwarded-for,x-request-id,via,not a name"),
        ("x-hop", "1"),
        ("host", "h"),
        ("content-length", "3"),
        ("authorization", "Basic x"),
    ]);
    for name in SET_ALWAYS.iter().chain(&["host", "content-length", "authorization"]) {
        assert!(map.contains_key(*name), "{name}");
    }
    assert_eq!(map.len(), 3 + SET_ALWAYS.len());
}

#[test]
fn a_length_beside_transfer_encoding_is_not_passed_on() {
    assert!(!sent(&[("transfer-encoding", "chunked"), ("content-length", "3")]).contains_key("content-length"));
}

#[test]
fn only_a_trusted_proxy_says_who_its_client_is() {
    let lines = [
        ("host", "inner"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "outer"),
        ("x-forwarded-prefix", "/outer"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "1.1.1.1"),
        ("forwarded", "for=1.1.1.1"),
    ];
    let believed = sent_by(&lines, true);
    let replaced = sent_by(&lines, false);
    for (name, kept, anew) in [
        ("x-forwarded-for", "1.1.1.1, 2.2.2.2, 10.0.0.9", Some("10.0.0.9")),
        ("x-forwarded-proto", "https", Some("http")),
        ("x-forwarded-host", "outer", Some("inner")),
        ("x-forwarded-prefix", "/outer/weather", Some("/weather")),
        ("x-forwarded-port", "443", None),
        ("x-real-ip", "1.1.1.1", None),
        ("forwarded", "for=1.1.1.1", None),
    ] {
        assert_eq!(values(&believed, name), [kept], "{name}");
        assert_eq!(values(&replaced, name), Vec::from_iter(anew), "{name}");
    }
}

#[test]
fn a_peer_is_named_by_its_own_family() {
    let mapped: IpAddr = "::ffff:10.0.0.9".parse().unwrap();
    let mut map = HeaderMap::new();
    let (api, peer) = (HeaderValue::from_static("a"), Peer::new(mapped, false));
    to_upstream(&mut map, ForUpstream::public(&id(), &api, &peer, &credentials(), &via()));
    assert_eq!(values(&map, "x-forwarded-for"), ["10.0.0.9"]);
}

#[test]
fn an_upgrade_is_passed_on_when_it_is_asked_for_and_is_no_way_around_the_price() {
    for (connection, upgrade, passes) in [
        ("Upgrade", "websocket", true),
        ("keep-alive, upgrade", "WebSocket", true),
        ("keep-alive", "websocket", false),
        ("upgrade, http2-settings", "h2c", false),
        ("upgrade", "websocket, H2C", false),
        ("upgrade", "HTTP/2.0", false),
        ("upgrade", "TLS/1.0", false),
    ] {
        let map = sent(&[("connection", connection), ("upgrade", upgrade)]);
        let expected = if passes { (vec!["upgrade"], vec![upgrade]) } else { (vec![], vec![]) };
        assert_eq!((values(&map, "connection"), values(&map, "upgrade")), expected, "{connection} {upgrade}");
    }
    assert!(upgrade_requested(&headers(&[("connection", "upgrade")]), Version::HTTP_11).is_none());
    let websocket = headers(&[("connection", "upgrade"), ("upgrade", "websocket")]);
    assert!(upgrade_requested(&websocket, Version::HTTP_10).is_none());
}

#[test]
fn an_upgrade_is_granted_when_it_names_what_was_requested() {
    for (requested, granted, is_granted) in [
        ("websocket", "websocket", true),
        ("websocket", "WebSocket", true),
        ("irc/6.9, WebSocket", "websocket", true),
        ("a, b", "b, a", true),
        ("websocket", "h2c", false),
        ("websocket", "websocket, h2c", false),
        ("websocket/13", "websocket", false),
        ("websocket", "web", false),
        ("websocket", "", false),
        ("websocket", " , ", false),
    ] {
        let reply = headers(&[("connection", "upgrade"), ("upgrade", granted)]);
        let found = upgrade_granted(&reply, &HeaderValue::from_static(requested));
        assert_eq!(found, is_granted.then(|| HeaderValue::from_static(granted)), "{requested:?} {granted:?}");
    }
    let requested = HeaderValue::from_static("websocket");
    assert!(upgrade_granted(&headers(&[("connection", "upgrade")]), &requested).is_none());
    let twice = headers(&[("upgrade", "websocket"), ("upgrade", "websocket")]);
    assert!(upgrade_granted(&twice, &requested).is_none());
}

#[test]
fn trailers_are_asked_for_when_the_client_did() {
    for (te, is_asked) in [
        ("trailers", true),
        ("gzip;q=0.5, Trailers", true),
        (",trailers ,", true),
        ("gzip", false),
        ("", false),
        ("trailers;q=1", false),
    ] {
        let map = sent(&[("te", te), ("connection", "te")]);
        let expected = if is_asked { (vec!["trailers"], vec!["te"]) } else { (vec![], vec![]) };
        assert_eq!((values(&map, "te"), values(&map, "connection")), expected, "{te:?}");
    }
    assert_eq!(values(&sent(&[("te", "gzip"), ("te", "trailers")]), "te"), ["trailers"]);
    let both = sent(&[("te", "trailers"), ("connection", "upgrade"), ("upgrade", "websocket")]);
    assert_eq!((values(&both, "te"), values(&both, "connection")), (vec!["trailers"], vec!["upgrade, te"]));
}

#[test]
fn a_length_goes_upstream_in_plain_digits() {
    for (length, expected) in [("5", "5"), ("0", "0"), ("005", "5"), ("000", "0")] {
        assert_eq!(values(&sent(&[("content-length", length)]), "content-length"), [expected]);
    }
}

#[test]
fn a_client_gets_its_receipt_and_nothing_of_the_upstreams_connection() {
    let mut map = headers(&[
        ("connection", "x-hop, content-type, upgrade"),
        ("x-hop", "1"),
        ("upgrade", "websocket"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("content-length", "10"),
        ("proxy-authenticate", "Basic"),
        ("keytoll-balance-cents", "999999"),
        ("Keytoll_Cost_Cents", "0"),
        ("keytoll-other", "x"),
        ("x-request-id", "theirs"),
        ("content-type", "text/plain"),
        ("set-cookie", "a"),
        ("set-cookie", "b"),
    ]);
    let receipt = Receipt { charge_id: ChargeId(9), cost: Cents(25), balance: Cents(-3) };
    to_client(&mut map, Some(&receipt), None);
    for (name, expected) in [
        ("keytoll-charge-id", vec!["9"]),
        ("keytoll-cost-cents", vec!["25"]),
        ("keytoll-balance-cents", vec!["-3"]),
        ("x-request-id", vec!["theirs"]),
        ("content-type", vec!["text/plain"]),
        ("set-cookie", vec!["a", "b"]),
    ] {
        assert_eq!(values(&map, name), expected, "{name}");
    }
    assert_eq!(map.len(), 7);
}

#[test]
fn a_switched_protocol_is_named_to_the_client() {
    let mut map = headers(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "x")]);
    let upgrade = map.get("upgrade").cloned();
    to_client(&mut map, None, upgrade);
    assert_eq!((values(&map, "connection"), values(&map, "upgrade")), (vec!["upgrade"], vec!["websocket"]));
    assert!(!map.contains_key("keytoll-charge-id"));
}

#[test]
fn trailers_carry_nothing_that_a_head_could_not() {
    let lines = [
        ("keytoll_user_id", "1"),
        ("content-length", "1"),
        ("x-forwarded-for", "1"),
        ("x-original-url", "/"),
        ("authorization", "x"),
        ("te", "x"),
        ("content-digest", "x"),
        ("server-timing", "x"),
        ("x-api-key", "x"),
    ];
    let (mut of_request, mut of_reply) = (headers(&lines), headers(&lines));
    clean_request_trailers(&mut of_request, &credentials());
    clean_reply_trailers(&mut of_reply);
    let names = |map: &HeaderMap| {
        let mut names: Vec<_> = map.keys().map(ToString::to_string).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(&of_request), ["content-digest", "server-timing"]);
    assert_eq!(names(&of_reply), ["content-digest", "server-timing", "x-api-key"]);
}

const RESPELLED: [&str; 7] = ["X_API_KEY", "x.api.key", "X-Api_Key", "x_api-key", "x~api^key", "Token-2", "token.2"];

#[test]
fn a_key_under_another_spelling_of_its_header_does_not_get_through() {
    for name in RESPELLED {
        for trusted in [false, true] {
            let map = sent_by(&[(name, "secret"), ("x-api-key", "app's own"), ("host", "h")], trusted);
            assert_eq!(values(&map, "x-api-key"), ["app's own"], "{name}: what is left under it is not a key");
            assert_eq!(map.len(), 2 + SET_ALWAYS.len(), "{name}");
        }
    }
    for name in ["x-api-keys", "xapikey", "x-api-ke", "y-api-key", "token2", "token_2"] {
        assert_eq!(values(&sent(&[(name, "other")]), name), ["other"], "{name}");
    }
}

#[test]
fn a_key_in_a_trailer_does_not_get_through_in_any_spelling() {
    for name in RESPELLED.into_iter().chain(["x-api-key", "token_2"]) {
        let mut map = headers(&[(name, "secret"), ("x-check", "1")]);
        clean_request_trailers(&mut map, &credentials());
        assert_eq!(map.keys().collect::<Vec<_>>(), ["x-check"], "{name}");
    }
}

#[test]
fn via_names_this_gateway_after_those_before_it() {
    for (lines, expected) in [
        (vec![], "1.1 keytoll-0123"),
        (vec![("via", "1.0 fred, 1.1 p.example (x, y)")], "1.0 fred, 1.1 p.example (x, y), 1.1 keytoll-0123"),
        (vec![("via", "1.0 fred"), ("via", ""), ("via", "1.1 b:80")], "1.0 fred, 1.1 b:80, 1.1 keytoll-0123"),
    ] {
        assert_eq!(values(&sent(&lines), "via"), [expected], "{lines:?}");
    }
}

#[test]
fn a_gateway_knows_its_own_name_in_via_and_no_other() {
    let (own, other) = (Via::new(), Via::new());
    assert_ne!(own.entry(Version::HTTP_11), other.entry(Version::HTTP_11));
    let entry = own.entry(Version::HTTP_11).to_str().unwrap();
    let name = entry.strip_prefix("1.1 ").unwrap();
    assert_eq!(own.entry(Version::HTTP_10), &format!("1.0 {name}"));
    assert_eq!(own.entry(Version::HTTP_2), &format!("2 {name}"));
    let upper = entry.to_uppercase();
    let between = format!("1.0 a, {entry} (comment) ,1.1 b");
    for line in [entry, &upper, &between, &format!("HTTP/1.1\t{name}")] {
        assert!(own.is_loop(&headers(&[("via", "1.1 x"), ("via", line)])), "{line}");
        assert!(!other.is_loop(&headers(&[("via", line)])), "{line}");
    }
    for line in ["", "1.1 keytoll", &name[..name.len() - 1], &format!("1.1 {name}0")] {
        assert!(!own.is_loop(&headers(&[("via", line)])), "{line}");
    }
}
