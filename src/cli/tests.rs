//! Parsing, without running anything.

use clap::{CommandFactory, Parser};

use super::args::UserRef;
use super::output::Table;
use super::{Cli, Command};
use crate::model::UserId;

fn parsed(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("keytoll").chain(line.split_whitespace()))
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_takes_config_and_database_before_and_after_its_name() {
    let commands = [
        "serve",
        "init",
        "demo",
        "check",
        "health",
        "user list",
        "key list",
        "wallet show --user 7",
        "wallet entries --user a@b",
        "doctor",
        "uninstall",
    ];
    for command in commands {
        for line in [format!("{command} --config c --database d"), format!("--config c --database d {command}")] {
            let cli = parsed(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(cli.common.config.as_deref(), Some("c".as_ref()), "{line}");
            assert_eq!(cli.common.database.as_deref(), Some("d".as_ref()), "{line}");
        }
    }
}

#[test]
fn every_reading_command_answers_in_json() {
    let commands = [
        "check",
        "health",
        "user list",
        "user show 7",
        "key list",
        "key show 7",
        "wallet show --user 7",
        "wallet entries --user 7",
        "doctor",
    ];
    for command in commands {
        parsed(&format!("{command} --json")).unwrap_or_else(|error| panic!("{command}: {error}"));
    }
}

#[test]
fn the_flags_of_serve_reach_the_configuration_as_they_are() {
    let line = "serve --listen l --upstream u --api a --price -1 --create --admin-listen m --database d --config c";
    let cli = parsed(line).unwrap();
    let Command::Serve(args) = cli.command else { panic!("{cli:?}") };
    let overrides = args.flags.overrides(cli.common);
    let text = |value: Option<String>| value.unwrap_or_default();
    assert_eq!(
        [overrides.listen, overrides.upstream, overrides.api, overrides.price, overrides.admin_listen].map(text),
        ["l", "u", "a", "-1", "m"]
    );
    assert_eq!(overrides.create, Some(true));
    assert!(overrides.database.is_some() && overrides.config.is_some());

    let cli = parsed("serve").unwrap();
    let Command::Serve(args) = cli.command else { panic!("{cli:?}") };
    assert_eq!(args.flags.overrides(cli.common).create, None, "a flag that is not given says nothing");
}

#[test]
fn no_command_has_an_argument_for_a_secret() {
    fn walk(command: &clap::Command) {
        for argument in command.get_arguments() {
            // A client makes an idempotency key up; it opens nothing.
            let id = argument.get_id().as_str().replace("idempotency_key", "");
            assert!(!["token", "secret", "password", "key"].iter().any(|word| id.contains(word)), "{id}");
        }
        command.get_subcommands().for_each(walk);
    }
    walk(&Cli::command());
}

#[test]
fn money_is_moved_in_positive_whole_cents() {
    assert!(parsed("wallet credit --user 7 --cents 1").is_ok());
    assert!(parsed("wallet debit --user 7 --cents 1000000000000").is_ok());
    for cents in ["0", "-1", "1.5", "x", "", "1000000000001", "9223372036854775808"] {
        assert!(parsed(&format!("wallet credit --user 7 --cents {cents}")).is_err(), "{cents}");
        assert!(parsed(&format!("wallet debit --user 7 --cents {cents}")).is_err(), "{cents}");
    }
    assert!(parsed("user add a@b --name n --opening-cents 0").is_ok());
    assert!(parsed("user add a@b --name n --opening-cents 1000000000000").is_ok());
    assert!(parsed("user add a@b --name n --opening-cents -1").is_err());
    assert!(parsed("user add a@b --name n --opening-cents 1000000000001").is_err());
}

#[test]
fn a_user_is_named_by_id_or_by_address() {
    assert_eq!("7".parse(), Ok(UserRef::Id(UserId(7))));
    assert_eq!("7@b".parse(), Ok(UserRef::Email("7@b".to_owned())));
    assert!("ada".parse::<UserRef>().is_err());
    assert!("".parse::<UserRef>().is_err());
}

#[test]
fn what_goes_into_the_file_is_checked_first() {
    let parse = |arguments: &[&str]| Cli::try_parse_from(std::iter::once(&"keytoll").chain(arguments));
    let long = "a".repeat(501);
    for (good, bad, arguments) in [
        ("a@b", "a@b@c", &["user", "add", "--name", "N"][..]),
        ("Ada Lovelace", " ", &["user", "add", "a@b", "--name"]),
        ("weather v2", " weather", &["key", "issue", "--user", "7", "--api"]),
        (&long[1..], &long, &["wallet", "credit", "--user", "7", "--cents", "1", "--note"]),
        (&long[..128], &long[..129], &["wallet", "debit", "--user", "7", "--cents", "1", "--actor"]),
    ] {
        let with = |value| parse(&[arguments, &[value]].concat());
        assert!(with(good).is_ok(), "{arguments:?} {good:?}");
        assert!(with(bad).is_err(), "{arguments:?} {bad:?}");
    }
}

#[test]
fn a_table_is_aligned_and_moves_no_cursor() {
    let mut table = Table::new(&["id", "name", "note"], &[0]);
    table.row(["7".to_owned(), "Zoë".to_owned(), String::new()]);
    table.row(["123".to_owned(), "A\u{1b}[2J".to_owned(), "x".to_owned()]);
    assert_eq!(table.to_string(), " id  name   note\n  7  Zoë\n123  A\u{fffd}[2J  x");
}
