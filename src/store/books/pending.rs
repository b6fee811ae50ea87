//! What other programs did to wallets and the writer has not entered yet: the effect of the triggers' notes, by user.
//! Enters nothing.

use std::collections::HashMap;

use rusqlite::Connection;

use crate::store::books::wallet_log::{Change, Row, WalletLog};

/// Changes that will become entries.
#[derive(Default)]
pub(in crate::store) struct Pending {
    by_user: HashMap<i64, i128>,
    /// Notes in a form that Keytoll's triggers do not write.
    pub(in crate::store) foreign: u64,
}

impl Pending {
    /// The notes as they are in the caller's transaction.
    pub(in crate::store) fn read(connection: &Connection) -> rusqlite::Result<Pending> {
        let mut pending = Pending::default();
        for change in WalletLog::read(connection)?.changes {
            pending.note(change);
        }
        Ok(pending)
    }

    /// What is not on the books of a user yet.
    pub(in crate::store) fn of(&self, user: i64) -> i128 {
        self.by_user.get(&user).copied().unwrap_or(0)
    }

    fn note(&mut self, change: Change) {
        match change {
            Change::Removed(row) => self.take(row),
            Change::Inserted { row, replaced } => {
                replaced.into_iter().for_each(|old| self.take(old));
                self.put(row);
            }
            Change::Updated { from, to, replaced } => {
                replaced.into_iter().chain(from).for_each(|old| self.take(old));
                self.put(to);
            }
            Change::Foreign => self.foreign += 1,
        }
    }

    fn put(&mut self, row: Row) {
        self.add(row, i128::from(row.cents.0));
    }

    fn take(&mut self, row: Row) {
        self.add(row, -i128::from(row.cents.0));
    }

    fn add(&mut self, row: Row, cents: i128) {
        if let Some(user) = row.user {
            *self.by_user.entry(user.0).or_default() += cents;
        }
    }
}
