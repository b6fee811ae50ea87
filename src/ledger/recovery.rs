//! What becomes of the money of processes that are gone: per account one pool.
//!
//! After a power cut the main database may have lost grants whose captures survived in a journal. A grant moves money from
//! a wallet to a lease and loses nothing of their sum, so the captures of an account are paid from all leases that dead
//! processes have of it, and then from its wallet. What is left of the leases goes back into the wallet. Only an account
//! that lost a credit of its own can have less than its captures: the difference is a *shortfall*.

use crate::model::{AccountId, Cents, UserId};

use super::tables::{Balance, Tables, Wallet};
use super::turn::Turn;

/// One account in the recovery of dead processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The account.
    pub account: AccountId,
    /// Its user.
    pub user: UserId,
    /// What dead processes lease of it.
    pub leased: Cents,
    /// The captures that are appended to its books by the recovery.
    pub captured: Cents,
}

/// What the recovery of one account did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// What went back into the wallet.
    pub returned: Cents,
    /// What neither the leases nor the wallet had for the captures.
    pub shortfall: Cents,
}

impl<T: Tables> Turn<'_, T> {
    /// Pays the captures of one account from its pool, and returns the rest. The leases of the dead processes must be
    /// deleted, and the captures appended, in the same transaction.
    ///
    /// # Errors
    /// The database failed.
    pub fn recover(&mut self, pool: &Pool) -> Result<Recovered, T::Error> {
        let rest = Cents(pool.leased.0.saturating_sub(pool.captured.0));
        if rest >= Cents::ZERO {
            if !rest.is_zero() {
                self.pay_in(pool.user, pool.account, rest)?;
            }
            return Ok(Recovered { returned: rest, shortfall: Cents::ZERO });
        }
        let missing = Cents(rest.0.saturating_neg());
        let from_wallet = match self.tables.wallet(pool.user)? {
            Some(Wallet { account, balance: Balance::Money(balance) })
                if account == pool.account && balance > Cents::ZERO =>
            {
                let taken = balance.min(missing);
                self.tables.set_balance(pool.user, Cents(balance.0 - taken.0))?;
                taken
            }
            Some(_) | None => Cents::ZERO,
        };
        let shortfall = Cents(missing.0 - from_wallet.0);
        if !shortfall.is_zero() {
            self.tables.enter_shortfall(pool.account, shortfall)?;
        }
        Ok(Recovered { returned: Cents::ZERO, shortfall })
    }
}
