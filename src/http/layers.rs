//! The tower layers around the service of each listener, in the order in which `app` puts them together:
//!
//! 1. [`RequestIds`]: gives the request its id, and the reply too;
//! 2. [`AccessLog`]: opens the request's [`Record`], which lives until the reply's body has ended;
//! 3. [`CatchPanics`]: a panic is one reply;
//! 4. [`MarkProbes`]: marks probes, which are never limited;
//! 5. [`LimitInFlight`]: sheds what is beyond the limits.
//!
//! None of them is about money. All are always ready.

mod access_log;
mod in_flight;
mod panic;
mod probes;
mod request_id;

pub use access_log::{AccessLog, LoggedBody};
pub use in_flight::{LimitInFlight, X_FORWARDED_FOR};
pub use panic::CatchPanics;
pub use probes::{IsProbe, MarkProbes};
pub use request_id::RequestIds;

use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;

use super::client::ClientConnection;
use super::record::Record;
use super::request_id::RequestId;

/// A request as the connection hands it over.
pub struct ReceivedRequest {
    pub(super) request: Request<Incoming>,
    pub(super) client: Arc<ClientConnection>,
    /// The connection serves probes only, or has just been evicted.
    pub(super) is_for_probes: bool,
}

/// A request with its id.
pub struct IdentifiedRequest {
    received: ReceivedRequest,
    id: RequestId,
}

/// A request with its record, as the services behind the layers get it.
pub struct EdgeRequest {
    /// The request.
    pub request: Request<Incoming>,
    /// Its record.
    pub record: Record,
    is_for_probes: bool,
    /// Whether the request is a probe, which the limits do not apply to.
    pub is_probe: bool,
}
