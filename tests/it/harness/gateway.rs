//! The gateway: the real one, on a thread with a runtime of its own, from a configuration file.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use keytoll::app;
use keytoll::config::{self, Environment, KeyStorage, Overrides};
use keytoll::model::{Cents, KeyId, KeyPrefix, UserId};
use keytoll::store::Store;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Api, Client, Database, Lock, PATIENCE, Request, metric};

/// The database's name in its directory.
const FILE: &str = "auth.db";

/// A gateway in the making.
pub(crate) struct GatewayBuilder {
    workers: usize,
    drain_timeout_ms: u64,
    durability: &'static str,
    sections: Vec<(&'static str, String)>,
    apis: Vec<Api>,
    directory: Option<PathBuf>,
    /// Of a process of its own.
    pub(super) variables: Vec<(&'static str, OsString)>,
    pub(super) open_files: Option<&'static str>,
    pub(super) has_access_log: bool,
}

impl GatewayBuilder {
    pub(crate) fn workers(mut self, workers: usize) -> GatewayBuilder {
        self.workers = workers;
        self
    }

    /// How long requests may take to finish when it stops.
    pub(crate) fn drain_timeout_ms(mut self, limit: u64) -> GatewayBuilder {
        self.drain_timeout_ms = limit;
        self
    }

    pub(crate) fn api(mut self, api: Api) -> GatewayBuilder {
        self.apis.push(api);
        self
    }

    /// On the file in a directory that is there already.
    pub(crate) fn at(mut self, directory: &Path) -> GatewayBuilder {
        self.directory = Some(directory.to_owned());
        self
    }

    /// `full`, instead of `normal`, which is faster.
    pub(crate) fn durability(mut self, durability: &'static str) -> GatewayBuilder {
        self.durability = durability;
        self
    }

    /// A number of `[limits]`.
    pub(crate) fn limit(self, name: &str, value: u64) -> GatewayBuilder {
        self.line("limits", format!("{name} = {value}"))
    }

    /// A line of a section.
    pub(crate) fn line(mut self, section: &'static str, line: impl Into<String>) -> GatewayBuilder {
        self.sections.push((section, line.into()));
        self
    }

    fn toml(&self, database: &Path) -> String {
        let mut text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nworkers = {}\ndrain_timeout_ms = {}\n",
            self.workers, self.drain_timeout_ms
        );
        let of = |section: &str| -> String {
            let lines = self.sections.iter().filter(|(name, _)| *name == section);
            lines.map(|(_, line)| format!("{line}\n")).collect()
        };
        text += &of("server");
        text += &format!("[admin]\nlisten = \"127.0.0.1:0\"\n{}", of("admin"));
        text += &format!("[database]\npath = {database:?}\ncreate = true\ndurability = {:?}\n", self.durability);
        for section in ["keys", "limits"] {
            text += &format!("[{section}]\n{}", of(section));
        }
        self.apis.iter().for_each(|api| text += &api.toml());
        text
    }

    /// The file, in a directory that is there already.
    pub(super) fn known_file(&self) -> PathBuf {
        self.directory.as_deref().expect("a directory, named before").join(FILE)
    }

    /// A directory of its own, the configuration file in it, and the database.
    pub(super) fn files(&self) -> (TempDir, PathBuf, Database) {
        let own = tempfile::tempdir().unwrap();
        let database = self.directory.as_deref().unwrap_or(own.path()).join(FILE);
        let file = own.path().join("keytoll.toml");
        std::fs::write(&file, self.toml(&database)).unwrap();
        (own, file, Database::new(database))
    }

    /// Runs it.
    pub(crate) fn start(self) -> Gateway {
        let (own, file, database) = self.files();
        let (started, starting) = mpsc::channel();
        let (stop, stopping) = oneshot::channel();
        let thread = thread::spawn(move || {
            let flags = Overrides { config: Some(file), ..Overrides::default() };
            let nothing: [(String, String); 0] = [];
            let loaded = config::load(&flags, &Environment::of(nothing)).unwrap();
            runtime().block_on(async {
                let running = app::start(loaded.config, None).await.unwrap();
                started.send((running.data_address(), running.admin_address(), running.store().clone())).unwrap();
                let _ = stopping.await;
                running.drain().await;
            });
        });
        let (address, admin, store) = starting.recv_timeout(PATIENCE).expect("the gateway starts");
        Gateway { address, admin, store, database, running: Some((stop, thread)), _directory: own }
    }
}

/// A gateway that runs, on a file of its own.
pub(crate) struct Gateway {
    address: SocketAddr,
    admin: SocketAddr,
    store: Store,
    database: Database,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    _directory: TempDir,
}

/// A user with a wallet and a key.
#[derive(Clone, Debug)]
pub(crate) struct Customer {
    pub(crate) id: i64,
    pub(crate) key_id: i64,
    pub(crate) key: String,
}

impl Gateway {
    pub(crate) fn builder() -> GatewayBuilder {
        GatewayBuilder {
            workers: 1,
            drain_timeout_ms: 3_000,
            durability: "normal",
            sections: Vec::new(),
            apis: Vec::new(),
            directory: None,
            variables: Vec::new(),
            open_files: None,
            has_access_log: false,
        }
    }

    /// One with this API alone.
    pub(crate) fn of(api: Api) -> Gateway {
        Gateway::builder().api(api).start()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where operators connect.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The sum of the metric's samples that have all of these labels; see [`metric`].
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        metric(self.admin, name, labels)
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// A user with so much money and a key for the API.
    pub(crate) fn customer(&self, api: &str, balance: i64) -> Customer {
        runtime().block_on(async {
            let email = format!("{}@example.com", fastrand::u64(..));
            let user = self.store.add_user(&email, "Somebody", Cents(balance)).await.unwrap();
            let prefix = KeyPrefix::new("kt").unwrap();
            let new = self.store.issue_key(user.id, api, KeyStorage::Sha256, &prefix).await.unwrap();
            Customer { id: user.id.0, key_id: new.record.id.0, key: new.key.expose().to_owned() }
        })
    }

    /// Another key of the same user.
    pub(crate) fn key(&self, customer: &Customer, api: &str) -> String {
        let prefix = KeyPrefix::new("kt").unwrap();
        let issued = self.store.issue_key(UserId(customer.id), api, KeyStorage::Sha256, &prefix);
        runtime().block_on(issued).unwrap().key.expose().to_owned()
    }

    /// Switches a key on or off through the gateway's own store.
    pub(crate) fn set_key_active(&self, customer: &Customer, is_active: bool) {
        runtime().block_on(self.store.set_key_active(KeyId(customer.key_id), is_active)).unwrap();
    }

    /// Replaces the secret of a key through the gateway's own store.
    pub(crate) fn rotate(&self, customer: &Customer) -> Customer {
        let prefix = KeyPrefix::new("kt").unwrap();
        let rotated = self.store.rotate_key(KeyId(customer.key_id), KeyStorage::Sha256, &prefix);
        let key = runtime().block_on(rotated).unwrap().key.expose().to_owned();
        Customer { key, ..customer.clone() }
    }

    /// Waits until no charge is open and what others wrote before is on the books.
    #[track_caller]
    pub(crate) fn settle(&self) {
        runtime().block_on(async {
            timeout(PATIENCE, self.store.settled()).await.expect("a charge stays open");
            // A write goes through the same thread, which takes in what others committed before it.
            self.store.route_id("books", "/").await.unwrap();
        });
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

    /// The write lock, in the hands of another program.
    pub(crate) fn lock(&self) -> Lock {
        self.database.lock()
    }

    /// Waits for what is open, then asserts that the books balance and how many charges ended how.
    #[track_caller]
    pub(crate) fn assert_charges(&self, captured: i64, released: i64) {
        self.settle();
        self.database.assert_books();
        let found = (self.database.charges(1), self.database.charges(2), self.database.leased());
        assert_eq!(found, (captured, released, 0), "captured, released, leased");
    }

    /// Stops in order, and waits until it has.
    pub(crate) fn stop(mut self) -> Stopped {
        self.end().expect("the gateway ends without a panic");
        Stopped { database: self.database.clone(), address: self.address, _gateway: self }
    }

    /// Begins to stop; [`Gateway::stop`] waits for it.
    pub(crate) fn begin_stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            let _ = stop.send(());
            let (stop, _) = oneshot::channel();
            self.running = Some((stop, thread));
        }
    }

    fn end(&mut self) -> thread::Result<()> {
        match self.running.take() {
            Some((stop, thread)) => {
                let _ = stop.send(());
                thread.join()
            }
            None => Ok(()),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// What a gateway that has stopped leaves behind.
pub(crate) struct Stopped {
    pub(crate) database: Database,
    pub(crate) address: SocketAddr,
    _gateway: Gateway,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Repeats a question until its answer is yes.
#[track_caller]
pub(crate) fn until(what: &str, mut question: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !question() {
        assert!(std::time::Instant::now() < deadline, "{what} does not happen");
        thread::sleep(Duration::from_millis(1));
    }
}
