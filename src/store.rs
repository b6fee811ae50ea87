//! The store: all SQL, and the only code that opens the database.
//!
//! ```text
//! start, init, uninstall   the first transaction on a file, and the last
//! bookkeeper               the thread that adds up, retires and compares the books
//! admin                    queries and writes for operators: users, keys, wallets, charges
//! doctor                   the examination of a file, and its repair
//! writer                   the thread with the only connection that writes: many messages in one transaction
//! books                    accounts, entries, charges, leases, sums, and what other programs do to wallets
//! file                     opening, schema and migrations, file identity, locks of instances, reading connections
//! ```
//!
//! Nothing above the store sees a connection.
//!
//! What it promises: a hold, a capture or a write that was answered is committed, at the durability that the setting
//! says; what other programs do to wallets gets onto the books; where continuing would be unsafe it says so
//! ([`Store::fatal`]) and does nothing more.

mod admin;
mod bookkeeper;
mod books;
pub mod doctor;
mod error;
mod file;
mod init;
#[cfg(test)]
mod sample;
mod start;
#[cfg(test)]
mod tests;
mod uninstall;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::watch;

pub use crate::store::admin::charges::{ChargeFilter, ChargeRecord};
pub use crate::store::admin::entries::{Booked, Booking, Direction, EntryRecord, WalletRecord, WalletRefused};
pub use crate::store::admin::keys::{KeyFilter, KeyRecord, KeyRefused, NewKey};
pub use crate::store::admin::lookup::Found;
pub use crate::store::admin::page::{Page, PageRequest};
pub use crate::store::admin::unknown_apis::{UnknownApis, unknown_apis};
pub use crate::store::admin::users::{USUAL_OPENING_BALANCE, UserChange, UserRecord, UserRefused};
pub use crate::store::bookkeeper::BooksState;
pub use crate::store::books::recovery::Recovered;
pub use crate::store::error::{ConstraintError, Fatal, HoldRefused, OpenError, Unavailable};
pub use crate::store::file::set_up::{Needs, SetUp};
pub use crate::store::file::view::Generation;
pub use crate::store::init::init;
pub use crate::store::uninstall::{Uninstalled, uninstall};
pub use crate::store::writer::hold::{Held, HeldCharge, HoldRequest, Ledger, Settled, Settlement};
pub use crate::store::writer::reply_head::ReplyHead;
pub use crate::store::writer::write::WriteError;

use crate::config::{DatabaseConfig, Limits};
use crate::model::ApiKey;
use crate::store::admin::lookup;
use crate::store::bookkeeper::Bookkeeper;
use crate::store::books::requests::RequestLimits;
use crate::store::file::contents::Contents;
use crate::store::file::health::Health;
use crate::store::file::readers::Readers;
use crate::store::file::view::View;
use crate::store::file::{open, set_up};
use crate::store::writer::mailbox::Mailbox;
use crate::store::writer::queue::{Queue, QueueLimits};
use crate::store::writer::write::{self, Synced, WriteFault, WriteTx};
use crate::store::writer::{Parts, Writer, checkpoint};
use crate::telemetry::metrics::StoreMetrics;

/// Who opens the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A gateway: makes charges, releases those of gateways that are gone, checkpoints.
    Gateway,
    /// A command that writes users, keys and wallets, whether or not a gateway runs. It sets nothing up but a new file.
    Tool,
}

/// What opening a file found and changed, for the log of the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// What was changed so that the file can hold the books.
    pub set_up: SetUp,
    /// Wallets taken onto the books, when Keytoll saw the file for the first time.
    pub adopted_wallets: usize,
    /// Changes of balances that other programs made since Keytoll last looked.
    pub external_entries: u64,
    /// Holds of processes that were gone.
    pub recovered: Recovered,
    /// Triggers of the application on the shared tables, which do not run for Keytoll's writes.
    pub foreign_triggers: Vec<String>,
    /// Columns of the shared tables in which Keytoll's rows would have no value, as `users.tenant_id`.
    pub required_columns: Vec<String>,
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
    /// Gateways have one.
    bookkeeper: Mutex<Option<Bookkeeper>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the file, makes or upgrades what is missing in it if the role may do that, puts its books in order and starts the
    /// threads.
    ///
    /// # Errors
    /// What is wrong with the file and what to do about it; nothing was changed in the shared tables.
    pub fn open(
        database: &DatabaseConfig,
        limits: &Limits,
        role: Role,
        metrics: Arc<StoreMetrics>,
    ) -> Result<(Store, Opening), OpenError> {
        let file = open::prepare_file(&database.path, database.create.then_some(database.file_mode))?;
        let path = file.path.clone();
        open::share_access(&path);
        let connection = open::read_write(&path)?;
        set_up::check(&connection, &file, role == Role::Gateway)?;
        open::make_writer(&connection, &path)?;
        let (instance, opening) = start::start(&connection, &file, role, limits.instance_timeout)?;
        open::share_group(&path);
        let error = |error| open::open_error(&path, error);
        connection.busy_timeout(Duration::ZERO).map_err(error)?;
        let health = Arc::new(Health::new());
        let checkpointer = match role {
            Role::Gateway => {
                let own = open::checkpointer(&path)?;
                let contents = Contents::open(&path).map_err(|found| OpenError::Io(path.clone(), found.into()))?;
                let (health, metrics) = (Arc::clone(&health), Arc::clone(&metrics));
                let started = checkpoint::Checkpointer::start(own, contents, health, metrics);
                Some(started.map_err(|error| OpenError::Io(path.clone(), error))?)
            }
            Role::Tool => None,
        };
        let queue = Arc::new(Queue::new(QueueLimits::from(limits)));
        let view = Arc::new(View::new());
        let readers = Readers::start(|| open::reader(&path), &path, limits.queued_reads, Arc::clone(&metrics))?;
        let bookkeeper = match role {
            Role::Gateway => {
                Some(Bookkeeper::start(&path, Arc::clone(&queue), database.keep_charges, Arc::clone(&metrics))?)
            }
            Role::Tool => None,
        };
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
            requests: RequestLimits::from(limits),
            instance_timeout: limits.instance_timeout,
        };
        let writer = Writer::new(parts)?;
        let thread = spawn_writer(writer, Arc::clone(&queue), Arc::clone(&health));
        let thread = thread.map_err(|error| OpenError::Io(path.clone(), error))?;
        let shared = Shared {
            queue,
            view,
            health,
            readers,
            bookkeeper: Mutex::new(bookkeeper),
            writer: Mutex::new(Some(thread)),
        };
        Ok((Store { shared: Arc::new(shared) }, opening))
    }

    /// Opens the file to read only: nothing in it or beside it is created or changed, whether or not other programs use it.
    /// Writes are refused.
    ///
    /// # Errors
    /// What is wrong with the file, or what is missing in it.
    pub fn open_to_read(
        database: &DatabaseConfig,
        limits: &Limits,
        needs: Needs,
        metrics: Arc<StoreMetrics>,
    ) -> Result<Store, OpenError> {
        let file = open::prepare_file(&database.path, None)?;
        let readers = Readers::start(|| set_up::observer(&file, needs), &file.path, limits.queued_reads, metrics)?;
        let queue = Arc::new(Queue::new(QueueLimits::from(limits)));
        queue.close();
        let (view, health) = (Arc::new(View::new()), Arc::new(Health::new()));
        let shared = Shared { queue, view, health, readers, bookkeeper: Mutex::default(), writer: Mutex::default() };
        Ok(Store { shared: Arc::new(shared) })
    }

    /// A worker's way to the writer, and the task that brings the answers, to be run on that worker's runtime.
    pub fn ledger(&self) -> (Ledger, impl Future<Output = ()> + Send + use<>) {
        let mailbox = Arc::new(Mailbox::new(Arc::clone(&self.shared.queue)));
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

    /// Why billing is unavailable, if it is.
    pub fn trouble(&self) -> Option<Unavailable> {
        let trouble = self.shared.health.trouble();
        // The writer looks at the file many times a second, unless the operating system does not come back to it.
        trouble.or_else(|| (self.view_age() > self.shared.queue.limits.patience()).then_some(Unavailable::TooLate))
    }

    /// Says when the process has to stop because going on would be unsafe.
    pub fn fatal(&self) -> watch::Receiver<Option<Fatal>> {
        self.shared.health.fatal()
    }

    /// How the books stood when the gateway last compared them with the wallets; `None` before the first time, and
    /// for tools.
    pub fn books_state(&self) -> Option<BooksState> {
        let bookkeeper = self.shared.bookkeeper.lock().unwrap_or_else(PoisonError::into_inner);
        bookkeeper.as_ref().and_then(Bookkeeper::state)
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
        self.shared.end();
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
        let answer = write::submit(&self.shared.queue, Synced::Now, body).map_err(WriteError::Unavailable)?;
        answer.await.unwrap_or(Err(WriteError::Unavailable(Unavailable::Stopping)))
    }
}

impl Shared {
    /// Ends the threads in the order in which they use each other.
    fn end(&self) {
        let bookkeeper = self.bookkeeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Its last write may wait for the writer, which therefore lives on meanwhile.
        drop(bookkeeper);
        self.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the database writer ended with a panic");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn_writer(writer: Writer, queue: Arc<Queue>, health: Arc<Health>) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("keytoll-write".into()).spawn(move || {
        /// Fails pending messages if the writer panics.
        struct Closes(Arc<Queue>, Arc<Health>);
        impl Drop for Closes {
            fn drop(&mut self) {
                if thread::panicking() {
                    self.1.stop(Fatal::WriterDied);
                }
                writer::log_abandoned(&self.0.abandon());
            }
        }
        let _closes = Closes(queue, health);
        writer.run();
    })
}
