//! What a client is told.

use http::{HeaderMap, HeaderValue};

use super::{KEYTOLL_BALANCE_CENTS, KEYTOLL_CHARGE_ID, KEYTOLL_COST_CENTS, hop, number, spelling};
use crate::model::{Cents, ChargeId};

/// What a request cost, on every reply after a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// The charge.
    pub charge_id: ChargeId,
    /// Its price, or nothing when it is released.
    pub cost: Cents,
    /// The balance as committed with the hold, or with that release.
    pub balance: Cents,
}

impl Receipt {
    /// Sets the fields of the receipt.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(KEYTOLL_CHARGE_ID, number(self.charge_id.0));
        headers.insert(KEYTOLL_COST_CENTS, number(self.cost.0));
        headers.insert(KEYTOLL_BALANCE_CENTS, number(self.balance.0));
    }
}

/// Turns an upstream's header section into the one that goes to the client. `upgrade`: the upstream's `Upgrade`, for a
/// 101 that is passed on.
pub(crate) fn to_client(headers: &mut HeaderMap, receipt: Option<&Receipt>, upgrade: Option<HeaderValue>) {
    hop::clean(headers, must_go);
    if let Some(receipt) = receipt {
        receipt.write(headers);
    }
    hop::add_hop_fields(headers, upgrade, false);
}

fn must_go(name: &str) -> bool {
    if !matches!(name.as_bytes().first(), Some(b'c' | b'h' | b'k' | b'p' | b't' | b'u')) {
        return false;
    }
    spelling::canonical(name, |canonical, _| spelling::is_ours(canonical) || hop::is_hop_by_hop(canonical))
}
