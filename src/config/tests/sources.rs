use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use super::super::{CredentialSource, Durability, KeyStorage, LogFormat};
use super::*;
use crate::failpoint;
use crate::model::Cents;

const TOKEN: &str = "a-token-of-some-length";

fn flags() -> Overrides {
    Overrides::default()
}

/// Flags that describe one API.
fn one_api() -> Overrides {
    Overrides { upstream: Some("http://127.0.0.1:3000/base/".into()), price: Some("0".into()), ..Overrides::default() }
}

#[test]
fn a_fail_point_that_there_is_not_stops_the_build_that_has_them() {
    let read = |text: &str| {
        let environment = Environment::of([("KEYTOLL_FAILPOINT", text)]);
        std::panic::catch_unwind(|| environment.fail_point())
    };
    for text in ["batch-begum:1", "batch-begun", "batch-begun:one", ""] {
        assert_eq!(read(text).is_err(), failpoint::COMPILED, "{text}");
    }
    assert_eq!(read("batch-begun:1").unwrap().is_some(), failpoint::COMPILED);
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let file = format!("[server]\nlisten = \"127.0.0.1:1\"\n{API}");
    let port = |text: &str, variables: &[(&str, &str)], flags: &Overrides| {
        load_text(text, variables, flags).unwrap().server.listen.port()
    };
    assert_eq!(port(API, &[], &flags()), 8080);
    assert_eq!(port(&file, &[], &flags()), 1);
    assert_eq!(port(&file, &[("KEYTOLL_SERVER__LISTEN", "127.0.0.1:2")], &flags()), 2);
    let both = [("KEYTOLL_SERVER__LISTEN", "127.0.0.1:2"), ("KEYTOLL_LISTEN", "127.0.0.1:3")];
    assert_eq!(port(&file, &both, &flags()), 3);
    let listen = Overrides { listen: Some("127.0.0.1:4".into()), ..flags() };
    assert_eq!(port(&file, &both, &listen), 4);
    let said = load_text(&file, &both, &flags()).unwrap().warnings;
    assert!(said.iter().any(|line| line.starts_with("KEYTOLL_SERVER__LISTEN is not used: KEYTOLL_LISTEN")), "{said:?}");
}

#[test]
fn the_file_is_the_one_that_is_named_before_the_default_ones() {
    let directory = TempDir::new().unwrap();
    let file = |name: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("[keys]\nprefix = \"{name}\"\n{API}")).unwrap();
        path
    };
    let (a, b, c) = (file("a"), file("b"), file("c"));
    let mut environment = Environment::of([("KEYTOLL_CONFIG", b.clone())]);
    environment.default_files = vec!["/nowhere/keytoll.toml".into(), c.clone()];
    let named = Overrides { config: Some(a.clone()), ..flags() };
    assert_eq!(load(&named, &environment).unwrap().file, Some(a));
    assert_eq!(load(&flags(), &environment).unwrap().file, Some(b));
    let unnamed = Environment::of([("A", "b")]).with_files(environment.default_files);
    assert_eq!(load(&flags(), &unnamed).unwrap().file, Some(c));
}

#[test]
fn flags_alone_describe_one_api() {
    let config = load(&one_api(), &Environment::of([("A", "b")])).unwrap().config;
    let [api] = &config.apis[..] else { panic!("{config:?}") };
    assert_eq!((&*api.name, &*api.path, api.price), ("default", "/", Cents(0)));
    assert_eq!((api.upstreams[0].authority.as_str(), &*api.upstreams[0].base_path), ("127.0.0.1:3000", "/base"));
}

#[test]
fn the_environment_alone_describes_one_api() {
    let variables = [
        ("KEYTOLL_UPSTREAM", "http://u:3000"),
        ("KEYTOLL_API", "weather"),
        ("KEYTOLL_PRICE", "3"),
        ("KEYTOLL_DATABASE", "x.db"),
        ("KEYTOLL_CREATE", "true"),
        ("KEYTOLL_ADMIN_LISTEN", "127.0.0.1:0"),
    ];
    let config = load(&flags(), &Environment::of(variables)).unwrap().config;
    assert_eq!((&*config.apis[0].name, config.apis[0].price), ("weather", Cents(3)));
    assert_eq!((config.database.path.as_path(), config.database.create), (Path::new("x.db"), true));
    assert_eq!(config.admin.listen.port(), 0);
}

#[test]
fn an_api_from_flags_needs_a_price_and_an_upstream_and_no_other_apis() {
    let none = Environment::of([("A", "b")]);
    let unpriced = Overrides { price: None, ..one_api() };
    let said = load(&unpriced, &none).unwrap_err().to_string();
    assert_eq!(said, "--price: missing; write what a request costs in cents; 0 for a free API");
    let nowhere = Overrides { upstream: None, ..one_api() };
    let said = load(&nowhere, &none).unwrap_err().to_string();
    assert_eq!(said, "--upstream: missing; write where the API is served: \"http://127.0.0.1:3000\"");
    let said = mistakes(API, &[], &one_api());
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("--upstream: the file has [[api]] sections too;")), "{said:?}");
    let bad = Overrides { price: Some("two".into()), ..one_api() };
    assert_eq!(
        load(&bad, &none).unwrap_err().to_string(),
        "--price: is a text; write a whole number of cents, without quotes"
    );
}

#[test]
fn every_scalar_of_the_file_is_a_variable_too() {
    let variables = [
        ("KEYTOLL_DATABASE__DURABILITY", "normal"),
        ("KEYTOLL_LIMITS__BATCH", "128"),
        ("KEYTOLL_LIMITS__KEY_TTL_MS", "1500"),
        ("KEYTOLL_KEYS__SOURCES", "query:key, authorization:bearer"),
        ("KEYTOLL_KEYS__STORAGE", "plain"),
        ("KEYTOLL_LOG__FORMAT", "json"),
        ("KEYTOLL_SERVER__TRUSTED_PROXIES", "10.0.0.1/8,::1"),
    ];
    let config = load_text(API, &variables, &flags()).unwrap();
    assert_eq!(config.database.durability, Durability::Normal);
    assert_eq!((config.limits.batch, config.limits.key_ttl), (128, Duration::from_millis(1500)));
    assert_eq!(config.keys.sources, [CredentialSource::Query("key".into()), CredentialSource::AuthorizationBearer]);
    assert!(config.keys.storage == KeyStorage::Plain && config.keys.storage_is_explicit);
    assert_eq!(config.log.format, LogFormat::Json);
    let networks: Vec<String> = config.server.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "::1/128"]);
    assert!(!good(API).keys.storage_is_explicit);
}

#[test]
fn rust_log_beats_the_file_unless_it_is_empty() {
    let file = format!("[log]\nfilter = \"warn\"\n{API}");
    let filter = |variables: &[(&str, &str)]| load_text(&file, variables, &flags()).unwrap().log.filter;
    assert_eq!(filter(&[]), "warn");
    assert_eq!(filter(&[("RUST_LOG", "")]), "warn");
    assert_eq!(filter(&[("RUST_LOG", "debug"), ("KEYTOLL_LOG__FILTER", "error")]), "debug");
    assert_eq!(good(API).log.filter, "info");
}

#[test]
fn a_variable_that_is_not_ours_is_only_a_warning_that_does_not_show_its_value() {
    let variables = [
        ("KEYTOLL_PORT", "tcp://10.0.0.1:80"),
        ("KEYTOLL_SERVICE_HOST", "10.0.0.1"),
        ("KEYTOLL_ADMIN_TOKN", "a-very-secret-token"),
        ("KEYTOLL_ADMIN_TOKEN", TOKEN),
        ("KEYTOLLISH", "x"),
    ];
    let warnings = load_text(API, &variables, &flags()).unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "KEYTOLL_ADMIN_TOKN is no setting and is not used; did you mean KEYTOLL_ADMIN_TOKEN?",
            "KEYTOLL_PORT, KEYTOLL_SERVICE_HOST are no settings of Keytoll and are not used.",
        ]
    );
}

#[test]
fn a_value_that_is_not_utf8_is_a_mistake_only_when_it_is_ours() {
    let broken = || OsString::from_vec(b"\xff".to_vec());
    let (_directory, file) = with_file(API, &[]);
    let load_with = |name: &str| {
        let environment = Environment::of([(name, broken())]).with_files(file.default_files.clone());
        load(&flags(), &environment)
    };
    assert!(load_with("LANG").is_ok() && load_with("KEYTOLL_PORT").is_ok());
    for ours in ["KEYTOLL_LISTEN", "KEYTOLL_LIMITS__BATCH", "KEYTOLL_KEYS__SOURCES", "KEYTOLL_ADMIN_TOKEN"] {
        let said = load_with(ours).unwrap_err().to_string();
        assert_eq!(said, format!("{ours}: is not UTF-8 text; write it in UTF-8"));
    }
}

#[test]
fn the_admin_token_comes_from_the_environment_or_from_a_file_beside_the_configuration() {
    let (directory, environment) = with_file(&format!("[admin]\ntoken_file = \"token\"\n{API}"), &[]);
    let token = |environment: &Environment| load(&flags(), environment).unwrap().config.admin.token.unwrap();
    std::fs::write(directory.path().join("token"), format!("{TOKEN}\r\n")).unwrap();
    assert_eq!(token(&environment).expose(), TOKEN);
    let token_variable = [("KEYTOLL_ADMIN_TOKEN", "another-token-of-length")];
    let beaten = Environment::of(token_variable).with_files(environment.default_files);
    assert_eq!(token(&beaten).expose(), "another-token-of-length");
}

#[test]
fn a_bad_admin_token_is_refused_and_never_shown() {
    for (token, fault) in
        [("hunter2", "the admin token is shorter than"), ("hunter2 hunter2 hunter2", "the admin token has spaces")]
    {
        let (directory, environment) = with_file(&format!("[admin]\ntoken_file = \"t\"\n{API}"), &[]);
        std::fs::write(directory.path().join("t"), token).unwrap();
        let in_file = load(&flags(), &environment).unwrap_err();
        let in_variable = load_text(API, &[("KEYTOLL_ADMIN_TOKEN", token)], &flags()).unwrap_err();
        assert!(in_file.to_string().contains(&format!("keytoll.toml:2:14: admin.token_file: {fault}")), "{in_file}");
        assert!(in_variable.to_string().starts_with(&format!("KEYTOLL_ADMIN_TOKEN: {fault}")), "{in_variable}");
        assert!(!format!("{in_file} {in_file:?} {in_variable} {in_variable:?}").contains("hunter2"));
    }
    let said = mistakes(&format!("[admin]\ntoken_file = \"gone\"\ntoken = \"hunter2\"\n{API}"), &[], &flags());
    assert_eq!(
        said,
        [
            "keytoll.toml:2:14: admin.token_file: there is no such file; make it, or name another",
            "keytoll.toml:3:1: admin.token: unknown key; did you mean \"token_file\"?",
        ]
    );
}

#[test]
fn secrets_say_nothing_in_debug() {
    let (_directory, environment) = with_file(API, &[("KEYTOLL_ADMIN_TOKEN", TOKEN)]);
    let loaded = load(&flags(), &environment).unwrap();
    let shown = format!("{environment:?} {loaded:?} {}", loaded.config.explain());
    assert!(shown.contains("KEYTOLL_ADMIN_TOKEN") && !shown.contains(TOKEN), "{shown}");
}

#[test]
fn an_admin_listener_that_others_reach_is_warned_about() {
    let said = |variables: &[(&str, &str)]| load_text(API, variables, &flags()).unwrap().warnings.join("\n");
    let open = ("KEYTOLL_ADMIN_LISTEN", "0.0.0.0:8081");
    let token = ("KEYTOLL_ADMIN_TOKEN", TOKEN);
    assert_eq!(said(&[token]), "");
    assert!(said(&[]).starts_with("There is no admin token: /v1/* of the admin listener answers 403 until"));
    assert!(said(&[open, token]).contains("is not on loopback: whoever"));
    assert!(said(&[open]).contains("is not on loopback and there is no admin token"));
}

#[test]
fn listeners_may_share_an_address_when_the_system_chooses_the_ports() {
    let both = [("KEYTOLL_LISTEN", "127.0.0.1:0"), ("KEYTOLL_ADMIN_LISTEN", "127.0.0.1:0")];
    assert!(load_text(API, &both, &flags()).is_ok());
}

#[test]
fn a_fail_point_that_does_not_exist_is_no_start_without_one() {
    let loaded =
        std::panic::catch_unwind(|| load_text(API, &[("KEYTOLL_FAILPOINT", "unheard-of:1")], &flags()).is_ok());
    // Without fail points it is a variable that nobody knows.
    assert_eq!(loaded.ok(), (!crate::failpoint::COMPILED).then_some(true));
}

#[test]
fn names_of_the_admin_listener_are_a_list_without_regard_to_case() {
    let variables = [("KEYTOLL_ADMIN__HOSTS", "Ops.Example, 10.0.0.7,[::1]")];
    let config = load_text(API, &variables, &Overrides::default()).unwrap();
    assert_eq!(config.admin.hosts, ["ops.example", "10.0.0.7", "[::1]"].map(Box::from));
    assert!(config.explain().contains("admin     127.0.0.1:8081, ops.example, 10.0.0.7, [::1], without a token"));
    assert!(good(API).admin.hosts.is_empty());
}
