//! The table of what is charged (docs/charges.md), applied to one call: what its client did and what the
//! upstream had of it decide what may be in the books.
//!
//! | what the upstream had | what its client did | due |
//! |---|---|---|
//! | nothing | | free |
//! | a part | broke off its body | its price, without a status |
//! | a part | left early, with a streamed body | free, or its price without a status: the break may come first |
//! | a part | anything else | free: only a gateway that dies stops there |
//! | all, and answers with a status that is not charged, or closes without a head | | free |
//! | all, and answers whole with a charged status | | its price |
//! | all, and breaks off its reply, with a charged status | left | free or its price: either may come first |
//! | the same | stayed | free |
//!
//! One more rule holds for all rows: what a gateway had not settled when it was killed is free, and never has a charge.

use crate::plan::{Framing, Manner};
use crate::records::{Arrived, Sent, Served, is_charged};

/// What the books must say of a call. A status is the one that its charge is captured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Free,
    Paid(u16),
    Either(u16),
}

/// The status of a charge whose request was broken off before the upstream's head.
const NO_STATUS: u16 = 0;

impl Due {
    /// Of a call that reached the upstream.
    pub(crate) fn of(request: &Sent, arrived: Arrived, reply: &Served) -> Due {
        let script = reply.script;
        if !arrived.is_whole {
            return match request.manner {
                Manner::BreaksOffStream { .. } => Due::Paid(NO_STATUS),
                manner if manner.leaves() && request.is_streamed() => Due::Either(NO_STATUS),
                _ => Due::Free,
            };
        }
        if !is_charged(script.status) {
            return Due::Free;
        }
        match script.framing {
            Framing::NoHead => Due::Free,
            Framing::Broken if request.left() => Due::Either(script.status),
            Framing::Broken => Due::Free,
            _ => Due::Paid(script.status),
        }
    }

    /// Whether a capture with this status fits.
    pub(crate) fn may_be_paid(self, status: Option<u16>) -> bool {
        match self {
            Due::Free => false,
            Due::Paid(due) | Due::Either(due) => status == Some(due),
        }
    }

    /// Whether a release fits.
    pub(crate) fn may_be_free(self) -> bool {
        matches!(self, Due::Free | Due::Either(_))
    }
}
