//! What operators read and change: users, keys, wallets, charges.

pub(in crate::store) mod charges;
pub(in crate::store) mod entries;
pub(in crate::store) mod keys;
pub(in crate::store) mod lookup;
pub(in crate::store) mod page;
mod routes;
pub(in crate::store) mod unknown_apis;
pub(in crate::store) mod users;
