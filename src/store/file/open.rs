//! Connections: how each kind is opened, and what is refused before the first statement of a start.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::files::{self, Access, FileError, FileKind, Links};
use crate::store::error::OpenError;

/// How long a start, a reader or a tool waits for another program's lock.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pages that the writer's connection keeps: enough for the rows of as many wallets as it remembers by default.
const WRITER_CACHE_KIB: u32 = 4_096;
/// Pages that each connection keeps which only reads: the inner ones of its indexes. The rest comes from the operating system's memory.
const READER_CACHE_KIB: u32 = 1_024;

/// Of every connection, each of which one thread uses at a time. The path has no links any more.
const OPEN_FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_NO_MUTEX.union(OpenFlags::SQLITE_OPEN_NOFOLLOW);

/// What SQLite appends to the name of a database for the files that belong to it.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Finds the database, or creates it with these permission bits, and refuses what is not an SQLite database. The path
/// comes back without links, so that it is resolved once, and so that the file can be told from one that is put in its
/// place.
pub(in crate::store) fn prepare_file(path: &Path, create: Option<u32>) -> Result<PathBuf, OpenError> {
    let path = match (fs::canonicalize(path), create) {
        (Ok(path), _) => path,
        (Err(error), _) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(path, error)),
        (Err(_), _) if fs::symlink_metadata(path).is_ok() => return Err(OpenError::DanglingLink(path.to_owned())),
        (Err(_), None) => return Err(OpenError::Missing(path.to_owned())),
        (Err(_), Some(mode)) => create_file(path, mode)?,
    };
    refuse_other_kinds(&path)?;
    let mut head = Vec::with_capacity(16);
    // Read before SQLite opens the file: closing this descriptor later would drop SQLite's locks.
    let read = files::open_regular(&path, File::options().read(true), Links::Refuse)
        .and_then(|file| Ok(file.take(16).read_to_end(&mut head)?));
    read.map_err(|error| match error {
        FileError::Kind(kind) => OpenError::NotAFile { path: path.clone(), kind },
        FileError::Io(error) => io_error(&path, error),
    })?;
    if !head.is_empty() && head != b"SQLite format 3\0" {
        return Err(OpenError::NotSqlite(path));
    }
    Ok(path)
}

/// Creates an empty file, unless another process was faster. Its path without links.
fn create_file(path: &Path, mode: u32) -> Result<PathBuf, OpenError> {
    let name = path.file_name().ok_or_else(|| OpenError::Missing(path.to_owned()))?;
    let resolved = fs::canonicalize(files::directory_of(path)).map_err(|error| io_error(path, error))?.join(name);
    match files::create_new(&resolved, Access::new(mode)) {
        Ok(_) => Ok(resolved),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(resolved),
        Err(error) => Err(io_error(path, error)),
    }
}

/// Refuses a database, or a file that belongs to it, that SQLite could block on.
fn refuse_other_kinds(database: &Path) -> Result<(), OpenError> {
    for path in std::iter::once(database.to_owned()).chain(companions(database)) {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        match FileKind::from(found.file_type()) {
            FileKind::Regular => {}
            kind => return Err(OpenError::NotAFile { path, kind }),
        }
    }
    Ok(())
}

/// Gives the files that were left beside the database its access rights, which may have been changed since. Only before
/// this process opens the database: SQLite's locks on an open file would be dropped.
pub(in crate::store) fn share_access(database: &Path) {
    let Ok(metadata) = fs::metadata(database) else { return };
    for path in companions(database) {
        if let Err(error) = files::set_access(&path, Access::of(&metadata)) {
            not_shared(&path, &error.into());
        }
    }
}

/// Gives the files that SQLite created the group of the database. Their mode SQLite copies itself, but the group only when
/// it runs as the superuser.
pub(in crate::store) fn share_group(database: &Path) {
    let Ok(metadata) = fs::metadata(database) else { return };
    for path in companions(database) {
        if let Err(error) = files::share_group(&path, &metadata) {
            not_shared(&path, &error);
        }
    }
}

fn not_shared(path: &Path, error: &io::Error) {
    tracing::warn!(
        path = %path.display(), %error,
        "cannot set the permissions and the group of this file to those of the database; other users of the database may not \
         be able to open it"
    );
}

fn companions(database: &Path) -> [PathBuf; COMPANIONS.len()] {
    COMPANIONS.map(|suffix| companion(database, suffix))
}

/// The path of a file that belongs to the database, such as its `-wal`.
pub(in crate::store) fn companion(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn io_error(path: &Path, error: io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly(path.to_owned()),
        // Every other kind is reported in the operating system's words.
        _ => OpenError::Io(path.to_owned(), error),
    }
}

/// The writing connection: WAL, no waiting inside of SQLite, no triggers, no checkpoints of its own.
pub(in crate::store) fn writer(path: &Path) -> Result<Connection, OpenError> {
    let error = |error| open_error(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OPEN_FLAGS;
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
pub(in crate::store) fn reader(path: &Path) -> Result<Connection, OpenError> {
    let error = |error| open_error(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OPEN_FLAGS;
    let connection = Connection::open_with_flags(path, flags).map_err(error)?;
    connection.busy_timeout(PATIENCE).map_err(error)?;
    let settings = format!("PRAGMA query_only = ON; PRAGMA cache_size = -{READER_CACHE_KIB};");
    connection.execute_batch(&settings).map_err(error)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// A connection that reads, and neither creates nor changes any file: SQLite's usual ones create the `-wal` and `-shm` files
/// of a database in WAL mode (<https://www.sqlite.org/wal.html>, §5). `None`: it cannot be read so, because a program left a
/// log without its index.
pub(in crate::store) fn observer(path: &Path) -> Result<Option<Connection>, OpenError> {
    let length = |suffix: &str| fs::metadata(companion(path, suffix)).map(|found| found.len()).ok();
    let parameter = match (length("-wal"), length("-shm")) {
        // All there is is in the database itself.
        (None | Some(0), _) => "immutable=1",
        (Some(_), Some(_)) => "readonly_shm=1",
        (Some(_), None) => return Ok(None),
    };
    let error = |error| open_error(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OPEN_FLAGS;
    let connection = Connection::open_with_flags(uri(path, parameter), flags).map_err(error)?;
    connection.busy_timeout(PATIENCE).map_err(error)?;
    Ok(Some(connection))
}

/// A path as SQLite reads it in a URI, with a parameter (<https://www.sqlite.org/uri.html>).
fn uri(path: &Path, parameter: &str) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri + "?" + parameter
}

/// A connection that only checkpoints; it never waits.
pub(in crate::store) fn checkpointer(path: &Path) -> Result<Connection, OpenError> {
    let error = |error| open_error(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OPEN_FLAGS;
    let connection = Connection::open_with_flags(path, flags).map_err(error)?;
    connection.busy_timeout(Duration::ZERO).map_err(error)?;
    connection.execute_batch("PRAGMA synchronous = NORMAL").map_err(error)?;
    Ok(connection)
}

/// SQLite's error at a start, in words that say what to do.
pub(in crate::store) fn open_error(path: &Path, error: rusqlite::Error) -> OpenError {
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
