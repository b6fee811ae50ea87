//! The words of the gateway as types: identities, money, keys, charges. No I/O, no clock, no HTTP.
//!
//! Everything above may use this module; it uses nothing of the project.

mod api_key;
mod charge;
pub mod input;
mod money;
mod retry;
mod timestamp;

use std::fmt;

pub use api_key::{ApiKey, IssuedKey, KeyDigest, KeyHint, KeyPrefix, KeyShape, PrefixError, StoredKey};
pub use charge::{ChargeState, EntryKind};
pub use money::{Cents, CentsOverflow};
pub use retry::{IdempotencyKey, IdempotentRequest, NoKey, RequestDigest};
pub use timestamp::Timestamp;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// `users.id`.
    UserId
);
id!(
    /// `api_keys.id`.
    KeyId
);
id!(
    /// `keytoll_charges.id`; never used twice in one file.
    ChargeId
);
id!(
    /// `keytoll_entries.id`.
    EntryId
);
id!(
    /// `keytoll_accounts.id`: one life of a user on the books. A later user with the same `users.id` gets another.
    AccountId
);
id!(
    /// `keytoll_routes.id`: the API and route that a charge was made for.
    RouteId
);

/// The user and key that a credential stands for, as `api_keys` and `users` had them when they were read.
///
/// Holding one says that the key was active then, nothing about now: a hold compares again.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The owner, whose wallet pays.
    pub user_id: UserId,
    /// The row of the key.
    pub key_id: KeyId,
    /// The key as its row holds it; compared again when a hold is not sure that the row is unchanged.
    pub stored_key: StoredKey,
}
