//! Instances: each process that makes charges holds a file lock named after its instance, for as long as it lives.
//!
//! Whoever gets the lock of an instance knows that its process is gone, and releases what it held. A lock crosses
//! container boundaries and ends with its process; a process id does neither.
//!
//! Any process that may open a lock file can hold its lock, and so keep a dead instance looking alive. Therefore an instance
//! that does not beat for the time that its row states is dead too ([`crate::store::file::silence`]). One that was only suspended finds
//! that out in its next transaction, before that transaction changes anything, and stops.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::failpoint;
use crate::files::{self, FileError, Links};
use crate::model::{AccountId, Cents, ChargeId, ChargeState, EntryKind, UserId};
use crate::store::books::{accounts, requests};
use crate::store::file::lock_file::{self, LockFile, Look, Missing};
use crate::store::file::silence::Silence;
use crate::store::writer::wallets::{Balance, Wallets};

/// How long a process that has ended keeps its row, for whoever wants to know when gateways ran: thirty days.
const REMEMBERED_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// This process among those that use the file.
pub(in crate::store) struct Instance {
    pub(in crate::store) id: i64,
    lock: LockFile,
}

/// What was found of processes that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Processes that ended without settling.
    pub instances: u64,
    /// Their charges that were held, or forwarded once more.
    pub charges: u64,
    /// What was given back.
    pub cents: i64,
}

impl Recovered {
    /// Says in the log what was found, if anything was.
    pub fn tell(self) {
        if self.instances > 0 {
            tracing::warn!(
                instances = self.instances,
                charges = self.charges,
                cents = self.cents,
                "a gateway ended without settling: its holds are released"
            );
        }
    }
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
            "INSERT INTO keytoll_instances (started_at, low_water, timeout_ms)
             SELECT ?1, value, ?2 FROM keytoll_meta WHERE name = 'next_charge_id'",
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

    /// Whether nobody has taken this process for dead, inside of a transaction.
    pub(in crate::store) fn is_registered(&self, connection: &Connection) -> rusqlite::Result<bool> {
        connection
            .prepare_cached("SELECT 1 FROM keytoll_instances WHERE id = ?1 AND ended_at IS NULL")?
            .exists([self.id])
    }

    /// Shows the others that this process lives, inside of a transaction.
    pub(in crate::store) fn beat(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached("UPDATE keytoll_instances SET beats = beats + 1 WHERE id = ?1 AND ended_at IS NULL")?
            .execute([self.id])?;
        Ok(())
    }

    /// Notes the id below which none of this process's charges is open and none will come.
    pub(in crate::store) fn set_low_water(&self, connection: &Connection, mark: i64) -> rusqlite::Result<()> {
        connection
            .prepare_cached("UPDATE keytoll_instances SET low_water = ?2 WHERE id = ?1")?
            .execute([self.id, mark])?;
        Ok(())
    }

    /// Notes that ids up to `end` were reserved, in the transaction that does so.
    pub(in crate::store) fn set_ids(&self, connection: &Connection, mark: i64, end: i64) -> rusqlite::Result<()> {
        connection
            .prepare_cached("UPDATE keytoll_instances SET low_water = ?2, ids_below = ?3 WHERE id = ?1")?
            .execute([self.id, mark, end])?;
        Ok(())
    }

    /// Says that this process settled everything, inside of its last transaction.
    pub(in crate::store) fn end(&self, connection: &Connection, now_unix_ms: i64) -> rusqlite::Result<()> {
        connection.execute("UPDATE keytoll_instances SET ended_at = ?2 WHERE id = ?1", [self.id, now_unix_ms])?;
        Ok(())
    }

    /// Takes the lock file away, after [`Instance::end`] was committed.
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

/// A process that is gone, or counts as gone.
pub(in crate::store) struct Dead {
    id: i64,
    lock: DeadInstanceLock,
}

enum DeadInstanceLock {
    /// Taken, and held until the releases are committed.
    Taken(LockFile),
    /// Another process holds it, or it cannot be opened; its instance has been silent for so long.
    Silent(PathBuf, Duration),
}

impl Dead {
    /// Takes the lock file away, after the releases were committed.
    pub(in crate::store) fn remove_lock(self) {
        match self.lock {
            DeadInstanceLock::Taken(lock) => lock.remove(),
            DeadInstanceLock::Silent(path, silent) => {
                tracing::warn!(
                    instance = self.id,
                    silent_ms = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
                    lock_file = %path.display(),
                    "a gateway sent no heartbeat within its instance_timeout; its holds are released although its lock is held"
                );
                lock_file::remove(&path);
            }
        }
    }
}

/// What a look at the other instances found.
pub(in crate::store) struct Others {
    /// Those that are gone without having settled everything.
    pub(in crate::store) dead: Vec<Dead>,
    /// Whether there are any that have not ended, dead or alive.
    pub(in crate::store) any: bool,
}

/// Finds processes that are gone without having settled everything. Needs no transaction, unless `silence` is given: an
/// instance must not beat between the look and the release of its holds. Those whose lock file is missing are noted in
/// `missing`, and count as gone when they were there often enough; those whose lock cannot be taken are noted in `silence`.
pub(in crate::store) fn find_dead(
    connection: &Connection,
    database: &Path,
    own: Option<i64>,
    missing: &mut Missing,
    mut silence: Option<&mut Silence>,
) -> rusqlite::Result<Others> {
    let mut select = connection.prepare_cached(
        "SELECT id, beats, timeout_ms FROM keytoll_instances WHERE ended_at IS NULL AND id IS NOT ?1",
    )?;
    let rows = select.query_map([own], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let rows = rows.collect::<rusqlite::Result<Vec<(i64, i64, Option<i64>)>>>()?;
    let (mut dead, mut absent, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for &(id, beats, timeout_ms) in &rows {
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
            dead.push(Dead { id, lock: DeadInstanceLock::Taken(lock) });
            continue;
        }
        held.push(id);
        let silent = silence.as_mut().map(|silence| silence.note(id, beats, Instant::now()));
        let timeout = timeout_ms.and_then(|timeout| u64::try_from(timeout).ok()).map(Duration::from_millis);
        if let (Some(silent), Some(timeout)) = (silent, timeout)
            && silent >= timeout
        {
            dead.push(Dead { id, lock: DeadInstanceLock::Silent(lock_file::path(database, id), silent) });
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
    Ok(Others { dead, any: !rows.is_empty() })
}

/// The same for a command, which has no later turn: waits until a gateway whose lock file is missing had the time to put
/// it back. Not to be called inside of a transaction.
pub(in crate::store) fn find_dead_for_sure(connection: &Connection, database: &Path) -> rusqlite::Result<Vec<Dead>> {
    let mut missing = Missing::default();
    loop {
        let dead = find_dead(connection, database, None, &mut missing, None)?.dead;
        if !missing.any_undecided() {
            return Ok(dead);
        }
        // Their locks are free again meanwhile, and taken anew.
        drop(dead);
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

/// Releases what a dead process held, and gives back what it forwarded once more, inside of a transaction.
pub(in crate::store) fn release_dead(
    connection: &Connection,
    wallets: &mut Wallets,
    dead: &[Dead],
    now_unix_ms: i64,
) -> rusqlite::Result<Recovered> {
    let mut recovered = Recovered::default();
    for instance in dead {
        let open: Option<(i64, i64)> = connection
            .query_row(
                "SELECT low_water, coalesce(ids_below, 9223372036854775807) FROM keytoll_instances
                 WHERE id = ?1 AND ended_at IS NULL",
                [instance.id],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        // Another process may have been faster.
        let Some((low_water, ids_below)) = open else { continue };
        recovered.instances += 1;
        let held = {
            let mut select = connection.prepare_cached(
                "SELECT c.id, c.account_id, c.cents, a.user_id FROM keytoll_charges c JOIN keytoll_accounts a ON a.id = c.account_id
                 WHERE c.id >= ?1 AND c.id < ?3 AND c.state = 0 AND c.instance_id = ?2",
            )?;
            let rows = select.query_map([low_water, instance.id, ids_below], LeftOver::of)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()?
        };
        for left_over in held {
            left_over.release(connection, wallets, now_unix_ms)?;
            failpoint::reach("dead-hold-released");
            recovered.charges += 1;
            recovered.cents = recovered.cents.saturating_add(left_over.cents.0);
        }
        let (charges, cents) = requests::give_back_dead(connection, wallets, instance.id, now_unix_ms)?;
        recovered.charges += charges;
        recovered.cents = recovered.cents.saturating_add(cents);
        connection.execute("UPDATE keytoll_instances SET ended_at = ?2 WHERE id = ?1", [instance.id, now_unix_ms])?;
    }
    Ok(recovered)
}

/// Deletes the rows of processes that ended long ago: nothing that they held is open.
pub(in crate::store) fn forget_old(connection: &Connection, now_unix_ms: i64) -> rusqlite::Result<()> {
    connection
        .execute("DELETE FROM keytoll_instances WHERE ended_at < ?1", [now_unix_ms.saturating_sub(REMEMBERED_MS)])?;
    Ok(())
}

/// A charge whose price is to be given back: its process will not settle it, or forwarded it once more in vain.
pub(in crate::store) struct LeftOver {
    pub(in crate::store) charge: ChargeId,
    pub(in crate::store) account: AccountId,
    pub(in crate::store) cents: Cents,
    pub(in crate::store) user: UserId,
}

impl LeftOver {
    /// `keytoll_charges.id`, `account_id` and `cents`, and the `user_id` of the account.
    pub(in crate::store) fn of(row: &Row<'_>) -> rusqlite::Result<LeftOver> {
        let (charge, account) = (ChargeId(row.get(0)?), AccountId(row.get(1)?));
        Ok(LeftOver { charge, account, cents: Cents(row.get(2)?), user: UserId(row.get(3)?) })
    }

    /// Releases it, inside of a transaction.
    pub(in crate::store) fn release(
        &self,
        connection: &Connection,
        wallets: &mut Wallets,
        now_unix_ms: i64,
    ) -> rusqlite::Result<()> {
        connection
            .prepare_cached("UPDATE keytoll_charges SET state = ?2, settled_at = ?3 WHERE id = ?1 AND state = 0")?
            .execute(params![self.charge.0, ChargeState::Released.code(), now_unix_ms])?;
        requests::forget(connection, self.charge)?;
        give_back(connection, wallets, self.user, self.account, self.cents, now_unix_ms)?;
        Ok(())
    }
}

/// Gives the price of a released charge back to its wallet. Where that is gone, or is another account's by now, or
/// holds no money, the books say: given back, and taken out again. The wallet's balance then.
pub(in crate::store) fn give_back(
    connection: &Connection,
    wallets: &mut Wallets,
    user: UserId,
    account: AccountId,
    cents: Cents,
    now_unix_ms: i64,
) -> rusqlite::Result<Option<Cents>> {
    let wallet = wallets.get(connection, user, now_unix_ms)?;
    if let Some(wallet) = wallet
        && wallet.account == account
        && let Balance::Money(balance) = wallet.balance
        && let Ok(sum) = balance.checked_add(cents)
    {
        wallets.set(user, sum);
        return Ok(Some(sum));
    }
    let note = Some("released into a wallet that is gone");
    accounts::enter(connection, account, EntryKind::External, Cents(-cents.0), note, now_unix_ms)?;
    Ok(None)
}
