//! What the tests are made with: a gateway that runs in this process, an upstream that does what the test says, a
//! client that shows every byte, and the other program that writes to the same file.
//!
//! Everything blocks, on threads of its own, so that a test reads from top to bottom in the order in which things
//! happen. Nothing waits without end: what does not come within [`PATIENCE`] fails the test.
//!
//! `tests/crash` is made with the same; the paths of the parts are there for it.

#[path = "harness/api.rs"]
mod api;
#[path = "harness/client.rs"]
mod client;
#[path = "harness/crowd.rs"]
mod crowd;
#[path = "harness/database.rs"]
mod database;
#[path = "harness/gateway.rs"]
mod gateway;
#[path = "harness/ground.rs"]
mod ground;
#[path = "harness/http.rs"]
pub(crate) mod http;
#[path = "harness/metrics.rs"]
mod metrics;
#[path = "harness/process.rs"]
pub(crate) mod process;
#[path = "harness/shim.rs"]
mod shim;
#[path = "harness/traffic.rs"]
mod traffic;
#[path = "harness/upstream.rs"]
mod upstream;

pub(crate) use api::Api;
pub(crate) use client::{Client, Request};
pub(crate) use crowd::{Answer, Crowd};
pub(crate) use database::{Database, Lock};
pub(crate) use gateway::{Customer, Gateway, GatewayBuilder, until};
pub(crate) use ground::Ground;
pub(crate) use http::{Head, Reply};
pub(crate) use metrics::metric;
use process::program;
pub(crate) use process::{Process, Started};
pub(crate) use shim::{DATABASE, Deed, EACCES, EIO, ENOSPC, EROFS, Shim, Step, WAL, Word};
pub(crate) use traffic::traffic;
pub(crate) use upstream::{Call, Upstream};

use std::time::Duration;

/// What an upstream answers that has nothing else to say.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// How long anything that must happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long is looked for what must not happen: long enough for a defect to show, and never the reason to pass.
pub(crate) const GLANCE: Duration = Duration::from_millis(150);

/// A number in the environment, such as a seed.
pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}
