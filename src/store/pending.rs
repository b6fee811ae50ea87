//! What other programs did to wallets and the writer has not entered yet: the effect of the triggers' notes, by user.
//!
//! Reads the notes as [`external`](super::external) does, and enters nothing.

use std::collections::HashMap;

use rusqlite::Connection;

use super::wallets::{Balance, money};

/// Changes that will become entries.
#[derive(Default)]
pub(super) struct Pending {
    by_user: HashMap<i64, i128>,
    /// Notes in a form that Keytoll's triggers do not write.
    pub(super) foreign: u64,
}

#[derive(Clone, Copy)]
struct Row {
    wallet: Option<i64>,
    user: Option<i64>,
    cents: i64,
}

impl Pending {
    /// The notes as they are in the caller's transaction.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Pending> {
        let mut select =
            connection.prepare_cached("SELECT op, wallet_id, user_id, balance FROM keytoll_wallet_log ORDER BY id")?;
        let mut notes = select.query([])?;
        let mut pending = Pending::default();
        let mut replaced: Vec<Row> = Vec::new();
        let mut from: Option<Row> = None;
        while let Some(note) = notes.next()? {
            let cents = match money(note.get_ref(3)?) {
                Balance::Money(cents) => cents.0,
                Balance::NoMoney => 0,
            };
            let row = Row { wallet: note.get_ref(1)?.as_i64().ok(), user: note.get_ref(2)?.as_i64().ok(), cents };
            match note.get_ref(0)?.as_str().unwrap_or_default() {
                "replace" => replaced.push(row),
                "delete" => {
                    replaced.retain(|old| old.wallet != row.wallet);
                    pending.take(row);
                }
                "insert" => {
                    pending.take_replaced(&mut replaced, row);
                    pending.put(row);
                }
                "from" => from = Some(row),
                "to" => {
                    pending.take_replaced(&mut replaced, row);
                    if let Some(old) = from.take() {
                        pending.take(old);
                    }
                    pending.put(row);
                }
                _ => pending.foreign += 1,
            }
        }
        Ok(pending)
    }

    /// What is not on the books of a user yet.
    pub(super) fn of(&self, user: i64) -> i128 {
        self.by_user.get(&user).copied().unwrap_or(0)
    }

    fn put(&mut self, row: Row) {
        if let Some(user) = row.user {
            *self.by_user.entry(user).or_default() += i128::from(row.cents);
        }
    }

    fn take(&mut self, row: Row) {
        if let Some(user) = row.user {
            *self.by_user.entry(user).or_default() -= i128::from(row.cents);
        }
    }

    /// Rows that the new one really replaced; notes of an insert that did nothing are dropped.
    fn take_replaced(&mut self, replaced: &mut Vec<Row>, row: Row) {
        for old in replaced.drain(..).filter(|old| old.wallet == row.wallet || old.user == row.user) {
            self.take(old);
        }
    }
}
