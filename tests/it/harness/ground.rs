//! A file that was there before: a directory with a database and one customer, which commands work on and gateways come
//! and go on; with the shim between them and the kernel where a test wants one.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{Api, Database, Gateway, GatewayBuilder, Shim, program};

/// A directory with a database, in which user 1 has a wallet and a key for the API `weather`.
pub(crate) struct Ground {
    directory: TempDir,
    pub(crate) key: String,
}

impl Ground {
    /// Without a database.
    pub(crate) fn empty() -> Ground {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        Ground { directory, key: String::new() }
    }

    pub(crate) fn with_cents(cents: i64) -> Ground {
        let mut ground = Ground::empty();
        let cents = cents.to_string();
        ground.run(&["user", "add", "ada@example.com", "--name", "Ada", "--create", "--opening-cents", &cents]);
        ground.key = ground.issue_key("weather");
        ground
    }

    /// A key of user 1 for an API.
    #[track_caller]
    pub(crate) fn issue_key(&self, api: &str) -> String {
        self.run(&["key", "issue", "--user", "1", "--api", api]).trim().to_owned()
    }

    /// Where the database and the files beside it are, and nothing else.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The database's path, or that of a file whose name begins with it.
    pub(crate) fn file(&self, suffix: &str) -> PathBuf {
        self.data().join(format!("auth.db{suffix}"))
    }

    pub(crate) fn database(&self) -> Database {
        Database::new(self.file(""))
    }

    pub(crate) fn shim(&self) -> Shim {
        Shim::build(self.directory.path())
    }

    /// Runs a command, which is done; what it printed.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        done(self.command().args(arguments))
    }

    /// The same under the shim, which keeps a log.
    #[track_caller]
    pub(crate) fn run_logged_by(&self, shim: &Shim, arguments: &[&str]) -> String {
        done(self.command().envs(shim.under_with_log(&self.file(""))).args(arguments))
    }

    /// A gateway on this file as it is by default, with the API `weather`, which is free at `/free`, and for operators.
    pub(crate) fn gateway(&self, upstream: SocketAddr) -> GatewayBuilder {
        let api = Api::new("weather", upstream).route("path = \"/free\"\nprice_cents = 0");
        Gateway::builder().api(api).at(&self.data()).durability("full").operators()
    }

    fn command(&self) -> Command {
        let mut command = program();
        command.current_dir(self.directory.path()).env("KEYTOLL_DATABASE", self.file(""));
        command
    }
}

#[track_caller]
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
