//! The rules of the [ledger](crate::ledger) on SQLite: wallets and leases in memory, written once per transaction.

use rusqlite::{CachedStatement, Connection, params};

use crate::ledger::{Charge, Refund, Tables, Wallet};
use crate::model::{AccountId, Cents, ChargeId, EntryKind, UserId};
use crate::store::books::accounts::{self, NewEntry};
use crate::store::books::leases::Leases;
use crate::store::books::wallets::Wallets;

/// Who enters refunds.
const ACTOR: &str = "keytoll";

const INSERT_CHARGE: &str = "
INSERT INTO keytoll_charges (id, account_id, key_id, route_id, cents, state, held_at, settled_at, status)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

/// The main database inside of one transaction of the writer, a start or a repair.
pub(in crate::store) struct LedgerTables<'a> {
    pub(in crate::store) connection: &'a Connection,
    pub(in crate::store) wallets: &'a mut Wallets,
    pub(in crate::store) leases: &'a mut Leases,
    /// The transaction's time, in milliseconds since 1970.
    pub(in crate::store) now_unix_ms: i64,
    insert_charge: Option<CachedStatement<'a>>,
}

impl<'a> LedgerTables<'a> {
    pub(in crate::store) fn new(
        connection: &'a Connection,
        wallets: &'a mut Wallets,
        leases: &'a mut Leases,
        now_unix_ms: i64,
    ) -> LedgerTables<'a> {
        LedgerTables { connection, wallets, leases, now_unix_ms, insert_charge: None }
    }

    /// Writes the wallets and leases that were changed.
    pub(in crate::store) fn flush(&mut self) -> rusqlite::Result<()> {
        self.wallets.flush(self.connection, self.now_unix_ms)?;
        self.leases.flush(self.connection)
    }
}

impl Tables for LedgerTables<'_> {
    type Error = rusqlite::Error;

    fn wallet(&mut self, user: UserId) -> rusqlite::Result<Option<Wallet>> {
        self.wallets.get(self.connection, user, self.now_unix_ms)
    }

    fn set_balance(&mut self, user: UserId, balance: Cents) -> rusqlite::Result<()> {
        self.wallets.set(user, balance);
        Ok(())
    }

    fn change_lease(&mut self, account: AccountId, change: Cents) -> rusqlite::Result<()> {
        self.leases.change(self.connection, account, change)
    }

    fn append_charge(&mut self, charge: &Charge) -> rusqlite::Result<()> {
        let Charge { hold, state, status } = charge;
        let insert = match &mut self.insert_charge {
            Some(insert) => insert,
            none => none.insert(self.connection.prepare_cached(INSERT_CHARGE)?),
        };
        insert.execute(params![
            hold.charge.0,
            hold.account.0,
            hold.key.0,
            hold.route.0,
            hold.cents.0,
            state.code(),
            hold.held_at_ms,
            self.now_unix_ms,
            status
        ])?;
        Ok(())
    }

    fn is_refunded(&mut self, charge: ChargeId) -> rusqlite::Result<bool> {
        self.connection.prepare_cached("SELECT 1 FROM keytoll_entries WHERE charge_id = ?1")?.exists([charge.0])
    }

    fn enter_refund(&mut self, refund: &Refund) -> rusqlite::Result<()> {
        let note = format!("charge {} refunded", refund.charge);
        let entry = NewEntry {
            kind: EntryKind::Refund,
            amount: refund.cents,
            note: Some(&note),
            actor: Some(ACTOR),
            key: None,
            charge: Some(refund.charge),
        };
        accounts::write_entry(self.connection, refund.account, &entry, self.now_unix_ms)?;
        Ok(())
    }

    fn enter_unpayable(&mut self, account: AccountId, cents: Cents) -> rusqlite::Result<()> {
        let note = Some("released into a wallet that is gone");
        let amount = Cents(-cents.0);
        accounts::enter(self.connection, account, EntryKind::External, amount, note, self.now_unix_ms)
    }
}
