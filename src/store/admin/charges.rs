//! Charges as operators see them.
//!
//! The only index is that of the ids, so a list reads charges from the last settled down and looks at each: no
//! more than [`SCANNED`] for one page, which may therefore hold fewer than were asked for and still have a successor.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use crate::model::{AccountId, Cents, ChargeId, ChargeState, KeyId, Timestamp, UserId};
use crate::store::admin::page::{Page, PageRequest};
use crate::store::books::accounts;
use crate::store::{Store, Unavailable};

/// Charges looked at for one page, at most.
const SCANNED: usize = 100_000;

/// The price of one request on its way through the books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChargeRecord {
    /// `keytoll_charges.id`.
    pub id: ChargeId,
    /// Who paid.
    pub user_id: UserId,
    /// With which key.
    pub key_id: KeyId,
    /// For which API.
    pub api_name: String,
    /// The price.
    pub cents: Cents,
    /// Captured or released.
    pub state: ChargeState,
    /// When it was held.
    pub held_at: Timestamp,
    /// When it was captured or released.
    pub settled_at: Timestamp,
    /// The status of the reply that decided it, when there was one.
    pub status: Option<u16>,
}

/// Which charges a list is of; `None` is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChargeFilter {
    /// Of this user: of the last one that had the id, not of earlier ones.
    pub user_id: Option<UserId>,
    /// With this key.
    pub key_id: Option<KeyId>,
    /// For this API.
    pub api_name: Option<String>,
    /// Held at this moment or later.
    pub from: Option<Timestamp>,
    /// Held before this moment.
    pub to: Option<Timestamp>,
}

impl Store {
    /// The charge with this id.
    ///
    /// # Errors
    /// The file cannot be read now.
    pub async fn charge(&self, id: ChargeId) -> Result<Option<ChargeRecord>, Unavailable> {
        self.read(move |connection| {
            let mut select = connection.prepare_cached(
                "SELECT position, id, account_id, key_id, route_id, cents, state, held_at, settled_at, status
                 FROM keytoll_charges WHERE id = ?1",
            )?;
            let Some(line) = select.query_row([id.0], Line::read).optional()? else { return Ok(None) };
            let apis = apis(connection)?;
            line.record(connection, &apis).map(Some)
        })
        .await
    }

    /// Charges, the last settled first. The cursor is the last position that was looked at.
    ///
    /// # Errors
    /// The file cannot be read now.
    pub async fn charges(&self, filter: ChargeFilter, wish: PageRequest) -> Result<Page<ChargeRecord>, Unavailable> {
        self.read(move |connection| list(connection, &filter, wish, SCANNED)).await
    }
}

fn list(
    connection: &Connection,
    filter: &ChargeFilter,
    wish: PageRequest,
    scanned_at_most: usize,
) -> rusqlite::Result<Page<ChargeRecord>> {
    let mut page = Page { data: Vec::new(), next_cursor: None };
    let account = match filter.user_id {
        None => None,
        Some(user_id) => match last_account(connection, user_id)? {
            None => return Ok(page),
            account => account,
        },
    };
    let apis = apis(connection)?;
    let mut select = connection.prepare_cached(
        "SELECT position, id, account_id, key_id, route_id, cents, state, held_at, settled_at, status
         FROM keytoll_charges WHERE position < ?1 ORDER BY position DESC",
    )?;
    let mut rows = select.query([wish.cursor.unwrap_or(i64::MAX)])?;
    let mut scanned = 0;
    let mut last = None;
    while let Some(row) = rows.next()? {
        if page.data.len() == wish.limit() || scanned == scanned_at_most {
            page.next_cursor = last;
            break;
        }
        let line = Line::read(row)?;
        scanned += 1;
        last = Some(line.position);
        if line.is_wanted(filter, account, &apis) {
            page.data.push(line.record(connection, &apis)?);
        }
    }
    Ok(page)
}

/// The account of the last user that had this id: the open one, or where there is none the last that was closed.
fn last_account(connection: &Connection, user_id: UserId) -> rusqlite::Result<Option<AccountId>> {
    if let Some((account, _)) = accounts::open_account(connection, user_id)? {
        return Ok(Some(account));
    }
    connection
        .prepare_cached("SELECT max(id) FROM keytoll_accounts WHERE user_id = ?1")?
        .query_row(params![user_id.0], |row| Ok(row.get::<_, Option<i64>>(0)?.map(AccountId)))
}

/// The API of every route.
fn apis(connection: &Connection) -> rusqlite::Result<HashMap<i64, String>> {
    let mut select = connection.prepare_cached("SELECT id, api_name FROM keytoll_routes")?;
    select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// A row of `keytoll_charges`.
struct Line {
    position: i64,
    id: ChargeId,
    account: AccountId,
    key_id: KeyId,
    route: i64,
    cents: Cents,
    state: i64,
    held_at: i64,
    settled_at: i64,
    status: Option<u16>,
}

impl Line {
    fn read(row: &Row<'_>) -> rusqlite::Result<Line> {
        Ok(Line {
            position: row.get(0)?,
            id: ChargeId(row.get(1)?),
            account: AccountId(row.get(2)?),
            key_id: KeyId(row.get(3)?),
            route: row.get(4)?,
            cents: Cents(row.get(5)?),
            state: row.get(6)?,
            held_at: row.get(7)?,
            settled_at: row.get(8)?,
            status: row.get(9)?,
        })
    }

    fn is_wanted(&self, filter: &ChargeFilter, account: Option<AccountId>, apis: &HashMap<i64, String>) -> bool {
        account.is_none_or(|account| account == self.account)
            && filter.key_id.is_none_or(|key_id| key_id == self.key_id)
            && filter.from.is_none_or(|from| self.held_at >= from.unix_ms())
            && filter.to.is_none_or(|to| self.held_at < to.unix_ms())
            && filter.api_name.as_ref().is_none_or(|name| apis.get(&self.route) == Some(name))
    }

    fn record(self, connection: &Connection, apis: &HashMap<i64, String>) -> rusqlite::Result<ChargeRecord> {
        let user_id = connection
            .prepare_cached("SELECT user_id FROM keytoll_accounts WHERE id = ?1")?
            .query_row([self.account.0], |row| row.get(0))?;
        Ok(ChargeRecord {
            id: self.id,
            user_id: UserId(user_id),
            key_id: self.key_id,
            api_name: apis.get(&self.route).cloned().unwrap_or_default(),
            cents: self.cents,
            state: ChargeState::from_code(self.state).ok_or(rusqlite::Error::InvalidQuery)?,
            held_at: Timestamp::from_unix_ms(self.held_at),
            settled_at: Timestamp::from_unix_ms(self.settled_at),
            status: self.status,
        })
    }
}

#[cfg(test)]
mod tests;
