//! What a start does that can block, on threads of its own: reading the configuration, and opening the store.
//!
//! A FIFO without a writer, a lock of another program, a disk that does not answer or a long recovery can keep a start
//! waiting. The runtime's thread meanwhile waits for signals, so that every start can be ended. Whatever the store was
//! doing then is complete or undone: it is one transaction, and its end is found by the next start as it is found after
//! a crash.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{AppError, Signals};
use crate::config::{self, Config, Environment, Loaded, LogConfig, LogFormat, Overrides};
use crate::store::{Opening, Role, Store};
use crate::telemetry::logs;
use crate::telemetry::metrics::StoreMetrics;

/// How long a cancelled startup waits for the store to close. Then the process ends anyway.
const CLOSE: Duration = Duration::from_secs(2);

/// Reads the configuration. `None`: a signal came first, and the log says so.
pub(super) async fn read_configuration(
    flags: Overrides,
    environment: Environment,
    signals: &mut Signals,
) -> Result<Option<Loaded>, AppError> {
    let (sender, receiver) = oneshot::channel();
    // It is not joined: after a signal it may still wait for the writer of a FIFO.
    thread::Builder::new()
        .name("keytoll-config".into())
        // A receiver that is gone has no use for it.
        .spawn(move || drop(sender.send(config::load(&flags, &environment))))
        .map_err(AppError::Runtime)?;
    tokio::select! {
        biased;
        loaded = receiver => {
            let loaded = loaded.map_err(|_| AppError::Runtime(std::io::Error::other("reading the configuration panicked")))?;
            Ok(Some(loaded?))
        }
        name = signals.next() => {
            let log = LogConfig { format: LogFormat::Auto, filter: "info".to_owned() };
            let _guard = logs::init(&log)?;
            tracing::info!(signal = name, "stopped before the configuration was read");
            Ok(None)
        }
    }
}

/// The thread that opens the store during startup, and closes it again if startup fails.
#[derive(Default)]
pub(super) struct StoreThread {
    /// Sends that startup succeeded. Dropping it without sending closes the store.
    keep: Option<mpsc::Sender<()>>,
    /// Ends with the thread.
    ended: Option<oneshot::Receiver<Infallible>>,
}

impl StoreThread {
    /// Opens the store. Dropping the future leaves the rest to [`StoreThread::close`].
    pub(super) async fn open(
        &mut self,
        config: &Config,
        metrics: &Arc<StoreMetrics>,
    ) -> Result<(Store, Opening), AppError> {
        let (opened, opening) = oneshot::channel();
        let (keep, kept) = mpsc::channel();
        let (ends, ended) = oneshot::channel();
        let (database, limits, metrics) = (config.database.clone(), config.limits.clone(), Arc::clone(metrics));
        let body = move || {
            let _ends = ends;
            let (store, opening) = match Store::open(&database, &limits, Role::Gateway, metrics) {
                Ok(found) => found,
                Err(error) => return drop(opened.send(Err(error))),
            };
            // Whether it is received or not, the end of the start decides.
            drop(opened.send(Ok((store.clone(), opening))));
            if kept.recv().is_err() {
                // Waits for the disk, as the runtime's thread must not.
                store.close();
            }
        };
        thread::Builder::new().name("keytoll-open".into()).spawn(body).map_err(AppError::Runtime)?;
        *self = StoreThread { keep: Some(keep), ended: Some(ended) };
        match opening.await {
            Ok(opened) => Ok(opened?),
            Err(_) => Err(AppError::Runtime(std::io::Error::other("opening the database panicked"))),
        }
    }

    /// The start succeeded: the store stays open.
    pub(super) fn keep(&mut self) {
        if let Some(keep) = self.keep.take() {
            // The thread waits for nothing else.
            let _ = keep.send(());
        }
    }

    /// Startup failed: makes the thread close the store, and waits until it has ended.
    pub(super) async fn close(&mut self) {
        self.keep = None;
        if let Some(ended) = self.ended.take() {
            // An error is the end of the thread; nothing is ever sent.
            let Err(_) = ended.await;
        }
    }

    /// The same for a start that failed; a signal ends the wait.
    pub(super) async fn close_or_signal(&mut self, signals: &mut Signals) {
        tokio::select! {
            () = self.close() => {}
            name = signals.next() => tracing::warn!(signal = name, "stopping while the database is being closed"),
        }
    }

    /// The same when a signal ended the start. What does not close in time is left to the end of the process.
    pub(super) async fn close_after_signal(&mut self, name: &'static str, signals: &mut Signals) {
        tracing::info!(signal = name, "stopping before the gateway serves; send the signal again to stop immediately");
        let is_closed = tokio::select! {
            closed = timeout(CLOSE, self.close()) => closed.is_ok(),
            _ = signals.next() => false,
        };
        if is_closed {
            tracing::info!("stopped");
        } else {
            tracing::warn!(
                "stopped while the database was being opened or closed; the next start recovers what is left"
            );
        }
    }
}
