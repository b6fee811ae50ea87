//! Listeners, workers, limits, drain: where connections come in and how they end.
//!
//! Owns the listening socket, the worker threads (each a single-threaded runtime) and every open connection. Promises
//! that connections, header blocks and waits are bounded, that one connection's panic is its own, and that a drain
//! lets requests that are under way finish. Generic over the service: knows nothing of routes, keys or money. `app`
//! wires it; `gateway` and `admin` are what it serves.
//!
//! ```text
//! bind -> Bound -> Workers::serve -> Server::drain -> Workers::stop
//! ```

mod accept;
mod bind;
mod connection;
mod drain;
mod head;
mod io;
mod open_files;
#[cfg(test)]
mod tests;
mod worker;

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::Limits;

pub use accept::{Drained, Server};
pub use bind::{BindError, Bound, bind};
pub use io::{Outlet, Then};
pub use open_files::allow_open_files;
pub use worker::{Connect, StartError, WorkerIndex, Workers};

/// The bounds of a listener; see [`Limits`] for each.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections open at once, all workers together; past it 503 and close.
    pub connections: usize,
    /// Bytes of a request's head; past it 431.
    pub header_bytes: usize,
    /// Header fields of a request; past it 431.
    pub headers: usize,
    /// To the end of a request's head.
    pub header_timeout: Duration,
    /// While a client takes nothing of its reply.
    pub reply_write_idle: Duration,
}

impl From<&Limits> for ServerLimits {
    fn from(limits: &Limits) -> ServerLimits {
        ServerLimits {
            connections: limits.connections,
            header_bytes: limits.header_bytes,
            headers: limits.headers,
            header_timeout: limits.header_timeout,
            reply_write_idle: limits.reply_write_idle,
        }
    }
}

/// A connection: its two ends, and word of the next write to the client.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// The client's.
    pub peer: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
    /// Tells of the next write to the client.
    pub outlet: Outlet,
}
