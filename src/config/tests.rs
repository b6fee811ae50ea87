//! The loader as a whole, on real files: what it refuses, which source wins, the sample file.

mod apis;
mod files;
mod mistakes;
mod sample;
mod sources;

use tempfile::TempDir;

use super::{Config, ConfigErrors, Environment, Overrides, load};

/// A complete API, for files that are about something else.
const API: &str = "\n[[api]]\nname = \"a\"\npath = \"/\"\nupstreams = [\"http://u\"]\nprice_cents = 2\n";

/// A directory with `keytoll.toml`, which is also the default file of the environment made of `variables`.
fn with_file(text: &str, variables: &[(&str, &str)]) -> (TempDir, Environment) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("keytoll.toml");
    std::fs::write(&file, text).unwrap();
    let mut environment = Environment::of(variables.iter().copied());
    environment.default_files = vec![file];
    (directory, environment)
}

fn load_text(text: &str, variables: &[(&str, &str)], flags: &Overrides) -> Result<Config, ConfigErrors> {
    let (_directory, environment) = with_file(text, variables);
    load(flags, &environment).map(|loaded| loaded.config)
}

/// The configuration of a file that has no mistakes.
fn good(text: &str) -> Config {
    load_text(text, &[], &Overrides::default()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The mistakes, a line each, with the file's bare name.
fn mistakes(text: &str, variables: &[(&str, &str)], flags: &Overrides) -> Vec<String> {
    let (directory, environment) = with_file(text, variables);
    let directory = format!("{}/", directory.path().display());
    match load(flags, &environment) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(|line| line.replace(&directory, "")).collect(),
    }
}

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
