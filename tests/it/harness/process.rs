//! A gateway in a process of its own: the real program, so that its memory is its own, it gets signals and it can be
//! killed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use super::gateway::GatewayBuilder;
use super::{Api, Customer, Database, Gateway, Request, until};

/// Lines of its log that are kept for whoever asks.
const LOG_LINES: usize = 200;

/// The process. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    database: Database,
    log: Arc<Mutex<Vec<String>>>,
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
    let mut command = Command::new(env!("CARGO_BIN_EXE_keytoll"));
    command.env_clear().stdin(Stdio::null());
    command
}

impl GatewayBuilder {
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
        let (own, file, database) = self.files();
        let mut command = program();
        command.args(["serve", "--config"]).arg(&file);
        command.env("KEYTOLL_LOG__FORMAT", "json").env("RUST_LOG", "info,keytoll::access=off");
        if let Some(point) = fail_point {
            command.env("KEYTOLL_FAILPOINT", point);
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&log);
        let mut lines =
            BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).inspect(move |line| {
                let mut kept = keep.lock().unwrap();
                if kept.len() < LOG_LINES {
                    kept.push(line.clone());
                }
            });
        let Some(address) = lines.find_map(|line| address_in(&line)) else {
            let status = child.wait().unwrap();
            if status.code().is_some() {
                eprintln!("{}", log.lock().unwrap().join("\n"));
            }
            return Started::Ended(status);
        };
        // The pipe must not fill up.
        thread::spawn(move || lines.for_each(drop));
        Started::Serving(Process { child, address, database, log, _directory: own })
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line.get("clients").or_else(|| line.get("fields")?.get("clients"))?.as_str()?.parse().ok()
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
        Request::new(self.address, "GET", target)
    }

    /// A number of `/proc/PID/status`, in KiB: `VmRSS:` is now, `VmHWM:` the most there ever was.
    pub(crate) fn memory_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_matches(|letter: char| !letter.is_ascii_digit()).parse().unwrap()
    }

    /// Whether some line of its log says this.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(text))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
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
        assert_eq!(status.signal(), Some(9), "{status}: {}", self.log.lock().unwrap().join("\n"));
        before.is_some()
    }

    /// Ends it in order, and waits.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        until("the gateway ends", || self.ended().is_some());
        let status = self.ended().unwrap();
        assert!(status.success(), "{status}: {}", self.log.lock().unwrap().join("\n"));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
