//! Connections: how each kind is opened, and what is refused before the first statement of a start.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::refusal::OpenError;

/// How long a start, a reader or a tool waits for another program's lock.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pages that the writer's connection keeps: enough for the rows of as many wallets as it remembers by default.
const WRITER_CACHE_KIB: u32 = 4_096;
/// Pages that each connection keeps which only reads: the inner ones of its indexes. The rest comes from the operating system's memory.
const READER_CACHE_KIB: u32 = 1_024;

/// Finds or makes the file and refuses what is no SQLite database. The path comes back without links, so that the
/// file can be told from one that is put in its place.
pub(super) fn prepare_file(path: &Path, create: bool) -> Result<PathBuf, OpenError> {
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly(path.to_owned()),
        // Every other kind is told in the operating system's words.
        _ => OpenError::Io(path.to_owned(), error),
    };
    if !path.exists() {
        if !create {
            return Err(OpenError::Missing(path.to_owned()));
        }
        File::options().write(true).create_new(true).open(path).map_err(io)?;
    }
    let path = fs::canonicalize(path).map_err(io)?;
    let mut head = Vec::with_capacity(16);
    // Reading before SQLite opens the file: closing this descriptor later would drop SQLite's locks.
    File::open(&path).and_then(|file| file.take(16).read_to_end(&mut head)).map_err(io)?;
    if !head.is_empty() && head != b"SQLite format 3\0" {
        return Err(OpenError::NotSqlite(path));
    }
    Ok(path)
}

/// The writing connection: WAL, no waiting inside of SQLite, no triggers, no checkpoints of its own.
pub(super) fn writer(path: &Path) -> Result<Connection, OpenError> {
    let error = |error| open_error(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(error)?;
    connection.busy_timeout(PATIENCE).map_err(error)?;
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(|found| match found {
            // The change of mode needs the file for itself, and does not wait for it.
            rusqlite::Error::SqliteFailure(failure, _) if failure.code == ErrorCode::DatabaseBusy => {
                OpenError::Locked(path.to_owned())
            }
            found => error(found),
        })?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(OpenError::NotWal { mode });
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).map_err(error)?;
    connection
        .execute_batch(&format!(
            "PRAGMA foreign_keys = OFF; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;
             PRAGMA cache_size = -{WRITER_CACHE_KIB};"
        ))
        .map_err(error)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn reader(path: &Path) -> Result<Connection, OpenError> {
    let error = |error| open_error(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(error)?;
    connection.busy_timeout(PATIENCE).map_err(error)?;
    let settings = format!("PRAGMA query_only = ON; PRAGMA cache_size = -{READER_CACHE_KIB};");
    connection.execute_batch(&settings).map_err(error)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// A connection that only checkpoints; it never waits.
pub(super) fn checkpointer(path: &Path) -> Result<Connection, OpenError> {
    let error = |error| open_error(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(error)?;
    connection.busy_timeout(Duration::ZERO).map_err(error)?;
    connection.execute_batch("PRAGMA synchronous = NORMAL").map_err(error)?;
    Ok(connection)
}

/// SQLite's error at a start, in words that say what to do.
pub(super) fn open_error(path: &Path, error: rusqlite::Error) -> OpenError {
    let rusqlite::Error::SqliteFailure(failure, _) = &error else { return OpenError::Sqlite(path.to_owned(), error) };
    match failure.code {
        ErrorCode::NotADatabase => OpenError::NotSqlite(path.to_owned()),
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => {
            OpenError::ReadOnly(path.to_owned())
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => OpenError::Locked(path.to_owned()),
        // The rest is told in SQLite's words.
        _ => OpenError::Sqlite(path.to_owned(), error),
    }
}
