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
    /// The client aborted the body of its own request. Released if the reply had not begun, otherwise captured.
    AbortedUpload,
    /// Released: the gateway cut the request off when it stopped.
    Drained,
    /// Released: the capture did not become durable in time, so the reply was aborted.
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
