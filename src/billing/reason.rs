//! Why a hold was captured or released, as reported in the access log and the metrics.

/// The reason of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettlementReason {
    /// Captured: the reply was delivered, and its status is one that is charged.
    Captured,
    /// Released: the upstream failed, or the status is not charged.
    Released,
    /// Captured: the client left while its reply was on its way.
    ClientLeft,
    /// The client aborted its request. Captured; released if nothing was forwarded, or if no reply had begun and
    /// `charge_on_abort` is off.
    AbortedUpload,
    /// Captured: the upstream broke the reply off while the client took nothing of it.
    ClientStalled,
    /// Captured: the gateway cut an event stream for silence after some of it was delivered.
    IdleCut,
    /// Released: the gateway cut the request off when it stopped.
    Drained,
    /// Released: the capture did not become durable in time, so the reply was aborted.
    Unpaid,
}

impl SettlementReason {
    /// The name of every reason, by index.
    pub const NAMES: [&'static str; 8] =
        ["captured", "released", "client_left", "aborted_upload", "client_stalled", "idle_cut", "drained", "unpaid"];

    /// The name in logs and metrics.
    pub fn name(self) -> &'static str {
        SettlementReason::NAMES[self as usize]
    }
}
