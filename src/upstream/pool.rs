//! The unused connections to one upstream: the last one in is the first one out, so that what is not needed grows old.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::RequestBody;
use super::connection::Connection;

pub(super) struct Pool<B: RequestBody> {
    state: Mutex<State<B>>,
    keep_idle: Duration,
    keep_connections: usize,
}

struct State<B: RequestBody> {
    /// Oldest first.
    idle: VecDeque<Idle<B>>,
    /// Whether a sweep is under way: one task, only while there is something to sweep.
    swept: bool,
}

struct Idle<B: RequestBody> {
    connection: Connection<B>,
    since: Instant,
}

impl<B: RequestBody> Pool<B> {
    pub(super) fn new(keep_idle: Duration, keep_connections: usize) -> Arc<Pool<B>> {
        let state = Mutex::new(State { idle: VecDeque::new(), swept: false });
        Arc::new(Pool { state, keep_idle, keep_connections })
    }

    /// A connection that was alive when last looked at, and not unused for too long `now`.
    pub(super) fn take(&self, now: Instant) -> Option<Connection<B>> {
        let mut state = self.lock();
        while let Some(Idle { connection, since }) = state.idle.pop_back() {
            if connection.is_ready() && now.duration_since(since) < self.keep_idle {
                return Some(connection);
            }
        }
        None
    }

    /// Takes back a connection whose exchange is over; one that cannot serve another is closed.
    pub(super) fn give(self: &Arc<Self>, connection: Connection<B>) {
        if !connection.is_ready() || self.keep_connections == 0 {
            return;
        }
        let mut state = self.lock();
        if state.idle.len() >= self.keep_connections {
            state.idle.pop_front();
        }
        let since = Instant::now();
        state.idle.push_back(Idle { connection, since });
        if !state.swept {
            state.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self), since + self.keep_idle));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().idle.len()
    }

    #[cfg(test)]
    pub(super) fn ready(&self) -> usize {
        self.lock().idle.iter().filter(|idle| idle.connection.is_ready()).count()
    }

    /// Closes what is too old. When to look again; `None` when nothing is left.
    fn close_old(&self) -> Option<Instant> {
        let mut state = self.lock();
        let now = Instant::now();
        while state.idle.front().is_some_and(|oldest| now.duration_since(oldest.since) >= self.keep_idle) {
            state.idle.pop_front();
        }
        let next = state.idle.front().map(|oldest| oldest.since + self.keep_idle);
        state.swept = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes connections as they grow too old, also when no request comes that would look at them.
async fn sweep<B: RequestBody>(pool: Weak<Pool<B>>, first: Instant) {
    let mut next = Some(first);
    while let Some(due) = next {
        sleep_until(due).await;
        next = pool.upgrade().and_then(|pool| pool.close_old());
    }
}
