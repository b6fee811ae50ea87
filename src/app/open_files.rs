//! How many files and sockets a gateway can have open at once by its settings, and whether it may.

use std::fmt;

use crate::config::Limits;
use crate::http;

/// The database with its connections, listeners, the log, signals and the like.
const FIXED: u64 = 128;
/// What the runtime of a worker has open.
const PER_WORKER: u64 = 4;

/// What can be open at once while every client waits for its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    clients: u64,
    /// One for each request in flight. A client's connection has one request at a time, so that there are never more than
    /// clients; idle connections that are kept were in use before, and are used again first.
    upstreams: u64,
    admin: u64,
    others: u64,
}

impl Need {
    fn of(limits: &Limits, workers: usize) -> Need {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Need {
            clients: count(limits.connections),
            upstreams: count(limits.requests.min(limits.connections)),
            admin: count(limits.admin_connections),
            // Each listener has connections for probes beyond its limit.
            others: PER_WORKER
                .saturating_mul(count(workers))
                .saturating_add(count(limits.probe_connections).saturating_mul(2))
                .saturating_add(FIXED),
        }
    }

    fn total(self) -> u64 {
        [self.clients, self.upstreams, self.admin, self.others].into_iter().fold(0, u64::saturating_add)
    }
}

/// Raises the limit on open files to what the settings may need. Logs a warning when connected clients alone could exceed
/// it.
pub(super) fn allow(limits: &Limits, workers: usize) {
    let need = Need::of(limits, workers);
    // Requests whose clients have left go on, and their connections to upstreams with them: as many as there may be requests.
    let left = u64::try_from(limits.requests).unwrap_or(u64::MAX).saturating_sub(need.upstreams);
    let allowed = http::allow_open_files(need.total().saturating_add(left));
    if allowed < need.total() {
        tracing::warn!(allowed, needed = need.total(), "{}", Exceeded { need, allowed });
    }
}

/// The settings need more files than the operating system allows.
struct Exceeded {
    need: Need,
    allowed: u64,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exceeded { need, allowed } = *self;
        let Need { clients, upstreams, admin, others } = need;
        write!(
            f,
            "the settings can need {} open files ({clients} connections of clients, {upstreams} to upstreams, {admin} of operators, \
             {others} others), but the operating system allows {allowed}: raise its hard limit (ulimit -Hn, LimitNOFILE= of \
             systemd)",
            need.total()
        )?;
        // Half of what is left is for clients, half for upstreams.
        match allowed.saturating_sub(admin).saturating_sub(others) / 2 {
            0 => Ok(()),
            fits => write!(f, ", or set limits.connections to at most {fits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(connections: usize, requests: usize) -> u64 {
        let limits =
            Limits { connections, requests, admin_connections: 64, probe_connections: 10, ..Limits::default() };
        Need::of(&limits, 2).total()
    }

    #[test]
    fn a_connected_client_needs_two_files_at_most() {
        const REST: u64 = 64 + 128 + 8 + 20;
        assert_eq!(need(100, 100), 200 + REST);
        assert_eq!(need(100, 10), 110 + REST);
        // Connected clients never have as many requests as may be in flight.
        assert_eq!(need(100, 1_000_000), 200 + REST);
    }

    #[test]
    fn the_advice_fits_into_what_is_allowed() {
        let of = |allowed| Exceeded { need: Need::of(&Limits::default(), 2), allowed }.to_string();
        let said = of(4_096);
        assert!(said.contains("can need 20328 open files (10000 connections of clients, 10000 to upstreams"), "{said}");
        assert!(said.contains("allows 4096: ") && said.ends_with("set limits.connections to at most 1884"), "{said}");
        assert!(need(1_938, 10_000) <= 4_096 && need(1_939, 10_000) > 4_096);
        assert!(of(100).ends_with("LimitNOFILE= of systemd)"), "{}", of(100));
    }
}
