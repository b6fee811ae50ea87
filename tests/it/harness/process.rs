//! A gateway in a process of its own: the real program, so that its memory is its own, it gets signals and it can be
//! killed.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::Value;
use tempfile::TempDir;

use super::{Api, Client, Customer, Database, Gateway, GatewayBuilder, Request, Shim, metric, until};

/// Lines of its log that are kept for whoever asks: the last ones.
const LOG_LINES: usize = 200;
const TOKEN: &str = "the-token-of-the-tests";

/// The process. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    database: Database,
    log: Log,
    /// Reads the log to its end.
    reader: Option<JoinHandle<()>>,
    _directory: TempDir,
}

/// What became of a start.
pub(crate) enum Started {
    Serving(Process),
    /// It ended before it served.
    Ended(ExitStatus),
}

/// The program with nothing of this process's environment.
pub(crate) fn program() -> Command {
    alone(Command::new(env!("CARGO_BIN_EXE_keytoll")))
}

/// The same, after the shell's `ulimit`.
fn program_with_files(limit: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!(r#"ulimit {limit} && exec "$0" "$@""#), env!("CARGO_BIN_EXE_keytoll")]);
    alone(command)
}

fn alone(mut command: Command) -> Command {
    command.env_clear().stdin(Stdio::null());
    command
}

impl GatewayBuilder {
    /// With a limit on open files, as the arguments of the shell's `ulimit`.
    pub(crate) fn open_files(mut self, limit: &'static str) -> GatewayBuilder {
        self.open_files = Some(limit);
        self
    }

    /// Under the shim. Where the file is must be known.
    pub(crate) fn under(mut self, shim: &Shim) -> GatewayBuilder {
        let database = self.known_file();
        self.variables.extend(shim.under(&database));
        self
    }

    /// Under the shim, which keeps a log.
    pub(crate) fn logged_by(mut self, shim: &Shim) -> GatewayBuilder {
        let database = self.known_file();
        self.variables.extend(shim.under_with_log(&database));
        self
    }

    /// With operators, who have a token.
    pub(crate) fn operators(mut self) -> GatewayBuilder {
        self.variables.push(("KEYTOLL_ADMIN_TOKEN", TOKEN.into()));
        self
    }

    /// With a line in the log for every request; see [`Process::access_line`].
    pub(crate) fn access_log(mut self) -> GatewayBuilder {
        self.has_access_log = true;
        self
    }

    /// Runs it in a process of its own.
    #[track_caller]
    pub(crate) fn spawn(self) -> Process {
        match self.try_spawn(None) {
            Started::Serving(process) => process,
            Started::Ended(status) => panic!("the gateway ended with {status} before it served"),
        }
    }

    /// The same, which may end before it serves: killed at a fail point, `NAME:COUNT` or `NAME:COUNT:DELAY_US`.
    pub(crate) fn try_spawn(self, fail_point: Option<&str>) -> Started {
        let (own, mut command, database) = self.command();
        if let Some(point) = fail_point {
            command.env("KEYTOLL_FAILPOINT", point);
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Log::default();
        let keep = log.clone();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut lines = lines.inspect(move |line| keep.add(line));
        let Some((address, admin)) = lines.find_map(|line| addresses_in(&line)) else {
            let status = child.wait().unwrap();
            if status.code().is_some() {
                eprintln!("{}", log.text());
            }
            return Started::Ended(status);
        };
        // The pipe must not fill up.
        let reader = Some(thread::spawn(move || lines.for_each(drop)));
        Started::Serving(Process { child, address, admin, database, log, reader, _directory: own })
    }

    /// With a variable in its environment.
    pub(crate) fn variable(mut self, name: &'static str, value: &str) -> GatewayBuilder {
        self.variables.push((name, value.into()));
        self
    }

    /// Begins to run it in a process of its own, which may never come to serve.
    pub(crate) fn begin(self) -> Starting {
        let (own, command, _) = self.command();
        Starting::of(command, own)
    }

    /// Runs it to its end, which comes by itself: it refuses to start.
    pub(crate) fn refused(self) -> Output {
        let (_own, mut command, _) = self.command();
        command.output().unwrap()
    }

    fn command(&self) -> (TempDir, Command, Database) {
        let (own, file, database) = self.files();
        let mut command = self.open_files.map_or_else(program, program_with_files);
        command.args(["serve", "--config"]).arg(&file).current_dir(own.path());
        let filter = if self.has_access_log { "info" } else { "info,keytoll::access=off" };
        command.env("KEYTOLL_LOG__FORMAT", "json").env("RUST_LOG", filter);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        (own, command, database)
    }
}

/// Where clients and operators connect, if this line of the log says it.
fn addresses_in(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    let address = |name: &str| fields.get(name)?.as_str()?.parse().ok();
    Some((address("clients")?, address("operators")?))
}

fn is_access_line(line: &Value, request_id: &str) -> bool {
    line["target"] == "keytoll::access" && line["request_id"] == request_id
}

/// What it said last.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    fn add(&self, line: &str) {
        let mut lines = self.0.lock().unwrap();
        if lines.len() == LOG_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    fn has(&self, words: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.contains(words))
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().make_contiguous().join("\n")
    }

    /// The lines that are JSON objects, parsed.
    fn objects(&self) -> Vec<Value> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// A process that need not come to serve. Killed when dropped.
pub(crate) struct Starting {
    child: Child,
    log: Log,
    reader: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl Starting {
    /// The directory is removed after its end.
    pub(crate) fn of(mut command: Command, directory: TempDir) -> Starting {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Log::default();
        let keep = log.clone();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let reader = Some(thread::spawn(move || lines.for_each(|line| keep.add(&line))));
        Starting { child, log, reader, _directory: directory }
    }

    /// Waits until it has a handler of its own for SIGTERM.
    #[track_caller]
    pub(crate) fn handles_signals(&self) {
        let path = format!("/proc/{}/status", self.child.id());
        until("a handler of SIGTERM", || {
            let status = fs::read_to_string(&path).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (15 - 1)) != 0
        });
    }

    /// Sends SIGTERM, and waits for its end. The status, and what it said.
    #[track_caller]
    pub(crate) fn terminate(mut self) -> (ExitStatus, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        until("the end of the start", || self.child.try_wait().unwrap().is_some());
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        (self.child.wait().unwrap(), self.log.text())
    }

    /// Whether some line of its log says this.
    pub(crate) fn has_said(&self, words: &str) -> bool {
        self.log.has(words)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// One with the API `weather` for 10 cents, on the file in this directory.
    pub(crate) fn start(upstream: SocketAddr, directory: &Path) -> Process {
        Gateway::builder().api(Api::new("weather", upstream)).at(directory).spawn()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// A user with so much money and a key for the API, made by the application.
    pub(crate) fn customer(&self, api: &str, balance: i64) -> Customer {
        self.database.customer(api, balance)
    }

    pub(crate) fn get(&self, target: &str) -> Request {
        self.request("GET", target)
    }

    pub(crate) fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.address, method, target)
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn token(&self) -> &'static str {
        TOKEN
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// A request of an operator.
    pub(crate) fn operate(&self, method: &str, target: &str) -> Request {
        let host = self.admin.to_string();
        Request::to_host(&host, self.admin, method, target).field("Authorization", format!("Bearer {TOKEN}"))
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

    /// A number of `/proc/PID/status`, in KiB: `VmRSS:` is now, `VmHWM:` the most there ever was.
    pub(crate) fn memory_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_matches(|letter: char| !letter.is_ascii_digit()).parse().unwrap()
    }

    /// The sum of the metric's samples that have all of these labels; see [`metric`].
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        metric(self.admin, name, labels)
    }

    /// Waits for a line of the log that fulfils the condition.
    #[track_caller]
    pub(crate) fn log_line(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        until(what, || {
            found = self.log_lines(&condition).into_iter().next();
            found.is_some()
        });
        found.unwrap()
    }

    /// The lines of the log so far that fulfil the condition. The log keeps its last lines only.
    pub(crate) fn log_lines(&self, condition: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut lines = self.log.objects();
        lines.retain(condition);
        lines
    }

    /// Waits for the access log's line of a request, which [`GatewayBuilder::access_log`] switches on.
    #[track_caller]
    pub(crate) fn access_line(&self, request_id: &str) -> Value {
        self.log_line(&format!("an access line of {request_id}"), |line| is_access_line(line, request_id))
    }

    /// Whether some line of its log says this.
    pub(crate) fn has_said(&self, words: &str) -> bool {
        self.log.has(words)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it ends by itself, and has said all that it had to.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the end of the gateway", || self.ended().is_some());
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.ended().unwrap()
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Ends it without a chance to do anything more. Whether it had killed itself already.
    pub(crate) fn kill(mut self) -> bool {
        let before = self.ended();
        // One that has ended already cannot be killed, and need not be.
        let _ = self.child.kill();
        let status = before.unwrap_or_else(|| self.child.wait().unwrap());
        assert_eq!(status.signal(), Some(9), "{status}: {}", self.log.text());
        before.is_some()
    }

    /// Ends it in order, and waits.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.log.text());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
