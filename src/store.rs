//! The store: all SQL, and the only code that opens the database.
//!
//! One writer thread owns the only connection that writes ([`writer`]); holds, settlements and admin writes are
//! messages to it, many to a transaction, answered after the commit. Reads go over read-only connections
//! ([`readers`]); checkpoints have a thread of their own ([`checkpoint`]). Nothing above sees a connection.
//!
//! What it promises: a hold, a capture or a write that was answered is committed, at the durability that the setting
//! says; what other programs do to wallets gets onto the books ([`external`]); where going on would be unsafe it says
//! so ([`Store::fatal`]) and does nothing more.

mod accounts;
mod batch;
mod charge_ids;
mod charges;
mod checkpoint;
pub mod doctor;
mod entries;
mod external;
mod health;
mod identity;
mod instance;
mod keys;
mod ledger;
mod lock_file;
mod lookup;
mod mailbox;
mod migrations;
mod open;
mod pace;
mod page;
mod queue;
mod readers;
mod refusal;
#[cfg(test)]
mod sample;
mod schema;
#[cfg(test)]
mod tests;
mod triggers;
mod users;
mod view;
mod wallets;
mod write;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{oneshot, watch};

pub use charges::{ChargeFilter, ChargeRecord};
pub use entries::{Booked, EntryRecord, WalletRecord, WalletRefused};
pub use instance::Recovered;
pub use keys::{KeyFilter, KeyRecord, KeyRefused, NewKey};
pub use ledger::{Held, HeldCharge, HoldWish, Ledger, Settled, Settlement};
pub use lookup::Found;
pub use page::{Page, PageWish};
pub use refusal::{Fatal, HoldRefused, OpenError, Unavailable};
pub use users::{USUAL_OPENING_BALANCE, UserChange, UserRecord, UserRefused};
pub use view::Generation;
pub use write::WriteError;

use crate::config::{DatabaseConfig, Limits};
use crate::failpoint;
use crate::model::{ApiKey, RouteId};
use crate::telemetry::metrics::StoreMetrics;
use health::Health;
use instance::{Instance, RegisterError};
use lock_file::Missing;
use mailbox::Mailbox;
use queue::{Command, Queue, QueueLimits, WritePlace};
use readers::Readers;
use view::View;
use wallets::Wallets;
use write::{Job, WriteFault, WriteTx};
use writer::{Parts, Writer, now_unix_ms};

/// Who opens the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A gateway: makes charges, releases those of gateways that are gone, checkpoints.
    Gateway,
    /// A command that reads or writes users, keys and wallets, whether or not a gateway runs.
    Tool,
}

/// What opening a file found and did, to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// Wallets taken onto the books, when Keytoll saw the file for the first time.
    pub adopted_wallets: usize,
    /// Changes of balances that other programs made since Keytoll last looked.
    pub external_entries: u64,
    /// Holds of processes that were gone.
    pub recovered: Recovered,
    /// Triggers of the application on the shared tables, which do not run for Keytoll's writes.
    pub foreign_triggers: Vec<String>,
    /// Whether some key stands in the file as it is, not as a digest.
    pub has_plain_keys: bool,
}

/// The open database. Cloning is cheap; [`Store::close`] ends it for all.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Arc<Queue>,
    view: Arc<View>,
    health: Arc<Health>,
    readers: Readers,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the file, makes or upgrades what is missing in it, puts its books in order and starts the threads.
    ///
    /// # Errors
    /// What is wrong with the file and what to do about it; nothing was changed in the shared tables.
    pub fn open(
        database: &DatabaseConfig,
        limits: &Limits,
        role: Role,
        metrics: Arc<StoreMetrics>,
    ) -> Result<(Store, Opening), OpenError> {
        let path = open::prepare_file(&database.path, database.create)?;
        let connection = open::writer(&path)?;
        let (instance, opening) = start(&connection, &path, role)?;
        let error = |error| open::open_error(&path, error);
        connection.busy_timeout(Duration::ZERO).map_err(error)?;
        let health = Arc::new(Health::new());
        let checkpointer = match role {
            Role::Gateway => {
                let own = open::checkpointer(&path)?;
                let started = checkpoint::Checkpointer::start(own, Arc::clone(&health), Arc::clone(&metrics));
                Some(started.map_err(|error| OpenError::Io(path.clone(), error))?)
            }
            Role::Tool => None,
        };
        let queue = Arc::new(Queue::new(QueueLimits::from(limits)));
        let view = Arc::new(View::new());
        let readers = Readers::start(&path, limits.queued_reads, Arc::clone(&metrics))?;
        let parts = Parts {
            connection,
            path: path.clone(),
            queue: Arc::clone(&queue),
            view: Arc::clone(&view),
            health: Arc::clone(&health),
            metrics,
            instance,
            checkpointer,
            durability: database.durability,
            batch: limits.batch,
            cached_wallets: limits.cached_wallets,
            wal_bytes: limits.wal_bytes,
        };
        let writer = Writer::new(parts).map_err(error)?;
        let thread = spawn_writer(writer, Arc::clone(&queue), Arc::clone(&health));
        let thread = thread.map_err(|error| OpenError::Io(path.clone(), error))?;
        let shared = Shared { queue, view, health, readers, writer: Mutex::new(Some(thread)) };
        Ok((Store { shared: Arc::new(shared) }, opening))
    }

    /// A worker's way to the writer, and the task that brings the answers, to be run on that worker's runtime.
    pub fn ledger(&self) -> (Ledger, impl Future<Output = ()> + Send + use<>) {
        let mailbox = Arc::new(Mailbox::default());
        let ledger = Ledger { queue: Arc::clone(&self.shared.queue), mailbox: Arc::clone(&mailbox) };
        (ledger, async move { mailbox.run().await })
    }

    /// The generation of the view now; note it before loading what will carry it.
    pub fn generation(&self) -> Generation {
        self.shared.view.generation()
    }

    /// How long ago the file was last compared for commits of other programs; the generation covers all before.
    pub fn view_age(&self) -> Duration {
        self.shared.view.age()
    }

    /// Looks a presented key up.
    ///
    /// # Errors
    /// The file cannot be read now.
    pub async fn find_key(&self, key: ApiKey) -> Result<Found, Unavailable> {
        self.shared.readers.read(move |connection| lookup::find(connection, &key)).await
    }

    /// The number under which charges of an API's route stand in the books; made when it is new.
    ///
    /// # Errors
    /// The books cannot be written now.
    pub async fn route_id(&self, api_name: &str, route: &str) -> Result<RouteId, Unavailable> {
        let (api_name, route) = (api_name.to_owned(), route.to_owned());
        let body = move |tx: &mut WriteTx<'_>| -> Result<RouteId, WriteFault<std::convert::Infallible>> {
            let connection = tx.connection();
            connection.execute(
                "INSERT INTO keytoll_routes (api_name, route) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                params![api_name, route],
            )?;
            let id = connection.query_row(
                "SELECT id FROM keytoll_routes WHERE api_name = ?1 AND route = ?2",
                params![api_name, route],
                |row| row.get(0),
            )?;
            Ok(RouteId(id))
        };
        match self.write(body).await {
            Ok(id) => Ok(id),
            Err(WriteError::Unavailable(reason)) => Err(reason),
            Err(WriteError::Refused(never)) => match never {},
        }
    }

    /// Why billing is unavailable, if it is.
    pub fn trouble(&self) -> Option<Unavailable> {
        self.shared.health.trouble()
    }

    /// Says when the process has to stop because going on would be unsafe.
    pub fn fatal(&self) -> watch::Receiver<Option<Fatal>> {
        self.shared.health.fatal()
    }

    /// Waits until every charge is settled.
    pub async fn settled(&self) {
        self.shared.queue.drained().await;
    }

    /// Charges that are open now.
    pub fn open_charges(&self) -> usize {
        self.shared.queue.open_charges()
    }

    /// Ends the writer after what waits in its queue, checkpoints, and says in the file that this process is done.
    /// Blocks until then.
    pub fn close(&self) {
        self.shared.queue.close();
        let writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the database writer ended with a panic");
        }
    }

    /// Runs a read on a read-only connection.
    pub(self) async fn read<T, F>(&self, body: F) -> Result<T, Unavailable>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.shared.readers.read(body).await
    }

    /// Runs a write in the writer's transaction; answers after its commit, which is always synced to the disk.
    pub(self) async fn write<T, E, F>(&self, body: F) -> Result<T, WriteError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&mut WriteTx<'_>) -> Result<T, WriteFault<E>> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let deadline = Instant::now() + self.shared.queue.limits.hold_timeout;
        let place = WritePlace::take(&self.shared.queue).map_err(WriteError::Unavailable)?;
        let job = Box::new(Job { deadline, _place: place, body: Some(body), result: None, sender });
        self.shared.queue.push(Command::Write(job)).map_err(WriteError::Unavailable)?;
        receiver.await.unwrap_or(Err(WriteError::Unavailable(Unavailable::Stopping)))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
            && writer.join().is_err()
        {
            tracing::error!("the database writer ended with a panic");
        }
    }
}

fn spawn_writer(writer: Writer, queue: Arc<Queue>, health: Arc<Health>) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("keytoll-write".into()).spawn(move || {
        /// Whoever still waits is told, should the writer panic.
        struct Closes(Arc<Queue>, Arc<Health>);
        impl Drop for Closes {
            fn drop(&mut self) {
                if thread::panicking() {
                    self.1.stop(Fatal::WriterDied);
                }
                self.0.abandon();
            }
        }
        let _closes = Closes(queue, health);
        writer.run();
    })
}

/// The first transaction: tables, migrations, books, recovery. All of it or nothing.
fn start(
    connection: &Connection,
    path: &std::path::Path,
    role: Role,
) -> Result<(Option<Instance>, Opening), OpenError> {
    let error = |error| open::open_error(path, error);
    let now_unix_ms = now_unix_ms();
    connection.execute_batch("BEGIN IMMEDIATE").map_err(error)?;
    let mut opening = Opening::default();
    schema::ensure_shared(connection).map_err(|wrong| wrong.at(path))?;
    if schema::migrate(connection, now_unix_ms).map_err(|wrong| wrong.at(path))? {
        opening.adopted_wallets = external::adopt_all(connection, now_unix_ms).map_err(error)?;
        failpoint::reach("wallets-adopted");
        triggers::install(connection).map_err(error)?;
    } else {
        opening.external_entries = external::absorb(connection, now_unix_ms).map_err(error)?;
        if !triggers::in_place(connection).map_err(error)? {
            triggers::install(connection).map_err(error)?;
            external::end_accounts_of_others(connection, now_unix_ms).map_err(error)?;
            opening.external_entries += external::reconcile(connection, now_unix_ms).map_err(error)?;
        }
    }
    let mut dead = Vec::new();
    let mut instance = None;
    if role == Role::Gateway {
        let mut wallets = Wallets::new(usize::MAX);
        dead = instance::find_dead(connection, path, None, &mut Missing::default()).map_err(error)?;
        opening.recovered = instance::release_dead(connection, &mut wallets, &dead, now_unix_ms).map_err(error)?;
        wallets.flush(connection).map_err(error)?;
        let registered = Instance::register(connection, path, now_unix_ms);
        instance = Some(registered.map_err(|found| match found {
            RegisterError::Sqlite(found) => error(found),
            RegisterError::Lock(found) => OpenError::Io(lock_hint(path), found),
        })?);
    }
    opening.foreign_triggers = schema::foreign_triggers(connection).map_err(error)?;
    opening.has_plain_keys = schema::has_plain_keys(connection).map_err(error)?;
    connection.execute_batch("COMMIT").map_err(error)?;
    failpoint::reach("start-committed");
    dead.into_iter().for_each(instance::Dead::remove_lock);
    Ok((instance, opening))
}

/// The directory in which lock files are made.
fn lock_hint(path: &std::path::Path) -> PathBuf {
    path.parent().map_or_else(|| path.to_owned(), std::path::Path::to_owned)
}

/// Takes Keytoll's triggers and tables out of a shared file; no gateway may run on it.
///
/// # Errors
/// A gateway runs, or the file cannot be opened or written.
pub fn uninstall(database: &DatabaseConfig) -> Result<bool, OpenError> {
    let path = open::prepare_file(&database.path, false)?;
    let connection = open::writer(&path)?;
    let error = |error| open::open_error(&path, error);
    let installed: Option<i64> = connection
        .query_row("SELECT 1 FROM sqlite_master WHERE name = 'keytoll_instances'", [], |row| row.get(0))
        .optional()
        .map_err(error)?;
    if installed.is_none() {
        return Ok(false);
    }
    let dead = instance::find_dead_for_sure(&connection, &path).map_err(error)?;
    connection.execute_batch("BEGIN EXCLUSIVE").map_err(error)?;
    let open: i64 = connection
        .query_row("SELECT count(*) FROM keytoll_instances WHERE ended_at IS NULL", [], |row| row.get(0))
        .map_err(error)?;
    if i64::try_from(dead.len()).unwrap_or(i64::MAX) < open {
        return Err(OpenError::InUse(path.clone()));
    }
    let mut wallets = Wallets::new(usize::MAX);
    instance::release_dead(&connection, &mut wallets, &dead, now_unix_ms()).map_err(error)?;
    wallets.flush(&connection).map_err(error)?;
    schema::uninstall(&connection).map_err(error)?;
    connection.execute_batch("COMMIT").map_err(error)?;
    dead.into_iter().for_each(instance::Dead::remove_lock);
    Ok(true)
}
