//! Ids of charges: handed out from blocks that are reserved durably before their first use, so that none is used twice, not
//! even after a power cut that lost acknowledged commits.

use rusqlite::{Connection, params};

/// Ids in one reservation.
pub(in crate::store) const BLOCK: i64 = if cfg!(test) { 1_000 } else { 1_000_000 };

/// The ids reserved for this process.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct ChargeIds {
    next: i64,
    end: i64,
}

impl ChargeIds {
    /// Whether `count` ids are left.
    pub(in crate::store) fn suffice(&self, count: usize) -> bool {
        i64::try_from(count).is_ok_and(|count| self.end - self.next >= count)
    }

    /// Reserves a block, inside of a transaction that must be synced. Returns the ids to use once it is committed.
    pub(in crate::store) fn reserve(&self, connection: &Connection) -> rusqlite::Result<ChargeIds> {
        let end: i64 = connection.query_row(
            "UPDATE keytoll_meta SET value = value + ?1 WHERE name = 'next_charge_id' RETURNING value",
            [BLOCK],
            |row| row.get(0),
        )?;
        // What is left of the old block is used up first only when the blocks touch.
        let next = if self.end == end - BLOCK { self.next } else { end - BLOCK };
        Ok(ChargeIds { next, end })
    }

    /// The next id. `None` when none was reserved.
    pub(in crate::store) fn take(&mut self) -> Option<i64> {
        (self.next < self.end).then(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// The id that comes next. `None` when none was reserved.
    pub(in crate::store) fn peek(&self) -> Option<i64> {
        (self.next < self.end).then_some(self.next)
    }

    /// Gives unused ids back, inside of the last transaction of a process that ends in order.
    pub(in crate::store) fn give_back(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.execute(
            "UPDATE keytoll_meta SET value = ?1 WHERE name = 'next_charge_id' AND value = ?2",
            params![self.next, self.end],
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::store::writer::charge_ids::*;

    #[test]
    fn ids_come_from_reserved_blocks_only() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE keytoll_meta (name TEXT PRIMARY KEY, value INTEGER)").unwrap();
        connection.execute_batch("INSERT INTO keytoll_meta VALUES ('next_charge_id', 1)").unwrap();
        let mut mine = ChargeIds::default();
        assert_eq!(mine.take(), None);
        mine = mine.reserve(&connection).unwrap();
        let other = ChargeIds::default().reserve(&connection).unwrap();
        assert_eq!((mine.take(), mine.take()), (Some(1), Some(2)));
        assert_eq!(other.peek(), Some(1 + BLOCK));
        mine = mine.reserve(&connection).unwrap();
        assert_eq!(mine.peek(), Some(1 + 2 * BLOCK));
        mine.give_back(&connection).unwrap();
        let value: i64 = connection.query_row("SELECT value FROM keytoll_meta", [], |row| row.get(0)).unwrap();
        assert_eq!(value, 1 + 2 * BLOCK);
    }
}
