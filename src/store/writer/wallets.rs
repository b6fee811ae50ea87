//! The wallets that the writer knows: loaded when first touched, changed in memory, written once a transaction.
//!
//! Inside of a transaction nobody else can commit, so that what was loaded is true until its end; between
//! transactions it stays true as long as no other program commits, which the writer sees. Each write compares the
//! balance that it replaces: a wallet that is not what it should be fails the batch instead of losing money.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use rusqlite::{Connection, OptionalExtension, params};

use crate::model::{AccountId, Cents, UserId};
use crate::store::books::accounts;

/// What a wallet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Balance {
    Money(Cents),
    /// NULL, a text or a real: no money, and never touched.
    NoMoney,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Wallet {
    row_id: i64,
    pub(in crate::store) account: AccountId,
    pub(in crate::store) balance: Balance,
}

/// A wallet with money, as many are remembered.
#[derive(Clone, Copy)]
struct Purse {
    row_id: i64,
    account: AccountId,
    cents: Cents,
}

/// Wallets by user.
pub(in crate::store) struct Wallets {
    known: HashMap<UserId, Purse, RandomState>,
    /// Those without money, and users known to have no wallet (`None`): few, so that their entries may be larger.
    odd: HashMap<UserId, Option<Wallet>, RandomState>,
    /// Which were changed, each with the balance that its row has.
    touched: HashMap<UserId, Cents, RandomState>,
    most: usize,
}

impl Wallets {
    pub(in crate::store) fn new(most: usize) -> Wallets {
        Wallets { known: HashMap::default(), odd: HashMap::default(), touched: HashMap::default(), most }
    }

    /// The user's wallet as the transaction has it by now.
    pub(in crate::store) fn get(
        &mut self,
        connection: &Connection,
        user_id: UserId,
        now_unix_ms: i64,
    ) -> rusqlite::Result<Option<Wallet>> {
        if let Some(Purse { row_id, account, cents }) = self.known.get(&user_id).copied() {
            return Ok(Some(Wallet { row_id, account, balance: Balance::Money(cents) }));
        }
        if let Some(odd) = self.odd.get(&user_id) {
            return Ok(*odd);
        }
        let wallet = load(connection, user_id, now_unix_ms)?;
        match wallet {
            Some(Wallet { row_id, account, balance: Balance::Money(cents) }) => {
                self.known.insert(user_id, Purse { row_id, account, cents });
            }
            Some(Wallet { balance: Balance::NoMoney, .. }) | None => {
                self.odd.insert(user_id, wallet);
            }
        }
        Ok(wallet)
    }

    /// Gives a wallet in which [`Wallets::get`] found money another balance, to be written by [`Wallets::flush`].
    pub(in crate::store) fn set(&mut self, user_id: UserId, balance: Cents) {
        if let Some(purse) = self.known.get_mut(&user_id) {
            self.touched.entry(user_id).or_insert(purse.cents);
            purse.cents = balance;
        }
    }

    /// Writes what was changed.
    pub(in crate::store) fn flush(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.touched.is_empty() {
            return Ok(());
        }
        let mut update = connection.prepare_cached(
            "UPDATE wallets SET balance = ?1 WHERE id = ?2 AND user_id = ?3 AND balance = ?4 AND typeof(balance) = 'integer'",
        )?;
        for (user_id, written) in self.touched.drain() {
            let Some(Purse { row_id, cents, .. }) = self.known.get(&user_id).copied() else { continue };
            // It came back to what it was.
            if cents == written {
                continue;
            }
            let changed = update.execute(params![cents.0, row_id, user_id.0, written.0])?;
            if changed != 1 {
                return Err(rusqlite::Error::StatementChangedRows(changed));
            }
        }
        Ok(())
    }

    /// Forgets one wallet. What was changed in it must have been flushed.
    pub(in crate::store) fn forget(&mut self, user_id: UserId) {
        self.known.remove(&user_id);
        self.odd.remove(&user_id);
    }

    /// Forgets everything, written or not: after a rollback, or when another program may have changed wallets.
    pub(in crate::store) fn forget_all(&mut self) {
        self.known.clear();
        self.odd.clear();
        self.touched.clear();
    }

    /// Between transactions: keeps the number of wallets in bounds.
    pub(in crate::store) fn trim(&mut self) {
        if self.len() > self.most {
            self.forget_all();
        }
    }

    pub(in crate::store) fn len(&self) -> usize {
        self.known.len() + self.odd.len()
    }
}

/// Not a LEFT JOIN: with one, SQLite prepares the statement anew whenever another user is bound to it.
const LOAD: &str = "
SELECT w.id, w.balance, (SELECT a.id FROM keytoll_accounts a WHERE a.user_id = w.user_id AND a.closed_at IS NULL)
FROM wallets w WHERE w.user_id = ?1";

fn load(connection: &Connection, user_id: UserId, now_unix_ms: i64) -> rusqlite::Result<Option<Wallet>> {
    let mut select = connection.prepare_cached(LOAD)?;
    let found = select
        .query_row([user_id.0], |row| {
            Ok((row.get::<_, i64>(0)?, money(row.get_ref(1)?), row.get::<_, Option<i64>>(2)?))
        })
        .optional()?;
    let Some((row_id, balance, account)) = found else { return Ok(None) };
    let written = match balance {
        Balance::Money(cents) => cents,
        Balance::NoMoney => {
            tracing::warn!(
                user_id = user_id.0,
                "the balance of this wallet is not an integer and counts as no money; the application has to correct it"
            );
            Cents::ZERO
        }
    };
    let account = match account {
        Some(id) => AccountId(id),
        // A wallet that came by a way that no trigger saw.
        None => accounts::adopt(connection, user_id, written, now_unix_ms)?,
    };
    Ok(Some(Wallet { row_id, account, balance }))
}

/// Only an integer is money.
pub(in crate::store) fn money(value: rusqlite::types::ValueRef<'_>) -> Balance {
    match value {
        rusqlite::types::ValueRef::Integer(cents) => Balance::Money(Cents(cents)),
        rusqlite::types::ValueRef::Null
        | rusqlite::types::ValueRef::Real(_)
        | rusqlite::types::ValueRef::Text(_)
        | rusqlite::types::ValueRef::Blob(_) => Balance::NoMoney,
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use crate::store::books::external;
    use crate::store::file::schema;
    use crate::store::writer::wallets::*;

    #[test]
    fn little_is_kept_of_each_wallet() {
        assert!(size_of::<(UserId, Purse)>() <= 32);
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
            wallets.flush(&connection).unwrap();
            assert_eq!(balance(), Ok(expected));
        }
        let odd = wallets.get(&connection, UserId(2), 0).unwrap().unwrap();
        assert_eq!(odd.balance, Balance::NoMoney);
        assert!(wallets.get(&connection, UserId(3), 0).unwrap().is_none());
        assert_eq!(wallets.len(), 3);
        // A row that is not what it should be fails the batch.
        wallets.set(UserId(1), Cents(4));
        connection.execute("UPDATE wallets SET balance = 7 WHERE user_id = 1", []).unwrap();
        assert!(wallets.flush(&connection).is_err());
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
            let wallet = load(&connection, user_id, 0).unwrap().unwrap();
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
