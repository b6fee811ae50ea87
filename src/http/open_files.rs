//! How many files and sockets the operating system lets this process open.
//!
//! Systems keep the usual limit at 1,024 for the sake of programs that use `select`, and leave it to others to raise theirs
//! as far as the hard limit. Past it connections wait to be accepted, and none can be made to an upstream.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit on open files to `wanted`, or to as many as are allowed. Never lowers it. How many may be open then.
pub fn allow_open_files(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    let Some(soft) = current.filter(|soft| *soft < wanted) else { return current.unwrap_or(u64::MAX) };
    let raised = maximum.unwrap_or(u64::MAX).min(wanted);
    match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(error) => {
            tracing::warn!(%error, soft, raised, "the limit on open files cannot be raised");
            soft
        }
    }
}
