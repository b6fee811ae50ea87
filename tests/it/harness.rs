//! What the tests are made with: a gateway that runs in this process, an upstream that does what the test says, a
//! client that shows every byte, and the other program that writes to the same file.
//!
//! Everything blocks, on threads of its own, so that a test reads from top to bottom in the order in which things
//! happen. Nothing waits without end: what does not come within [`PATIENCE`] fails the test.

mod api;
mod client;
mod crowd;
mod database;
mod gateway;
mod http;
mod process;
mod program;
mod shim;
mod traffic;
mod upstream;

pub(crate) use api::Api;
pub(crate) use client::{Client, Request};
pub(crate) use crowd::{Answer, Crowd};
pub(crate) use database::{Database, Lock};
pub(crate) use gateway::{Customer, Gateway, until};
pub(crate) use http::{Head, Reply};
pub(crate) use process::Process;
pub(crate) use program::{Ground, Program};
pub(crate) use shim::{DATABASE, Deed, EACCES, EIO, ENOSPC, EROFS, Shim, Step, WAL, Word};
pub(crate) use traffic::traffic;
pub(crate) use upstream::{Call, Upstream};

use std::time::Duration;

/// How long anything that must happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long is looked for what must not happen: long enough for a defect to show, and never the reason to pass.
pub(crate) const GLANCE: Duration = Duration::from_millis(150);
