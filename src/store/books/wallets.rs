//! A cache of wallets: loaded when first needed, changed in memory, written once per transaction.
//!
//! Inside of a transaction no other program can commit, so that a loaded wallet is current until its end; between
//! transactions it stays current as long as no other program commits, which the writer notices. Each write compares the
//! balance that it replaces: a wallet that is not what it should be fails the transaction instead of losing money.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::ledger::{Balance, Wallet};
use crate::model::{AccountId, Cents, EntryKind, UserId};
use crate::store::books::accounts;

/// The note of an entry of money that a wallet did not take.
const REFUSED: &str = "refused by the application's table";

/// A wallet with money, as many are cached.
#[derive(Clone, Copy)]
struct CachedWallet {
    row_id: i64,
    account: AccountId,
    cents: Cents,
}

/// Wallets by user.
pub(in crate::store) struct Wallets {
    known: HashMap<UserId, CachedWallet, RandomState>,
    /// Wallets whose balance is not an integer, and users that have no wallet (`None`).
    without_money: HashMap<UserId, Option<Wallet>, RandomState>,
    /// Which were changed, each with the balance that its row has.
    touched: HashMap<UserId, Cents, RandomState>,
    most: usize,
}

impl Wallets {
    pub(in crate::store) fn new(most: usize) -> Wallets {
        Wallets { known: HashMap::default(), without_money: HashMap::default(), touched: HashMap::default(), most }
    }

    /// The user's wallet as the transaction has it by now.
    pub(in crate::store) fn get(
        &mut self,
        connection: &Connection,
        user_id: UserId,
        now_unix_ms: i64,
    ) -> rusqlite::Result<Option<Wallet>> {
        if let Some(CachedWallet { account, cents, .. }) = self.known.get(&user_id).copied() {
            return Ok(Some(Wallet { account, balance: Balance::Money(cents) }));
        }
        if let Some(found) = self.without_money.get(&user_id) {
            return Ok(*found);
        }
        let Some((row_id, wallet)) = load(connection, user_id, now_unix_ms)? else {
            self.without_money.insert(user_id, None);
            return Ok(None);
        };
        match wallet.balance {
            Balance::Money(cents) => {
                self.known.insert(user_id, CachedWallet { row_id, account: wallet.account, cents });
            }
            Balance::NotAnInteger => {
                self.without_money.insert(user_id, Some(wallet));
            }
        }
        Ok(Some(wallet))
    }

    /// Gives a wallet in which [`Wallets::get`] found money another balance, to be written by [`Wallets::flush`].
    pub(in crate::store) fn set(&mut self, user_id: UserId, balance: Cents) {
        if let Some(purse) = self.known.get_mut(&user_id) {
            self.touched.entry(user_id).or_insert(purse.cents);
            purse.cents = balance;
        }
    }

    /// Writes what was changed. Money that a wallet does not take, as the application's table forbids the balance, is entered
    /// as lost to it: a wallet of one must not stop those of all.
    pub(in crate::store) fn flush(&mut self, connection: &Connection, now_unix_ms: i64) -> rusqlite::Result<()> {
        if self.touched.is_empty() {
            return Ok(());
        }
        let mut update = connection.prepare_cached(
            "UPDATE wallets SET balance = ?1 WHERE id = ?2 AND user_id = ?3 AND balance = ?4 AND typeof(balance) = 'integer'",
        )?;
        for (user_id, written) in self.touched.drain() {
            let Some(wallet) = self.known.get_mut(&user_id) else { continue };
            let CachedWallet { row_id, account, cents } = *wallet;
            // It came back to what it was.
            if cents == written {
                continue;
            }
            let changed = match update.execute(params![cents.0, row_id, user_id.0, written.0]) {
                Err(error)
                    if cents > written
                        && error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
                        && !connection.is_autocommit() =>
                {
                    tracing::warn!(
                        user_id = user_id.0, cents = cents.0 - written.0, %error,
                        "the application's table refuses to put money back into this wallet; it is entered as lost to it"
                    );
                    let lost = Cents(written.0 - cents.0);
                    accounts::enter(connection, account, EntryKind::External, lost, Some(REFUSED), now_unix_ms)?;
                    wallet.cents = written;
                    continue;
                }
                changed => changed?,
            };
            if changed != 1 {
                return Err(rusqlite::Error::StatementChangedRows(changed));
            }
        }
        Ok(())
    }

    /// Forgets one wallet. What was changed in it must have been flushed.
    pub(in crate::store) fn forget(&mut self, user_id: UserId) {
        self.known.remove(&user_id);
        self.without_money.remove(&user_id);
    }

    /// Forgets everything, written or not: after a rollback, or when another program may have changed wallets.
    pub(in crate::store) fn forget_all(&mut self) {
        self.known.clear();
        self.without_money.clear();
        self.touched.clear();
    }

    /// Between transactions: keeps the number of wallets in bounds.
    pub(in crate::store) fn trim(&mut self) {
        if self.len() > self.most {
            self.forget_all();
        }
    }

    pub(in crate::store) fn len(&self) -> usize {
        self.known.len() + self.without_money.len()
    }
}

/// Not a LEFT JOIN: with one, SQLite re-prepares the statement whenever another user is bound to it.
const LOAD: &str = "
SELECT w.id, w.balance, (SELECT a.id FROM keytoll_accounts a WHERE a.user_id = w.user_id AND a.closed_at IS NULL)
FROM wallets w WHERE w.user_id = ?1";

/// The id of the wallet's row, and the wallet.
fn load(connection: &Connection, user_id: UserId, now_unix_ms: i64) -> rusqlite::Result<Option<(i64, Wallet)>> {
    let mut select = connection.prepare_cached(LOAD)?;
    let found = select
        .query_row([user_id.0], |row| {
            Ok((row.get::<_, i64>(0)?, money(row.get_ref(1)?), row.get::<_, Option<i64>>(2)?))
        })
        .optional()?;
    let Some((row_id, balance, account)) = found else { return Ok(None) };
    if balance == Balance::NotAnInteger {
        tracing::warn!(
            user_id = user_id.0,
            "the balance of this wallet is not an integer and counts as no money; the application has to correct it"
        );
    }
    let account = match account {
        Some(id) => AccountId(id),
        // A wallet that came by a way that no trigger saw.
        None => accounts::adopt(connection, user_id, balance.cents(), now_unix_ms)?,
    };
    Ok(Some((row_id, Wallet { account, balance })))
}

/// Only an integer is money.
pub(in crate::store) fn money(value: rusqlite::types::ValueRef<'_>) -> Balance {
    match value {
        rusqlite::types::ValueRef::Integer(cents) => Balance::Money(Cents(cents)),
        rusqlite::types::ValueRef::Null
        | rusqlite::types::ValueRef::Real(_)
        | rusqlite::types::ValueRef::Text(_)
        | rusqlite::types::ValueRef::Blob(_) => Balance::NotAnInteger,
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use crate::store::books::external;
    use crate::store::books::wallets::*;
    use crate::store::file::schema;

    #[test]
    fn little_is_kept_of_each_wallet() {
        assert!(size_of::<(UserId, CachedWallet)>() <= 32);
    }

    #[test]
    fn each_transaction_replaces_what_the_row_has() {
        let connection = Connection::open_in_memory().unwrap();
        schema::ensure_shared(&connection).unwrap();
        schema::migrate(&connection, 0).unwrap();
        connection
            .execute_batch(
                "INSERT INTO users (email, name) VALUES ('a@x', 'A'), ('b@x', 'B');
                 INSERT INTO wallets (user_id, balance) VALUES (1, 10), (2, 'many')",
            )
            .unwrap();
        external::adopt_all(&connection, 0).unwrap();
        let balance = || connection.query_row("SELECT balance FROM wallets WHERE user_id = 1", [], |row| row.get(0));
        let mut wallets = Wallets::new(10);
        for (changes, expected) in [(vec![8, 6], 6), (vec![3, 6], 6), (vec![5], 5)] {
            for cents in changes {
                assert!(wallets.get(&connection, UserId(1), 0).unwrap().is_some());
                wallets.set(UserId(1), Cents(cents));
            }
            wallets.flush(&connection, 0).unwrap();
            assert_eq!(balance(), Ok(expected));
        }
        let odd = wallets.get(&connection, UserId(2), 0).unwrap().unwrap();
        assert_eq!(odd.balance, Balance::NotAnInteger);
        assert!(wallets.get(&connection, UserId(3), 0).unwrap().is_none());
        assert_eq!(wallets.len(), 3);
        // A row that is not what it should be fails the batch.
        wallets.set(UserId(1), Cents(4));
        connection.execute("UPDATE wallets SET balance = 7 WHERE user_id = 1", []).unwrap();
        assert!(wallets.flush(&connection, 0).is_err());
        wallets.forget_all();
        assert_eq!(wallets.get(&connection, UserId(1), 0).unwrap().unwrap().balance, Balance::Money(Cents(7)));
    }

    #[test]
    fn wallets_of_many_users_are_loaded_without_preparing_the_statement_anew() {
        let connection = Connection::open_in_memory().unwrap();
        schema::ensure_shared(&connection).unwrap();
        schema::migrate(&connection, 0).unwrap();
        let users = "INSERT INTO users (email, name) VALUES ('a@x', 'A'), ('b@x', 'B'), ('c@x', 'C')";
        connection.execute_batch(users).unwrap();
        connection.execute_batch("INSERT INTO wallets (user_id, balance) VALUES (1, 10), (2, 20), (3, 30)").unwrap();
        external::adopt_all(&connection, 0).unwrap();
        for user_id in [1, 2, 3, 1, 2, 3].map(UserId) {
            let (_, wallet) = load(&connection, user_id, 0).unwrap().unwrap();
            assert_eq!(wallet.balance, Balance::Money(Cents(user_id.0 * 10)));
            assert_eq!(
                accounts::open_account(&connection, user_id).unwrap().map(|found| found.0),
                Some(wallet.account)
            );
        }
        let select = connection.prepare_cached(LOAD).unwrap();
        assert_eq!(select.get_status(StatementStatus::RePrepare), 0);
    }
}
