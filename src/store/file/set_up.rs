//! Set-up: what a file needs before Keytoll's books can be in it, and who may make it.
//!
//! A gateway and `keytoll init` set a file up, in the first transaction of [`Store::open`](crate::store::Store::open) and
//! [`init()`](crate::store::init()). Every other command refuses a file that is not set up, or only reads what the application
//! has in it, and changes nothing.

use rusqlite::{Connection, OptionalExtension};

use crate::store::error::OpenError;
use crate::store::file::open::{self, DatabaseFile, Journal};
use crate::store::file::schema::{self, Shared, Wrong};

/// The row of `keytoll_meta` that says that the file had a rollback journal when Keytoll first saw it.
const FOUND_ROLLBACK_JOURNAL: &str = "found_rollback_journal";

/// What setting a file up changed in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetUp {
    /// Whether the file was new or empty.
    pub is_new: bool,
    /// Whether Keytoll's tables were made just now.
    pub is_first: bool,
    /// Whether the file had a rollback journal, and has a write-ahead log now.
    pub was_rollback: bool,
    /// Tables that were made, shared ones that were missing included.
    pub tables: u64,
    /// Whether Keytoll's tables were of an older version.
    pub is_upgrade: bool,
}

impl SetUp {
    /// Whether anything was changed.
    pub fn any(self) -> bool {
        self.is_first || self.was_rollback || self.tables > 0 || self.is_upgrade
    }
}

/// What a command that only reads needs in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The application's tables.
    Shared,
    /// Keytoll's books as well.
    Books,
}

/// Before anything is changed: whether this file can be worked on. `may_set_up`: whether what is missing will be made.
pub(in crate::store) fn check(connection: &Connection, file: &DatabaseFile, may_set_up: bool) -> Result<(), OpenError> {
    if file.journal.is_none() {
        return Ok(());
    }
    if !may_set_up {
        require_current(connection, file)?;
    }
    schema::check_shared(connection, Shared::MayBeMissing).map_err(|wrong| wrong.at(&file.path))
}

fn require_current(connection: &Connection, file: &DatabaseFile) -> Result<(), OpenError> {
    match schema::version(connection).map_err(|wrong| wrong.at(&file.path))? {
        None => Err(OpenError::NotSetUp(file.path.clone())),
        Some(version) if version < schema::known() => Err(OpenError::Older(file.path.clone())),
        Some(_) => Ok(()),
    }
}

/// A connection for a command that only reads. Where Keytoll's tables are missing, an empty one of this connection alone
/// takes the place of each that the application's rows are read together with.
pub(in crate::store) fn observer(file: &DatabaseFile, needs: Needs) -> Result<Connection, OpenError> {
    let connection = open::observer(file)?;
    let error = |error| open::open_error(&file.path, error);
    let wrong = |wrong: Wrong| wrong.at(&file.path);
    match needs {
        Needs::Books => require_current(&connection, file)?,
        // One of a newer program is refused.
        Needs::Shared => drop(schema::version(&connection).map_err(wrong)?),
    }
    schema::check_shared(&connection, Shared::MustExist).map_err(wrong)?;
    let has_hints = schema::has_table(&connection, "keytoll_key_hints").map_err(error)?;
    if !has_hints {
        connection
            .execute_batch("CREATE TEMP TABLE keytoll_key_hints (key_id INTEGER PRIMARY KEY, stored_hint, hint)")
            .map_err(error)?;
    }
    Ok(connection)
}

/// Makes the tables that are missing and upgrades Keytoll's, inside of a transaction.
pub(in crate::store) fn run(connection: &Connection, file: &DatabaseFile, now_unix_ms: i64) -> Result<SetUp, Wrong> {
    let (version, before) = (schema::version(connection)?, tables(connection)?);
    schema::ensure_shared(connection)?;
    let is_first = schema::migrate(connection, now_unix_ms)?;
    let was_rollback = file.journal == Some(Journal::Rollback);
    if is_first && was_rollback {
        connection.execute("INSERT INTO keytoll_meta (name, value) VALUES (?1, 1)", [FOUND_ROLLBACK_JOURNAL])?;
    }
    Ok(SetUp {
        is_new: file.journal.is_none(),
        is_first,
        was_rollback,
        tables: tables(connection)?.saturating_sub(before),
        is_upgrade: version.is_some_and(|version| version < schema::known()),
    })
}

/// Whether the file had a rollback journal when Keytoll first saw it.
pub(in crate::store) fn found_rollback_journal(connection: &Connection) -> rusqlite::Result<bool> {
    let select = "SELECT value = 1 FROM keytoll_meta WHERE name = ?1";
    let found = connection.query_row(select, [FOUND_ROLLBACK_JOURNAL], |row| row.get(0)).optional()?;
    Ok(found.unwrap_or(false))
}

fn tables(connection: &Connection) -> rusqlite::Result<u64> {
    let select = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    connection.query_row(select, [], |row| row.get::<_, i64>(0)).map(|count| u64::try_from(count).unwrap_or(0))
}
