//! `keytoll demo`: everything in one process on loopback, to be tried with curl.
//!
//! A sample application as the upstream, a gateway in front of it, a database in a directory of its own that is
//! removed at the end, and a user with a key. Requests are shown as they come, with their cost and the balance after
//! them. The gateway is the real one, started as `serve` starts it from a file; only the application is made up.

mod scene;
mod show;
#[cfg(test)]
mod tests;
mod upstream;

use std::io;

pub use scene::DemoError;

use super::{AppError, Signals};
use crate::telemetry::watch;
use scene::Scene;

/// Runs the demo until a signal ends it. Blocks.
///
/// # Errors
/// What kept it from starting, or made going on unsafe.
pub fn run() -> Result<(), AppError> {
    let requests = watch::init()?;
    let directory = tempfile::Builder::new().prefix("keytoll-demo-").tempdir().map_err(AppError::Runtime)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Runtime)?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new().map_err(AppError::Runtime)?;
        let scene = tokio::select! {
            scene = Scene::set(directory.path(), scene::usual_or_free) => scene?,
            // Its files are in a directory of its own, which is removed.
            _ = signals.next() => return Ok(()),
        };
        show::welcome(&mut io::stdout(), &scene.facts);
        tokio::spawn(show::requests(requests, scene.running.store().clone(), scene.facts.user));
        let fatal = scene.running.run_until(&mut signals).await;
        scene.running.stop(&mut signals).await;
        fatal.map_or(Ok(()), |fatal| Err(AppError::Fatal(fatal)))
    });
    // The tasks hold the database; it goes with the directory.
    drop(runtime);
    let removed = directory.close();
    show::goodbye(&mut io::stdout(), removed.is_ok());
    result
}
