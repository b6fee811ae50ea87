//! Stalls: times in which a client's TCP acknowledges nothing of a reply that waits to be sent.
//!
//! Only a client whose socket has been full for a while is sampled, about twice a second. A client that reads slowly
//! goes on acknowledging. It is not stalled, even while its socket accepts no bytes.
//!
//! TCP acknowledges in steps: a client whose receive buffer is full opens its window again when a part of the buffer is free.
//! A client that reads less in `limits.client_stall` than that part cannot be told from one that reads nothing.

use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::edge::EdgeLimits;
use super::socket_info::SocketInfo;

/// The longest time between two samples of a blocked write.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

static WITHOUT_INFO: Once = Once::new();

/// The stalls of one client, as other parts of the program see them.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    count: AtomicU32,
    last: Mutex<LastStall>,
}

#[derive(Clone, Copy, Debug, Default)]
enum LastStall {
    #[default]
    None,
    Current,
    Ended(Instant),
}

impl Stalls {
    /// How many there have been, including the current one.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether the client is stalled, or its last stall ended less than `recent` ago.
    pub(super) fn was_within(&self, recent: Duration) -> bool {
        self.count() > 0
            && match *self.last.lock().unwrap_or_else(PoisonError::into_inner) {
                LastStall::None => false,
                LastStall::Current => true,
                LastStall::Ended(end) => end.elapsed() < recent,
            }
    }

    fn set(&self, last: LastStall) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    fn begin(&self) {
        self.set(LastStall::Current);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self, now: Instant) {
        self.set(LastStall::Ended(now));
    }
}

/// A write that the client's socket does not accept yet.
pub(super) struct BlockedWrite {
    since: Instant,
    /// Since when nothing was acknowledged, as far as is known.
    unacknowledged_since: Instant,
    /// When the next sample is due.
    due: Instant,
    last_sample: Option<SocketInfo>,
    is_stalled: bool,
}

impl BlockedWrite {
    pub(super) fn new(limits: &EdgeLimits, now: Instant) -> BlockedWrite {
        let due = now + (sample_interval(limits) / 2).min(limits.reply_write_idle);
        BlockedWrite { since: now, unacknowledged_since: now, due, last_sample: None, is_stalled: false }
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// When [`BlockedWrite::sample`] must be called next, if the write is still blocked.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Decides from the kernel's current counters whether the client is stalled.
    pub(super) fn sample(
        &mut self,
        info: io::Result<Option<SocketInfo>>,
        limits: &EdgeLimits,
        stalls: &Stalls,
        now: Instant,
    ) {
        let has_progressed = match info {
            Ok(Some(info)) => {
                // What was acknowledged before the first sample is not known: the stall begins with it, if it is one.
                let earlier = self.last_sample.replace(info);
                info.unacknowledged_bytes == 0 || earlier.is_none_or(|earlier| info.is_ahead_of(&earlier))
            }
            // A socket that takes nothing counts as one that acknowledges nothing.
            Ok(None) => false,
            Err(cause) => {
                WITHOUT_INFO.call_once(|| {
                    tracing::info!(%cause, "cannot read TCP acknowledgements over NETLINK_SOCK_DIAG; a client whose socket accepts no bytes counts as stalled");
                });
                false
            }
        };
        if has_progressed {
            self.unacknowledged_since = now;
            self.end(stalls, now);
        } else if !self.is_stalled && now >= self.unacknowledged_since + limits.client_stall {
            self.is_stalled = true;
            stalls.begin();
        }
        let next = now + sample_interval(limits);
        let next = if self.is_stalled { next } else { next.min(self.unacknowledged_since + limits.client_stall) };
        self.due = next.min(self.since + limits.reply_write_idle);
    }

    /// The socket accepts bytes again, or has failed. It accepts them only after it was acknowledged others.
    pub(super) fn end(&mut self, stalls: &Stalls, now: Instant) {
        if self.is_stalled {
            self.is_stalled = false;
            stalls.end(now);
        }
    }
}

fn sample_interval(limits: &EdgeLimits) -> Duration {
    (limits.client_stall / 4).min(SAMPLE_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::super::socket_info::TcpState;
    use super::*;
    use crate::config::Limits;

    const STALL: Duration = Duration::from_secs(2);
    const STEP: Duration = Duration::from_millis(10);

    fn limits() -> EdgeLimits {
        EdgeLimits { client_stall: STALL, ..EdgeLimits::data(&Limits::default()) }
    }

    fn acknowledged(bytes: u64) -> io::Result<Option<SocketInfo>> {
        let (state, unacknowledged_bytes) = (TcpState::Established, 1_000);
        Ok(Some(SocketInfo { state, unread_bytes: 0, unacknowledged_bytes, acknowledged_bytes: Some(bytes) }))
    }

    /// Samples a write that is blocked for `time` whenever a sample is due; the number of samples.
    fn sample_for(
        blocked: &mut BlockedWrite,
        stalls: &Stalls,
        time: Duration,
        info: impl Fn() -> io::Result<Option<SocketInfo>>,
    ) -> u32 {
        let (mut now, end, mut samples) = (blocked.due(), blocked.due() + time, 0);
        while now < end {
            blocked.sample(info(), &limits(), stalls, now);
            assert!(blocked.due() > now);
            now = blocked.due();
            samples += 1;
        }
        samples
    }

    #[test]
    fn a_stall_begins_when_nothing_was_acknowledged_for_its_time() {
        let (stalls, now) = (Stalls::default(), Instant::now());
        let mut blocked = BlockedWrite::new(&limits(), now);
        assert!(blocked.due() < now + SAMPLE_INTERVAL);
        blocked.sample(acknowledged(1), &limits(), &stalls, now);
        blocked.sample(acknowledged(1), &limits(), &stalls, now + STALL - STEP);
        assert!(stalls.count() == 0 && !stalls.was_within(STALL));
        assert_eq!(blocked.due(), now + STALL, "not later than it may begin");
        blocked.sample(acknowledged(1), &limits(), &stalls, now + STALL);
        assert!(stalls.count() == 1 && stalls.was_within(Duration::ZERO));
        blocked.sample(acknowledged(2), &limits(), &stalls, now + STALL + STEP);
        assert!(stalls.count() == 1 && !stalls.was_within(Duration::ZERO) && stalls.was_within(STALL * 2));
        // The next one begins with the last progress.
        blocked.sample(acknowledged(2), &limits(), &stalls, now + STALL * 2);
        assert_eq!(stalls.count(), 1);
        blocked.sample(acknowledged(2), &limits(), &stalls, now + STALL * 2 + STEP);
        assert_eq!(stalls.count(), 2);
        blocked.end(&stalls, now + STALL * 3);
        assert!(!stalls.was_within(Duration::ZERO) && stalls.count() == 2);
    }

    #[test]
    fn a_client_of_which_the_kernel_tells_nothing_is_stalled_while_its_socket_takes_nothing() {
        for known in [true, false] {
            let info = || if known { Ok(None) } else { Err(io::ErrorKind::Unsupported.into()) };
            let (stalls, now) = (Stalls::default(), Instant::now());
            let mut blocked = BlockedWrite::new(&limits(), now);
            blocked.sample(info(), &limits(), &stalls, now + STALL - STEP);
            assert_eq!(stalls.count(), 0);
            blocked.sample(info(), &limits(), &stalls, now + STALL);
            assert_eq!(stalls.count(), 1);
            blocked.end(&stalls, now + STALL);
            assert!(!stalls.was_within(Duration::ZERO));
        }
    }

    #[test]
    fn a_blocked_write_is_sampled_about_twice_a_second() {
        let stalls = Stalls::default();
        let mut blocked = BlockedWrite::new(&limits(), Instant::now());
        let samples = sample_for(&mut blocked, &stalls, Duration::from_secs(30), || acknowledged(1));
        assert!((58..=62).contains(&samples), "{samples}");
        assert_eq!(stalls.count(), 1);
    }
}
