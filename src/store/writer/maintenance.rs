//! What a transaction does besides its batch: other programs' writes, the recovery of expired instances, and the sweep of
//! expired requests; what happens between two transactions: this process's own lock file, and the rest of a checkpoint; and
//! the last transaction.

use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;

use crate::failpoint;
use crate::store::books::external;
use crate::store::books::{recovery, requests};
use crate::store::error::Fatal;
use crate::store::file::instance::{self, ExpiredInstance};
use crate::store::writer::batch::Item;
use crate::store::writer::replies::log_abandoned;
use crate::store::writer::{
    BEATS, CHECKPOINT, Failure, OWN_LOCK, Writer, checkpoint, maintenance_interval, now_unix_ms, schema_version,
};

/// How long readers may keep the last checkpoint waiting, of a file or log that lost its name.
const RESCUE: Duration = Duration::from_secs(2);

impl Writer {
    /// Puts what other programs did onto the books. Whether the triggers were put back.
    pub(super) fn absorb(&mut self, now_unix_ms: i64) -> rusqlite::Result<bool> {
        let connection = &self.parts.connection;
        self.wallets.forget_all();
        let mut entries = external::absorb(connection, now_unix_ms)?;
        failpoint::reach("external-absorbed");
        let schema = schema_version(connection)?;
        let is_rebuilt = schema != self.schema && external::restore_triggers(connection, now_unix_ms)?;
        if is_rebuilt {
            tracing::warn!(
                "another program rebuilt the wallets table: its triggers are put back, and all wallets compared with the books"
            );
            entries += external::reconcile(connection, external::COMPARED, now_unix_ms)?;
        }
        if entries > 0 {
            tracing::info!(entries, "changes of balances by other programs were entered");
            self.parts.metrics.external_entries.inc_by(entries);
        }
        Ok(is_rebuilt)
    }

    /// Several times a second, also while another program holds the lock of the database: others must see that this process lives.
    pub(super) fn keep_lock(&mut self) {
        if let Some(instance) = &mut self.parts.instance
            && Instant::now() >= self.lock_at
        {
            self.lock_at = Instant::now() + OWN_LOCK;
            instance.keep_lock();
            failpoint::reach("lock-checked");
        }
    }

    /// Stops an instance that another one has declared dead: its leases were recovered, and it must not commit anything more.
    pub(super) fn fence(&self) -> Result<(), Failure> {
        match &self.parts.instance {
            Some(instance) if !instance.is_registered(&self.parts.connection)? => {
                let connection = &self.parts.connection;
                let is_known =
                    connection.prepare("SELECT 1 FROM keytoll_instances WHERE id = ?1")?.exists([instance.id])?;
                Err(Failure::Fatal(if is_known { Fatal::TakenForDead } else { Fatal::DatabaseRestored }))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// After a commit of another program: enters what it did, unless it took the file or this process away. Whether the triggers
    /// were put back, which SQLite does not count as a change.
    pub(super) fn take_over(&mut self, now_unix_ms: i64) -> Result<bool, Failure> {
        if self.parts.instance.is_some() && !self.stamp.confirm(&self.parts.connection)? {
            return Err(Failure::Fatal(Fatal::DatabaseRestored));
        }
        self.fence()?;
        Ok(self.absorb(now_unix_ms)?)
    }

    /// While something is written: advances the stamp by which older contents of the file are recognized.
    pub(super) fn advance_stamp(&mut self, work: &[Item]) -> rusqlite::Result<()> {
        let is_due = self.parts.instance.is_some() && (!work.is_empty() || self.seen != self.absorbed);
        if is_due { self.stamp.advance(&self.parts.connection) } else { Ok(()) }
    }

    /// Runs once per [`maintenance_interval`] (a second or less): recovers expired instances and forgets expired requests.
    /// Whether the transaction must be counted although it may change nothing: as a heartbeat, while other instances use the
    /// file; or so that the commit shows whether the database can be written again.
    pub(super) fn maintenance(&mut self, now_unix_ms: i64) -> rusqlite::Result<bool> {
        let now = Instant::now();
        self.maintenance_at = now + maintenance_interval(self.parts.instance_timeout);
        let Some(instance) = &self.parts.instance else { return Ok(false) };
        let connection = &self.parts.connection;
        requests::sweep(connection, &self.parts.requests, now_unix_ms)?;
        let (missing, silence) = (&mut self.missing, Some(&mut self.silence));
        let others = instance::find_expired(connection, &self.parts.path, Some(instance.id), missing, silence)?;
        let beats = others.any && now >= self.beat_at;
        if beats {
            self.beat_at = now + self.parts.instance_timeout / BEATS;
        }
        if !others.expired.is_empty() {
            let recovered = recovery::recover(connection, &mut self.wallets, &others.expired, now_unix_ms)?;
            self.recovered = Some((recovered, others.expired));
        }
        Ok(beats || self.parts.health.trouble().is_some())
    }

    /// After the commit: logs what was recovered in it, and removes the lock files of the expired instances.
    pub(super) fn finish_recovery(&mut self) {
        if let Some((recovered, expired)) = self.recovered.take() {
            recovered.log();
            expired.into_iter().for_each(ExpiredInstance::remove_lock);
        }
    }

    /// Between two transactions: the little that is left of a checkpoint, and the bound of the log.
    pub(super) fn after_turn(&mut self) {
        let Some(checkpointer) = &self.parts.checkpointer else { return };
        self.parts.metrics.wal_bytes.set(i64::try_from(self.wal_bytes).unwrap_or(i64::MAX));
        let (leases, leased_cents) = self.leases.total();
        self.parts.metrics.leases.set(i64::try_from(leases).unwrap_or(i64::MAX));
        self.parts.metrics.leased_cents.set(leased_cents);
        self.parts.metrics.wallets_cached.set(i64::try_from(self.wallets.len()).unwrap_or(i64::MAX));
        if self.disk.late_for().is_some() {
            return;
        }
        let is_late = self.wal_bytes > self.parts.wal_bytes && Instant::now() >= self.checkpoint_at;
        if (checkpointer.take_little_left() || is_late) && checkpointer.may_checkpoint(&self.parts.connection) {
            self.checkpoint_at = Instant::now() + CHECKPOINT;
            failpoint::reach("last-checkpoint-begun");
            match checkpoint::passive(&self.parts.connection) {
                Ok(_) => {}
                Err(error) if checkpoint::is_sync_failure(&error) => self.parts.health.stop(Fatal::SyncFailed),
                Err(error) => tracing::debug!(%error, "the rest of a checkpoint is left for later"),
            }
            checkpointer.ask();
        }
    }

    /// The last transaction: unused ids go back, and this instance has ended.
    pub(super) fn finish(mut self) {
        if !self.disk.is_idle() {
            tracing::warn!("stopping while the disk does not answer: waiting for it");
        }
        self.disk.end();
        // Captures that were late until now are to be undone.
        let mut left = std::mem::take(&mut self.kept);
        self.parts.queue.take(&mut left, usize::MAX, Duration::ZERO);
        if !left.is_empty() && !self.parts.health.is_fatal() {
            self.turn(&mut left);
        }
        self.kept.append(&mut left);
        log_abandoned(&self.kept);
        self.parts.checkpointer = None;
        if self.parts.health.is_fatal() {
            self.rescue();
            if *self.parts.health.fatal().borrow() == Some(Fatal::TakenForDead)
                && let Some(instance) = self.parts.instance.take()
            {
                // This instance may have recreated its lock file after another one removed it; it is no longer needed.
                instance.remove_lock();
            }
            return;
        }
        let Some(instance) = self.parts.instance.take() else { return };
        let connection = &self.parts.connection;
        let ended = self.parts.queue.open_charges() == 0;
        let last = || -> rusqlite::Result<()> {
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.execute_batch("PRAGMA synchronous = FULL; BEGIN IMMEDIATE")?;
            if self.ids.peek().is_some() {
                self.ids.give_back(connection)?;
            }
            if ended {
                self.leases.delete_kept(connection)?;
                instance::end(connection, instance.id, now_unix_ms())?;
            }
            failpoint::reach("end-done");
            connection.execute_batch("COMMIT")?;
            failpoint::reach("end-committed");
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        };
        failpoint::reach("end-begun");
        let done = last();
        failpoint::reach("end-checkpointed");
        match done {
            Ok(()) if ended => instance.remove_lock(),
            Ok(()) => {
                tracing::warn!("stopping with charges that are not settled; the next start returns what they hold");
            }
            Err(error) => tracing::warn!(%error, "the last transaction failed; the next start puts things in order"),
        }
    }

    /// When other contents were written into the file: the log is of the old ones and must not be copied over them, neither now
    /// nor by the next start.
    fn discard_log(&self) {
        let set = self.parts.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        let emptied = set.map_err(std::io::Error::other).and_then(|_| self.identity.empty_log());
        match emptied {
            Ok(()) => tracing::warn!("the write-ahead log of the overwritten database is emptied"),
            Err(error) => tracing::error!(
                %error,
                "the write-ahead log of the overwritten database cannot be emptied; remove it before the next start"
            ),
        }
    }

    /// When the file or its log lost its name: brings what is committed into the file, wherever that is now, since nobody
    /// else will find it; and leaves the log empty, so that the next start does not take it for the log of the file that
    /// stands there now.
    fn rescue(&self) {
        let fatal = *self.parts.health.fatal().borrow();
        if fatal == Some(Fatal::FileOverwritten) {
            return self.discard_log();
        }
        if !matches!(fatal, Some(Fatal::FileReplaced | Fatal::WalReplaced)) || !self.identity.has_no_other_log() {
            return;
        }
        let connection = &self.parts.connection;
        let checkpointed = connection.busy_timeout(RESCUE).and_then(|()| {
            // Whether a reader kept it from the end.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))
        });
        match checkpointed {
            Ok(false) => {
                tracing::warn!("what was committed is in the database file that was open, and its log is empty");
            }
            Ok(true) => {
                tracing::error!("a reader kept the log from being copied into the database file that was open");
            }
            Err(error) => tracing::error!(%error, "the log could not be copied into the database file that was open"),
        }
    }
}
