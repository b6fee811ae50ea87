//! Fail points: named places at which a test has the whole process killed, to see what the next one makes of it.
//!
//! Only a build with the feature `failpoints`, which no release has, knows how to die; in every other one [`reach`] is
//! nothing. The process is armed with `KEYTOLL_FAILPOINT=NAME:COUNT`: it kills itself with SIGKILL when the point of
//! that name is reached for the COUNT-th time. With `NAME:COUNT:DELAY_US` it goes on, and is killed so many microseconds
//! later, wherever it is then: in the middle of a checkpoint, say, which is one call of SQLite's.
//!
//! A new point: its name in [`POINTS`], and `failpoint::reach("its-name")` in the code where a death would be worst. A
//! test compares the two. `tests/crash` then kills at it in turn with the others, and fails if it is never reached; what
//! has to happen for it to be reached, if traffic alone will not do, is said in `tests/crash/plan.rs`.
//!
//! Usable by every part of the program; uses none.

use std::str::FromStr;
use std::time::Duration;

/// Every point, about in the order of a process's and a request's life.
pub const POINTS: [&str; 36] = [
    "migration-applied",
    "wallets-adopted",
    "lease-recovered",
    "instance-registered",
    "start-committed",
    "before-hold",
    "hold-queued",
    "ids-reserved",
    "batch-begun",
    "external-absorbed",
    "batch-done",
    "batch-committed",
    "sync-begun",
    "sync-done",
    "hold-answered",
    "hold-committed",
    "retry-held",
    "request-sent",
    "reply-begun",
    "client-left",
    "capture-queued",
    "capture-committed",
    "release-queued",
    "release-committed",
    "head-noted",
    "checkpoint-begun",
    "checkpoint-done",
    "last-checkpoint-begun",
    "lock-checked",
    "requests-swept",
    "sums-applied",
    "charges-rolled-up",
    "end-begun",
    "end-done",
    "end-committed",
    "end-checkpointed",
];

/// Whether this build knows how to die.
pub const COMPILED: bool = cfg!(feature = "failpoints");

/// Which point kills, at which time that it is reached, and how long after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailPoint {
    /// One of [`POINTS`].
    pub name: String,
    /// 1 is the first time.
    pub count: u64,
    /// None: there and then.
    pub delay: Option<Duration>,
}

impl FromStr for FailPoint {
    type Err = ();

    /// `NAME:COUNT` or `NAME:COUNT:DELAY_US`.
    fn from_str(text: &str) -> Result<FailPoint, ()> {
        let mut parts = text.split(':');
        let name = parts.next().filter(|name| POINTS.contains(name)).ok_or(())?.to_owned();
        let count = parts.next().and_then(|count| count.parse().ok()).ok_or(())?;
        let delay = parts.next().map(|micros| micros.parse().map(Duration::from_micros)).transpose().map_err(drop)?;
        parts.next().is_none().then_some(FailPoint { name, count, delay }).ok_or(())
    }
}

#[cfg(feature = "failpoints")]
pub use armed::{arm, reach};

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use rustix::process::{Signal, getpid, kill_process};

    use super::FailPoint;

    static ARMED: OnceLock<(FailPoint, AtomicU64)> = OnceLock::new();

    /// Arms the process; the first time counts.
    pub fn arm(point: Option<&FailPoint>) {
        if let Some(point) = point {
            drop(ARMED.set((point.clone(), AtomicU64::new(0))));
        }
    }

    /// Says that the process is at this point. It may not come back.
    pub fn reach(name: &str) {
        let Some((point, reached)) = ARMED.get() else { return };
        if point.name != name || reached.fetch_add(1, Ordering::Relaxed) + 1 != point.count {
            return;
        }
        match point.delay {
            None => die(),
            Some(delay) => drop(thread::spawn(move || {
                thread::sleep(delay);
                die();
            })),
        }
    }

    fn die() {
        // The only error would be that this process does not exist.
        let _ = kill_process(getpid(), Signal::KILL);
        // The other threads may have a moment left; this one does nothing more.
        thread::park();
    }
}

/// Arms nothing: this build has no fail points.
#[cfg(not(feature = "failpoints"))]
pub fn arm(_: Option<&FailPoint>) {}

/// Nothing: this build has no fail points.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_: &str) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fail_point_is_a_name_a_count_and_a_delay() {
        let point = |count, delay| Ok(FailPoint { name: "hold-queued".into(), count, delay });
        assert_eq!("hold-queued:3".parse(), point(3, None));
        assert_eq!("hold-queued:1:250".parse(), point(1, Some(Duration::from_micros(250))));
        for wrong in ["", "hold-queued", "hold-queued:x", "unheard-of:1", "hold-queued:1:2:3", "hold-queued:1:x"] {
            assert_eq!(wrong.parse::<FailPoint>(), Err(()), "{wrong}");
        }
    }
}
