//! The disk: replies that must survive a power cut are sent after a sync that covers their commit.
//!
//! The writer commits without waiting for the disk and hands over the replies that have to wait for it: those of captures under
//! durability `full`, and of operators' writes. This thread syncs the log once for all that arrived meanwhile, and sends them.
//! So a hold, which needs no sync, does not queue behind one, and the write lock is free during a sync.
//!
//! A sync of the log covers every commit before it. What a checkpoint has taken into the database file it has synced there
//! before the log starts over (<https://www.sqlite.org/wal.html>, §2.1, §3.1); the log carries none of SQLite's locks, which
//! a descriptor of the file itself would drop when it is closed.

use std::fs::File;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::failpoint;
use crate::store::error::{Fatal, Unavailable};
use crate::store::file::health::Health;
use crate::store::file::identity::Identity;
use crate::store::writer::hold::Settled;
use crate::store::writer::queue::{Command, Queue, SettleAction, SettleCommand};
use crate::store::writer::replies::{Committed, Post, log_not_refunded, reply_to_settlement};
use crate::telemetry::metrics::StoreMetrics;

/// The thread.
pub(super) struct Disk {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// Something waits for a sync, or nothing will any more.
    filled: Condvar,
    /// A sync has ended, and all replies that waited for it are sent.
    done: Condvar,
    log: File,
    identity: Arc<Identity>,
    queue: Arc<Queue>,
    health: Arc<Health>,
    metrics: Arc<StoreMetrics>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Committed>,
    /// Since when a sync is under way.
    syncing: Option<Instant>,
    closed: bool,
    has_ended: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.syncing.is_none()
    }
}

impl Disk {
    /// Of these files.
    ///
    /// # Errors
    /// The log cannot be opened, or no thread can be started.
    pub(super) fn start(
        identity: Arc<Identity>,
        queue: Arc<Queue>,
        health: Arc<Health>,
        metrics: Arc<StoreMetrics>,
    ) -> io::Result<Disk> {
        let log = identity.open_log()?;
        let (state, filled, done) = (Mutex::default(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state, filled, done, log, identity, queue, health, metrics });
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new().name("keytoll-sync".into()).spawn(move || {
            let _ends = Ends(&own);
            own.run();
        })?;
        Ok(Disk { shared, thread: Some(thread) })
    }

    /// Sends the replies of these after a sync that begins from now on. Once the thread has ended, they are sent from here.
    pub(super) fn submit(&self, committed: Vec<Committed>) {
        if committed.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        if state.has_ended {
            drop(state);
            return self.shared.sync_and_reply(committed);
        }
        state.waiting.extend(committed);
        drop(state);
        self.shared.filled.notify_one();
    }

    /// How long the current sync has taken, once it exceeds `sync_late`. No new holds start meanwhile.
    pub(super) fn late_for(&self) -> Option<Duration> {
        let under_way = self.shared.lock().syncing?.elapsed();
        (under_way >= self.shared.queue.limits.sync_late).then_some(under_way)
    }

    /// Whether nothing waits for a sync.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.lock().is_idle()
    }

    /// Waits until all replies that were handed over are sent, and refunds of late captures are queued. `false`: it takes longer.
    pub(super) fn wait_until_idle(&self, until: Instant) -> bool {
        let patience = until.saturating_duration_since(Instant::now());
        let waited = self.shared.done.wait_timeout_while(self.shared.lock(), patience, |state| !state.is_idle());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_idle()
    }

    /// Ends the thread after all replies that were handed over are sent. Waits for a sync that hangs.
    pub(super) fn end(&mut self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that syncs ended with a panic");
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let state = self
                .filled
                .wait_while(self.lock(), |state| state.waiting.is_empty() && !state.closed)
                .unwrap_or_else(PoisonError::into_inner);
            drop(state);
            // Yield once, so that a writer on the same core can hand over the rest of its batch.
            thread::yield_now();
            let mut state = self.lock();
            let committed = mem::take(&mut state.waiting);
            if committed.is_empty() {
                return;
            }
            state.syncing = Some(Instant::now());
            drop(state);
            self.sync_and_reply(committed);
        }
    }

    /// Syncs and sends the replies.
    fn sync_and_reply(&self, committed: Vec<Committed>) {
        match self.sync() {
            Ok(()) => self.reply(committed),
            Err(reason) => self.refuse(committed, reason),
        }
        self.lock().syncing = None;
        self.done.notify_all();
    }

    /// Syncs the log. After a failure nothing may be trusted: a second sync may falsely succeed.
    fn sync(&self) -> Result<(), Unavailable> {
        if self.health.is_fatal() {
            return Err(Unavailable::Unsafe);
        }
        failpoint::reach("sync-begun");
        let begun = Instant::now();
        let fatal = match self.log.sync_data() {
            Ok(()) => self.identity.check().err(),
            Err(error) => {
                tracing::error!(%error, "a sync of the write-ahead log failed");
                Some(Fatal::SyncFailed)
            }
        };
        if let Some(fatal) = fatal {
            self.health.stop(fatal);
            return Err(Unavailable::Unsafe);
        }
        self.metrics.sync_seconds.observe_duration(begun.elapsed());
        failpoint::reach("sync-done");
        Ok(())
    }

    fn reply(&self, committed: Vec<Committed>) {
        let mut post = Post::default();
        for item in committed {
            match item {
                Committed::Settle(command, settled) => {
                    if let Some(refund) = reply_to_settlement(&self.metrics, &mut post, command, settled) {
                        self.refund(refund);
                    }
                }
                Committed::Write(job) => job.finish(Ok(())),
            }
        }
        post.send();
    }

    fn refund(&self, command: SettleCommand) {
        let charge = command.hold.charge;
        if self.queue.push([Command::Settle(command)]).is_err() {
            log_not_refunded(&[charge.0]);
        }
    }

    /// Replies that the outcome is unknown: what is committed may not be on the disk. The next start finds it as it is.
    fn refuse(&self, committed: Vec<Committed>, reason: Unavailable) {
        let mut post = Post::default();
        let mut stay = Vec::new();
        for item in committed {
            match item {
                Committed::Settle(command, settled) => {
                    if command.action == SettleAction::Refund || (command.is_capture() && settled == Settled::Captured)
                    {
                        stay.push(command.hold.charge.0);
                    }
                    if let Some(reply) = command.reply {
                        post.add(reply.address(Settled::Unknown));
                    }
                }
                Committed::Write(job) => job.finish(Err(reason)),
            }
        }
        post.send();
        log_not_refunded(&stay);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs at the end of the thread. After a panic the process must stop, and the waiters get a reply.
struct Ends<'a>(&'a Shared);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.has_ended = true;
        state.syncing = None;
        let left = mem::take(&mut state.waiting);
        drop(state);
        if thread::panicking() {
            self.0.health.stop(Fatal::WriterDied);
            self.0.refuse(left, Unavailable::Unsafe);
        }
        self.0.done.notify_all();
    }
}
