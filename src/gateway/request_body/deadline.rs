//! How long a client may take for its whole request body.

use std::time::Duration;

/// Only the time during which the client is waited for counts, and each byte that arrives prolongs it.
pub(super) struct Deadline {
    pub(super) timeout: Duration,
    pub(super) bytes_per_second: u64,
    /// How long the client has been waited for so far.
    pub(super) waited: Duration,
}

impl Deadline {
    /// The time that is left after so many bytes; zero when it is over.
    pub(super) fn left(&self, received_bytes: u64) -> Duration {
        let earned_ms = u128::from(received_bytes) * 1_000 / u128::from(self.bytes_per_second);
        let earned = Duration::from_millis(u64::try_from(earned_ms).unwrap_or(u64::MAX));
        self.timeout.saturating_add(earned).saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_prolongs_the_deadline_and_each_wait_shortens_it() {
        let deadline = |waited_ms| Deadline {
            timeout: Duration::from_secs(30),
            bytes_per_second: 500,
            waited: Duration::from_millis(waited_ms),
        };
        for (waited_ms, received_bytes, left_ms) in [
            (0, 0, 30_000),
            (29_000, 0, 1_000),
            (30_001, 0, 0),
            (30_001, 500, 999),
            (31_000, 250, 0),
            (30_400, 250, 100),
        ] {
            let left = deadline(waited_ms).left(received_bytes).as_millis();
            assert_eq!(left, left_ms, "{waited_ms} ms, {received_bytes} bytes");
        }
    }
}
