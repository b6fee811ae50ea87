//! The writer: one thread with the only connection that writes.
//!
//! A turn of its loop takes what waits in the queue, does it in one `BEGIN IMMEDIATE` transaction, commits, and only
//! then answers; what must be on the disk by then is answered by another thread, after a sync. While it commits, the next
//! batch gathers. What could not be committed is refused (holds, admin writes) or kept for the next turn (settlements).
//! While another program holds the lock, or a sync does not come back, it begins nothing, and deadlines go on being kept. It
//! waits for the disk itself when SQLite starts the log over, and when it reserves ids.

mod batch;
pub(super) mod charge_ids;
pub(super) mod checkpoint;
mod commit;
mod disk;
pub(super) mod hold;
pub(super) mod mailbox;
mod maintenance;
mod pace;
pub(super) mod queue;
mod replies;
pub(super) mod reply_head;
pub(super) mod write;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use self::checkpoint::Checkpointer;
use crate::config::Durability;
use crate::failpoint;
use crate::model::ChargeId;
use crate::store::books::leases::Leases;
use crate::store::books::ledger_tables::LedgerTables;
use crate::store::books::recovery::Recovered;
use crate::store::books::requests::{self, RequestLimits};
use crate::store::books::wallets::Wallets;
use crate::store::error::{Fatal, HoldRefused, OpenError, Unavailable};
use crate::store::file::contents::Stamp;
use crate::store::file::health::Health;
use crate::store::file::identity::Identity;
use crate::store::file::instance::{ExpiredInstance, Instance};
use crate::store::file::lock_file::Missing;
use crate::store::file::open::open_error;
use crate::store::file::silence::Silence;
use crate::store::file::view::{Generation, View};
use crate::store::writer::batch::{Batch, Item};
use crate::store::writer::charge_ids::ChargeIds;
use crate::store::writer::disk::Disk;
use crate::store::writer::hold::Settled;
use crate::store::writer::pace::Pace;
use crate::store::writer::queue::{Command, Queue};
pub(super) use crate::store::writer::replies::log_abandoned;
use crate::telemetry::metrics::StoreMetrics;

/// How often the file is looked at for commits of other programs when there is nothing else to do.
const WATCH: Duration = Duration::from_millis(25);
/// How long the writer leaves things alone after a transaction that failed.
const RETRY: Duration = Duration::from_millis(10);
/// How long after a look at the lock of another program the next one is.
const LOCK_POLL: Duration = Duration::from_millis(2);
/// How often the writer itself checkpoints while the log is past its bound because of a long reader.
const CHECKPOINT: Duration = Duration::from_millis(100);
/// How long after the queue was closed what meets a lock, or a full disk, is tried again.
const LAST: Duration = Duration::from_secs(5);
/// How often this gateway looks for its own lock file: far more often than others give it up.
const OWN_LOCK: Duration = Duration::from_millis(250);
/// How often the slower maintenance is done: the recovery of expired instances, and the sweep of expired requests.
const MAINTENANCE: Duration = Duration::from_secs(1);
/// How many heartbeats an instance writes per `instance_timeout`; maintenance runs at least twice as often.
const BEATS: u32 = 6;

/// What a writer is made of.
pub(super) struct Parts {
    pub(super) connection: Connection,
    pub(super) path: std::path::PathBuf,
    pub(super) queue: Arc<Queue>,
    pub(super) view: Arc<View>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<StoreMetrics>,
    /// Only a process that serves has one; without it no hold is made.
    pub(super) instance: Option<Instance>,
    pub(super) checkpointer: Option<Checkpointer>,
    pub(super) durability: Durability,
    pub(super) batch: usize,
    pub(super) cached_wallets: usize,
    pub(super) wal_bytes: u64,
    pub(super) requests: RequestLimits,
    /// After which others take this instance for dead when it does not beat.
    pub(super) instance_timeout: Duration,
}

pub(super) struct Writer {
    parts: Parts,
    disk: Disk,
    identity: Arc<Identity>,
    /// Of the log's file after the last transaction.
    wal_bytes: u64,
    wallets: Wallets,
    leases: Leases,
    /// Committed transactions of this instance that changed something.
    turn: i64,
    generation: Generation,
    /// `data_version` as last seen, and as the books have it.
    seen: i64,
    absorbed: i64,
    schema: i64,
    ids: ChargeIds,
    pace: Pace,
    synced: bool,
    /// What goes on in the next turn: messages that met a lock, settlements of a batch that failed.
    kept: Vec<Command>,
    /// Charges whose reply's head was sent, to be noted in the next turn.
    heads: Vec<ChargeId>,
    kept_for: Option<Unavailable>,
    maintenance_at: Instant,
    /// When this instance shows others on the file that it lives.
    beat_at: Instant,
    lock_at: Instant,
    stamp: Stamp,
    /// Other instances whose lock files are not where they belong.
    missing: Missing,
    /// Other instances whose locks are held, and how long they have been silent.
    silence: Silence,
    /// Processes that were found gone in this transaction, with their locks, until its commit.
    recovered: Option<(Recovered, Vec<ExpiredInstance>)>,
    checkpoint_at: Instant,
}

/// Why a turn did not commit.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// Nothing was tried: another program has the lock.
    Busy,
    /// The batch was undone.
    Undone(Unavailable),
    /// The process must stop.
    Fatal(Fatal),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        if checkpoint::is_sync_failure(&error) {
            return Failure::Fatal(Fatal::SyncFailed);
        }
        match Unavailable::of(&error) {
            Unavailable::Locked => Failure::Busy,
            reason => {
                tracing::error!(%error, "a transaction failed");
                Failure::Undone(reason)
            }
        }
    }
}

impl Writer {
    /// A writer on a connection whose file was prepared by the start.
    ///
    /// # Errors
    /// What SQLite says, or what keeps the thread that syncs from starting.
    pub(super) fn new(parts: Parts) -> Result<Writer, OpenError> {
        let error = |error| open_error(&parts.path, error);
        let identity = Arc::new(Identity::of(&parts.path));
        let (queue, health, metrics) =
            (Arc::clone(&parts.queue), Arc::clone(&parts.health), Arc::clone(&parts.metrics));
        let disk = Disk::start(Arc::clone(&identity), queue, health, metrics);
        let disk = disk.map_err(|cause| OpenError::Io(parts.path.clone(), cause))?;
        let seen = data_version(&parts.connection).map_err(error)?;
        // Once the log has started over, a file that grew past its bound is cut back to it.
        let most = i64::try_from(parts.wal_bytes / 2).unwrap_or(i64::MAX);
        let limit = format!("PRAGMA journal_size_limit = {most}");
        parts.connection.query_row(&limit, [], |_| Ok(())).map_err(error)?;
        let now = Instant::now();
        Ok(Writer {
            identity,
            wal_bytes: 0,
            wallets: Wallets::new(parts.cached_wallets),
            leases: Leases::new(parts.instance.as_ref().map_or(0, |instance| instance.id)),
            turn: 0,
            generation: parts.view.generation(),
            seen,
            // What came since the start's own transaction is absorbed by the first turn, which checks the triggers too.
            absorbed: seen - 1,
            schema: -1,
            ids: ChargeIds::default(),
            pace: Pace::new(),
            synced: true,
            kept: Vec::new(),
            heads: Vec::new(),
            kept_for: None,
            maintenance_at: now + maintenance_interval(parts.instance_timeout),
            beat_at: now,
            lock_at: now + OWN_LOCK,
            stamp: Stamp::default(),
            missing: Missing::default(),
            silence: Silence::new(maintenance_interval(parts.instance_timeout)),
            recovered: None,
            checkpoint_at: now,
            disk,
            parts,
        })
    }

    /// Works until the queue is closed and empty, or was closed too long ago.
    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        let mut give_up_at = None;
        loop {
            let patience = if self.kept.is_empty() {
                WATCH
            } else if self.kept_for == Some(Unavailable::Locked) {
                LOCK_POLL
            } else {
                RETRY
            };
            batch.append(&mut self.kept);
            let most = self.parts.batch.saturating_sub(batch.len());
            if self.disk.late_for().is_some() {
                self.disk.wait_until_idle(Instant::now() + RETRY);
            } else if most == 0 {
                std::thread::sleep(patience);
            }
            let patience = if most == 0 { Duration::ZERO } else { patience };
            // Asked before: whatever it queues to be undone is in the queue by then.
            let disk_was_idle = self.disk.is_idle();
            let closed = self.parts.queue.take(&mut batch, most, patience);
            self.parts.queue.take_heads(&mut self.heads);
            self.expire(&mut batch);
            self.parts.metrics.queue_depth.set(i64::try_from(self.parts.queue.depth()).unwrap_or(i64::MAX));
            if closed {
                let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + LAST);
                let is_empty = batch.is_empty() && self.heads.is_empty();
                if is_empty && !disk_was_idle && self.disk.wait_until_idle(give_up_at) {
                    continue;
                }
                if is_empty || Instant::now() >= give_up_at {
                    // What is left keeps its slot, so that this instance is not taken for one that settled all.
                    self.kept = batch;
                    break;
                }
                if self.kept_for.is_some() {
                    // A closed queue is not waited for.
                    std::thread::sleep(patience);
                }
            }
            if self.parts.health.is_fatal() {
                self.refuse_all(&mut batch, Unavailable::Unsafe);
                continue;
            }
            self.turn(&mut batch);
            self.after_turn();
        }
        self.finish();
    }

    /// One transaction, if there is anything to do.
    fn turn(&mut self, batch: &mut Vec<Command>) {
        self.keep_lock();
        if (batch.is_empty() || self.kept_for.is_some())
            && let Err(error) = self.notice()
        {
            return self.failed(items(batch), Failure::from(error));
        }
        if let Some(late) = self.disk.late_for() {
            if late > self.parts.queue.limits.patience() {
                self.parts.health.note(Err(Unavailable::TooLate));
            }
            if !batch.is_empty() {
                self.keep(items(batch), Unavailable::TooLate);
            }
            return;
        }
        let maintenance = Instant::now() >= self.maintenance_at;
        if batch.is_empty() && self.heads.is_empty() && self.seen == self.absorbed && !maintenance {
            return;
        }
        let mut work = items(batch);
        match self.transact(&mut work, maintenance) {
            Ok(()) => self.answer(work),
            Err(failure) => self.failed(work, failure),
        }
    }

    /// Compares `data_version`: every commit of another program advances the view.
    fn notice(&mut self) -> rusqlite::Result<()> {
        let at = Instant::now();
        let version = data_version(&self.parts.connection)?;
        if version != self.seen {
            self.seen = version;
            self.generation.0 += 1;
            self.parts.view.publish(self.generation);
        }
        self.parts.view.watched(at);
        Ok(())
    }

    fn transact(&mut self, work: &mut [Item], maintenance: bool) -> Result<(), Failure> {
        let holds = work.iter().filter(|item| matches!(item, Item::Hold(..))).count();
        if !self.ids.suffice(holds) {
            self.reserve_ids()?;
        }
        self.pace.rest();
        self.set_sync(false)?;
        self.parts.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        self.pace.taken(Instant::now());
        failpoint::reach("batch-begun");
        let done = self.inside(work, maintenance).and_then(|turn| self.commit(turn));
        if !self.parts.connection.is_autocommit()
            && let Err(error) = self.parts.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
        self.parts.metrics.commit_seconds.observe_duration(self.pace.freed());
        self.stamp.end_transaction(done.is_ok());
        if done.is_err() {
            self.wallets.forget_all();
            self.leases.roll_back();
            // What it recovered is undone: the locks of expired instances are released, for the next look.
            self.recovered = None;
            // So is its heartbeat. Others that write to the same disk may not be able to send theirs either.
            self.silence.keep_only(&[]);
            self.beat_at = Instant::now();
            self.parts.metrics.commits_failed.inc();
        }
        done?;
        self.finish_recovery();
        self.parts.queue.delivery_ends(self.heads.drain(..));
        self.wal_bytes = self.identity.check().map_err(Failure::Fatal)?;
        self.wallets.trim();
        Ok(())
    }

    /// The statements between BEGIN and COMMIT. The turn that the file has after the commit; `None` when nothing was changed.
    fn inside(&mut self, work: &mut [Item], maintenance: bool) -> Result<Option<i64>, Failure> {
        let now_unix_ms = now_unix_ms();
        let changes = self.parts.connection.total_changes();
        self.notice()?;
        let mut is_counted = false;
        if self.seen != self.absorbed {
            is_counted = self.take_over(now_unix_ms)?;
        }
        self.advance_stamp(work)?;
        if maintenance {
            is_counted |= self.maintenance(now_unix_ms)?;
        }
        for charge in &self.heads {
            requests::answered(&self.parts.connection, *charge)?;
            failpoint::reach("head-noted");
        }
        let batch = Batch {
            tables: LedgerTables::new(&self.parts.connection, &mut self.wallets, &mut self.leases, now_unix_ms),
            queue: &self.parts.queue,
            ids: &mut self.ids,
            generation: &mut self.generation,
            requests: self.parts.requests,
            instance: self.parts.instance.as_ref().map_or(0, |instance| instance.id),
        };
        batch.run(work)?;
        failpoint::reach("batch-done");
        let Some(instance) = &self.parts.instance else { return Ok(None) };
        if !is_counted && self.parts.connection.total_changes() == changes {
            return Ok(None);
        }
        let turn = self.turn + 1;
        let is_alive = instance.set_turn(&self.parts.connection, turn)?;
        if is_alive { Ok(Some(turn)) } else { Err(Failure::Fatal(Fatal::TakenForDead)) }
    }
}

fn items(batch: &mut Vec<Command>) -> Vec<Item> {
    batch
        .drain(..)
        .map(|command| match command {
            Command::Hold(hold) => Item::Hold(hold, Err(HoldRefused::Unavailable(Unavailable::Refused))),
            Command::Settle(settle) => Item::Settle(settle, Settled::Unknown),
            Command::Write(job) => Item::Write(job),
        })
        .collect()
}

/// How often maintenance runs: every [`MAINTENANCE`], or 12 times per `instance_timeout` if that is more often.
fn maintenance_interval(instance_timeout: Duration) -> Duration {
    MAINTENANCE.min(instance_timeout / (2 * BEATS))
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))
}

/// The wall clock, for the times in the file. It decides how long an `Idempotency-Key` is remembered and when a settled
/// charge is old; nothing else.
pub(super) fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
