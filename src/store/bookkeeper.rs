//! The upkeep of the books, on a thread of its own, so that no query has to read every charge.
//!
//! Once a second it adds up what was settled since ([`sums`]) and moves charges that are older than the setting into the usage
//! table, a few at a time ([`retention`]); once a minute it compares every wallet with the books ([`check`]). It reads over a
//! connection of its own and writes through the writer. Its writes are not synced, because all of them can be repeated.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::model::Timestamp;
use crate::store::books::check::{self, Comparison};
use crate::store::books::retention::{self, Cursor, Retention};
use crate::store::books::{external, sums};
use crate::store::error::{OpenError, Unavailable};
use crate::store::file::lock_file::RollUpLock;
use crate::store::file::open;
use crate::store::writer::now_unix_ms;
use crate::store::writer::queue::Queue;
use crate::store::writer::write::{self, Synced, WriteError, WriteFault, WriteTx};
use crate::telemetry::metrics::StoreMetrics;

/// How often there is a look for what has become final.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often charges that have grown old are looked for.
const RETENTION: Duration = Duration::from_secs(60);
/// How often all wallets are compared with the books.
const COMPARISON: Duration = Duration::from_secs(60);
/// Users that the log names after each comparison; the rest is counted. Few in tests, so that there is a rest.
const NAMED: u64 = if cfg!(test) { 2 } else { 100 };
/// How long old charges are moved before there is a look at the rest.
const SPELL: Duration = Duration::from_secs(5);
/// Accounts whose address is taken over at once.
const READDRESSED: i64 = 1_000;
/// Between two portions of one kind of work: traffic comes first.
const BREATH: Duration = Duration::from_millis(10);

/// How the books stood when they were last compared with the wallets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BooksState {
    /// When that was.
    pub checked_at: Timestamp,
    /// Users with an account.
    pub users: u64,
    /// Those whose wallet is not what the books say.
    pub unbalanced: u64,
}

/// What the thread and its owner tell each other.
#[derive(Default)]
struct Shared {
    stop: Mutex<bool>,
    wake: Condvar,
    state: Mutex<Option<BooksState>>,
}

/// The thread.
pub(super) struct Bookkeeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Bookkeeper {
    /// `keep_charges`: how long the row of a settled charge is kept; `None` keeps all rows.
    ///
    /// # Errors
    /// No connection to the file, no lock file beside it, or no thread.
    pub(super) fn start(
        path: &Path,
        queue: Arc<Queue>,
        keep_charges: Option<Duration>,
        metrics: Arc<StoreMetrics>,
    ) -> Result<Bookkeeper, OpenError> {
        let io = |error| OpenError::Io(path.to_owned(), error);
        let retention = match keep_charges {
            Some(age) => Some(Retention::new(age, RollUpLock::open(path).map_err(io)?)),
            None => None,
        };
        let shared = Arc::new(Shared::default());
        let connection = open::reader(path)?;
        let worker = BooksWorker { connection, queue, retention, pass: None, metrics, shared: Arc::clone(&shared) };
        let thread = thread::Builder::new().name("keytoll-books".into()).spawn(move || worker.run()).map_err(io)?;
        Ok(Bookkeeper { shared, thread: Some(thread) })
    }

    /// How the books stood last; `None` before the first comparison.
    pub(super) fn state(&self) -> Option<BooksState> {
        *self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the thread after the step that it is at.
    pub(super) fn stop(&mut self) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the books ended with a panic");
        }
    }
}

impl Drop for Bookkeeper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread works with.
struct BooksWorker {
    connection: Connection,
    queue: Arc<Queue>,
    retention: Option<Retention>,
    /// Over the old charges; `None` between two of them.
    pass: Option<Cursor>,
    metrics: Arc<StoreMetrics>,
    shared: Arc<Shared>,
}

/// Why a step was not finished; the next round tries again.
enum Unfinished {
    Sqlite(rusqlite::Error),
    Unavailable(Unavailable),
}

impl From<rusqlite::Error> for Unfinished {
    fn from(error: rusqlite::Error) -> Unfinished {
        Unfinished::Sqlite(error)
    }
}

impl BooksWorker {
    fn run(mut self) {
        let (mut retention_at, mut comparison_at) = (Instant::now(), Instant::now());
        while self.rest(INTERVAL) {
            let done = self.round(&mut retention_at, &mut comparison_at);
            match done {
                Ok(()) | Err(Unfinished::Unavailable(Unavailable::Stopping)) => {}
                // The writer has said what is wrong, in the log and on `/readyz`.
                Err(Unfinished::Unavailable(reason)) => tracing::debug!(%reason, "the books are kept later"),
                Err(Unfinished::Sqlite(error)) => tracing::warn!(%error, "the books could not be read; tried again"),
            }
        }
    }

    fn round(&mut self, retention_at: &mut Instant, comparison_at: &mut Instant) -> Result<(), Unfinished> {
        self.sum_up()?;
        if Instant::now() >= *comparison_at {
            self.readdress()?;
            self.compare()?;
            *comparison_at = Instant::now() + COMPARISON;
        }
        if Instant::now() >= *retention_at && self.retire()? {
            *retention_at = Instant::now() + RETENTION;
        }
        Ok(())
    }

    /// Adds up what has become final, portion by portion.
    fn sum_up(&self) -> Result<(), Unfinished> {
        loop {
            let Some(portion) = sums::gather(&self.connection)? else { return Ok(()) };
            let is_last = portion.is_last;
            self.write(move |tx| sums::apply(tx.connection(), &portion))?;
            if is_last || !self.rest(BREATH) {
                return Ok(());
            }
        }
    }

    /// Moves what is old into the usage table, portion by portion, for a spell. Whether all of it was moved.
    fn retire(&mut self) -> Result<bool, Unfinished> {
        if let Some(retention) = &mut self.retention {
            retention.keep_lock();
        }
        let Some(retention) = &self.retention else { return Ok(true) };
        let until = Instant::now() + SPELL;
        let mut pass = self.pass.take().unwrap_or_else(|| retention.begin(now_unix_ms()));
        while let Some(old) = pass.next(&self.connection)? {
            // An examination of the file counts charges and usage, and wants neither to move meanwhile.
            let Some(locked) = retention.lock() else { return Ok(false) };
            let moved = self.write(move |tx| retention::roll_up(tx.connection(), old));
            drop(locked);
            self.metrics.charges_rolled_up.inc_by(moved?);
            if !self.rest(BREATH) || Instant::now() >= until {
                self.pass = Some(pass);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Notes where the application gave users another address, so that they are still known by it later.
    fn readdress(&self) -> Result<(), Unfinished> {
        let accounts = external::readdressed(&self.connection, READDRESSED)?;
        if accounts.is_empty() {
            return Ok(());
        }
        self.write(move |tx| external::readdress(tx.connection(), &accounts))
    }

    fn compare(&self) -> Result<(), Unfinished> {
        let mut told = 0;
        let found = check::compare(&self.connection, |user, difference| {
            told += 1;
            if told <= NAMED {
                tracing::error!(user_id = user.0, %difference, "the books do not balance: run `keytoll doctor`");
            }
        })?;
        let Comparison { users, unbalanced } = found;
        if unbalanced > NAMED {
            tracing::error!(users = unbalanced, "the books of more users do not balance than are named here");
        }
        let checked_at = Timestamp::from_unix_ms(now_unix_ms());
        self.metrics.books_unbalanced_users.set(i64::try_from(unbalanced).unwrap_or(i64::MAX));
        self.metrics.books_checked_seconds.set(checked_at.unix_ms() / 1_000);
        let state = BooksState { checked_at, users, unbalanced };
        *self.shared.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        Ok(())
    }

    /// Runs a write in the writer's transaction, and waits for its commit.
    fn write<T, F>(&self, body: F) -> Result<T, Unfinished>
    where
        T: Send + 'static,
        F: FnOnce(&mut WriteTx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let body = move |tx: &mut WriteTx<'_>| -> Result<T, WriteFault<std::convert::Infallible>> { Ok(body(tx)?) };
        let answer = write::submit(&self.queue, Synced::Later, body).map_err(Unfinished::Unavailable)?;
        let answer = answer.blocking_recv().unwrap_or(Err(WriteError::Unavailable(Unavailable::Stopping)));
        answer.map_err(|error| Unfinished::Unavailable(error.into()))
    }

    /// Waits. `false` when the thread has to end.
    fn rest(&self, time: Duration) -> bool {
        let stop = self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.shared.wake.wait_timeout_while(stop, time, |stop| !*stop);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
