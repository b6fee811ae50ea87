//! Why a hold was captured or released, as the access log and the metrics tell it.

/// The reason of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettlementReason {
    /// Captured: the reply was delivered, and its status is one that is charged.
    Captured,
    /// Released: the upstream failed, or the status is not charged.
    Released,
    /// Captured: the client left while its reply was on its way.
    ClientLeft,
    /// The client broke off the body of its own request.
    AbortedUpload,
    /// Released: the gateway cut the request off when it stopped.
    Drained,
    /// The capture did not become durable in time, so that the reply was broken off and the hold is undone.
    Unpaid,
}

impl SettlementReason {
    /// The name of every reason, by index.
    pub const NAMES: [&'static str; 6] = ["captured", "released", "client_left", "aborted_upload", "drained", "unpaid"];

    /// The name in logs and metrics.
    pub fn name(self) -> &'static str {
        SettlementReason::NAMES[self as usize]
    }
}
