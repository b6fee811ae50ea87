use super::super::{load_database, load_listeners};
use super::*;

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
        (
            "[admin]\nhosts = [\"ops.example:8081\"]",
            "2:10: admin.hosts: \"ops.example:8081\" is no host name; write it without scheme, port, path or wildcard: \"api.example.com\"",
        ),
        ("[admin]\nhosts = [\"a.b\", \"A.B\"]", "2:17: admin.hosts: \"A.B\" stands here twice; take one out"),
        ("[admin]\nhosts = \"ops.example\"", "2:9: admin.hosts: is a string; write a list of texts: [\"…\", \"…\"]"),
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
    std::fs::write(directory.path().join("keytoll.toml"), vec![b'\n'; (1 << 20) + 1]).unwrap();
    let found = load(&Overrides::default(), &environment).unwrap_err().to_string();
    assert!(found.ends_with("keytoll.toml: is larger than 1048576 bytes; is it the right file?"), "{found}");
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
