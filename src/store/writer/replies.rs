//! Answers: after a commit, after a failure, and when somebody waited too long.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use crate::config::Durability;
use crate::failpoint;
use crate::store::error::{HoldRefused, Unavailable};
use crate::store::writer::batch::{HoldMade, Item};
use crate::store::writer::hold::{Held, HeldCharge, Settled};
use crate::store::writer::mailbox::{Delivery, Mailbox};
use crate::store::writer::queue::{Command, SettleAction, SettleCommand};
use crate::store::writer::write::{Synced, WriteJob};
use crate::store::writer::{Failure, Writer};
use crate::telemetry::metrics::StoreMetrics;

/// Charges that are named in one line of the log.
const NAMED: usize = 100;

/// What is committed, and answered after the next sync.
pub(super) enum Committed {
    Settle(SettleCommand, Settled),
    Write(Box<dyn WriteJob>),
}

impl Writer {
    /// Answers for a batch that is committed: at once, or by the disk's thread what must be on the disk before.
    pub(super) fn answer(&mut self, work: Vec<Item>) {
        let metrics = Arc::clone(&self.parts.metrics);
        if self.kept.is_empty() {
            self.parts.health.note(Ok(()));
            self.kept_for = None;
        }
        if !work.is_empty() {
            metrics.batch_size.observe(work.len() as u64);
        }
        let mut post = Post::default();
        let mut to_sync = Vec::new();
        for item in work {
            let waits_for_disk = self.waits_for_disk(&item);
            match item {
                Item::Hold(command, Ok(made)) => {
                    count_hold(&metrics, &made);
                    let charge = HeldCharge::new(made.hold, made.refund, command.reply.mailbox(), command.permit);
                    let held = Held { charge, balance: made.balance, generation: made.generation };
                    post.add(command.reply.address(Ok(held)));
                }
                Item::Hold(command, Err(refused)) => post.add(command.reply.address(Err(refused))),
                Item::Settle(command, settled) if waits_for_disk => to_sync.push(Committed::Settle(command, settled)),
                Item::Settle(command, settled) => {
                    let refund = reply_to_settlement(&metrics, &mut post, command, settled);
                    self.kept.extend(refund.map(Command::Settle));
                }
                Item::Write(job) if waits_for_disk => to_sync.push(Committed::Write(job)),
                Item::Write(job) => job.finish(Ok(())),
            }
        }
        // The disk first: it works while the others are answered.
        self.disk.submit(to_sync);
        post.send();
    }

    /// Captures and writes of operators reach the disk before they are answered; holds and releases need not.
    fn waits_for_disk(&self, item: &Item) -> bool {
        match item {
            Item::Hold(..) => false,
            Item::Settle(command, _) => {
                self.parts.durability == Durability::Full && !matches!(command.action, SettleAction::Release { .. })
            }
            Item::Write(job) => job.synced() == Synced::Now,
        }
    }

    /// Deals with a batch that was not committed.
    pub(super) fn failed(&mut self, work: Vec<Item>, failure: Failure) {
        let reason = match failure {
            // The lock of another program is waited for, as long as each one may wait.
            Failure::Busy => return self.keep(work, Unavailable::Locked),
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
                Item::Hold(command, _) => post.add(command.reply.address(Err(HoldRefused::Unavailable(reason)))),
                Item::Settle(command, _) => self.kept.push(Command::Settle(command)),
                Item::Write(job) => job.finish(Err(reason)),
            }
        }
        post.send();
    }

    /// Puts a batch off, as long as each of it may wait.
    pub(super) fn keep(&mut self, work: Vec<Item>, reason: Unavailable) {
        self.kept_for = Some(reason);
        for item in work {
            self.kept.push(match item {
                Item::Hold(command, _) => Command::Hold(command),
                Item::Settle(command, _) => Command::Settle(command),
                Item::Write(job) => Command::Write(job),
            });
        }
    }

    /// Drops holds whose waiters have given up, refuses messages that waited too long, and turns late captures into releases.
    pub(super) fn expire(&mut self, batch: &mut Vec<Command>) {
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
                Command::Settle(mut settle) if now >= settle.deadline && settle.is_capture() => {
                    if let SettleAction::Capture { status, .. } = settle.action {
                        settle.action = SettleAction::Release { status: Some(status), leaves_charge: true };
                    }
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

    /// Refuses everything after an unsafe state of the file was found: nothing more is written, and the next start recovers.
    pub(super) fn refuse_all(&mut self, batch: &mut Vec<Command>, reason: Unavailable) {
        log_abandoned(batch);
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
}

/// Replies to a settlement that is committed, and synced where it has to be. Returns the refund of a capture whose waiter had
/// given up, and had told the client that nothing was charged.
pub(super) fn reply_to_settlement(
    metrics: &StoreMetrics,
    post: &mut Post,
    command: SettleCommand,
    settled: Settled,
) -> Option<SettleCommand> {
    if command.is_capture() && settled == Settled::Captured && !command.claim() {
        tracing::warn!(charge_id = command.hold.charge.0, "a capture was committed too late and is refunded");
        count_settlement(metrics, settled, &command);
        return Some(SettleCommand { action: SettleAction::Refund, reply: None, decision: None, ..command });
    }
    count_settlement(metrics, settled, &command);
    if let Some(reply) = command.reply {
        post.add(reply.address(settled));
    }
    None
}

/// Logs which of the messages that the writer leaves undone cost a client money: refunds.
pub(in crate::store) fn log_abandoned(abandoned: &[Command]) {
    let charges = abandoned.iter().filter_map(|command| match command {
        Command::Settle(settle) if settle.action == SettleAction::Refund => Some(settle.hold.charge.0),
        Command::Settle(_) | Command::Hold(_) | Command::Write(_) => None,
    });
    log_not_refunded(&charges.collect::<Vec<_>>());
}

/// Names charges that stay captured although their clients were told that nothing was charged.
pub(super) fn log_not_refunded(charges: &[i64]) {
    if !charges.is_empty() {
        tracing::error!(
            charges = charges.len(),
            charge_ids = ?&charges[..charges.len().min(NAMED)],
            "captures that were committed too late could not be refunded, although their clients were told that nothing was charged"
        );
    }
}

fn count_hold(metrics: &StoreMetrics, made: &HoldMade) {
    if made.refund.is_some() {
        metrics.refunds.inc();
        failpoint::reach("retry-held");
    }
    metrics.holds.inc();
    metrics.held_cents.inc_by(made.hold.cents.0.unsigned_abs());
    metrics.holds_open.inc();
}

fn count_settlement(metrics: &StoreMetrics, settled: Settled, command: &SettleCommand) {
    if command.action == SettleAction::Refund {
        if settled != Settled::Unknown {
            metrics.refunds.inc();
        }
        return;
    }
    let cents = command.hold.cents.0.unsigned_abs();
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

/// Answers sorted by the worker that they go to, of which there are few.
#[derive(Default)]
pub(super) struct Post {
    by_mailbox: Vec<(Arc<Mailbox>, Vec<Delivery>)>,
}

impl Post {
    pub(super) fn add(&mut self, (mailbox, delivery): (Arc<Mailbox>, Delivery)) {
        match self.by_mailbox.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &mailbox)) {
            Some((_, deliveries)) => deliveries.push(delivery),
            None => self.by_mailbox.push((mailbox, vec![delivery])),
        }
    }

    pub(super) fn send(self) {
        for (mailbox, mut deliveries) in self.by_mailbox {
            mailbox.deliver(&mut deliveries);
        }
    }
}
