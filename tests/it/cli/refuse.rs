//! Wrong use.

use super::Desk;

#[test]
fn wrong_use_is_2_and_touches_nothing() {
    let desk = Desk::new();
    let wrong: [&[&str]; 13] = [
        &[],
        &["serv"],
        &["user"],
        &["user", "add", "ada@example.com"],
        &["user", "add", "ada", "--name", "Ada", "--create"],
        &["user", "add", "a@b", "--name", "", "--create"],
        &["user", "show", "ada"],
        &["key", "issue", "--user", "1"],
        &["key", "show", "one"],
        &["wallet", "credit", "--user", "1", "--cents", "-5"],
        &["wallet", "debit", "--user", "1", "--cents", "0"],
        &["doctor", "--mend"],
        &["health", "--database"],
    ];
    for arguments in wrong {
        let run = desk.run(arguments);
        assert_eq!((run.status, run.out.as_str()), (2, ""), "{arguments:?}: {}", run.err);
        assert!(!run.err.is_empty());
    }
    assert_eq!(std::fs::read_dir(desk.directory.path()).unwrap().count(), 0);
}

#[test]
fn a_secret_is_not_taken_from_an_argument() {
    let desk = Desk::with_ada();
    let attempts: [&[&str]; 5] = [
        &["serve", "--admin-token", "0123456789abcdef"],
        &["serve", "--token", "0123456789abcdef"],
        &["check", "--admin-token", "0123456789abcdef"],
        &["key", "issue", "--user", "1", "--api", "weather", "--key", "0123456789abcdef"],
        &["key", "issue", "--user", "1", "--api", "weather", "0123456789abcdef"],
    ];
    for arguments in attempts {
        assert_eq!(desk.run(arguments).status, 2, "{arguments:?}");
    }
}
