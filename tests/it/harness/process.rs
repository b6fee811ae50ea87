//! A gateway in a process of its own, so that its memory is its own and it can be killed: this test binary once more,
//! with one test.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use super::{Api, Gateway, Request};

/// What the process is told by: the upstream's address, where the file is, and a line of the API's section.
const UPSTREAM: &str = "KEYTOLL_IT_UPSTREAM";
const DIRECTORY: &str = "KEYTOLL_IT_DIRECTORY";
const LINE: &str = "KEYTOLL_IT_LINE";

/// The process, and a customer of its API `weather` with 1000 cents.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    pub(crate) user: i64,
    /// Closed, it ends.
    stdin: Option<ChildStdin>,
}

impl Process {
    pub(crate) fn start(upstream: SocketAddr, directory: &Path) -> Process {
        Process::start_with(upstream, directory, "")
    }

    /// One whose API has this line in its section.
    pub(crate) fn start_with(upstream: SocketAddr, directory: &Path, line: &str) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "harness::process::a_gateway_in_a_process_of_its_own", "--ignored", "--nocapture"])
            .env(UPSTREAM, upstream.to_string())
            .env(DIRECTORY, directory)
            .env(LINE, line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.find_map(|line| Some(line.unwrap().split_once("serving ")?.1.to_owned())).unwrap();
        thread::spawn(move || lines.for_each(drop));
        let mut words = ready.split(' ');
        let mut word = || words.next().unwrap();
        let (address, user, key) = (word().parse().unwrap(), word().parse().unwrap(), word().to_owned());
        Process { child, address, key, user, stdin }
    }

    pub(crate) fn get(&self, target: &str) -> Request {
        Request::new(self.address, "GET", target).key(&self.key)
    }

    /// A number of `/proc/PID/status`, in KiB: `VmRSS:` is now, `VmHWM:` the most there ever was.
    pub(crate) fn memory_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_matches(|letter: char| !letter.is_ascii_digit()).parse().unwrap()
    }

    /// Ends it without a chance to do anything more.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "not a test: the gateway of the tests that need a process of its own"]
fn a_gateway_in_a_process_of_its_own() {
    let (Ok(upstream), Some(directory)) = (std::env::var(UPSTREAM), std::env::var_os(DIRECTORY)) else { return };
    let api = Api::new("weather", upstream).with(&std::env::var(LINE).unwrap_or_default());
    let gateway = Gateway::builder().api(api).at(Path::new(&directory)).start();
    let customer = gateway.customer("weather", 1_000);
    println!("serving {} {} {}", gateway.address(), customer.id, customer.key);
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let stopped = gateway.stop();
    stopped.database.assert_books();
}
