//! The writer: one thread with the only connection that writes.
//!
//! A turn of its loop takes what waits in the queue, does it in one `BEGIN IMMEDIATE` transaction, commits, and only
//! then answers. While it commits, the next batch gathers. What could not be committed is refused (holds, admin
//! writes) or kept for the next turn (settlements). It never waits inside of SQLite: while another program holds the
//! lock, deadlines go on being kept.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use super::batch::{Batch, Ground, Item};
use super::charge_ids::{ChargeIds, Spans};
use super::checkpoint::{self, Checkpointer};
use super::health::Health;
use super::identity::Identity;
use super::instance::{self, Instance, Recovered};
use super::ledger::{Held, HeldCharge, Settled, Wanted};
use super::mailbox::{Delivery, Mailbox};
use super::pace::Pace;
use super::queue::{Command, Queue};
use super::refusal::{Fatal, HoldRefused, Unavailable};
use super::view::{Generation, View};
use super::wallets::Wallets;
use super::{external, triggers};
use crate::config::Durability;
use crate::model::Cents;
use crate::telemetry::metrics::StoreMetrics;

/// How often the file is looked at for commits of other programs when there is nothing else to do.
const WATCH: Duration = Duration::from_millis(25);
/// How long the writer leaves things alone after a transaction that failed.
const RETRY: Duration = Duration::from_millis(10);
/// How long after a look at the lock of another program the next one is.
const LOCK_POLL: Duration = Duration::from_millis(2);
/// How often the slow chores are done: the mark of settled charges, processes that are gone.
const CHORES: Duration = Duration::from_secs(1);

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
}

pub(super) struct Writer {
    parts: Parts,
    identity: Identity,
    wallets: Wallets,
    generation: Generation,
    /// The generation of the last change of our own.
    own: Generation,
    /// `data_version` as last seen, and as the books have it.
    seen: i64,
    absorbed: i64,
    schema: i64,
    ids: ChargeIds,
    spans: Spans,
    low_water: i64,
    pace: Pace,
    synced: bool,
    /// What goes on in the next turn: messages that met a lock, settlements of a batch that failed.
    kept: Vec<Command>,
    kept_for: Option<Unavailable>,
    chores_at: Instant,
    last_write: Instant,
}

/// Why a turn did not commit.
#[derive(Debug)]
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
    /// What SQLite says.
    pub(super) fn new(parts: Parts) -> rusqlite::Result<Writer> {
        let seen = data_version(&parts.connection)?;
        let schema = schema_version(&parts.connection)?;
        let now = Instant::now();
        Ok(Writer {
            identity: Identity::of(&parts.path),
            wallets: Wallets::new(parts.cached_wallets),
            generation: parts.view.generation(),
            own: parts.view.own(),
            seen,
            absorbed: seen,
            schema,
            ids: ChargeIds::default(),
            spans: Spans::default(),
            low_water: 0,
            pace: Pace::new(),
            synced: true,
            kept: Vec::new(),
            kept_for: None,
            chores_at: now + CHORES,
            last_write: now,
            parts,
        })
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let patience = if self.kept.is_empty() {
                WATCH
            } else if self.kept_for == Some(Unavailable::Locked) {
                LOCK_POLL
            } else {
                RETRY
            };
            batch.append(&mut self.kept);
            let most = self.parts.batch.saturating_sub(batch.len()).max(1);
            let closed = self.parts.queue.take(&mut batch, most, patience);
            self.expire(&mut batch);
            self.parts.metrics.queue_depth.set(i64::try_from(self.parts.queue.depth()).unwrap_or(i64::MAX));
            if closed && batch.is_empty() {
                break;
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
        match self.notice() {
            Ok(()) => {}
            Err(error) => return self.failed(items(batch), Failure::from(error)),
        }
        let chores = Instant::now() >= self.chores_at;
        if batch.is_empty() && self.seen == self.absorbed && !chores {
            return;
        }
        let mut work = items(batch);
        match self.transact(&mut work, chores) {
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

    fn transact(&mut self, work: &mut [Item], chores: bool) -> Result<(), Failure> {
        let holds = work.iter().filter(|item| matches!(item, Item::Hold(..))).count();
        if !self.ids.suffice(holds) {
            self.reserve_ids()?;
        }
        self.pace.rest();
        self.sync_for(work)?;
        self.parts.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        self.pace.taken(Instant::now());
        let done = self.inside(work, chores).and_then(|()| self.commit(work));
        if !self.parts.connection.is_autocommit()
            && let Err(error) = self.parts.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
        self.parts.metrics.commit_seconds.observe_duration(self.pace.freed());
        if done.is_err() {
            self.wallets.forget_all();
            self.parts.metrics.commits_failed.inc();
        }
        done?;
        self.identity.check().map_err(Failure::Fatal)?;
        self.wallets.trim();
        Ok(())
    }

    /// The statements between BEGIN and COMMIT.
    fn inside(&mut self, work: &mut [Item], chores: bool) -> Result<(), Failure> {
        let now_unix_ms = now_unix_ms();
        self.notice()?;
        if self.seen != self.absorbed {
            self.absorb(now_unix_ms)?;
        }
        if chores {
            self.chores(now_unix_ms)?;
        }
        let ground = Ground {
            connection: &self.parts.connection,
            wallets: &mut self.wallets,
            ids: &mut self.ids,
            spans: &mut self.spans,
            generation: &mut self.generation,
            own: &mut self.own,
            instance: self.parts.instance.as_ref().map_or(0, |instance| instance.id),
            now_unix_ms,
        };
        Ok(Batch::new(ground)?.run(work)?)
    }

    /// Puts what other programs did onto the books.
    fn absorb(&mut self, now_unix_ms: i64) -> rusqlite::Result<()> {
        let connection = &self.parts.connection;
        self.wallets.forget_all();
        let mut entries = external::absorb(connection, now_unix_ms)?;
        let schema = schema_version(connection)?;
        if schema != self.schema && !triggers::in_place(connection)? {
            tracing::warn!(
                "another program rebuilt the wallets table: its triggers are put back, and all wallets compared with the books"
            );
            triggers::install(connection)?;
            entries += external::reconcile(connection, now_unix_ms)?;
        }
        if entries > 0 {
            tracing::info!(entries, "changes of balances by other programs were entered");
            self.parts.metrics.external_entries.inc_by(entries);
        }
        Ok(())
    }

    /// Once a second: the mark below which everything is settled, and the holds of processes that are gone.
    fn chores(&mut self, now_unix_ms: i64) -> rusqlite::Result<()> {
        self.chores_at = Instant::now() + CHORES;
        let Some(instance) = &self.parts.instance else { return Ok(()) };
        let connection = &self.parts.connection;
        if self.ids.next() > 0 {
            let mark = self.spans.turn(self.ids.next());
            if mark != self.low_water {
                connection
                    .prepare_cached("UPDATE keytoll_instances SET low_water = ?2 WHERE id = ?1")?
                    .execute([instance.id, mark])?;
                self.low_water = mark;
            }
        }
        let dead = instance::find_dead(connection, &self.parts.path, Some(instance.id))?;
        if !dead.is_empty() {
            let recovered = instance::release_dead(connection, &mut self.wallets, &dead, now_unix_ms)?;
            self.wallets.flush(connection)?;
            report(recovered);
            dead.into_iter().for_each(instance::Dead::remove_lock);
        }
        Ok(())
    }

    /// Sets what the next commit has to wait for: captures and admin writes reach the disk, holds need not.
    fn sync_for(&mut self, work: &[Item]) -> rusqlite::Result<()> {
        let full = self.parts.durability == Durability::Full;
        let wanted = work.iter().any(|item| match item {
            Item::Hold(..) => false,
            Item::Settle(command, _) => full && command.wanted == Wanted::Capture,
            Item::Write(_) => true,
        });
        self.set_sync(wanted)
    }

    fn set_sync(&mut self, wanted: bool) -> rusqlite::Result<()> {
        if wanted != self.synced {
            let pragma = if wanted { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            self.parts.connection.prepare_cached(pragma)?.execute([])?;
            self.synced = wanted;
        }
        Ok(())
    }

    fn reserve_ids(&mut self) -> Result<(), Failure> {
        self.set_sync(true)?;
        let transaction = self.parts.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([]);
        transaction?;
        let reserved = self.ids.reserve(&self.parts.connection).and_then(|ids| {
            self.parts.connection.execute_batch("COMMIT")?;
            Ok(ids)
        });
        if !self.parts.connection.is_autocommit() {
            self.parts.connection.execute_batch("ROLLBACK")?;
        }
        self.ids = reserved?;
        Ok(())
    }

    /// Commits. When that fails, only reading again tells whether it took place.
    fn commit(&mut self, work: &[Item]) -> Result<(), Failure> {
        let connection = &self.parts.connection;
        let schema = schema_version(connection)?;
        let committed = connection.prepare_cached("COMMIT")?.execute([]);
        match committed {
            Ok(_) => {}
            Err(error) if !connection.is_autocommit() || checkpoint::is_sync_failure(&error) => {
                return Err(error.into());
            }
            Err(error) => match took_place(connection, work) {
                Ok(true) => tracing::warn!(%error, "a commit reported an error and took place all the same"),
                Ok(false) => return Err(error.into()),
                Err(_) => return Err(Failure::Fatal(Fatal::FateUnknown)),
            },
        }
        self.absorbed = self.seen;
        self.schema = schema;
        self.parts.view.publish(self.generation);
        self.parts.view.publish_own(self.own);
        Ok(())
    }

    /// Answers for a batch that is committed.
    fn answer(&mut self, work: Vec<Item>) {
        let metrics = Arc::clone(&self.parts.metrics);
        if !work.is_empty() {
            self.parts.health.note(Ok(()));
            self.kept_for = None;
            self.last_write = Instant::now();
            metrics.batch_size.observe(work.len() as u64);
        }
        let mut post = Post::default();
        for item in work {
            match item {
                Item::Hold(command, Ok(made)) => {
                    metrics.holds.inc();
                    metrics.held_cents.inc_by(made.facts.cents.0.unsigned_abs());
                    metrics.holds_open.inc();
                    let charge = HeldCharge::new(made.facts, command.reply.mailbox(), command.slot);
                    let held = Held { charge, balance: made.balance, generation: made.generation };
                    post.add(command.reply.address(Ok(held)));
                }
                Item::Hold(command, Err(refused)) => post.add(command.reply.address(Err(refused))),
                Item::Settle(command, settled) => {
                    self.spans.settled(command.facts.span);
                    count(&metrics, settled, command.facts.cents);
                    if let Some(reply) = command.reply {
                        post.add(reply.address(settled));
                    }
                }
                Item::Write(job) => job.finish(Ok(())),
            }
        }
        post.send();
    }

    /// Deals with a batch that was not committed.
    fn failed(&mut self, work: Vec<Item>, failure: Failure) {
        let reason = match failure {
            // The lock of another program is waited for, as long as each one may wait.
            Failure::Busy => return self.keep(work),
            Failure::Undone(reason) => reason,
            Failure::Fatal(fatal) => {
                self.parts.health.stop(fatal);
                Unavailable::Unsafe
            }
        };
        self.parts.health.note(Err(reason));
        self.kept_for = Some(reason);
        let mut post = Post::default();
        for item in work {
            match item {
                Item::Hold(command, decision) => {
                    if let Ok(made) = decision {
                        self.spans.settled(made.facts.span);
                    }
                    post.add(command.reply.address(Err(HoldRefused::Unavailable(reason))));
                }
                Item::Settle(command, _) => self.kept.push(Command::Settle(command)),
                Item::Write(job) => job.finish(Err(reason)),
            }
        }
        post.send();
    }

    fn keep(&mut self, work: Vec<Item>) {
        self.kept_for = Some(Unavailable::Locked);
        self.kept.extend(work.into_iter().map(|item| match item {
            Item::Hold(command, _) => Command::Hold(command),
            Item::Settle(command, _) => Command::Settle(command),
            Item::Write(job) => Command::Write(job),
        }));
    }

    /// Drops holds that nobody waits for, refuses what waited too long, and turns late captures into releases.
    fn expire(&mut self, batch: &mut Vec<Command>) {
        let now = Instant::now();
        let late = self.kept_for.unwrap_or(Unavailable::TooLate);
        let mut post = Post::default();
        for command in mem::take(batch) {
            match command {
                Command::Hold(hold) if hold.reply.is_gone() => {}
                Command::Hold(hold) if now >= hold.deadline => {
                    self.parts.health.note(Err(late));
                    post.add(hold.reply.address(Err(HoldRefused::Unavailable(late))));
                }
                Command::Settle(mut settle) if now >= settle.deadline && settle.wanted == Wanted::Capture => {
                    settle.wanted = Wanted::Release;
                    if let Some(reply) = settle.reply.take() {
                        post.add(reply.address(Settled::Released { balance: None }));
                    }
                    batch.push(Command::Settle(settle));
                }
                Command::Write(job) if now >= job.deadline() => job.finish(Err(late)),
                command => batch.push(command),
            }
        }
        post.send();
    }

    /// After an unsafe file was found nothing is written any more; who waits is told, and the next start recovers.
    fn refuse_all(&mut self, batch: &mut Vec<Command>, reason: Unavailable) {
        let mut post = Post::default();
        for command in batch.drain(..) {
            match command {
                Command::Hold(hold) => post.add(hold.reply.address(Err(HoldRefused::Unavailable(reason)))),
                Command::Settle(settle) => {
                    if let Some(reply) = settle.reply {
                        post.add(reply.address(Settled::Unknown));
                    }
                }
                Command::Write(job) => job.finish(Err(reason)),
            }
        }
        post.send();
    }

    /// Between two transactions: the little that is left of a checkpoint, and the bound of the log.
    fn after_turn(&mut self) {
        let Some(checkpointer) = &self.parts.checkpointer else { return };
        let bytes = self.identity.wal_bytes();
        self.parts.metrics.wal_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.parts.metrics.wallets_cached.set(i64::try_from(self.wallets.len()).unwrap_or(i64::MAX));
        if checkpointer.take_little_left() || bytes > self.parts.wal_bytes {
            match checkpoint::passive(&self.parts.connection) {
                Ok(_) => {}
                Err(error) if checkpoint::is_sync_failure(&error) => self.parts.health.stop(Fatal::SyncFailed),
                Err(error) => tracing::debug!(%error, "the rest of a checkpoint is left for later"),
            }
            checkpointer.ask();
        }
    }

    /// The last transaction: unused ids go back, and this instance has ended.
    fn finish(mut self) {
        self.parts.checkpointer = None;
        if self.parts.health.is_fatal() {
            return;
        }
        let Some(instance) = self.parts.instance.take() else { return };
        let connection = &self.parts.connection;
        let ended = self.parts.queue.open_charges() == 0;
        let last = || -> rusqlite::Result<()> {
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.execute_batch("PRAGMA synchronous = FULL; BEGIN IMMEDIATE")?;
            if self.ids.next() > 0 {
                self.ids.give_back(connection)?;
            }
            if ended {
                instance.end(connection, now_unix_ms())?;
            }
            connection.execute_batch("COMMIT")?;
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        };
        match last() {
            Ok(()) if ended => instance.remove_lock(),
            Ok(()) => tracing::warn!("stopping with charges that are not settled; the next start releases them"),
            Err(error) => tracing::warn!(%error, "the last transaction failed; the next start puts things in order"),
        }
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

/// Whether a batch is in the file: told by the first thing in it that leaves a trace.
fn took_place(connection: &Connection, work: &[Item]) -> rusqlite::Result<bool> {
    for item in work {
        match item {
            Item::Hold(_, Ok(made)) => {
                return connection
                    .prepare_cached("SELECT 1 FROM keytoll_charges WHERE id = ?1")?
                    .exists([made.facts.id.0]);
            }
            Item::Settle(command, Settled::Captured | Settled::Released { .. }) => {
                let mut select =
                    connection.prepare_cached("SELECT 1 FROM keytoll_charges WHERE id = ?1 AND state <> 0")?;
                return select.exists([command.facts.id.0]);
            }
            Item::Hold(_, Err(_)) | Item::Settle(_, Settled::Unknown) | Item::Write(_) => {}
        }
    }
    Ok(false)
}

fn count(metrics: &StoreMetrics, settled: Settled, cents: Cents) {
    let cents = cents.0.unsigned_abs();
    metrics.holds_open.dec();
    match settled {
        Settled::Captured => {
            metrics.captures.inc();
            metrics.captured_cents.inc_by(cents);
        }
        Settled::Released { .. } | Settled::Unknown => {
            metrics.releases.inc();
            metrics.released_cents.inc_by(cents);
        }
    }
}

/// Says what was found of processes that are gone.
pub(super) fn report(recovered: Recovered) {
    if recovered.instances > 0 {
        tracing::warn!(
            instances = recovered.instances,
            charges = recovered.charges,
            cents = recovered.cents,
            "a gateway ended without settling: its holds are released"
        );
    }
}

/// Answers sorted by the worker that they go to.
#[derive(Default)]
struct Post {
    direct: Vec<Delivery>,
    by_mailbox: HashMap<usize, (Arc<Mailbox>, Vec<Delivery>)>,
}

impl Post {
    fn add(&mut self, (mailbox, delivery): (Option<Arc<Mailbox>>, Delivery)) {
        match mailbox {
            Some(mailbox) => {
                let place = Arc::as_ptr(&mailbox) as usize;
                self.by_mailbox.entry(place).or_insert_with(|| (mailbox, Vec::new())).1.push(delivery);
            }
            None => self.direct.push(delivery),
        }
    }

    fn send(self) {
        for (mailbox, mut deliveries) in self.by_mailbox.into_values() {
            mailbox.deliver(&mut deliveries);
        }
        self.direct.into_iter().for_each(Delivery::hand_over);
    }
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))
}

/// The wall clock, for the times in the file; nothing is decided by it.
pub(super) fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
