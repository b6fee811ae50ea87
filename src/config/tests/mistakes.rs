use super::super::{load_database, load_listeners};
use super::*;

/// The only mistake of a file, without the file's name.
fn only(text: &str) -> String {
    let found = mistakes(text, &[], &Overrides::default());
    assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    found[0].strip_prefix("keytoll.toml:").unwrap_or(&found[0]).to_owned()
}

fn assert_each(cases: &[(&str, &str)], file_of: impl Fn(&str) -> String) {
    for (text, expected) in cases {
        assert_eq!(only(&file_of(text)), *expected, "{text}");
    }
}

#[test]
fn each_mistake_in_a_section_is_told_with_its_place_its_key_and_what_to_write() {
    let cases = [
        ("[database]\ndurabilty = \"full\"", "2:1: database.durabilty: unknown key; did you mean \"durability\"?"),
        ("[databse]\npath = \"x\"", "1:2: databse: unknown section; did you mean \"database\"?"),
        ("[colours]\nred = 1", "1:2: colours: unknown section; take it out"),
        ("listen = \"127.0.0.1:1\"", "1:1: listen: unknown key; did you mean \"server.listen\"?"),
        ("[server]\nbatch = 3", "2:1: server.batch: unknown key; did you mean \"limits.batch\"?"),
        ("[server]\ncolour = 3", "2:1: server.colour: unknown key; take it out"),
        ("server = 3", "1:10: server: is an integer; write a section: the name in brackets, its keys below"),
        ("[limits.batch]", "1:1: limits.batch: is a section here; write it as a key with a value: name = …"),
        ("[limits]\nbatch = \"9\"", "2:9: limits.batch: is a string; write a whole number, without quotes or a unit"),
        (
            "[limits]\nkey_ttl_ms = 1.5",
            "2:14: limits.key_ttl_ms: is a float; write a whole number, without quotes or a unit",
        ),
        ("[limits]\nbatch = 0", "2:9: limits.batch: 0 is out of range; write a number from 1 to 10000"),
        ("[limits]\nbatch = -1", "2:9: limits.batch: -1 is out of range; write a number from 1 to 10000"),
        ("[limits]\nheaders = 99999", "2:11: limits.headers: 99999 is out of range; write a number from 1 to 10000"),
        ("[database]\ncreate = \"yes\"", "2:10: database.create: is a string; write true or false, without quotes"),
        ("[database]\npath = 5", "2:8: database.path: is an integer; write a text in quotes"),
        ("[database]\npath = \"\"", "2:8: database.path: is empty; write the path of a file"),
        (
            "[database]\ndurability = \"fast\"",
            "2:14: database.durability: \"fast\" is not known here; write one of \"full\", \"normal\"",
        ),
        (
            "[keys]\nstorage = \"md5\"",
            "2:11: keys.storage: \"md5\" is not known here; write one of \"sha256\", \"plain\"",
        ),
        (
            "[log]\nformat = \"xml\"",
            "2:10: log.format: \"xml\" is not known here; write one of \"auto\", \"text\", \"json\"",
        ),
        (
            "[log]\nfilter = \"a=b=c\"",
            "2:10: log.filter: is no log filter; write a level, \"info\", or \"warn,keytoll=debug\"",
        ),
        (
            "[keys]\nprefix = \"k-t\"",
            "2:10: keys.prefix: \"k-t\" is no prefix; write 1 to 16 letters and digits, such as \"kt\"",
        ),
        (
            "[server]\nlisten = \":8080\"",
            "2:10: server.listen: \":8080\" is no address to listen on; write IP:PORT, such as \"127.0.0.1:8080\" or \"0.0.0.0:8080\"",
        ),
        (
            "[admin]\nlisten = \"127.0.0.1:8080\"",
            "2:10: admin.listen: is the address of server.listen too; give each listener a port of its own",
        ),
        (
            "[server]\nlisten = \"0.0.0.0:8081\"",
            "2:10: server.listen: is the address of admin.listen too; give each listener a port of its own",
        ),
        (
            "[server]\ntrusted_proxies = [\"10.0.0.0/33\"]",
            "2:20: server.trusted_proxies: \"10.0.0.0/33\" is no address or network; write \"10.0.0.7\" or \"10.0.0.0/8\"",
        ),
        (
            "[server]\ntrusted_proxies = \"::1\"",
            "2:19: server.trusted_proxies: is a string; write a list of texts: [\"…\", \"…\"]",
        ),
        ("[server]\ntrusted_proxies = [1]", "2:20: server.trusted_proxies: is an integer; write a text in quotes"),
        ("[server]\nlisten = ", "2:10: is not TOML: string values must be quoted, expected literal string"),
        ("[server]\nworkers = 1\nworkers = 2", "3:1: is not TOML: duplicate key"),
    ];
    assert_each(&cases, |text| format!("{text}\n{API}"));
}

#[test]
fn each_mistake_in_the_sources_of_keys_is_told() {
    let cases = [
        ("[]", "2:11: keys.sources: is empty; write \"header:x-api-key\""),
        (
            "[\"cookie:k\"]",
            "2:12: keys.sources: \"cookie:k\" is no source of keys; write \"header:NAME\", \"authorization:bearer\" or \"query:NAME\"",
        ),
        (
            "[\"authorization:basic\"]",
            "2:12: keys.sources: \"authorization:basic\" is no source of keys; write \"header:NAME\", \"authorization:bearer\" or \"query:NAME\"",
        ),
        (
            "[\"header:Authorization\"]",
            "2:12: keys.sources: Authorization has a scheme before its key; write \"authorization:bearer\"",
        ),
        ("[\"header:\"]", "2:12: keys.sources: \"header:\" needs the name of a header; write \"header:x-api-key\""),
        (
            "[\"header:Host\"]",
            "2:12: keys.sources: the header host has another meaning on the way; write another, such as \"header:x-api-key\"",
        ),
        (
            "[\"header:te\"]",
            "2:12: keys.sources: the header te has another meaning on the way; write another, such as \"header:x-api-key\"",
        ),
        (
            "[\"query:a b\"]",
            "2:12: keys.sources: \"query:\" needs the name of a parameter, of letters, digits, \"-\", \".\", \"_\" and \"~\"; write \"query:api_key\"",
        ),
        ("[\"header:k\", \"header:K\"]", "2:24: keys.sources: \"header:K\" stands here twice; take one out"),
    ];
    assert_each(&cases, |sources| format!("[keys]\nsources = {sources}\n{API}"));
}

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
            "keytoll.toml: api: no API to serve; write an [[api]] section, or give --upstream URL and --price CENTS on the command line",
        ),
    ];
    let told_in_full = |text: &str| mistakes(text, &[], &Overrides::default());
    for (text, expected) in cases {
        let found = told_in_full(text);
        assert!(
            found.iter().any(|line| line.strip_prefix("keytoll.toml:").unwrap_or(line) == expected || line == expected),
            "{text}\n{found:#?}"
        );
    }
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
fn every_mistake_is_told_at_once_in_the_order_of_the_file() {
    let text = format!(
        "[limits]\nbatch = 0\nbach = 1\n[keys]\nsources = [\"x\", \"header:ok\", \"y\"]\n{API}host = \"a/b\"\n"
    );
    let flags = Overrides { listen: Some("nowhere".into()), ..Overrides::default() };
    let found = mistakes(&text, &[("KEYTOLL_DATABASE__CREATE", "perhaps")], &flags);
    let places: Vec<&str> = found.iter().map(|line| line.split(": ").next().unwrap()).collect();
    let file = ["2:9", "3:1", "5:12", "5:30", "12:8"].map(|at| format!("keytoll.toml:{at}"));
    assert_eq!(places[..5], file);
    assert_eq!(places[5..], ["KEYTOLL_DATABASE__CREATE", "--listen"]);
}

#[test]
fn a_missing_or_unreadable_file_that_was_named_is_one_mistake() {
    let flags = Overrides { config: Some("/nowhere/keytoll.toml".into()), ..Overrides::default() };
    let found = load(&flags, &Environment::of([("A", "b")])).unwrap_err().to_string();
    assert_eq!(found, "/nowhere/keytoll.toml: there is no such file; make it, or name another");
    let (directory, environment) = with_file("", &[]);
    std::fs::write(directory.path().join("keytoll.toml"), b"a = \"\xff\"").unwrap();
    let found = load(&Overrides::default(), &environment).unwrap_err().to_string();
    assert!(found.ends_with("keytoll.toml: is not UTF-8 text; write it in UTF-8"), "{found}");
}

#[test]
fn commands_on_the_database_alone_hear_only_of_mistakes_in_what_they_use() {
    let elsewhere = "[server]\nlisten = 5\n[admin]\ntoken_file = \"missing\"\n[[api]]\nnam = 1\n";
    let (_directory, environment) = with_file(elsewhere, &[("KEYTOLL_ADMIN_TOKEN", "short")]);
    let flags = Overrides { database: Some("given.db".into()), ..Overrides::default() };
    assert_eq!(load_database(&flags, &environment).unwrap().database.path, std::path::Path::new("given.db"));
    assert_eq!(load_listeners(&flags, &environment).unwrap_err().mistakes.len(), 1);

    let (_directory, environment) = with_file("[databse]\n[keys]\nprefix = \"\"\n[limits]\nbatch = 0", &[]);
    assert_eq!(load_database(&flags, &environment).unwrap_err().mistakes.len(), 3);
    let (_directory, environment) = with_file("[server]\nlisten = \"127.0.0.1:9\"\n[limits]\nbatch = 0", &[]);
    assert_eq!(load_listeners(&flags, &environment).unwrap().data, "127.0.0.1:9".parse().unwrap());
    assert!(load_database(&flags, &Environment::of([("A", "b")])).is_ok());
}
