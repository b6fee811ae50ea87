//! The books: accounts, entries, charges and leases, and what keeps them equal to the wallets. Everything here works on a
//! connection inside of the caller's transaction; nothing here has a thread.

pub(in crate::store) mod accounts;
pub(in crate::store) mod check;
pub(in crate::store) mod external;
pub(in crate::store) mod leases;
pub(in crate::store) mod ledger_tables;
pub(in crate::store) mod pending;
pub(in crate::store) mod recovery;
pub(in crate::store) mod requests;
pub(in crate::store) mod retention;
pub(in crate::store) mod sums;
pub(in crate::store) mod wallet_log;
pub(in crate::store) mod wallets;
