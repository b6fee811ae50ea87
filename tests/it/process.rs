//! The whole program as a process of its own: killed under load, started twice.

mod crash;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rusqlite::Connection;
use tempfile::TempDir;

/// A user with a key and money, in a file of its own.
struct Ground {
    directory: TempDir,
    key: String,
}

impl Ground {
    fn with_cents(cents: u64) -> Ground {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth.db");
        let run = |arguments: &[&str]| {
            let output = command(&path).args(arguments).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        run(&["user", "add", "ada@example.com", "--name", "Ada", "--create", "--opening-cents", &cents.to_string()]);
        let key = run(&["key", "issue", "--user", "1", "--api", "weather"]).trim().to_owned();
        Ground { directory, key }
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("auth.db")
    }

    /// The database as its application opens it.
    fn application(&self) -> Connection {
        let connection = Connection::open(self.database()).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        connection
    }

    fn number(&self, select: &str) -> i64 {
        self.application().query_row(select, [], |row| row.get(0)).unwrap()
    }

    /// `keytoll doctor` finds nothing wrong.
    fn assert_books_balance(&self) {
        let output = command(&self.database()).arg("doctor").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// The program on this database, with nothing of this process's environment.
fn command(database: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keytoll"));
    command.env_clear().current_dir(database.parent().unwrap()).env("KEYTOLL_DATABASE", database).stdin(Stdio::null());
    command
}

/// A gateway that runs; killed when dropped.
struct Gateway {
    child: Child,
    address: SocketAddr,
}

impl Gateway {
    fn start(ground: &Ground, upstream: SocketAddr, price: u64) -> Gateway {
        let mut child = command(&ground.database())
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--api", "weather"])
            .args(["--upstream", &format!("http://{upstream}"), "--price", &price.to_string()])
            .env("KEYTOLL_LOG__FORMAT", "json")
            .env("RUST_LOG", "info,keytoll::access=off")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines.find_map(|line| address_in(&line.unwrap())).expect("the gateway says where it serves");
        // The pipe must not fill up.
        thread::spawn(move || lines.for_each(drop));
        Gateway { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it in order, and waits.
    fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and need not be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line.get("clients").or_else(|| line.get("fields")?.get("clients"))?.as_str()?.parse().ok()
}

/// A reply's status and header fields, names in lower case.
struct Head {
    status: u16,
    fields: HashMap<String, String>,
}

impl Head {
    /// `None`: the connection ended, or what came is no head.
    fn read(reader: &mut impl BufRead) -> Option<Head> {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut fields = HashMap::new();
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { return Some(Head { status, fields }) };
            fields.insert(name.to_lowercase(), value.trim().to_owned());
        }
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.fields.get(name)?.parse().ok()
    }
}

/// Serves each connection on a thread of its own; counts requests.
fn upstream(
    reply: impl Fn(Head, &mut BufReader<TcpStream>) -> Option<()> + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::new(AtomicU64::new(0));
    let (count, reply) = (Arc::clone(&served), Arc::new(reply));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (count, reply) = (Arc::clone(&count), Arc::clone(&reply));
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.unwrap());
                while let Some(head) = read_request(&mut reader) {
                    count.fetch_add(1, Ordering::SeqCst);
                    if reply(head, &mut reader).is_none() {
                        return;
                    }
                }
            });
        }
    });
    (address, served)
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Head> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut head = Vec::from(&b"HTTP/1.1 0 request\r\n"[..]);
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        head.extend_from_slice(line.as_bytes());
        if line == "\r\n" {
            return Head::read(&mut &head[..]);
        }
    }
}

fn answer(reader: &mut BufReader<TcpStream>, text: &str) -> Option<()> {
    reader.get_mut().write_all(text.as_bytes()).ok()
}
