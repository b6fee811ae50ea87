//! Ids of charges, and the mark below which every charge of this process is settled.
//!
//! Ids are handed out from blocks that are reserved durably before their first use, so that none is used twice, not
//! even after a power cut that took acknowledged commits away.

use std::collections::VecDeque;

use rusqlite::{Connection, params};

/// Ids in one reservation.
pub(in crate::store) const BLOCK: i64 = if cfg!(test) { 1_000 } else { 1_000_000 };
/// The mark of a process without open charges and without reserved ids.
pub(in crate::store) const NOTHING_OPEN: i64 = i64::MAX;

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
    pub(in crate::store) fn next(&self) -> Option<i64> {
        (self.next < self.end).then_some(self.next)
    }

    /// Where the reserved ids end.
    pub(in crate::store) fn end(&self) -> i64 {
        self.end
    }

    /// Whether another process has reserved ids above these.
    pub(in crate::store) fn are_behind(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let reserved: i64 = connection
            .prepare_cached("SELECT value FROM keytoll_meta WHERE name = 'next_charge_id'")?
            .query_row([], |row| row.get(0))?;
        Ok(reserved > self.end)
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

/// The span of a charge that was settled before, which the mark does not wait for.
pub(in crate::store) const NO_SPAN: u64 = u64::MAX;

/// Counts open charges by the span of time in which they were held, to know the lowest id that may be open.
#[derive(Debug, Default)]
pub(in crate::store) struct Spans {
    /// The number of the front span.
    front: u64,
    spans: VecDeque<Span>,
}

#[derive(Debug)]
struct Span {
    first_id: i64,
    open: u64,
}

impl Spans {
    /// Notes a hold; the answer is the span that its settlement will name.
    pub(in crate::store) fn held(&mut self, id: i64) -> u64 {
        if self.spans.is_empty() {
            self.spans.push_back(Span { first_id: id, open: 0 });
        }
        if let Some(last) = self.spans.back_mut() {
            last.open += 1;
        }
        self.front + self.spans.len() as u64 - 1
    }

    /// Notes that a charge of that span is settled; nothing for [`NO_SPAN`].
    pub(in crate::store) fn settled(&mut self, span: u64) {
        let place = span.checked_sub(self.front).and_then(|place| usize::try_from(place).ok());
        if let Some(span) = place.and_then(|place| self.spans.get_mut(place)) {
            span.open = span.open.saturating_sub(1);
        }
    }

    /// Begins a new span, and returns the id below which nothing is open and nothing will come. `next_id` is the next
    /// one to be used; `None` when a new block will be reserved first, above everything that there is.
    pub(in crate::store) fn turn(&mut self, next_id: Option<i64>) -> i64 {
        while self.spans.front().is_some_and(|span| span.open == 0) {
            self.spans.pop_front();
            self.front += 1;
        }
        if let Some(next_id) = next_id
            && self.spans.back().is_some_and(|span| span.first_id != next_id)
        {
            self.spans.push_back(Span { first_id: next_id, open: 0 });
        }
        self.spans.front().map_or(next_id.unwrap_or(NOTHING_OPEN), |span| span.first_id)
    }
}

#[cfg(test)]
mod tests {
    use crate::store::writer::charge_ids::*;

    #[test]
    fn the_mark_stays_below_the_oldest_open_charge() {
        let mut spans = Spans::default();
        let long = spans.held(1);
        let short = spans.held(2);
        assert_eq!(spans.turn(Some(3)), 1);
        let later = spans.held(3);
        spans.settled(short);
        spans.settled(later);
        assert_eq!(spans.turn(Some(4)), 1);
        spans.settled(long);
        assert_eq!(spans.turn(Some(4)), 4);
        let again = spans.held(4);
        assert_eq!(spans.turn(Some(5)), 4);
        spans.settled(again);
        assert_eq!(spans.turn(Some(5)), 5);
    }

    #[test]
    fn without_ids_the_mark_is_that_of_the_oldest_open_charge_or_none() {
        let mut spans = Spans::default();
        let open = spans.held(1);
        assert_eq!(spans.turn(None), 1);
        let above = spans.held(1_000_001);
        spans.settled(open);
        assert_eq!(spans.turn(Some(1_000_002)), 1);
        spans.settled(above);
        assert_eq!(spans.turn(None), NOTHING_OPEN);
    }

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
        assert_eq!(other.next(), Some(1 + BLOCK));
        assert!(mine.are_behind(&connection).unwrap() && !other.are_behind(&connection).unwrap());
        mine = mine.reserve(&connection).unwrap();
        assert_eq!(mine.next(), Some(1 + 2 * BLOCK));
        mine.give_back(&connection).unwrap();
        let value: i64 = connection.query_row("SELECT value FROM keytoll_meta", [], |row| row.get(0)).unwrap();
        assert_eq!(value, 1 + 2 * BLOCK);
    }
}
