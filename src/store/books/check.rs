//! Every wallet against its account, by the sums: the cheap form of what `keytoll doctor` proves.
//!
//! Reads the accounts, some thousand in one snapshot, and only the charges and entries that came after the marks.

use rusqlite::Connection;

use crate::model::{AccountId, UserId};
use crate::store::books::pending::Pending;
use crate::store::books::sums::{self, Sum, Sums};
use crate::store::books::wallets::money;

/// Accounts that are compared in one snapshot; few in tests, so that they cross from chunk to chunk.
const CHUNK: i64 = if cfg!(test) { 2 } else { 20_000 };

/// What a comparison of all accounts found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Comparison {
    /// Users with an account.
    pub(in crate::store) users: u64,
    /// Those whose wallet is not what the books say.
    pub(in crate::store) unbalanced: u64,
}

/// An account and what is in the wallet of its user.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Standing {
    pub(in crate::store) account: AccountId,
    pub(in crate::store) user: UserId,
    /// Whether it has ended: then it must come to nothing.
    pub(in crate::store) is_closed: bool,
    /// Nothing, where it has ended, or there is no wallet or no integer in it.
    pub(in crate::store) wallet_cents: i64,
    pub(in crate::store) books_cents: i64,
}

/// Compares all accounts; `tell` hears of each whose wallet holds more or less than the books say, and how much.
pub(in crate::store) fn compare(
    connection: &Connection,
    mut tell: impl FnMut(UserId, i128),
) -> rusqlite::Result<Comparison> {
    let mut found = Comparison::default();
    let mut after = AccountId(i64::MIN);
    loop {
        let snapshot = connection.unchecked_transaction()?;
        let recent = sums::recent(&snapshot, sums::marks(&snapshot)?)?;
        let pending = Pending::read(&snapshot)?;
        let standings = standings(&snapshot, &recent, after, CHUNK)?;
        drop(snapshot);
        let Some(last) = standings.last() else { return Ok(found) };
        after = last.account;
        for standing in standings {
            let mut difference = i128::from(standing.wallet_cents) - i128::from(standing.books_cents);
            if !standing.is_closed {
                found.users += 1;
                // What another program changed and nobody has entered yet is no difference.
                difference -= pending.of(standing.user.0);
            }
            if difference != 0 {
                found.unbalanced += 1;
                tell(standing.user, difference);
            }
        }
    }
}

/// Accounts after an id, at most so many, in the caller's snapshot; `recent` is of the same.
pub(in crate::store) fn standings(
    connection: &Connection,
    recent: &Sums,
    after: AccountId,
    most: i64,
) -> rusqlite::Result<Vec<Standing>> {
    let mut select = connection.prepare_cached(
        "SELECT a.id, a.user_id, w.balance, coalesce(s.entered_cents, 0), coalesce(s.charged_cents, 0),
                a.closed_at IS NOT NULL
         FROM keytoll_accounts a
         LEFT JOIN wallets w ON w.user_id = a.user_id AND a.closed_at IS NULL
         LEFT JOIN keytoll_sums s ON s.account_id = a.id
         WHERE a.id > ?1 ORDER BY a.id LIMIT ?2",
    )?;
    let rows = select.query_map([after.0, most], |row| {
        let account = row.get(0)?;
        let summed = Sum { entered_cents: row.get(3)?, charged_cents: row.get(4)? };
        let later = recent.get(&account).copied().unwrap_or_default();
        let wallet_cents = money(row.get_ref(2)?).cents().0;
        let books_cents = summed.books().wrapping_add(later.books());
        let (user, is_closed) = (UserId(row.get(1)?), row.get(5)?);
        Ok(Standing { account: AccountId(account), user, is_closed, wallet_cents, books_cents })
    })?;
    rows.collect()
}
