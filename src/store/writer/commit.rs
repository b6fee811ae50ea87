//! The commit, and what became of one that failed.

use crate::failpoint;
use crate::store::error::Fatal;
use crate::store::writer::checkpoint;
use crate::store::writer::{Failure, Writer, schema_version};

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
            self.parts.connection.execute_batch("COMMIT")?;
            Ok(ids)
        });
        if !self.parts.connection.is_autocommit() {
            self.parts.connection.execute_batch("ROLLBACK")?;
        }
        self.ids = reserved?;
        failpoint::reach("ids-reserved");
        Ok(())
    }

    /// Commits. `turn`: the turn that the file has afterwards, which distinguishes a COMMIT that failed from one that took place
    /// nevertheless; `None` when the transaction changed nothing, or is not a gateway's.
    pub(super) fn commit(&mut self, turn: Option<i64>) -> Result<(), Failure> {
        let connection = &self.parts.connection;
        // Nothing else of ours changes the schema.
        let schema = (self.seen != self.absorbed).then(|| schema_version(connection)).transpose()?;
        let committed = connection.prepare_cached("COMMIT")?.execute([]);
        match committed {
            Ok(_) => {}
            Err(error) if !connection.is_autocommit() || checkpoint::is_sync_failure(&error) => {
                return Err(error.into());
            }
            Err(error) => match self.has_reached(turn) {
                Ok(true) => tracing::warn!(%error, "a commit reported an error, but took place"),
                Ok(false) => return Err(error.into()),
                Err(_) => return Err(Failure::Fatal(Fatal::FateUnknown)),
            },
        }
        failpoint::reach("batch-committed");
        self.turn = turn.unwrap_or(self.turn);
        self.absorbed = self.seen;
        self.schema = schema.unwrap_or(self.schema);
        self.parts.view.publish(self.generation);
        Ok(())
    }

    /// Whether the file has this turn, read again.
    fn has_reached(&self, turn: Option<i64>) -> rusqlite::Result<bool> {
        let (Some(turn), Some(instance)) = (turn, &self.parts.instance) else { return Ok(false) };
        Ok(instance.turn(&self.parts.connection)? >= turn)
    }
}
