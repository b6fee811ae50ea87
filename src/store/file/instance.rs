//! Instances: each process that makes charges holds a file lock named after its instance, for as long as it lives.
//!
//! A process that gets the lock of an instance knows that the instance's process is gone, and returns its leases. A lock
//! crosses container boundaries and ends with its process; a process id does neither.
//!
//! Any process that may open a lock file can hold its lock, and so keep a dead instance looking alive. Therefore an instance
//! that commits no transaction for the time that its row states is dead too ([`crate::store::file::silence`]). One that was only
//! suspended finds that out in its next transaction, which does not commit, and stops.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::failpoint;
use crate::files::{self, FileError, Links};
use crate::store::file::lock_file::{self, LockFile, Look, Missing};
use crate::store::file::silence::Silence;

/// How long the row of an ended process is kept, so that past gateways can be listed: thirty days.
const REMEMBERED_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// This process among those that use the file.
pub(in crate::store) struct Instance {
    pub(in crate::store) id: i64,
    lock: LockFile,
}

impl Instance {
    /// Registers this process, inside of a transaction: the lock is held before anyone can see the row.
    pub(in crate::store) fn register(
        connection: &Connection,
        database: &Path,
        timeout: Duration,
        now_unix_ms: i64,
    ) -> Result<Instance, RegisterError> {
        connection.execute(
            "INSERT INTO keytoll_instances (started_at, timeout_ms, nonce) VALUES (?1, ?2, random())",
            [now_unix_ms, i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX)],
        )?;
        let id = connection.last_insert_rowid();
        let lock = LockFile::make(database, id)?;
        failpoint::reach("instance-registered");
        Ok(Instance { id, lock })
    }

    /// Puts the lock file back if somebody removed it. Needs no transaction.
    pub(in crate::store) fn keep_lock(&mut self) {
        match self.lock.keep(self.id) {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!(instance = self.id, "this gateway's lock file was removed by others; it is put back");
            }
            Err(error) => {
                tracing::error!(instance = self.id, %error, "this gateway's lock file was removed and cannot be put back");
            }
        }
    }

    /// Whether no other process has declared this one dead, inside of a transaction.
    pub(in crate::store) fn is_registered(&self, connection: &Connection) -> rusqlite::Result<bool> {
        connection
            .prepare_cached("SELECT 1 FROM keytoll_instances WHERE id = ?1 AND ended_at IS NULL")?
            .exists([self.id])
    }

    /// Counts a transaction of this process, inside of it: it is the `turn`-th. The count is the heartbeat by which others see
    /// that the process lives. `false`: another process has declared this one dead and recovered its leases, so that the
    /// transaction must not commit.
    pub(in crate::store) fn set_turn(&self, connection: &Connection, turn: i64) -> rusqlite::Result<bool> {
        let changed = connection
            .prepare_cached("UPDATE keytoll_instances SET turn = ?2 WHERE id = ?1 AND ended_at IS NULL")?
            .execute([self.id, turn])?;
        Ok(changed == 1)
    }

    /// The number of transactions of this process that are committed: tells whether a COMMIT took place that failed.
    pub(in crate::store) fn turn(&self, connection: &Connection) -> rusqlite::Result<i64> {
        connection
            .prepare_cached("SELECT turn FROM keytoll_instances WHERE id = ?1")?
            .query_row([self.id], |row| row.get(0))
    }

    /// Removes the lock file, after [`end`] was committed.
    pub(in crate::store) fn remove_lock(self) {
        self.lock.remove();
    }
}

/// Why this process could not be registered.
#[derive(Debug)]
pub(in crate::store) enum RegisterError {
    Sqlite(rusqlite::Error),
    Lock(io::Error),
}

impl From<rusqlite::Error> for RegisterError {
    fn from(error: rusqlite::Error) -> RegisterError {
        RegisterError::Sqlite(error)
    }
}

impl From<io::Error> for RegisterError {
    fn from(error: io::Error) -> RegisterError {
        RegisterError::Lock(error)
    }
}

/// Ends an instance, inside of a transaction: it has no leases any more. Whether it had not ended before.
pub(in crate::store) fn end(connection: &Connection, instance: i64, now_unix_ms: i64) -> rusqlite::Result<bool> {
    let changed = connection
        .prepare_cached("UPDATE keytoll_instances SET ended_at = ?2 WHERE id = ?1 AND ended_at IS NULL")?
        .execute([instance, now_unix_ms])?;
    Ok(changed == 1)
}

/// A process that is gone, or counts as gone.
pub(in crate::store) struct ExpiredInstance {
    id: i64,
    lock: DeadInstanceLock,
}

enum DeadInstanceLock {
    /// Taken, and held until the releases are committed.
    Taken(LockFile),
    /// Another process holds it, or it cannot be opened; its instance has been silent for so long.
    Silent(PathBuf, Duration),
}

impl ExpiredInstance {
    /// `keytoll_instances.id`.
    pub(in crate::store) fn id(&self) -> i64 {
        self.id
    }

    /// Takes the lock file away, after the releases were committed.
    pub(in crate::store) fn remove_lock(self) {
        match self.lock {
            DeadInstanceLock::Taken(lock) => lock.remove(),
            DeadInstanceLock::Silent(path, silent) => {
                tracing::warn!(
                    instance = self.id,
                    silent_ms = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
                    lock_file = %path.display(),
                    "a gateway sent no heartbeat within its instance_timeout; its leases are returned although its lock is held"
                );
                lock_file::remove(&path);
            }
        }
    }
}

/// What a look at the other instances found.
pub(in crate::store) struct Others {
    /// Those that are gone without having settled everything.
    pub(in crate::store) expired: Vec<ExpiredInstance>,
    /// Whether there are any that have not ended, dead or alive.
    pub(in crate::store) any: bool,
}

/// Finds processes that are gone without having settled everything. Needs no transaction, unless `silence` is given: an
/// instance must not beat between the look and the release of its holds. Those whose lock file is missing are noted in
/// `missing`, and count as gone when they were there often enough; those whose lock cannot be taken are noted in `silence`.
pub(in crate::store) fn find_expired(
    connection: &Connection,
    database: &Path,
    own: Option<i64>,
    missing: &mut Missing,
    mut silence: Option<&mut Silence>,
) -> rusqlite::Result<Others> {
    // Files of an older version have no turns.
    let turn = if silence.is_some() { "turn, timeout_ms" } else { "0, NULL" };
    let mut select = connection
        .prepare_cached(&format!("SELECT id, {turn} FROM keytoll_instances WHERE ended_at IS NULL AND id IS NOT ?1"))?;
    let rows = select.query_map([own], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let rows = rows.collect::<rusqlite::Result<Vec<(i64, i64, Option<i64>)>>>()?;
    let (mut expired, mut absent, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for &(id, turn, timeout_ms) in &rows {
        let lock = match LockFile::look(database, id) {
            Ok(Look::Held) => Ok(None),
            Ok(Look::Free(lock)) => Ok(Some(lock)),
            Ok(Look::Missing) => {
                absent.push(id);
                if !missing.note(id, Instant::now()) {
                    continue;
                }
                LockFile::make_missing(database, id).map(Some)
            }
            Err(error) => Err(error),
        };
        if let Ok(Some(lock)) = lock {
            expired.push(ExpiredInstance { id, lock: DeadInstanceLock::Taken(lock) });
            continue;
        }
        held.push(id);
        let silent = silence.as_mut().map(|silence| silence.note(id, turn, Instant::now()));
        let timeout = timeout_ms.and_then(|timeout| u64::try_from(timeout).ok()).map(Duration::from_millis);
        if let (Some(silent), Some(timeout)) = (silent, timeout)
            && silent >= timeout
        {
            expired.push(ExpiredInstance { id, lock: DeadInstanceLock::Silent(lock_file::path(database, id), silent) });
        } else if let Err(error) = lock {
            tracing::warn!(
                instance = id, %error,
                "the lock of another gateway cannot be checked; its holds are kept until its heartbeat times out"
            );
        }
    }
    missing.keep_only(&absent);
    if let Some(silence) = silence {
        silence.keep_only(&held);
    }
    Ok(Others { expired, any: !rows.is_empty() })
}

/// The same for a command, which has no later turn: waits until a gateway whose lock file is missing had the time to put
/// it back. Not to be called inside of a transaction.
pub(in crate::store) fn find_expired_patiently(
    connection: &Connection,
    database: &Path,
) -> rusqlite::Result<Vec<ExpiredInstance>> {
    let mut missing = Missing::default();
    loop {
        let expired = find_expired(connection, database, None, &mut missing, None)?.expired;
        if !missing.any_undecided() {
            return Ok(expired);
        }
        // Their locks are released meanwhile, and acquired again.
        drop(expired);
        thread::sleep(lock_file::LOOK);
    }
}

/// Whether the process of an instance lives: its lock is held, or cannot be tried. Changes nothing; the lock is shared
/// for a moment, so that those who ask at the same time do not take each other for the process.
pub(in crate::store) fn lives(database: &Path, instance: i64) -> bool {
    let path = lock_file::path(database, instance);
    match files::open_regular(&path, File::options().read(true), Links::Refuse).map(|lock| lock.try_lock_shared()) {
        Ok(Ok(())) => false,
        Ok(Err(TryLockError::WouldBlock | TryLockError::Error(_))) | Err(FileError::Kind(_)) => true,
        Err(FileError::Io(error)) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The instances that have not ended, in a file of any version.
pub(in crate::store) fn open_ids(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let mut select = connection.prepare("SELECT id FROM keytoll_instances WHERE ended_at IS NULL")?;
    let rows = select.query_map([], |row| row.get(0))?;
    rows.collect()
}

/// Whether the process of any instance that has not ended lives. Of a file of any version.
pub(in crate::store) fn any_lives(connection: &Connection, database: &Path) -> rusqlite::Result<bool> {
    Ok(open_ids(connection)?.into_iter().any(|id| lives(database, id)))
}

/// Deletes the rows of processes that ended long ago: nothing that they held is open.
pub(in crate::store) fn forget_old(connection: &Connection, now_unix_ms: i64) -> rusqlite::Result<()> {
    connection
        .execute("DELETE FROM keytoll_instances WHERE ended_at < ?1", [now_unix_ms.saturating_sub(REMEMBERED_MS)])?;
    Ok(())
}
