//! Instances: each process that makes charges holds a file lock named after its instance, for as long as it lives.
//!
//! Whoever gets the lock of an instance knows that its process is gone, and releases what it held. A lock crosses
//! container boundaries and ends with its process; a process id does neither.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::accounts;
use super::lock_file::{self, LockFile, Look, Missing};
use super::requests;
use super::wallets::{Balance, Wallets};
use crate::failpoint;
use crate::files::{self, FileError, Links};
use crate::model::{AccountId, Cents, ChargeId, ChargeState, EntryKind, UserId};

/// Between two looks at a lock file that is missing.
const LOOK: Duration = Duration::from_secs(1);

/// How long a process that has ended keeps its row, for whoever wants to know when gateways ran: thirty days.
const REMEMBERED_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// This process among those that use the file.
pub(super) struct Instance {
    pub(super) id: i64,
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
    pub(super) fn register(
        connection: &Connection,
        database: &Path,
        now_unix_ms: i64,
    ) -> Result<Instance, RegisterError> {
        connection.execute(
            "INSERT INTO keytoll_instances (started_at, low_water)
             SELECT ?1, value FROM keytoll_meta WHERE name = 'next_charge_id'",
            [now_unix_ms],
        )?;
        let id = connection.last_insert_rowid();
        let lock = LockFile::make(database, id)?;
        failpoint::reach("instance-registered");
        Ok(Instance { id, lock })
    }

    /// Puts the lock file back if somebody removed it. Needs no transaction.
    pub(super) fn keep_lock(&mut self) {
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
    pub(super) fn is_registered(&self, connection: &Connection) -> rusqlite::Result<bool> {
        connection
            .prepare_cached("SELECT 1 FROM keytoll_instances WHERE id = ?1 AND ended_at IS NULL")?
            .exists([self.id])
    }

    /// Notes the id below which none of this process's charges is open and none will come.
    pub(super) fn set_low_water(&self, connection: &Connection, mark: i64) -> rusqlite::Result<()> {
        connection
            .prepare_cached("UPDATE keytoll_instances SET low_water = ?2 WHERE id = ?1")?
            .execute([self.id, mark])?;
        Ok(())
    }

    /// Notes that ids up to `end` were reserved, in the transaction that does so.
    pub(super) fn set_ids(&self, connection: &Connection, mark: i64, end: i64) -> rusqlite::Result<()> {
        connection
            .prepare_cached("UPDATE keytoll_instances SET low_water = ?2, ids_below = ?3 WHERE id = ?1")?
            .execute([self.id, mark, end])?;
        Ok(())
    }

    /// Says that this process settled everything, inside of its last transaction.
    pub(super) fn end(&self, connection: &Connection, now_unix_ms: i64) -> rusqlite::Result<()> {
        connection.execute("UPDATE keytoll_instances SET ended_at = ?2 WHERE id = ?1", [self.id, now_unix_ms])?;
        Ok(())
    }

    /// Takes the lock file away, after [`Instance::end`] was committed.
    pub(super) fn remove_lock(self) {
        self.lock.remove();
    }
}

/// Why this process could not be registered.
#[derive(Debug)]
pub(super) enum RegisterError {
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

/// Locks of processes that are gone, taken; they are held until their holds are released.
pub(super) struct Dead {
    id: i64,
    lock: LockFile,
}

impl Dead {
    /// Takes the lock file away, after the releases were committed.
    pub(super) fn remove_lock(self) {
        self.lock.remove();
    }
}

/// Finds processes that are gone without having settled everything. Needs no transaction. Those whose lock file is
/// missing are noted in `missing`, and count as gone when they were there often enough.
pub(super) fn find_dead(
    connection: &Connection,
    database: &Path,
    own: Option<i64>,
    missing: &mut Missing,
) -> rusqlite::Result<Vec<Dead>> {
    let mut select =
        connection.prepare_cached("SELECT id FROM keytoll_instances WHERE ended_at IS NULL AND id IS NOT ?1")?;
    let ids = select.query_map([own], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    let (mut dead, mut absent) = (Vec::new(), Vec::new());
    for id in ids {
        let lock = match LockFile::look(database, id) {
            Ok(Look::Held) => continue,
            Ok(Look::Free(lock)) => Ok(lock),
            Ok(Look::Missing) => {
                absent.push(id);
                if !missing.note(id) {
                    continue;
                }
                LockFile::make_missing(database, id)
            }
            Err(error) => Err(error),
        };
        match lock {
            Ok(lock) => dead.push(Dead { id, lock }),
            Err(error) => {
                tracing::warn!(instance = id, %error, "the lock of another gateway could not be tried; its holds stay");
            }
        }
    }
    missing.keep_only(&absent);
    Ok(dead)
}

/// The same for a command, which has no later turn: waits until a gateway whose lock file is missing had the time to put
/// it back. Not to be called inside of a transaction.
pub(super) fn find_dead_for_sure(connection: &Connection, database: &Path) -> rusqlite::Result<Vec<Dead>> {
    let mut missing = Missing::default();
    loop {
        let dead = find_dead(connection, database, None, &mut missing)?;
        if !missing.any_undecided() {
            return Ok(dead);
        }
        // Their locks are free again meanwhile, and taken anew.
        drop(dead);
        thread::sleep(LOOK);
    }
}

/// Whether the process of an instance lives: its lock is held, or cannot be tried. Changes nothing; the lock is shared
/// for a moment, so that those who ask at the same time do not take each other for the process.
pub(super) fn lives(database: &Path, instance: i64) -> bool {
    let path = lock_file::path(database, instance);
    match files::open_regular(&path, File::options().read(true), Links::Refuse).map(|lock| lock.try_lock_shared()) {
        Ok(Ok(())) => false,
        Ok(Err(TryLockError::WouldBlock | TryLockError::Error(_))) | Err(FileError::Kind(_)) => true,
        Err(FileError::Io(error)) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Releases what a dead process held, and gives back what it forwarded once more, inside of a transaction.
pub(super) fn release_dead(
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
pub(super) fn forget_old(connection: &Connection, now_unix_ms: i64) -> rusqlite::Result<()> {
    connection
        .execute("DELETE FROM keytoll_instances WHERE ended_at < ?1", [now_unix_ms.saturating_sub(REMEMBERED_MS)])?;
    Ok(())
}

/// A charge whose price is to be given back: its process will not settle it, or forwarded it once more in vain.
pub(super) struct LeftOver {
    pub(super) charge: ChargeId,
    pub(super) account: AccountId,
    pub(super) cents: Cents,
    pub(super) user: UserId,
}

impl LeftOver {
    /// `keytoll_charges.id`, `account_id` and `cents`, and the `user_id` of the account.
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<LeftOver> {
        let (charge, account) = (ChargeId(row.get(0)?), AccountId(row.get(1)?));
        Ok(LeftOver { charge, account, cents: Cents(row.get(2)?), user: UserId(row.get(3)?) })
    }

    /// Releases it, inside of a transaction.
    pub(super) fn release(
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
pub(super) fn give_back(
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
