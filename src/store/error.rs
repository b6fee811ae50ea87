//! The errors of the store. What a client sees of them is decided above.

use std::fmt;
use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::files::FileKind;
use crate::model::{Cents, ChargeId};

/// The database cannot be used now. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Another program holds the write lock.
    Locked,
    /// No room on the disk.
    DiskFull,
    /// The operating system could not read or write.
    Io,
    /// The file, or its directory, may not be written.
    ReadOnly,
    /// The file is damaged.
    Corrupt,
    /// SQLite refused a statement, as when a table is missing.
    Refused,
    /// The queue is full.
    QueueFull,
    /// It took longer than the limit.
    TooLate,
    /// The gateway is stopping.
    Stopping,
    /// Going on would be unsafe: see [`Fatal`].
    Unsafe,
}

impl Unavailable {
    /// A short text for logs and `/readyz`.
    pub fn reason(self) -> &'static str {
        match self {
            Unavailable::Locked => "the database is locked by another program",
            Unavailable::DiskFull => "the disk of the database is full",
            Unavailable::Io => "the database cannot be read or written (I/O error)",
            Unavailable::ReadOnly => "the database is read-only",
            Unavailable::Corrupt => "the database file is damaged",
            Unavailable::Refused => "SQLite refused a statement",
            Unavailable::QueueFull => "the queue for the database is full",
            Unavailable::TooLate => "the database did not answer in time",
            Unavailable::Stopping => "the gateway is stopping",
            Unavailable::Unsafe => "going on with this database file would be unsafe",
        }
    }

    /// What an SQLite error means for those who wait.
    pub(in crate::store) fn of(error: &rusqlite::Error) -> Unavailable {
        let rusqlite::Error::SqliteFailure(failure, _) = error else { return Unavailable::Refused };
        match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Unavailable::Locked,
            ErrorCode::DiskFull => Unavailable::DiskFull,
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::FileLockingProtocolFailed => {
                Unavailable::Io
            }
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied => Unavailable::ReadOnly,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Unavailable::Corrupt,
            // Everything else is a statement that SQLite would not run; rusqlite's list may grow.
            _ => Unavailable::Refused,
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Unavailable {}

/// Why a hold was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldRefused {
    /// Not enough money; what there is.
    Insufficient {
        /// The wallet's balance; nothing when there is no wallet.
        balance: Cents,
    },
    /// The wallet's balance is NULL, a text or a real, which is no money.
    NotAnInteger,
    /// The key, its user or its API is not what the principal says any more.
    KeyChanged,
    /// A request with this `Idempotency-Key` is under way.
    InFlight,
    /// A request with this `Idempotency-Key` was paid for and answered.
    AlreadyCharged {
        /// With this charge.
        charge: ChargeId,
    },
    /// Another request has this `Idempotency-Key`.
    IdempotencyKeyReused,
    /// As many requests with an `Idempotency-Key` are remembered as may be.
    IdempotencyFull,
    /// The books cannot be written now.
    Unavailable(Unavailable),
}

/// A constraint of the application's tables refused a row of Keytoll's. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConstraintError(String);

impl ConstraintError {
    /// If it is one, which leaves its transaction open.
    pub(in crate::store) fn of(error: &rusqlite::Error) -> Option<ConstraintError> {
        match error {
            rusqlite::Error::SqliteFailure(failure, Some(message))
                if failure.code == ErrorCode::ConstraintViolation =>
            {
                Some(ConstraintError(message.clone()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for ConstraintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.strip_prefix("NOT NULL constraint failed: ") {
            Some(column) => write!(
                f,
                "{column} must not be NULL and has no default, and Keytoll does not know what to write there; give the column a \
                 default, or let the application add the row"
            ),
            None => write!(f, "a constraint of the application's tables refuses the row: {}", self.0),
        }
    }
}

impl std::error::Error for ConstraintError {}

/// A state of the file in which continuing would lose money. The process has to stop and be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// Another file stands where the open one was.
    FileReplaced,
    /// Something other than SQLite wrote other contents into the open file, as `cp` does.
    FileOverwritten,
    /// A commit of another program set the database back to an older state, as `.restore` does.
    DatabaseRestored,
    /// The write-ahead log was removed or replaced.
    WalReplaced,
    /// A sync failed; a repeated one may succeed without the data being on the disk.
    SyncFailed,
    /// A commit failed, and whether it took place cannot be read.
    FateUnknown,
    /// Another gateway found this one's lock file or heartbeat missing for too long and released its holds.
    TakenForDead,
    /// The writer ended unexpectedly.
    WriterDied,
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fatal::FileReplaced => "the database file was moved or replaced while it was open",
            Fatal::FileOverwritten => {
                "the database file was overwritten in place while it was open, as by `cp backup.db auth.db`: stop every program \
                 that uses it, copy the backup again, and start them"
            }
            Fatal::DatabaseRestored => {
                "another program set the database back to an older state while it was open, as by .restore, or removed \
                 Keytoll's tables; the next start goes on from what is in the file now"
            }
            Fatal::WalReplaced => "the database's -wal file was removed or replaced while it was open",
            Fatal::SyncFailed => "the operating system could not bring the database to the disk",
            Fatal::FateUnknown => "a commit failed and cannot be read back",
            Fatal::TakenForDead => "another gateway took this one for dead and released its holds",
            Fatal::WriterDied => "the database writer ended unexpectedly",
        })
    }
}

impl std::error::Error for Fatal {}

/// Why a database was not opened.
#[derive(Debug)]
pub enum OpenError {
    /// No file there, and none is to be made.
    Missing(PathBuf),
    /// The directory of the path does not exist.
    NoDirectory(PathBuf),
    /// A directory on the way to the file may not be searched by this user.
    NoAccess {
        /// The path of the database.
        path: PathBuf,
        /// The directory.
        directory: PathBuf,
    },
    /// The file has no bytes, and no new database is to be made.
    Empty(PathBuf),
    /// Keytoll's tables are not in the file, and this command does not make them.
    NotSetUp(PathBuf),
    /// Keytoll's tables are of an older version, and this command does not upgrade them.
    Older(PathBuf),
    /// A program that was killed left a transaction to be undone.
    NeedsRecovery(PathBuf),
    /// A column of the application holds ids that are not integers.
    IdType {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The declared type, or that of a value in it.
        found: String,
    },
    /// The path is a link to a file that does not exist.
    DanglingLink(PathBuf),
    /// The database, or a file that belongs to it, is not a regular file.
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// The file is not an SQLite database.
    NotSqlite(PathBuf),
    /// The file or its directory may not be written.
    ReadOnly(PathBuf),
    /// A table lacks a column that the models declare.
    Column {
        /// The table.
        table: &'static str,
        /// The column that it lacks.
        column: &'static str,
    },
    /// Keytoll's tables are of a newer version than this program.
    Newer {
        /// The version found.
        found: i64,
        /// The newest one known.
        known: i64,
    },
    /// Another program keeps the file in another journal mode.
    NotWal {
        /// The mode that is in force.
        mode: String,
    },
    /// A gateway runs on the file.
    InUse(PathBuf),
    /// Leases of so many cents are of accounts that are not known.
    LeasesLeft(PathBuf, Cents),
    /// Another program held the file locked all the time.
    Locked(PathBuf),
    /// Anything else that SQLite says.
    Sqlite(PathBuf, rusqlite::Error),
    /// The lock of this instance, or a thread, could not be made.
    Io(PathBuf, std::io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Missing(path) => {
                write!(
                    f,
                    "{}: there is no such file; correct the path, or say --create to make a new database",
                    path.display()
                )
            }
            OpenError::NoDirectory(path) => write!(
                f,
                "{}: the directory {} does not exist; create it, or correct the path",
                path.display(),
                crate::files::directory_of(path).display()
            ),
            OpenError::NoAccess { path, directory } => write!(
                f,
                "{}: permission denied: this user may not search the directory {}",
                path.display(),
                directory.display()
            ),
            OpenError::Empty(path) => write!(
                f,
                "{}: the file is empty; use --create with `keytoll init` to make a new database of it, or correct the path",
                path.display()
            ),
            OpenError::NotSetUp(path) => {
                write!(f, "{0}: the file is not set up for Keytoll; run `keytoll init --database {0}`", path.display())
            }
            OpenError::Older(path) => write!(
                f,
                "{0}: Keytoll's tables are of an older version; run `keytoll init --database {0}`, or start the gateway",
                path.display()
            ),
            OpenError::NeedsRecovery(path) => write!(
                f,
                "{}: a program that was killed left a transaction to be undone; open the file with a program that may write to it first",
                path.display()
            ),
            OpenError::IdType { table, column, found } => write!(
                f,
                "{table}.{column} is of type {found}; Keytoll needs integer ids, and cannot work with text or UUID ids"
            ),
            OpenError::DanglingLink(path) => write!(
                f,
                "{}: this is a link to a file that does not exist; create that file, or remove the link",
                path.display()
            ),
            OpenError::NotAFile { path, kind } => {
                write!(f, "{}: this is {kind}, and not a regular file; correct the path, or remove it", path.display())
            }
            OpenError::NotSqlite(path) => write!(f, "{}: this is not an SQLite database", path.display()),
            OpenError::ReadOnly(path) => {
                write!(f, "{}: the file and its directory must be writable by this user", path.display())
            }
            OpenError::Column { table, column } => write!(
                f,
                "the table {table} has no column {column}; Keytoll expects the application's models and alters none of its tables"
            ),
            OpenError::Newer { found, known } => {
                write!(f, "Keytoll's tables are of version {found}, this program knows {known}; run the newer program")
            }
            OpenError::NotWal { mode } => write!(
                f,
                "the database is in journal mode {mode} and another program keeps it there; close that program, or let it say PRAGMA journal_mode=WAL"
            ),
            OpenError::InUse(path) => write!(f, "{}: a gateway runs on this database; stop it first", path.display()),
            OpenError::LeasesLeft(path, cents) => write!(
                f,
                "{}: leases of {} cents belong to accounts that are not known; see `keytoll doctor`",
                path.display(),
                cents.0
            ),
            OpenError::Locked(path) => {
                write!(f, "{}: another program holds the database locked; try again when it is done", path.display())
            }
            OpenError::Sqlite(path, error) => write!(f, "{}: {error}", path.display()),
            OpenError::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}
