//! The proof: for every account, entries minus captured charges and leases are the wallet's balance.

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::model::{Cents, UserId};
use crate::store::books::pending::Pending;
use crate::store::books::wallets::money;
use crate::store::doctor::rows::{self, Frozen, Sums};
use crate::store::doctor::{Check, Finding, Report};

/// Accounts that are compared in one snapshot; few in tests, so that they cross from chunk to chunk.
const CHUNK: i64 = if cfg!(test) { 2 } else { 50_000 };

/// The remedy of a difference.
const ACCEPT: &str = "find out who changed the wallet. To accept its balance, run `keytoll doctor --repair`: the difference \
                      is entered as external";

/// Who was compared.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) users: u64,
    pub(super) unbalanced: u64,
}

struct Books<'a> {
    frozen: &'a Frozen,
    gateway_runs: bool,
    counted: Counted,
    report: &'a mut Report,
}

/// Compares all accounts and wallets, some thousand in one snapshot.
pub(super) fn examine(
    connection: &Connection,
    frozen: &Frozen,
    gateway_runs: bool,
    report: &mut Report,
) -> rusqlite::Result<Counted> {
    let mut books = Books { frozen, gateway_runs, counted: Counted::default(), report };
    let mut after = i64::MIN;
    while let Some(last) = books.chunk(connection, after)? {
        after = last;
    }
    books.wallets_without_account(connection)?;
    books.rows_without_account(connection)?;
    Ok(books.counted)
}

/// An account and the wallet of its user.
struct Account {
    id: i64,
    user: i64,
    is_closed: bool,
    wallet_cents: i128,
}

impl Books<'_> {
    /// One snapshot's worth of accounts; the id of the last one.
    fn chunk(&mut self, connection: &Connection, after: i64) -> rusqlite::Result<Option<i64>> {
        let snapshot = connection.unchecked_transaction()?;
        let accounts = accounts_after(&snapshot, after)?;
        let Some(last) = accounts.last().map(|account| account.id) else { return Ok(None) };
        let recent = rows::recent_sums(&snapshot, self.frozen)?;
        let pending = Pending::read(&snapshot)?;
        drop(snapshot);
        for account in accounts {
            let on_books = self.on_books(&recent, account.id);
            if account.is_closed {
                self.closed(&account, on_books);
            } else {
                self.compare(account.user, account.wallet_cents, on_books, pending.of(account.user));
            }
        }
        Ok(Some(last))
    }

    fn on_books(&self, recent: &Sums, account: i64) -> i128 {
        [&self.frozen.sums, recent].into_iter().filter_map(|sums| sums.get(&account)).sum()
    }

    fn compare(&mut self, user: i64, wallet: i128, books: i128, pending: i128) {
        self.counted.users += 1;
        let difference = wallet - books - pending;
        if difference != 0 {
            self.counted.unbalanced += 1;
            let message = format!("the wallet holds {}, the books say {}", Amount(wallet), Amount(books + pending));
            let finding = Finding::wrong(Check::Books, message, ACCEPT);
            self.report.add(finding.of(UserId(user)).cents(difference));
        } else if pending != 0 {
            let message = format!("another program changed the wallet by {}; not on the books yet", Amount(pending));
            let remedy = if self.gateway_runs {
                "none: the running gateway enters it at once"
            } else {
                "none: the next gateway or command enters it"
            };
            self.report.add(Finding::note(Check::Pending, message, remedy).of(UserId(user)).cents(pending));
        }
    }

    fn closed(&mut self, account: &Account, on_books: i128) {
        if on_books != 0 {
            let message =
                format!("account {}, which is closed, comes to {} instead of nothing", account.id, Amount(on_books));
            let remedy = "its user is gone and no wallet is affected: compare the account's entries with a backup";
            self.report.add(Finding::wrong(Check::Books, message, remedy).of(UserId(account.user)).cents(on_books));
        }
    }

    /// Wallets that are not on the books: another program's, if the notes say so.
    fn wallets_without_account(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let snapshot = connection.unchecked_transaction()?;
        let pending = Pending::read(&snapshot)?;
        let strangers = {
            let mut select = snapshot.prepare(
                "SELECT user_id, balance FROM wallets w WHERE typeof(user_id) = 'integer'
                 AND NOT EXISTS (SELECT 1 FROM keytoll_accounts a WHERE a.user_id = w.user_id AND a.closed_at IS NULL)",
            )?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, cents(row.get_ref(1)?))))?;
            rows.collect::<rusqlite::Result<Vec<(i64, i128)>>>()?
        };
        drop(snapshot);
        for (user, wallet) in strangers {
            self.compare(user, wallet, 0, pending.of(user));
        }
        if pending.foreign > 0 {
            let message = format!("{} lines of keytoll_wallet_log are not from Keytoll's triggers", pending.foreign);
            let remedy = "find out who writes there; the next gateway or command compares all wallets with the books";
            self.report.add(Finding::wrong(Check::Pending, message, remedy));
        }
        Ok(())
    }

    /// Charges and entries of accounts that do not exist.
    fn rows_without_account(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut select = connection.prepare_cached("SELECT 1 FROM keytoll_accounts WHERE id = ?1")?;
        let snapshot = connection.unchecked_transaction()?;
        let recent = rows::recent_sums(&snapshot, self.frozen)?;
        for account in self.frozen.sums.keys().chain(recent.keys().filter(|id| !self.frozen.sums.contains_key(id))) {
            if !select.exists([account])? {
                let sum = self.on_books(&recent, *account);
                let message = format!(
                    "charges or entries of account {account} come to {}, and there is no such account",
                    Amount(sum)
                );
                let remedy = "another program wrote or deleted rows of Keytoll's tables: compare them with a backup";
                self.report.add(Finding::wrong(Check::Books, message, remedy).cents(sum));
            }
        }
        Ok(())
    }
}

fn accounts_after(connection: &Connection, after: i64) -> rusqlite::Result<Vec<Account>> {
    let mut select = connection.prepare_cached(
        "SELECT a.id, a.user_id, a.closed_at IS NOT NULL, w.balance FROM keytoll_accounts a
         LEFT JOIN wallets w ON w.user_id = a.user_id AND a.closed_at IS NULL
         WHERE a.id > ?1 ORDER BY a.id LIMIT ?2",
    )?;
    let rows = select.query_map([after, CHUNK], |row| {
        let (id, user, is_closed) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Account { id, user, is_closed, wallet_cents: cents(row.get_ref(3)?) })
    })?;
    rows.collect()
}

/// What a balance counts as: only an integer is money.
fn cents(balance: ValueRef<'_>) -> i128 {
    i128::from(money(balance).cents().0)
}

/// A sum for people.
struct Amount(i128);

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match i64::try_from(self.0) {
            Ok(cents) => Cents(cents).fmt(f),
            Err(_) => write!(f, "{} cents", self.0),
        }
    }
}
