//! External writes onto the books: what the triggers noted of other programs' changes becomes `external` entries.
//!
//! Runs at the start of a transaction whose `data_version` moved, on what the [`wallet_log`] says. Where triggers were
//! dropped, as by a rebuilt table, nothing noted it: then all wallets are compared with the books ([`reconcile`]).

use rusqlite::{Connection, params};

use crate::model::{AccountId, Cents, EntryKind, UserId};
use crate::store::books::check::{self, Standing};
use crate::store::books::wallet_log::{self, Change, Row, WalletLog};
use crate::store::books::{accounts, sums};
use crate::store::file::triggers;

/// The note of an entry that no trigger could tell more of.
pub(in crate::store) const COMPARED: &str = "found by comparing the wallet with the books";

/// Turns the log into entries and empties it. How many entries were made.
pub(in crate::store) fn absorb(connection: &Connection, now_unix_ms: i64) -> rusqlite::Result<u64> {
    let log = WalletLog::read(connection)?;
    if log.is_empty {
        return Ok(0);
    }
    let mut books = Books { connection, now_unix_ms, entries: 0, gone: Vec::new() };
    let mut is_foreign = false;
    for change in &log.changes {
        match change {
            Change::Removed(row) => books.removed(row)?,
            Change::Inserted { row, replaced } => books.inserted(row, replaced)?,
            Change::Updated { from, to, replaced } => books.updated(*from, to, replaced)?,
            // It tells nothing, so that the wallets are compared with the books.
            Change::Foreign => is_foreign = true,
        }
    }
    let mut entries = books.close_gone()?;
    if is_foreign {
        entries += reconcile(connection, COMPARED, now_unix_ms)?;
    }
    wallet_log::clear(connection)?;
    Ok(entries)
}

struct Books<'a> {
    connection: &'a Connection,
    now_unix_ms: i64,
    entries: u64,
    /// Users whose wallet was removed, and whose account may have ended.
    gone: Vec<UserId>,
}

impl Books<'_> {
    fn removed(&mut self, row: &Row) -> rusqlite::Result<()> {
        let Some(user) = row.user else { return Ok(()) };
        self.gone.push(user);
        let account = self.account(user)?;
        self.enter(account, Cents(0), row.cents, "wallet removed by another program")
    }

    fn all_removed(&mut self, rows: &[Row]) -> rusqlite::Result<()> {
        rows.iter().try_for_each(|row| self.removed(row))
    }

    fn inserted(&mut self, row: &Row, replaced: &[Row]) -> rusqlite::Result<()> {
        let Some(user) = row.user else { return self.all_removed(replaced) };
        let before = match replaced {
            // The usual REPLACE INTO: one entry that says what changed.
            [old] if old.user == row.user && self.is_of_the_same_person(user)? => old.cents,
            // What was replaced is taken out of the account that it was in, before that may end.
            others => {
                self.all_removed(others)?;
                Cents(0)
            }
        };
        let account = self.account_of_new_wallet(user)?;
        let note =
            if replaced.is_empty() { "wallet made by another program" } else { "wallet replaced by another program" };
        self.enter(account, row.cents, before, note)
    }

    fn updated(&mut self, old: Option<Row>, row: &Row, replaced: &[Row]) -> rusqlite::Result<()> {
        self.all_removed(replaced)?;
        let Some(user) = row.user else { return self.all_removed(old.as_slice()) };
        let before = match old {
            Some(old) if old.user == row.user => old.cents,
            Some(old) => {
                self.removed(&old)?;
                Cents(0)
            }
            None => Cents(0),
        };
        let account = self.account(user)?;
        self.enter(account, row.cents, before, "balance changed by another program")
    }

    fn account(&mut self, user: UserId) -> rusqlite::Result<AccountId> {
        match accounts::open_account(self.connection, user)? {
            Some((account, _)) => Ok(account),
            None => accounts::open(self.connection, user, self.now_unix_ms),
        }
    }

    /// A wallet that comes anew may belong to another person than the account of that user id: one whose address
    /// is another gets an account of its own.
    fn account_of_new_wallet(&mut self, user: UserId) -> rusqlite::Result<AccountId> {
        if let Some((account, _)) = accounts::open_account(self.connection, user)? {
            if self.is_of_the_same_person(user)? {
                return Ok(account);
            }
            accounts::close(self.connection, account, self.now_unix_ms)?;
        }
        accounts::open(self.connection, user, self.now_unix_ms)
    }

    /// Whether the open account of that user id, if there is one, was opened for whoever has the id now.
    fn is_of_the_same_person(&self, user: UserId) -> rusqlite::Result<bool> {
        let Some((_, Some(email))) = accounts::open_account(self.connection, user)? else { return Ok(true) };
        Ok(accounts::email(self.connection, user)?.is_some_and(|now| now == email))
    }

    fn enter(&mut self, account: AccountId, now: Cents, before: Cents, what: &str) -> rusqlite::Result<()> {
        // Amounts that no 64 bits hold cannot be entered as one: as two.
        match now.checked_sub(before) {
            Ok(amount) => self.enter_amount(account, amount, what),
            Err(_) => {
                self.enter_amount(account, Cents(before.0.saturating_neg()), what)?;
                self.enter_amount(account, now, what)
            }
        }
    }

    fn enter_amount(&mut self, account: AccountId, amount: Cents, what: &str) -> rusqlite::Result<()> {
        if amount.is_zero() {
            return Ok(());
        }
        self.entries += 1;
        accounts::enter(self.connection, account, EntryKind::External, amount, Some(what), self.now_unix_ms)
    }

    /// Ends the accounts of users that are no more.
    fn close_gone(self) -> rusqlite::Result<u64> {
        for user in &self.gone {
            if accounts::email(self.connection, *user)?.is_none()
                && let Some((account, _)) = accounts::open_account(self.connection, *user)?
            {
                accounts::close(self.connection, account, self.now_unix_ms)?;
            }
        }
        Ok(self.entries)
    }
}

/// Restores the triggers if one is missing. Whether one was: changes of wallets may have gone unrecorded then, so accounts of
/// other users are ended, and the caller compares all wallets with the books ([`reconcile`]).
pub(in crate::store) fn restore_triggers(connection: &Connection, now_unix_ms: i64) -> rusqlite::Result<bool> {
    let is_missing = !triggers::in_place(connection)?;
    if is_missing {
        triggers::install(connection)?;
        end_accounts_of_others(connection, now_unix_ms)?;
    }
    Ok(is_missing)
}

/// After a time in which no trigger saw anything, any wallet may have come anew: the rule of new wallets goes for all. An
/// account whose user has another address, or is gone, ends; comparing opens the new ones.
pub(in crate::store) fn end_accounts_of_others(connection: &Connection, now_unix_ms: i64) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE keytoll_accounts SET closed_at = ?1 WHERE closed_at IS NULL AND email IS NOT NULL
         AND email IS NOT (SELECT u.email FROM users u WHERE u.id = keytoll_accounts.user_id)",
        [now_unix_ms],
    )?;
    Ok(())
}

/// Open accounts whose user has another address by now, at most so many. While triggers are in place that is the same
/// person: a wallet that comes anew is noted.
pub(in crate::store) fn readdressed(connection: &Connection, most: i64) -> rusqlite::Result<Vec<AccountId>> {
    let mut select = connection.prepare_cached(
        "SELECT a.id FROM keytoll_accounts a JOIN users u ON u.id = a.user_id
         WHERE a.closed_at IS NULL AND a.email IS NOT u.email LIMIT ?1",
    )?;
    select.query_map([most], |row| row.get(0).map(AccountId))?.collect()
}

/// Takes the addresses of these accounts' users over, inside of the writer's transaction: what others did before it is on
/// the books, and the triggers are in place.
pub(in crate::store) fn readdress(connection: &Connection, accounts: &[AccountId]) -> rusqlite::Result<()> {
    let mut update = connection.prepare_cached(
        "UPDATE keytoll_accounts SET email = (SELECT u.email FROM users u WHERE u.id = keytoll_accounts.user_id)
         WHERE id = ?1 AND closed_at IS NULL AND EXISTS (SELECT 1 FROM users u WHERE u.id = keytoll_accounts.user_id)",
    )?;
    accounts.iter().try_for_each(|account| update.execute([account.0]).map(drop))
}

/// Compares every wallet with the books and enters the difference: where no note can say what happened. An account that
/// has ended must come to nothing: its wallet may have been changed unseen before it was removed. Reads the accounts and
/// their sums, and of charges and entries what came after those. `note`: why, for the entries. How many entries were made.
pub(in crate::store) fn reconcile(connection: &Connection, note: &str, now_unix_ms: i64) -> rusqlite::Result<u64> {
    connection.execute(
        "INSERT INTO keytoll_accounts (user_id, email, opened_at)
         SELECT w.user_id, u.email, ?1 FROM wallets w LEFT JOIN users u ON u.id = w.user_id
         WHERE typeof(w.user_id) = 'integer' AND w.user_id NOT IN (SELECT user_id FROM keytoll_accounts WHERE closed_at IS NULL)",
        [now_unix_ms],
    )?;
    let recent = sums::recent(connection, sums::marks(connection)?)?;
    let standings = check::standings(connection, &recent, AccountId(i64::MIN), i64::MAX)?;
    let mut books = Books { connection, now_unix_ms, entries: 0, gone: Vec::new() };
    for Standing { account, wallet_cents, books_cents, .. } in standings {
        books.enter(account, Cents(wallet_cents), Cents(books_cents), note)?;
    }
    Ok(books.entries)
}

/// Takes the wallets of a file that Keytoll sees for the first time onto the books.
pub(in crate::store) fn adopt_all(connection: &Connection, now_unix_ms: i64) -> rusqlite::Result<usize> {
    connection.execute(
        "INSERT INTO keytoll_accounts (user_id, email, opened_at)
         SELECT w.user_id, u.email, ?1 FROM wallets w LEFT JOIN users u ON u.id = w.user_id
         WHERE typeof(w.user_id) = 'integer' ORDER BY w.user_id",
        [now_unix_ms],
    )?;
    connection.execute(
        "INSERT INTO keytoll_entries (account_id, kind, amount_cents, note, created_at)
         SELECT a.id, ?1, CASE WHEN typeof(w.balance) = 'integer' THEN w.balance ELSE 0 END, 'adopted', ?2
         FROM keytoll_accounts a JOIN wallets w ON w.user_id = a.user_id ORDER BY a.id",
        params![EntryKind::Opening.as_str(), now_unix_ms],
    )
}
