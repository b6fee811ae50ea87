//! The program itself, `keytoll serve` in a process of its own, on a file with one customer; with the shim between it
//! and the kernel where a test wants one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{Api, Database, PATIENCE, Request, Shim};

const TOKEN: &str = "the-token-of-the-tests";

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
        ground.run(&["key", "issue", "--user", "1", "--api", "weather"]).trim().clone_into(&mut ground.key);
        ground
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

    fn command(&self) -> Command {
        command(self.directory.path(), &self.file(""))
    }

    /// Runs a command, which is done; what it printed.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        done(self.command().args(arguments))
    }

    /// The same under the shim, which keeps a log.
    #[track_caller]
    pub(crate) fn run_logged_by(&self, shim: &Shim, arguments: &[&str]) -> String {
        let mut command = self.command();
        shim.put_under_with_log(&mut command, &self.file(""));
        done(command.args(arguments))
    }

    /// `keytoll doctor` finds nothing wrong.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        let output = self.command().arg("doctor").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    pub(crate) fn program(&self, upstream: SocketAddr) -> ProgramBuilder {
        let mut command = self.command();
        command.arg("serve").env("KEYTOLL_ADMIN_TOKEN", TOKEN).env("RUST_LOG", "info,keytoll::access=off");
        let api = Api::new("weather", upstream).route("path = \"/free\"\nprice_cents = 0");
        let config = self.directory.path().join("keytoll.toml");
        ProgramBuilder { command, config, database: self.file(""), lines: [String::new(), String::new()], api }
    }
}

#[track_caller]
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn command(directory: &Path, database: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keytoll"));
    command.env_clear().current_dir(directory).env("KEYTOLL_DATABASE", database).stdin(Stdio::null());
    command
}

/// The program in the making.
pub(crate) struct ProgramBuilder {
    command: Command,
    config: PathBuf,
    database: PathBuf,
    /// Of `[database]` and `[limits]`.
    lines: [String; 2],
    api: Api,
}

impl ProgramBuilder {
    pub(crate) fn under(mut self, shim: &Shim) -> ProgramBuilder {
        shim.put_under(&mut self.command, &self.database);
        self
    }

    /// Under the shim, which keeps a log.
    pub(crate) fn logged_by(mut self, shim: &Shim) -> ProgramBuilder {
        shim.put_under_with_log(&mut self.command, &self.database);
        self
    }

    pub(crate) fn durability(mut self, durability: &str) -> ProgramBuilder {
        self.lines[0] += &format!("durability = \"{durability}\"\n");
        self
    }

    /// A number of `[limits]`.
    pub(crate) fn limit(mut self, name: &str, value: u64) -> ProgramBuilder {
        self.lines[1] += &format!("{name} = {value}\n");
        self
    }

    fn configured(self) -> Command {
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n[database]\n{}[limits]\n{}{}",
            self.lines[0],
            self.lines[1],
            self.api.toml()
        );
        fs::write(&self.config, text).unwrap();
        let mut command = self.command;
        command.arg("--config").arg(self.config).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end, which comes by itself: it refuses to start.
    pub(crate) fn refused(self) -> Output {
        self.configured().output().unwrap()
    }

    #[track_caller]
    pub(crate) fn start(self) -> Program {
        let mut child = self.configured().spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let addresses = lines.find_map(|line| {
            let found = addresses_in(&line);
            said.push(line);
            found
        });
        let (address, admin) = addresses.unwrap_or_else(|| panic!("it does not serve: {said:#?}"));
        let said = Arc::new(Mutex::new(said));
        let more = Arc::clone(&said);
        thread::spawn(move || lines.for_each(|line| more.lock().unwrap().push(line)));
        Program { child, address, admin, said }
    }
}

/// Where clients and operators connect, if this line of the log says it.
fn addresses_in(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    let address = |name: &str| fields.get(name)?.as_str()?.parse().ok();
    Some((address("clients")?, address("operators")?))
}

/// The program, running; killed when dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
}

impl Program {
    /// A request of user 1.
    pub(crate) fn get(&self, ground: &Ground, target: &str) -> Request {
        Request::new(self.address, "GET", target).key(&ground.key)
    }

    /// A request of an operator.
    pub(crate) fn operate(&self, method: &str, target: &str) -> Request {
        Request::new(self.admin, method, target).field("Authorization", format!("Bearer {TOKEN}"))
    }

    /// The same with a JSON body.
    pub(crate) fn post(&self, target: &str, body: &Value) -> Request {
        self.operate("POST", target).field("Content-Type", "application/json").body(body.to_string())
    }

    /// Why `/readyz` says that it is not ready; nothing when it is.
    pub(crate) fn trouble(&self) -> Option<String> {
        let reply = self.operate("GET", "/readyz").send();
        let probe: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(reply.status() == 503, probe.get("reasons").is_some(), "{probe}");
        (reply.status() != 200).then(|| probe["reasons"].to_string())
    }

    /// Whether its log says so.
    pub(crate) fn has_said(&self, words: &str) -> bool {
        self.said.lock().unwrap().iter().any(|line| line.contains(words))
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {:#?}", self.said.lock().unwrap());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it in order.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(self.wait().success());
    }

    /// Ends it without a chance to do anything more.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and need not be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
