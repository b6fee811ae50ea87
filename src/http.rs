//! The HTTP edge that the data listener and the admin listener share: where connections come in, what limits them, and
//! how they end.
//!
//! It owns the listening sockets, the worker threads (each a single-threaded runtime) and every open connection. It
//! guarantees that connections, header sections, waits and requests in flight are bounded, that a panic ends one request,
//! that every request leaves a line in the access log and a count in the metrics, and that a drain lets requests in
//! flight finish. It is generic over the service and the transport: it takes no decision about routes, keys or money, and
//! only records what the service reports about them ([`Record`]). `app` wires it; it serves `gateway` and `admin`.
//!
//! ```text
//! bind -> Bound -> Workers::serve -> Server::drain -> Workers::stop          a listener's life
//! accept -> connection (hyper on a ClientStream) -> layers -> service        a request's way
//! ```
//!
//! Four modules rely on undocumented behaviour of hyper: [`head_wait`], [`refused_head`], [`stream`] and [`write_observer`].
//! `tests/contract.rs` drives hyper itself and fails when that behaviour changes.

mod accept;
mod alarm;
mod bind;
mod client;
mod connection;
mod connection_limit;
mod drain;
mod edge;
mod framing;
mod head_wait;
mod in_flight;
mod keyed_limit;
mod layers;
mod lifecycle;
mod open_files;
mod problem;
mod record;
mod refused;
mod refused_head;
mod request_id;
mod service;
mod socket_info;
mod stall;
mod stream;
mod stream_timer;
mod timer;
mod transport;
mod waiting;
mod worker;
mod write_observer;

#[cfg(test)]
mod tests;

pub use accept::{Drained, Server};
pub use bind::{BindError, Bound, bind};
pub use client::ClientConnection;
pub use edge::{Edge, EdgeLimits, Listener};
pub(crate) use framing::{is_chunked, is_plain_content_length, normalize_content_length};
pub use keyed_limit::{KeyedLimit, KeyedPermit};
pub use layers::{
    AccessLog, CatchPanics, EdgeRequest, IsProbe, LimitInFlight, LoggedBody, MarkProbes, RequestIds, X_FORWARDED_FOR,
};
pub use lifecycle::Lifecycle;
pub use open_files::allow_open_files;
pub use problem::{Problem, ProblemKind, body_too_large};
pub use record::Record;
pub use refused::RefusalReason;
pub(crate) use request_id::write_hex;
pub use request_id::{RequestId, X_REQUEST_ID};
pub use service::{Connect, EdgeBody, EdgeService};
pub use socket_info::{SocketInfo, TcpState};
pub(crate) use timer::Timer;
pub use worker::{StartError, WorkerIndex, Workers};
