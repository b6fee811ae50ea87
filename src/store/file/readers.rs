//! Reads: a few threads, each with a read-only connection, and one bounded queue in front of them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::store::error::{OpenError, Unavailable};
use crate::telemetry::metrics::StoreMetrics;

/// Enough that a slow list does not hold up the look-up of a key.
const THREADS: usize = 2;

type Read = Box<dyn FnOnce(&Connection) + Send>;

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    most: usize,
    metrics: Arc<StoreMetrics>,
}

#[derive(Default)]
struct Queue {
    reads: VecDeque<Read>,
    closed: bool,
}

/// The threads.
pub(in crate::store) struct Readers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// `open`: makes a connection to the database at `path`.
    pub(in crate::store) fn start(
        open: impl Fn() -> Result<Connection, OpenError>,
        path: &Path,
        most: usize,
        metrics: Arc<StoreMetrics>,
    ) -> Result<Readers, OpenError> {
        let shared = Arc::new(Shared { queue: Mutex::default(), filled: Condvar::new(), most, metrics });
        let mut readers = Readers { shared, threads: Vec::new() };
        for number in 0..THREADS {
            let connection = open()?;
            let shared = Arc::clone(&readers.shared);
            let thread = thread::Builder::new()
                .name(format!("keytoll-read-{number}"))
                .spawn(move || run(&connection, &shared))
                .map_err(|error| OpenError::Io(path.to_owned(), error))?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// Runs a read on one of the connections.
    ///
    /// # Errors
    /// The queue is full, or SQLite failed.
    pub(in crate::store) async fn read<T, F>(&self, body: F) -> Result<T, Unavailable>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let read = Box::new(move |connection: &Connection| {
            if sender.is_closed() {
                return;
            }
            let result = body(connection).map_err(|error| {
                tracing::error!(%error, "a read failed");
                Unavailable::of(&error)
            });
            // One who no longer waits does not want the answer.
            drop(sender.send(result));
        });
        {
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.closed {
                return Err(Unavailable::Stopping);
            }
            if queue.reads.len() >= self.shared.most {
                return Err(Unavailable::QueueFull);
            }
            queue.reads.push_back(read);
        }
        self.shared.metrics.reads_queued.inc();
        self.shared.filled.notify_one();
        receiver.await.unwrap_or(Err(Unavailable::Stopping))
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.filled.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a reading thread ended with a panic");
            }
        }
    }
}

fn run(connection: &Connection, shared: &Shared) {
    loop {
        let read = {
            let queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = shared.filled.wait_while(queue, |queue| queue.reads.is_empty() && !queue.closed);
            let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
            queue.reads.pop_front()
        };
        let Some(read) = read else { return };
        shared.metrics.reads_queued.dec();
        read(connection);
    }
}
