//! What the rules need of the main database inside of one transaction.

use crate::model::{AccountId, Cents, ChargeId, ChargeState, KeyId, RouteId, UserId};

/// What a wallet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Whole cents.
    Money(Cents),
    /// NULL, a text or a real: not money, and never touched.
    NotAnInteger,
}

impl Balance {
    /// The money; nothing when the balance is not an integer.
    pub fn cents(self) -> Cents {
        match self {
            Balance::Money(cents) => cents,
            Balance::NotAnInteger => Cents::ZERO,
        }
    }
}

/// A user's wallet, and the account that its books belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wallet {
    /// The open account of the user.
    pub account: AccountId,
    /// What is in the wallet.
    pub balance: Balance,
}

/// The price of one request, set aside in the lease of its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The id of the charge that the hold becomes.
    pub charge: ChargeId,
    /// Who pays.
    pub user: UserId,
    /// The account of that user when the hold was made.
    pub account: AccountId,
    /// With which key.
    pub key: KeyId,
    /// For which API and route.
    pub route: RouteId,
    /// How much; positive.
    pub cents: Cents,
    /// When it was made, in milliseconds since 1970.
    pub held_at_ms: i64,
    /// Whether the request has an `Idempotency-Key` and is recorded under it.
    pub is_recorded: bool,
}

/// A settled hold: a row of `keytoll_charges`. It is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// What was held.
    pub hold: Hold,
    /// Captured or released.
    pub state: ChargeState,
    /// The status of the reply that decided it, if there was one.
    pub status: Option<u16>,
}

/// What is given back of a captured charge. A charge is refunded at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refund {
    /// The captured charge.
    pub charge: ChargeId,
    /// Whose wallet it is paid into.
    pub user: UserId,
    /// The account that paid.
    pub account: AccountId,
    /// How much; positive.
    pub cents: Cents,
}

/// The main database inside of one transaction. No other connection can write to it until the transaction ends.
pub trait Tables {
    /// Why the database could not do it. The transaction has to be rolled back.
    type Error;

    /// The user's wallet; `None` when there is none.
    fn wallet(&mut self, user: UserId) -> Result<Option<Wallet>, Self::Error>;

    /// Gives a wallet in which [`Tables::wallet`] found money another balance.
    fn set_balance(&mut self, user: UserId, balance: Cents) -> Result<(), Self::Error>;

    /// Changes what this process leases of an account. The sum must not become negative: that is an error.
    fn change_lease(&mut self, account: AccountId, change: Cents) -> Result<(), Self::Error>;

    /// Appends a settled hold, with the time of the transaction. A charge id that is there already is an error.
    fn append_charge(&mut self, charge: &Charge) -> Result<(), Self::Error>;

    /// Whether the charge was refunded.
    fn is_refunded(&mut self, charge: ChargeId) -> Result<bool, Self::Error>;

    /// Enters a refund.
    fn enter_refund(&mut self, refund: &Refund) -> Result<(), Self::Error>;

    /// Enters that `cents` which belong to an account could not be paid into a wallet: its user has none, or a later user
    /// has the id, or the balance is not an integer. They leave the books as an `external` entry of minus `cents`.
    fn enter_unpayable(&mut self, account: AccountId, cents: Cents) -> Result<(), Self::Error>;
}
