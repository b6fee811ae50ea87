//! Checkpoints on a thread of their own, so that the writer does not stall for them. The thread also compares the contents of the
//! file several times a second, whether or not there is traffic.
//!
//! Passive checkpoints alone never let a busy write-ahead log start over: while one copies, the writer appends. So
//! the thread copies nearly all of it, and says so; the writer then copies the little that is left between two
//! batches, and its next commit starts the log from the beginning (<https://www.sqlite.org/wal.html>, §3.1, §6).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;

use crate::failpoint;
use crate::store::error::Fatal;
use crate::store::file::contents::{Contents, Doubt};
use crate::store::file::health::Health;
use crate::telemetry::metrics::StoreMetrics;

/// How often the log is looked at without being asked.
const INTERVAL: Duration = Duration::from_millis(200);
/// Frames below which a checkpoint is not worth its syncs.
const WORTHWHILE: u64 = 1_000;
/// Frames that the writer may copy itself: some milliseconds.
const LITTLE: u64 = 1_000;

/// A checkpoint's own report.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Progress {
    pub(in crate::store) frames: u64,
    pub(in crate::store) copied: u64,
}

/// Copies what can be copied without waiting for anyone.
pub(in crate::store) fn passive(connection: &Connection) -> rusqlite::Result<Progress> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let count = |index| row.get::<_, i64>(index).map(|count| u64::try_from(count).unwrap_or(0));
        Ok(Progress { frames: count(1)?, copied: count(2)? })
    })
}

/// Whether an error means that a sync failed, after which nothing on the disk can be trusted to be there.
pub(in crate::store) fn is_sync_failure(error: &rusqlite::Error) -> bool {
    const IOERR_FSYNC: i32 = 1034;
    const IOERR_DIR_FSYNC: i32 = 1290;
    matches!(error, rusqlite::Error::SqliteFailure(failure, _)
        if failure.extended_code == IOERR_FSYNC || failure.extended_code == IOERR_DIR_FSYNC)
}

/// What the thread and the writer tell each other.
struct Shared {
    stop: Mutex<bool>,
    wake: Condvar,
    little_left: AtomicBool,
    frames: AtomicU64,
    contents: Contents,
    health: Arc<Health>,
}

impl Shared {
    /// Whether the file may be written to: a checkpoint into contents that are not the database's would mix both.
    fn may_checkpoint(&self, connection: &Connection) -> bool {
        if self.health.is_fatal() {
            return false;
        }
        match self.contents.check(connection) {
            Ok(()) => true,
            Err(Doubt::NotNow) => false,
            Err(Doubt::Overwritten) => {
                self.health.stop(Fatal::FileOverwritten);
                false
            }
        }
    }
}

/// The thread.
pub(in crate::store) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(in crate::store) fn start(
        connection: Connection,
        contents: Contents,
        health: Arc<Health>,
        metrics: Arc<StoreMetrics>,
    ) -> std::io::Result<Checkpointer> {
        let shared = Arc::new(Shared {
            stop: Mutex::default(),
            wake: Condvar::new(),
            little_left: AtomicBool::default(),
            frames: AtomicU64::default(),
            contents,
            health,
        });
        let own = Arc::clone(&shared);
        // So that the stamp of this start is in the file itself, and every older copy is known from now on.
        if let Err(error) = passive(&connection) {
            tracing::debug!(%error, "the first checkpoint is left for later");
        }
        shared.may_checkpoint(&connection);
        let thread =
            thread::Builder::new().name("keytoll-checkpoint".into()).spawn(move || run(&connection, &own, &metrics))?;
        Ok(Checkpointer { shared, thread: Some(thread) })
    }

    /// Whether the writer should now copy what is left.
    pub(in crate::store) fn take_little_left(&self) -> bool {
        self.shared.little_left.swap(false, Ordering::AcqRel)
    }

    /// Whether the writer may checkpoint, on this connection of its own.
    pub(in crate::store) fn may_checkpoint(&self, connection: &Connection) -> bool {
        self.shared.may_checkpoint(connection)
    }

    /// Asks for a checkpoint now.
    pub(in crate::store) fn ask(&self) {
        self.shared.wake.notify_one();
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread ended with a panic");
        }
    }
}

fn run(connection: &Connection, shared: &Shared, metrics: &StoreMetrics) {
    loop {
        let stop = shared.stop.lock().unwrap_or_else(PoisonError::into_inner);
        if *stop {
            return;
        }
        let (stop, _) = shared.wake.wait_timeout(stop, INTERVAL).unwrap_or_else(PoisonError::into_inner);
        if *stop {
            return;
        }
        drop(stop);
        if !shared.may_checkpoint(connection) {
            continue;
        }
        match look(connection, shared) {
            Ok(true) => {
                metrics.checkpoints.inc();
            }
            Ok(false) => {}
            Err(error) if is_sync_failure(&error) => shared.health.stop(Fatal::SyncFailed),
            Err(error) => tracing::warn!(%error, "a checkpoint failed; the write-ahead log grows until one succeeds"),
        }
    }
}

/// Checkpoints when it is worth it. Whether it was.
fn look(connection: &Connection, shared: &Shared) -> rusqlite::Result<bool> {
    // A passive checkpoint of a log that was copied already reads two headers and does nothing.
    let known = shared.frames.load(Ordering::Relaxed);
    failpoint::reach("checkpoint-begun");
    let progress = passive(connection)?;
    failpoint::reach("checkpoint-done");
    shared.frames.store(progress.frames, Ordering::Relaxed);
    let left = progress.frames.saturating_sub(progress.copied);
    if progress.frames >= WORTHWHILE && left <= LITTLE {
        shared.little_left.store(true, Ordering::Release);
    }
    Ok(progress.frames != known)
}
