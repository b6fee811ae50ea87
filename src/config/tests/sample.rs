use http::Method;

use super::super::api::API_KEYS;
use super::super::keys::KEYS;
use super::super::route::ROUTE_KEYS;
use super::super::{EncodedSlash, RepeatedSlash};
use super::*;
use crate::model::Cents;

const SAMPLE: &str = include_str!("../../../config/keytoll.toml");

/// Keys that stand in the sample as comments, because they have no default that could be written down.
const COMMENTED: [&str; 2] = ["admin.token_file", "api.host"];

#[test]
fn the_sample_file_says_the_defaults() {
    let (sample, bare) = (good(SAMPLE), good(API));
    let parts = |config: &Config| {
        let keys = (&config.keys.sources, config.keys.storage, &config.keys.prefix);
        format!(
            "{:#?} {:#?} {:#?} {keys:#?} {:#?} {:#?}",
            config.server, config.admin, config.database, config.limits, config.log
        )
    };
    assert_eq!(parts(&sample), parts(&bare));
    let (said, default) = (&sample.apis[0], &bare.apis[0]);
    assert_eq!((said.strip_path, said.preserve_host), (default.strip_path, default.preserve_host));
    assert_eq!((said.encoded_slash, &said.charge_on), (EncodedSlash::Refuse, &default.charge_on));
    assert_eq!((said.repeated_slash, default.repeated_slash), (RepeatedSlash::Refuse, RepeatedSlash::Refuse));
    assert!(!default.strip_path && default.preserve_host && default.encoded_slash == EncodedSlash::Refuse);
    assert_eq!((&said.routes[0].methods[..], said.routes[0].price), (&[Method::POST][..], Cents(25)));
}

#[test]
fn the_sample_file_has_every_key() {
    let document = toml_edit::Document::parse(SAMPLE).unwrap();
    let names = KEYS.iter().map(|key| key.name).chain(API_KEYS.iter().map(|key| key.name));
    for name in names.chain(ROUTE_KEYS.iter().map(|key| key.name)) {
        let mut item = Some(document.as_item());
        for part in name.split('.') {
            item = item.and_then(|item| match item.as_array_of_tables() {
                Some(tables) => tables.get(0)?.get(part),
                None => item.get(part),
            });
        }
        let last = name.rsplit('.').next().unwrap();
        let in_comment = SAMPLE.lines().any(|line| line.starts_with(&format!("# {last} = ")));
        assert_eq!((item.is_some(), in_comment), (!COMMENTED.contains(&name), COMMENTED.contains(&name)), "{name}");
    }
}

#[test]
fn the_examples_of_the_page_on_paths_are_configurations() {
    let page = include_str!("../../../docs/paths.md");
    let examples: Vec<_> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 2);
    let apis: Vec<_> = examples.into_iter().map(|example| good(example).apis.remove(0)).collect();
    assert_eq!((apis[0].encoded_slash, apis[0].repeated_slash), (EncodedSlash::Pass, RepeatedSlash::Pass));
    assert!(apis[1].price > apis[1].routes[0].price);
}

#[test]
fn a_route_takes_the_apis_price_unless_it_is_public_or_says_its_own() {
    let routes = "[[api.route]]\npath = \"/a\"\n[[api.route]]\npath = \"/b/\"\npublic = true\n[[api.route]]\npath = \"/c\"\nprice_cents = 9";
    let config = good(&format!("{API}{routes}"));
    let found: Vec<_> = config.apis[0].routes.iter().map(|route| (&*route.path, route.price, route.public)).collect();
    assert_eq!(found, [("/a", Cents(2), false), ("/b", Cents(0), true), ("/c", Cents(9), false)]);
}

#[test]
fn sections_may_be_written_inline() {
    let text = "server = { listen = \"127.0.0.1:5\" }\nlimits.batch = 7\napi = [{ name = \"a\", path = \"/\", upstreams = [\"http://[::1]:80\"], price_cents = 1, route = [{ path = \"/x\" }] }]";
    let config = good(text);
    assert_eq!((config.server.listen.port(), config.limits.batch, config.apis[0].routes.len()), (5, 7, 1));
}

#[test]
fn an_explanation_says_what_counts() {
    let public = "[[api.route]]\npath = \"/health\"\npublic = true\n";
    assert_eq!(
        good(&format!("{SAMPLE}{public}")).explain(),
        "\
clients   127.0.0.1:8080, 1 worker
admin     127.0.0.1:8081, without a token: /v1/* is closed
database  auth.db, refused when missing; captures survive a power cut (durability full); charges kept for 90 days
keys      looked for in header x-api-key, then Authorization: Bearer; stored as SHA-256
api       \"weather\": /weather -> http://127.0.0.1:3000
          goes upstream with the path kept and the client's Host; %2F is refused, // is refused
          a request is $0.02
          charged on 101, 200-407, 409-428, 430-499
  route   POST /weather/reports/{year}: $0.25
  route   any method /weather/health: public: no key, free
warning   There is no admin token: /v1/* of the admin listener answers 403 until KEYTOLL_ADMIN_TOKEN or admin.token_file is set.
"
    );
}

#[test]
fn an_explanation_says_what_an_api_and_a_route_set_for_themselves() {
    let text = "[limits]\ntotal_timeout_ms = 5\n[[api]]\nname = \"a\"\npath = \"/\"\nupstreams = [\"http://u\"]\nprice_cents = 1\n\
                total_timeout_ms = 90000\nupstream_body_idle_ms = 60000\n\
                [[api.route]]\npath = \"/photos\"\nrequest_body_bytes = 1000\ncharge_on_abort = false\ntotal_timeout_ms = 0\n\
                [[api.route]]\npath = \"/other\"\ntotal_timeout_ms = 90000\n";
    let explained = good(text).explain();
    for line in [
        "          total_timeout_ms = 90000\n",
        "  route   any method /photos: $0.01; total_timeout_ms = 0, request_body_bytes = 1000, charge_on_abort = false\n",
        "  route   any method /other: $0.01\n",
    ] {
        assert!(explained.contains(line), "{explained}");
    }
}
