//! Whether a reply was broken off by its upstream because its client stalled: many servers give up on a client that takes
//! nothing for a while.
//!
//! A break soon after a stall is taken for its consequence. So is a later one, as long as the client has not caught up: what
//! the upstream had sent before it gave up can keep a slow client busy for minutes, and only then is the break seen.

use std::time::Duration;

use super::gather::ReplySource;
use crate::http::{ClientConnection, SocketInfo, TcpState};

/// How long after the end of a stall an upstream that breaks off is taken to have done so because of the stall.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Watches over one reply.
pub(super) struct StallWatch {
    /// The client's stalls before this reply.
    stalls_before: u32,
    /// The client's stalls after which it has caught up, all that the upstream had sent being read.
    caught_up_after: u32,
}

impl StallWatch {
    /// Begins with the reply.
    pub(super) fn new(client: &ClientConnection) -> StallWatch {
        let stalls = client.stall_count();
        StallWatch { stalls_before: stalls, caught_up_after: stalls }
    }

    /// To be called when the next piece of the reply is waited for. One atomic load, but for replies whose client has stalled.
    pub(super) fn wait(&mut self, client: &ClientConnection, body: &ReplySource) {
        let stalls = client.stall_count();
        if stalls != self.caught_up_after && has_sent_nothing_more(body) {
            self.caught_up_after = stalls;
        }
    }

    /// Whether the client's stall is the reason for an upstream that breaks off now.
    pub(super) fn explains_break(&self, client: &ClientConnection) -> bool {
        let stalls = client.stall_count();
        stalls != self.stalls_before && (stalls != self.caught_up_after || client.was_stalled_within(AFTERMATH))
    }
}

/// Whether the upstream is still there and all that came from it has been read: it is the upstream that is waited for.
fn has_sent_nothing_more(body: &ReplySource) -> bool {
    let Some((local, peer)) = body.socket_addresses() else { return true };
    match SocketInfo::look_up(local, peer) {
        Ok(Some(socket)) => socket.state == TcpState::Established && socket.unread_bytes == 0,
        Ok(None) => false,
        // The kernel does not tell; the time since the stall alone decides.
        Err(_) => true,
    }
}
