//! The command line: exit statuses, what goes to which stream, what the database says afterwards.

mod database;
mod manage;
mod program;
mod refuse;
mod set_up;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

/// A directory of its own, in which the program runs.
struct Desk {
    directory: TempDir,
}

/// What a run of the program came to.
struct Run {
    status: i32,
    out: String,
    err: String,
}

impl Desk {
    fn new() -> Desk {
        Desk { directory: tempfile::tempdir().unwrap() }
    }

    /// With a database in which Ada is user 1.
    fn with_ada() -> Desk {
        let desk = Desk::new();
        desk.run(&["user", "add", "ada@example.com", "--name", "Ada", "--create"]).done();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// With the database of an application that has never seen Keytoll: two users, of whom one has a key.
    fn of_an_application() -> Desk {
        let desk = Desk::new();
        desk.application().execute_batch(include_str!("cli/application.sql")).unwrap();
        desk
    }

    /// The database as its application opens it.
    fn application(&self) -> Connection {
        Connection::open(self.path("auth.db")).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(arguments, &[])
    }

    /// Runs the program in the directory, with no environment but `variables`, and without a terminal.
    fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
        let mut command = program(self.directory.path());
        command.args(arguments).envs(variables.iter().copied());
        Run::of(&command.output().unwrap())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        self.run(&arguments).done().json()
    }
}

fn program(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keytoll"));
    command.current_dir(directory).env_clear().stdin(Stdio::null());
    command
}

impl Run {
    fn of(output: &Output) -> Run {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Run { status: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    fn done(self) -> Run {
        assert_eq!(self.status, 0, "{}{}", self.out, self.err);
        self
    }

    /// A refusal says why in lines of its own on standard error, and nothing on standard output.
    fn refused(self, status: i32, words: &str) -> Run {
        assert_eq!(self.status, status, "{}{}", self.out, self.err);
        assert_eq!(self.out, "");
        assert!(!self.err.is_empty() && self.err.lines().all(|line| line.starts_with("keytoll: ")), "{}", self.err);
        assert!(self.err.contains(words), "{words:?} is not in: {}", self.err);
        self
    }
}
