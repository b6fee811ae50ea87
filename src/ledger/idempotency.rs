//! Requests with an `Idempotency-Key`: what a client gets that sends one again.
//!
//! A request is recorded in the transaction that holds its price, under its account, API and key. When it is released or
//! refunded, the record is removed: the client may try again. Otherwise it says whether the client has seen the reply:
//!
//! ```text
//! in flight      a retry is refused (409); also after the capture, until it is applied
//! unanswered     charged, and the head of the reply did not reach the client: a retry refunds that charge and is held and
//!                forwarded as a new request, unless this process is about to send the head
//! answered       charged, and the head of the reply was sent: a retry is refused (409)
//! ```

use crate::model::ChargeId;

/// How far a recorded request has come: `keytoll_requests.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Its hold is not settled, or its capture is not applied yet.
    InFlight,
    /// Charged, and the head of its reply was not sent, as far as is known.
    Unanswered,
    /// Charged, and the head of its reply was sent.
    Answered,
}

impl Progress {
    /// The number in the column.
    pub fn code(self) -> i64 {
        match self {
            Progress::InFlight => 0,
            Progress::Unanswered => 1,
            Progress::Answered => 2,
        }
    }

    /// What a number in the column stands for; `None` for one that Keytoll does not write.
    pub fn from_code(code: i64) -> Option<Progress> {
        [Progress::InFlight, Progress::Unanswered, Progress::Answered].into_iter().find(|known| known.code() == code)
    }
}

/// What is recorded of an earlier request with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// Its charge.
    pub charge: ChargeId,
    /// How far it has come.
    pub progress: Progress,
    /// Whether it asked for the same.
    pub is_same_request: bool,
    /// How long ago it was recorded, in milliseconds.
    pub age_ms: i64,
}

/// What becomes of a request that meets an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The record has expired: it is replaced.
    Replace,
    /// The charge of the earlier one is refunded, and its record replaced.
    Refund,
    /// Refused: the earlier one is in flight.
    InFlight,
    /// Refused: the earlier one was charged and answered.
    AlreadyCharged,
    /// Refused: the earlier one was another request.
    KeyReused,
}

/// Decides about a request that meets an earlier one. `ttl_ms`: how long one that is not in flight counts.
/// `is_delivering`: whether this process is about to send the head of the earlier one's reply.
pub fn decide(earlier: &Earlier, ttl_ms: i64, is_delivering: bool) -> Decision {
    let is_in_flight = earlier.progress == Progress::InFlight;
    if !is_in_flight && earlier.age_ms >= ttl_ms {
        return Decision::Replace;
    }
    if !earlier.is_same_request {
        return Decision::KeyReused;
    }
    match earlier.progress {
        Progress::InFlight => Decision::InFlight,
        Progress::Unanswered if is_delivering => Decision::InFlight,
        Progress::Unanswered => Decision::Refund,
        Progress::Answered => Decision::AlreadyCharged,
    }
}
