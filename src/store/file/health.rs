//! What is wrong with the store, for `/readyz` and for whoever has to stop the process.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::store::error::{Fatal, Unavailable};

/// The state of the store, shared by its threads.
pub(in crate::store) struct Health {
    trouble: Mutex<Option<Unavailable>>,
    fatal: watch::Sender<Option<Fatal>>,
}

impl Health {
    pub(in crate::store) fn new() -> Health {
        Health { trouble: Mutex::new(None), fatal: watch::Sender::new(None) }
    }

    /// Notes the outcome of a transaction; says in the log when that changes.
    pub(in crate::store) fn note(&self, outcome: Result<(), Unavailable>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let now = outcome.err();
        if *trouble == now {
            return;
        }
        match now {
            Some(reason) => {
                tracing::error!(%reason, "billing is unavailable: priced requests are refused until the cause is gone");
            }
            None => tracing::info!("billing is available again"),
        }
        *trouble = now;
    }

    pub(in crate::store) fn trouble(&self) -> Option<Unavailable> {
        if self.fatal.borrow().is_some() {
            return Some(Unavailable::Unsafe);
        }
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the process must stop; the first reason stays.
    pub(in crate::store) fn stop(&self, fatal: Fatal) {
        self.fatal.send_if_modified(|known| {
            if known.is_some() {
                return false;
            }
            tracing::error!(reason = %fatal, "stopping: going on with this database file would be unsafe");
            *known = Some(fatal);
            true
        });
    }

    pub(in crate::store) fn is_fatal(&self) -> bool {
        self.fatal.borrow().is_some()
    }

    pub(in crate::store) fn fatal(&self) -> watch::Receiver<Option<Fatal>> {
        self.fatal.subscribe()
    }
}
