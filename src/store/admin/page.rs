//! Lists in pages: what is wanted of one, and what it holds.

use serde::Serialize;

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Items at most; what is outside of 1 to [`PageRequest::MOST`] is taken as the nearer end.
    pub limit: usize,
    /// The `next_cursor` of the page before; the first page when `None`.
    pub cursor: Option<i64>,
}

impl PageRequest {
    /// The default number of items of a page.
    pub const USUAL: usize = 50;
    /// Items of a page at most.
    pub const MOST: usize = 500;

    pub(in crate::store) fn limit(self) -> usize {
        self.limit.clamp(1, PageRequest::MOST)
    }

    /// One row more than the page holds, so that it is known whether another page follows.
    pub(in crate::store) fn rows(self) -> i64 {
        i64::try_from(self.limit() + 1).unwrap_or(i64::MAX)
    }

    /// For lists in ascending order: the id after which the page begins.
    pub(in crate::store) fn after(self) -> i64 {
        self.cursor.unwrap_or(i64::MIN)
    }
}

impl Default for PageRequest {
    fn default() -> PageRequest {
        PageRequest { limit: PageRequest::USUAL, cursor: None }
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// The items.
    pub data: Vec<T>,
    /// Where the next page begins; `None` when there is none.
    pub next_cursor: Option<i64>,
}

impl<T> Page<T> {
    /// A page of the rows that [`PageRequest::rows`] asked for.
    pub(in crate::store) fn of(mut rows: Vec<T>, wish: PageRequest, id: impl Fn(&T) -> i64) -> Page<T> {
        let more = rows.len() > wish.limit();
        rows.truncate(wish.limit());
        let next_cursor = if more { rows.last().map(id) } else { None };
        Page { data: rows, next_cursor }
    }
}
