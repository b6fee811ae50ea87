//! What other programs did to wallets, as the triggers noted it and nobody has entered it yet: the one place that reads
//! `keytoll_wallet_log`.
//!
//! The notes say exactly what changed, and in which order. [`external`](crate::store::books::external) enters the changes,
//! [`Pending`](crate::store::books::pending::Pending) only adds them up.

use rusqlite::Connection;

use crate::model::{Cents, UserId};
use crate::store::books::wallets::money;

/// A row of `wallets`, as far as a note tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Row {
    wallet: Option<i64>,
    /// `None`: what stands there is no id.
    pub(in crate::store) user: Option<UserId>,
    /// Nothing, where it is no money.
    pub(in crate::store) cents: Cents,
}

/// One change of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Change {
    Removed(Row),
    /// `replaced`: the rows that it took the place of, as with REPLACE INTO.
    Inserted {
        row: Row,
        replaced: Vec<Row>,
    },
    Updated {
        from: Option<Row>,
        to: Row,
        replaced: Vec<Row>,
    },
    /// A note that Keytoll's triggers do not write: whoever wrote it, it tells nothing.
    Foreign,
}

/// The log, as it is in the caller's transaction.
#[derive(Debug, Default)]
pub(in crate::store) struct WalletLog {
    /// In the order in which they were made.
    pub(in crate::store) changes: Vec<Change>,
    /// Whether there is no note. There can be notes and no change: an INSERT OR IGNORE leaves some, and does nothing.
    pub(in crate::store) is_empty: bool,
}

/// Empties the log.
pub(in crate::store) fn clear(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM keytoll_wallet_log", [])?;
    Ok(())
}

impl WalletLog {
    pub(in crate::store) fn read(connection: &Connection) -> rusqlite::Result<WalletLog> {
        let mut select =
            connection.prepare_cached("SELECT op, wallet_id, user_id, balance FROM keytoll_wallet_log ORDER BY id")?;
        let mut notes = select.query([])?;
        let mut log = WalletLog { changes: Vec::new(), is_empty: true };
        let mut open = Open::default();
        while let Some(note) = notes.next()? {
            log.is_empty = false;
            let row = Row::of(note)?;
            log.changes.extend(open.read(note.get_ref(0)?.as_str().unwrap_or_default(), row));
        }
        Ok(log)
    }
}

impl Row {
    fn of(note: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
        let cents = money(note.get_ref(3)?).cents();
        let user = note.get_ref(2)?.as_i64().ok().map(UserId);
        Ok(Row { wallet: note.get_ref(1)?.as_i64().ok(), user, cents })
    }
}

/// Notes whose change is not complete yet.
#[derive(Default)]
struct Open {
    /// Rows that are about to be removed without a word, until the note of what replaced them.
    replaced: Vec<Row>,
    from: Option<Row>,
}

impl Open {
    /// Takes the next note. The change that is complete with it.
    fn read(&mut self, op: &str, row: Row) -> Option<Change> {
        match op {
            "replace" => {
                self.is_there(row);
                self.replaced.push(row);
                None
            }
            "delete" => {
                self.is_there(row);
                Some(Change::Removed(row))
            }
            "insert" => Some(Change::Inserted { row, replaced: self.take_replaced(row) }),
            "from" => {
                self.is_there(row);
                self.from = Some(row);
                None
            }
            "to" => Some(Change::Updated { from: self.from.take(), to: row, replaced: self.take_replaced(row) }),
            _ => Some(Change::Foreign),
        }
    }

    /// A row that something new is said of was not replaced: an INSERT OR IGNORE had noted it, and did nothing.
    fn is_there(&mut self, row: Row) {
        self.replaced.retain(|old| old.wallet != row.wallet);
    }

    /// The rows that `row` really replaced; the notes of an INSERT OR IGNORE that did nothing are dropped.
    fn take_replaced(&mut self, row: Row) -> Vec<Row> {
        self.replaced.drain(..).filter(|old| old.wallet == row.wallet || old.user == row.user).collect()
    }
}
