//! The records that clients, upstream and application keep, each for itself.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tempfile::TempDir;

use crate::plan::{Body, Manner, Script};

/// A user, as the application knows it.
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) key: String,
    pub(crate) treatment: Treatment,
    /// Was there before Keytoll was.
    pub(crate) was_adopted: bool,
    /// What the application put into the wallet and took out of it.
    pub(crate) put_in: AtomicI64,
    /// When the key was off: from, until.
    pub(crate) off: Mutex<Vec<(u64, u64)>>,
}

/// What the application does to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Adds to the balance.
    Adds,
    /// Reads the balance and writes another.
    Overwrites,
    /// `REPLACE INTO`.
    Replaces,
    /// Deletes the wallet and makes another.
    MakesAnew,
    /// Switches the key off and on.
    Revokes,
    /// Everything that loses track of the money: wallets gone for a while, texts for balances, another person under the
    /// same id.
    Anything,
}

/// What a client sent and what it got.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) user: i64,
    /// The `Idempotency-Key`, if it has one.
    pub(crate) key: Option<String>,
    pub(crate) cents: i64,
    pub(crate) manner: Manner,
    pub(crate) body: Body,
    /// Which start of the gateway it went to.
    pub(crate) start: u64,
    pub(crate) began: u64,
    pub(crate) got: Option<Got>,
}

impl Sent {
    /// Whether its client may have left before the end of the reply.
    pub(crate) fn left(&self) -> bool {
        self.manner.leaves()
    }

    /// Whether its client may end the connection before the gateway has sent the whole request on.
    pub(crate) fn may_break_off(&self) -> bool {
        self.is_streamed() && (self.manner.breaks_off() || self.left())
    }

    /// Whether the gateway sends its body on as it arrives.
    pub(crate) fn is_streamed(&self) -> bool {
        matches!(self.body, Body::Chunked | Body::Long)
    }
}

/// A reply, or the head of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Got {
    pub(crate) ended: u64,
    pub(crate) status: u16,
    /// Whole, by its framing.
    pub(crate) whole: bool,
    /// Charge and cost.
    pub(crate) receipt: Option<(i64, i64)>,
    pub(crate) refused: Option<Refused>,
}

/// Why a retry was refused with 409.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused {
    InFlight,
    /// By this charge; unknown where the reply has no body.
    AlreadyCharged(Option<i64>),
}

/// How much of a request the upstream has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) charge: Option<i64>,
    /// Its whole body, too.
    pub(crate) is_whole: bool,
    /// It came a second time.
    pub(crate) is_repeated: bool,
}

/// What the upstream answers to a request that was paid for.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) request: String,
    pub(crate) script: Script,
    /// The charge that was refunded with the hold of this request.
    pub(crate) retry_of: Option<i64>,
}

/// All of one file.
pub(crate) struct Records {
    /// Where the file is. A request may come to the upstream late, from a gateway that is dead by then: the file stays as
    /// long as somebody may look into it.
    pub(crate) directory: TempDir,
    clock: AtomicU64,
    /// By request id.
    pub(crate) sent: Mutex<HashMap<String, Sent>>,
    /// By request id.
    pub(crate) arrived: Mutex<HashMap<String, Arrived>>,
    /// By charge.
    pub(crate) served: Mutex<HashMap<i64, Served>>,
    /// Which starts of the gateway were killed.
    pub(crate) killed: Mutex<Vec<u64>>,
    /// Which had settled everything before.
    pub(crate) drained: Mutex<Vec<u64>>,
    /// Replies that said that nothing can be billed now.
    pub(crate) unavailable: AtomicU64,
    violations: Mutex<Vec<String>>,
}

impl Records {
    pub(crate) fn new() -> Records {
        Records {
            directory: tempfile::tempdir().unwrap(),
            clock: AtomicU64::default(),
            sent: Mutex::default(),
            arrived: Mutex::default(),
            served: Mutex::default(),
            killed: Mutex::default(),
            drained: Mutex::default(),
            unavailable: AtomicU64::default(),
            violations: Mutex::default(),
        }
    }

    /// The next moment.
    pub(crate) fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn violated(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }
}

/// Whether a status is charged, with the default `charge_on`.
pub(crate) fn is_charged(status: u16) -> bool {
    (200..500).contains(&status) && status != 408 && status != 429
}
