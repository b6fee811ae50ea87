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

/// How a database file keeps its transactions apart, as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Journal {
    /// With a rollback journal: SQLite's default.
    Rollback,
    /// With a write-ahead log.
    Wal,
}

/// A database file that was found, or created just now.
#[derive(Clone, Debug)]
pub(in crate::store) struct DatabaseFile {
    /// Without links, so that it is resolved once, and so that the file can be told from one that is put in its place.
    pub(in crate::store) path: PathBuf,
    /// `None`: there is nothing in the file yet.
    pub(in crate::store) journal: Option<Journal>,
}

/// Bytes of a database's header that are looked at: its first 16 tell that it is one, bytes 18 and 19 its journal
/// (<https://www.sqlite.org/fileformat2.html>, §1.3).
const HEAD_BYTES: u64 = 20;

/// Finds the database, or creates it with these permission bits, and refuses what is not an SQLite database. An empty file
/// is accepted where one may be created.
pub(in crate::store) fn prepare_file(path: &Path, create: Option<u32>) -> Result<DatabaseFile, OpenError> {
    let path = match (fs::canonicalize(path), create) {
        (Ok(path), _) => path,
        (Err(error), _) if error.kind() == io::ErrorKind::PermissionDenied => return Err(no_access(path)),
        (Err(error), _) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(path, error)),
        (Err(_), _) if fs::symlink_metadata(path).is_ok() => return Err(OpenError::DanglingLink(path.to_owned())),
        (Err(_), _) if !files::directory_of(path).exists() => return Err(OpenError::NoDirectory(path.to_owned())),
        (Err(_), None) => return Err(OpenError::Missing(path.to_owned())),
        (Err(_), Some(mode)) => create_file(path, mode)?,
    };
    refuse_other_kinds(&path)?;
    let mut head = Vec::new();
    // Read before SQLite opens the file: closing this descriptor later would drop SQLite's locks.
    let read = files::open_regular(&path, File::options().read(true), Links::Refuse)
        .and_then(|file| Ok(file.take(HEAD_BYTES).read_to_end(&mut head)?));
    read.map_err(|error| match error {
        FileError::Kind(kind) => OpenError::NotAFile { path: path.clone(), kind },
        FileError::Io(error) => io_error(&path, error),
    })?;
    let journal = match head.get(18..) {
        // A new database may have its first pages in its log alone.
        _ if head.is_empty() && length(&path, "-wal").is_some_and(|bytes| bytes > 0) => Some(Journal::Wal),
        _ if head.is_empty() => None,
        Some(versions) if head.starts_with(b"SQLite format 3\0") => {
            Some(if versions == [2, 2] { Journal::Wal } else { Journal::Rollback })
        }
        Some(_) | None => return Err(OpenError::NotSqlite(path)),
    };
    if journal.is_none() && create.is_none() {
        return Err(OpenError::Empty(path));
    }
    Ok(DatabaseFile { path, journal })
}

/// The path leads through a directory that this user may not search.
fn no_access(path: &Path) -> OpenError {
    let reached = path.ancestors().skip(1).find(|directory| fs::metadata(directory).is_ok());
    // The one before it in the path is a link into such a directory, or the path is relative.
    let directory = reached.filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    OpenError::NoAccess { path: path.to_owned(), directory: directory.to_owned() }
}

/// The bytes of a file that belongs to the database, if it is there.
fn length(database: &Path, suffix: &str) -> Option<u64> {
    fs::metadata(companion(database, suffix)).map(|found| found.len()).ok()
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

/// Opens a connection, and runs `settings` on it. `busy_timeout`: how long SQLite waits for a lock.
fn connect(
    name: impl AsRef<Path>,
    flags: OpenFlags,
    busy_timeout: Duration,
    settings: &str,
) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(name, flags | OPEN_FLAGS)?;
    connection.busy_timeout(busy_timeout)?;
    connection.execute_batch(settings)?;
    Ok(connection)
}

/// A connection that may write, and has changed nothing yet. The application's triggers do not fire for it.
pub(in crate::store) fn read_write(path: &Path) -> Result<Connection, OpenError> {
    let error = |error| open_error(path, error);
    let settings = "PRAGMA foreign_keys = OFF; PRAGMA synchronous = FULL";
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, PATIENCE, settings).map_err(error)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).map_err(error)?;
    Ok(connection)
}

/// The writing connection: WAL, no waiting inside of SQLite, no triggers, no checkpoints of its own.
pub(in crate::store) fn writer(path: &Path) -> Result<Connection, OpenError> {
    let connection = read_write(path)?;
    make_writer(&connection, path)?;
    Ok(connection)
}

/// The same from a connection that may write. Brings the file into WAL mode.
pub(in crate::store) fn make_writer(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let error = |error| open_error(path, error);
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
    connection
        .execute_batch(&format!("PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -{WRITER_CACHE_KIB}"))
        .map_err(error)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// A connection that only reads.
pub(in crate::store) fn reader(path: &Path) -> Result<Connection, OpenError> {
    let settings = format!("PRAGMA query_only = ON; PRAGMA cache_size = -{READER_CACHE_KIB};");
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, PATIENCE, &settings)
        .map_err(|error| open_error(path, error))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// A connection that reads, and neither creates nor changes any file, whether or not other programs use the database: SQLite's
/// usual ones create the `-wal` and `-shm` files of a database in WAL mode (<https://www.sqlite.org/wal.html>, §5).
pub(in crate::store) fn observer(file: &DatabaseFile) -> Result<Connection, OpenError> {
    let path = &file.path;
    let (parameter, settings) = match (file.journal, length(path, "-wal"), length(path, "-shm")) {
        (None | Some(Journal::Rollback), _, _) => ("mode=ro", ""),
        // All there is is in the database itself, and no program has it open.
        (Some(Journal::Wal), None, _) | (Some(Journal::Wal), Some(0), None) => ("immutable=1", ""),
        (Some(Journal::Wal), Some(_), Some(_)) => ("readonly_shm=1", ""),
        // A program left its log without the index, which is built in memory then. No program has the database open: it
        // would have an index. So the locks, which this connection could not take, are not needed.
        (Some(Journal::Wal), Some(_), None) => ("vfs=unix-none", "PRAGMA locking_mode = EXCLUSIVE; "),
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let settings = format!("{settings}PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{READER_CACHE_KIB}");
    let connection =
        connect(uri(path, parameter), flags, PATIENCE, &settings).map_err(|error| open_error(path, error))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
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
    connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO, "PRAGMA synchronous = NORMAL")
        .map_err(|error| open_error(path, error))
}

/// SQLite's error at a start, in words that say what to do.
pub(in crate::store) fn open_error(path: &Path, error: rusqlite::Error) -> OpenError {
    /// A rollback journal, or a log, of a program that was killed, which only one that may write can put in order.
    const NEEDS_RECOVERY: [i32; 2] = [776, 264];
    let rusqlite::Error::SqliteFailure(failure, _) = &error else { return OpenError::Sqlite(path.to_owned(), error) };
    match failure.code {
        _ if NEEDS_RECOVERY.contains(&failure.extended_code) => OpenError::NeedsRecovery(path.to_owned()),
        ErrorCode::NotADatabase => OpenError::NotSqlite(path.to_owned()),
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => {
            OpenError::ReadOnly(path.to_owned())
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => OpenError::Locked(path.to_owned()),
        // The rest is told in SQLite's words.
        _ => OpenError::Sqlite(path.to_owned(), error),
    }
}
