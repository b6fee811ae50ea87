//! The rules of money, without I/O, clock or threads.
//!
//! Money moves in three places of the main database: a user's wallet, the *leases* of gateway processes (money that one
//! process has taken out of wallets, by account), and the *books* (charges and entries). A hold moves its price from the
//! wallet to the lease of its account; a capture turns it into a charge; a release moves it back. So at every commit
//! entries − charges − leases = the wallet.
//!
//! [`Turn`] has these rules for one transaction, over whatever implements [`Tables`]: SQLite in production, a model in tests.
//! [`idempotency`] says what a request meets whose `Idempotency-Key` was used before.

pub mod idempotency;
mod tables;
mod turn;

pub use tables::{Balance, Charge, Hold, Refund, Tables, Wallet};
pub use turn::{GrantError, Granted, Turn};

#[cfg(test)]
mod tests;
