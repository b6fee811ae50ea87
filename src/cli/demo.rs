//! `keytoll demo`: everything that it takes to try Keytoll, in one process.

use super::exit::Failure;
use crate::app;

/// `demo` takes no flags of its own.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args) -> Result<(), Failure> {
    Ok(app::demo::run()?)
}
