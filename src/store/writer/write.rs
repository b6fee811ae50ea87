//! Writes of the admin plane, the command line and the upkeep of the books: closures that run inside of the writer's transaction.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::model::UserId;
use crate::store::books::wallets::Wallets;
use crate::store::error::{ConstraintError, Unavailable};
use crate::store::writer::queue::{Command, Queue, WritePermit};

/// The writer's transaction, lent to one write. What the write does is undone alone when it returns an error.
pub(in crate::store) struct WriteTx<'a> {
    pub(in crate::store) connection: &'a Connection,
    pub(in crate::store) wallets: &'a mut Wallets,
    pub(in crate::store) keys_changed: bool,
    pub(in crate::store) now_unix_ms: i64,
}

impl WriteTx<'_> {
    /// The connection, inside of the transaction. Triggers do not fire on it.
    pub(in crate::store) fn connection(&self) -> &Connection {
        self.connection
    }

    /// Says that a key or a user was changed: the view advances with the commit.
    pub(in crate::store) fn keys_changed(&mut self) {
        self.keys_changed = true;
    }

    /// Says that a wallet was changed by SQL: what the writer remembers of it is forgotten.
    pub(in crate::store) fn wallet_changed(&mut self, user_id: UserId) {
        self.wallets.forget(user_id);
    }

    /// The transaction's moment, in milliseconds since 1970.
    pub(in crate::store) fn now_unix_ms(&self) -> i64 {
        self.now_unix_ms
    }
}

/// Why a write was not done.
#[derive(Debug)]
pub enum WriteError<E> {
    /// The write itself refused.
    Refused(E),
    /// A constraint of the application's tables did.
    Constraint(ConstraintError),
    /// The database could not be written.
    Unavailable(Unavailable),
}

/// What the body of a write returns: its own refusal, or SQLite's error.
#[derive(Debug)]
pub(in crate::store) enum WriteFault<E> {
    Refused(E),
    Sqlite(rusqlite::Error),
}

impl<E> From<rusqlite::Error> for WriteFault<E> {
    fn from(error: rusqlite::Error) -> WriteFault<E> {
        WriteFault::Sqlite(error)
    }
}

impl From<WriteError<Infallible>> for Unavailable {
    fn from(error: WriteError<Infallible>) -> Unavailable {
        match error {
            WriteError::Unavailable(reason) => reason,
            WriteError::Constraint(_) => Unavailable::Refused,
            WriteError::Refused(never) => match never {},
        }
    }
}

/// What a write that was answered survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Synced {
    /// A power cut, whatever the setting says.
    Now,
    /// The end of the process: for what can be done again.
    Later,
}

/// The reply to a write.
pub(in crate::store) type Answer<T, E> = oneshot::Receiver<Result<T, WriteError<E>>>;

/// Queues a write; the answer comes after its commit.
///
/// # Errors
/// Too many writes wait already, or the writer has ended.
pub(in crate::store) fn submit<T, E, F>(
    queue: &Arc<Queue>,
    synced: Synced,
    body: F,
) -> Result<Answer<T, E>, Unavailable>
where
    T: Send + 'static,
    E: Send + 'static,
    F: FnOnce(&mut WriteTx<'_>) -> Result<T, WriteFault<E>> + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let deadline = Instant::now() + queue.limits.hold_timeout;
    let place = WritePermit::take(queue)?;
    queue.push([Command::Write(Box::new(Job {
        deadline,
        synced,
        _place: place,
        body: Some(body),
        result: None,
        constraint: None,
        sender,
    }))])?;
    Ok(receiver)
}

/// A write whose types the writer does not know.
pub(in crate::store) trait WriteJob: Send {
    /// Until when it may wait for its turn.
    fn deadline(&self) -> Instant;
    /// What its commit has to wait for.
    fn synced(&self) -> Synced;
    /// Runs inside of a savepoint. `Ok(true)`: keep it. `Ok(false)`: the write refused, undo it.
    fn run(&mut self, tx: &mut WriteTx<'_>) -> rusqlite::Result<bool>;
    /// Sends the reply, after the commit or after it failed.
    fn finish(self: Box<Self>, committed: Result<(), Unavailable>);
}

/// A closure as a [`WriteJob`].
struct Job<F, T, E> {
    deadline: Instant,
    synced: Synced,
    /// Given up when the write is finished.
    _place: WritePermit,
    body: Option<F>,
    result: Option<Result<T, E>>,
    constraint: Option<ConstraintError>,
    sender: oneshot::Sender<Result<T, WriteError<E>>>,
}

impl<F, T, E> WriteJob for Job<F, T, E>
where
    F: FnOnce(&mut WriteTx<'_>) -> Result<T, WriteFault<E>> + Send,
    T: Send,
    E: Send,
{
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn synced(&self) -> Synced {
        self.synced
    }

    fn run(&mut self, tx: &mut WriteTx<'_>) -> rusqlite::Result<bool> {
        self.result = None;
        let Some(body) = self.body.take() else { return Ok(false) };
        match body(tx) {
            Ok(value) => self.result = Some(Ok(value)),
            Err(WriteFault::Refused(refusal)) => {
                self.result = Some(Err(refusal));
                return Ok(false);
            }
            Err(WriteFault::Sqlite(error)) => {
                self.constraint = ConstraintError::of(&error);
                tracing::warn!(%error, "a write failed");
                return if self.constraint.is_some() && !tx.connection.is_autocommit() {
                    Ok(false)
                } else {
                    Err(error)
                };
            }
        }
        Ok(true)
    }

    fn finish(self: Box<Self>, committed: Result<(), Unavailable>) {
        let answer = match (committed, self.result) {
            (Ok(()), Some(Ok(value))) => Ok(value),
            (Ok(()), Some(Err(refusal))) => Err(WriteError::Refused(refusal)),
            (Ok(()), None) => Err(match self.constraint {
                Some(constraint) => WriteError::Constraint(constraint),
                None => WriteError::Unavailable(Unavailable::Refused),
            }),
            // Also for a refusal: it may have rested on a write that was undone with the batch.
            (Err(reason), _) => Err(WriteError::Unavailable(reason)),
        };
        // One who no longer waits does not want the answer.
        drop(self.sender.send(answer));
    }
}
