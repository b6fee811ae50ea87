//! The commit, and what became of one that failed.

use rusqlite::Connection;

use crate::failpoint;
use crate::model::{ChargeId, ChargeState};
use crate::store::books::requests;
use crate::store::error::Fatal;
use crate::store::writer::batch::Item;
use crate::store::writer::charge_ids::ChargeIds;
use crate::store::writer::ledger::{Settled, Wanted};
use crate::store::writer::{Failure, Writer, checkpoint, schema_version};

impl Writer {
    /// Whether the next commit itself waits for the disk.
    pub(super) fn set_sync(&mut self, wanted: bool) -> rusqlite::Result<()> {
        if wanted != self.synced {
            let pragma = if wanted { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            self.parts.connection.prepare_cached(pragma)?.execute([])?;
            self.synced = wanted;
        }
        Ok(())
    }

    pub(super) fn reserve_ids(&mut self) -> Result<(), Failure> {
        self.set_sync(true)?;
        self.parts.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let reserved = self.ids.reserve(&self.parts.connection).and_then(|ids| {
            if let (Some(instance), Some(next)) = (&self.parts.instance, ids.next()) {
                let mark = self.spans.turn(Some(next));
                instance.set_ids(&self.parts.connection, mark, ids.end())?;
            }
            self.parts.connection.execute_batch("COMMIT")?;
            Ok(ids)
        });
        // Should the commit have failed, the mark is written again by the next chores.
        self.low_water = 0;
        if !self.parts.connection.is_autocommit() {
            self.parts.connection.execute_batch("ROLLBACK")?;
        }
        // After a failure none of the old ids may be used either: a mark above them may stand in memory.
        self.ids = *reserved.as_ref().unwrap_or(&ChargeIds::default());
        reserved?;
        failpoint::reach("ids-reserved");
        Ok(())
    }

    /// Commits. When that fails, only reading again tells whether it took place.
    pub(super) fn commit(&mut self, work: &[Item]) -> Result<(), Failure> {
        let connection = &self.parts.connection;
        // Nothing else of ours changes the schema.
        let schema = (self.seen != self.absorbed).then(|| schema_version(connection)).transpose()?;
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
        failpoint::reach("batch-committed");
        self.absorbed = self.seen;
        self.schema = schema.unwrap_or(self.schema);
        self.parts.view.publish(self.generation);
        Ok(())
    }
}

/// Whether a batch is in the file: told by one thing in it that leaves a trace, and that nothing later in the batch can have
/// changed.
fn took_place(connection: &Connection, work: &[Item]) -> rusqlite::Result<bool> {
    if let Some(took_place) = told_by_charge(connection, work).transpose() {
        return took_place;
    }
    // What is forwarded once more is told by the row of its request, which a retry in the same batch changes again. Where
    // there are such pairs alone, the rows are the same before and after, and it may be done again.
    for item in work {
        match item {
            Item::Hold(_, Ok(made)) if is_alone(work, made.facts.id) => {
                return requests::is_begun_again(connection, made.facts.id);
            }
            Item::Settle(command, settled @ (Settled::Captured | Settled::Released { .. }))
                if command.facts.attempt.is_again() && is_alone(work, command.facts.id) =>
            {
                let was_given_back = matches!(settled, Settled::Released { .. });
                return requests::is_ended_again(connection, command.facts.id, was_given_back);
            }
            Item::Hold(..) | Item::Settle(..) | Item::Write(_) => {}
        }
    }
    Ok(false)
}

/// The same by the row of a charge: a new hold is there, and what is settled stays so.
fn told_by_charge(connection: &Connection, work: &[Item]) -> rusqlite::Result<Option<bool>> {
    for item in work {
        match item {
            Item::Hold(_, Ok(made)) if !made.facts.attempt.is_again() => {
                let mut select = connection.prepare_cached("SELECT 1 FROM keytoll_charges WHERE id = ?1")?;
                return select.exists([made.facts.id.0]).map(Some);
            }
            // An undoing that found nothing to be undone leaves no trace.
            Item::Settle(command, Settled::Captured) if command.wanted == Wanted::Undo => {}
            Item::Settle(command, settled @ (Settled::Captured | Settled::Released { .. }))
                if !command.facts.attempt.is_again() =>
            {
                let state = match settled {
                    Settled::Captured => ChargeState::Captured,
                    Settled::Released { .. } | Settled::Unknown => ChargeState::Released,
                };
                let mut select =
                    connection.prepare_cached("SELECT 1 FROM keytoll_charges WHERE id = ?1 AND state = ?2")?;
                return select.exists([command.facts.id.0, state.code()]).map(Some);
            }
            Item::Hold(..) | Item::Settle(..) | Item::Write(_) => {}
        }
    }
    Ok(None)
}

/// Whether one thing in the batch is about this charge, and no other.
fn is_alone(work: &[Item], charge: ChargeId) -> bool {
    let about = work.iter().filter(|item| match item {
        Item::Hold(_, Ok(made)) => made.facts.id == charge,
        Item::Settle(command, _) => command.facts.id == charge,
        Item::Hold(_, Err(_)) | Item::Write(_) => false,
    });
    about.count() == 1
}
