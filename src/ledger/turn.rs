//! The rules of one transaction.

use crate::model::{AccountId, Cents, ChargeState, UserId};

use super::tables::{Balance, Charge, Hold, Refund, Tables, Wallet};

/// One transaction's view of the rules.
pub struct Turn<'t, T> {
    /// The database inside of the transaction.
    pub tables: &'t mut T,
}

/// Money that moved from a wallet to the lease of its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The account that pays.
    pub account: AccountId,
    /// What is left in the wallet.
    pub balance: Cents,
}

/// Why a price was not granted. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// The wallet has less than the price.
    Insufficient {
        /// What it has.
        balance: Cents,
    },
    /// The user has no wallet.
    NoWallet,
    /// The balance is not an integer.
    NotAnInteger,
}

impl<T: Tables> Turn<'_, T> {
    /// Takes a price out of a wallet into the lease of its account. `refund`: a captured charge of the same account that
    /// is given back first; only when the price can be paid with it.
    ///
    /// # Errors
    /// The inner error: the price cannot be paid. The outer one: the database failed.
    pub fn grant(
        &mut self,
        user: UserId,
        price: Cents,
        refund: Option<&Refund>,
    ) -> Result<Result<Granted, GrantError>, T::Error> {
        let Some(wallet) = self.tables.wallet(user)? else { return Ok(Err(GrantError::NoWallet)) };
        let Balance::Money(balance) = wallet.balance else { return Ok(Err(GrantError::NotAnInteger)) };
        let given_back = refund.map_or(Cents::ZERO, |refund| refund.cents);
        let rest = balance.checked_add(given_back).and_then(|sum| sum.checked_sub(price));
        let rest = match rest {
            Ok(rest) if rest >= Cents::ZERO && price > Cents::ZERO => rest,
            Ok(_) | Err(_) => return Ok(Err(GrantError::Insufficient { balance })),
        };
        if let Some(refund) = refund {
            self.tables.enter_refund(refund)?;
        }
        self.tables.set_balance(user, rest)?;
        self.tables.change_lease(wallet.account, price)?;
        Ok(Ok(Granted { account: wallet.account, balance: rest }))
    }

    /// Makes a hold final: its money leaves the lease, and the charge is appended.
    ///
    /// # Errors
    /// The database failed.
    pub fn capture(&mut self, hold: &Hold, status: u16) -> Result<(), T::Error> {
        self.tables.change_lease(hold.account, Cents(-hold.cents.0))?;
        self.tables.append_charge(&Charge { hold: *hold, state: ChargeState::Captured, status: Some(status) })
    }

    /// Gives a hold back. `leaves_charge`: the charge is appended as released, with the status of the reply, if there was one.
    /// The wallet's balance then; `None` when the money could not be paid into it.
    ///
    /// # Errors
    /// The database failed.
    pub fn release(
        &mut self,
        hold: &Hold,
        leaves_charge: bool,
        status: Option<u16>,
    ) -> Result<Option<Cents>, T::Error> {
        self.tables.change_lease(hold.account, Cents(-hold.cents.0))?;
        if leaves_charge {
            self.tables.append_charge(&Charge { hold: *hold, state: ChargeState::Released, status })?;
        }
        self.pay_in(hold.user, hold.account, hold.cents)
    }

    /// Gives up a hold that was not forwarded, and with which an earlier charge was refunded: the refund is taken back, as a
    /// charge over what was refunded, or over the hold if that is less. What of the hold is left goes back. Returns what was
    /// charged.
    ///
    /// Otherwise a client could leave while an upstream works, and then have its money back by a retry that it gives up.
    ///
    /// # Errors
    /// The database failed.
    pub fn restore(&mut self, hold: &Hold, refunded: Cents) -> Result<Cents, T::Error> {
        let kept = hold.cents.min(refunded);
        let hold_kept = Hold { cents: kept, ..*hold };
        self.tables.change_lease(hold.account, Cents(-hold.cents.0))?;
        self.tables.append_charge(&Charge { hold: hold_kept, state: ChargeState::Captured, status: None })?;
        let rest = Cents(hold.cents.0 - kept.0);
        if !rest.is_zero() {
            self.pay_in(hold.user, hold.account, rest)?;
        }
        Ok(kept)
    }

    /// Gives a captured charge back, unless that was done before. Whether it was done now, and the wallet's balance.
    ///
    /// # Errors
    /// The database failed.
    pub fn refund(&mut self, refund: &Refund) -> Result<Option<Option<Cents>>, T::Error> {
        if self.tables.is_refunded(refund.charge)? {
            return Ok(None);
        }
        self.tables.enter_refund(refund)?;
        self.pay_in(refund.user, refund.account, refund.cents).map(Some)
    }

    /// Pays money of an account into the wallet of its user. Where there is none, or a later user has the id, or the
    /// balance is not an integer, it leaves the books. The wallet's balance; `None` when nothing was paid in.
    ///
    /// # Errors
    /// The database failed.
    pub fn pay_in(&mut self, user: UserId, account: AccountId, cents: Cents) -> Result<Option<Cents>, T::Error> {
        if let Some(Wallet { account: open, balance: Balance::Money(balance) }) = self.tables.wallet(user)?
            && open == account
            && let Ok(sum) = balance.checked_add(cents)
        {
            self.tables.set_balance(user, sum)?;
            return Ok(Some(sum));
        }
        self.tables.enter_unpayable(account, cents)?;
        Ok(None)
    }
}
