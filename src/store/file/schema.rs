//! The tables: the application's three, made where they are missing and otherwise left as they are, and Keytoll's own.
//!
//! Keytoll's tables are made and upgraded by numbered migrations. None has a foreign key to a shared table, and no
//! view is made on one: either would break the application's own migrations.

use rusqlite::{Connection, OptionalExtension};

use crate::failpoint;
use crate::store::error::OpenError;
use crate::store::file::migrations;

/// The shared tables as SQLAlchemy writes them on SQLite: names, types and constraints.
const SHARED: &str = "
CREATE TABLE IF NOT EXISTS users (
    id INTEGER NOT NULL,
    email VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    is_active BOOLEAN,
    PRIMARY KEY (id),
    UNIQUE (email)
);
CREATE TABLE IF NOT EXISTS api_keys (
    id INTEGER NOT NULL,
    \"key\" VARCHAR NOT NULL,
    user_id INTEGER NOT NULL,
    api_name VARCHAR NOT NULL,
    is_active BOOLEAN,
    created_at DATETIME,
    PRIMARY KEY (id),
    UNIQUE (user_id, api_name),
    UNIQUE (\"key\"),
    FOREIGN KEY(user_id) REFERENCES users (id)
);
CREATE TABLE IF NOT EXISTS wallets (
    id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    balance INTEGER,
    PRIMARY KEY (id),
    UNIQUE (user_id),
    FOREIGN KEY(user_id) REFERENCES users (id)
);
";

/// What the shared tables must have; more columns do no harm.
const COLUMNS: [(&str, &[&str]); 3] = [
    ("users", &["id", "email", "name", "is_active"]),
    ("api_keys", &["id", "key", "user_id", "api_name", "is_active", "created_at"]),
    ("wallets", &["id", "user_id", "balance"]),
];

/// Which of them hold ids, which must be integers.
const ID_COLUMNS: [&str; 2] = ["id", "user_id"];
/// What the declared type of a column says that holds texts or UUIDs. `INT` in it makes any type an integer
/// (<https://www.sqlite.org/datatype3.html>, §3.1).
const NOT_INTEGER: [&str; 6] = ["CHAR", "CLOB", "TEXT", "BLOB", "UUID", "GUID"];

/// Whether a shared table may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Shared {
    /// It will be made.
    MayBeMissing,
    /// It is to be read.
    MustExist,
}

/// Makes the shared tables that are missing, and checks the columns of those that are there.
pub(in crate::store) fn ensure_shared(connection: &Connection) -> Result<(), Wrong> {
    connection.execute_batch(SHARED)?;
    check_shared(connection, Shared::MustExist)
}

/// Checks the columns of the shared tables, and the types of their ids.
pub(in crate::store) fn check_shared(connection: &Connection, missing: Shared) -> Result<(), Wrong> {
    for (table, columns) in COLUMNS {
        let mut statement = connection.prepare("SELECT name, type FROM pragma_table_info(?1)")?;
        let found = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let found = found.collect::<rusqlite::Result<Vec<(String, String)>>>()?;
        if found.is_empty() {
            match missing {
                Shared::MayBeMissing => continue,
                Shared::MustExist => return Err(Wrong::Table),
            }
        }
        for column in columns.iter().copied() {
            let Some((_, declared)) = found.iter().find(|(name, _)| name.eq_ignore_ascii_case(column)) else {
                return Err(Wrong::Column { table, column });
            };
            if ID_COLUMNS.contains(&column) {
                check_id(connection, table, column, declared)?;
            }
        }
    }
    Ok(())
}

/// By the declared type, and by the value in some row: a `UUID` may be declared as anything.
fn check_id(connection: &Connection, table: &'static str, column: &'static str, declared: &str) -> Result<(), Wrong> {
    let upper = declared.to_ascii_uppercase();
    if !upper.contains("INT") && NOT_INTEGER.iter().any(|word| upper.contains(word)) {
        return Err(Wrong::IdType { table, column, found: declared.to_owned() });
    }
    let select = format!("SELECT typeof({column}) FROM {table} LIMIT 1");
    let found: Option<String> = connection.query_row(&select, [], |row| row.get(0)).optional()?;
    match found {
        Some(found) if found != "integer" && found != "null" => Err(Wrong::IdType { table, column, found }),
        Some(_) | None => Ok(()),
    }
}

/// Whether there is such a table.
pub(in crate::store) fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection.prepare("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1")?.exists([name])
}

/// The newest version of Keytoll's tables that this program knows.
pub(in crate::store) fn known() -> i64 {
    i64::try_from(migrations::ALL.len()).unwrap_or(i64::MAX)
}

/// The version of Keytoll's tables, of which this program knows all up to [`known`]. `None`: there are none.
pub(in crate::store) fn version(connection: &Connection) -> Result<Option<i64>, Wrong> {
    if !has_table(connection, "keytoll_migrations")? {
        return Ok(None);
    }
    let found: i64 =
        connection.query_row("SELECT coalesce(max(version), 0) FROM keytoll_migrations", [], |row| row.get(0))?;
    if found > known() { Err(Wrong::Newer { found, known: known() }) } else { Ok(Some(found)) }
}

/// Brings Keytoll's tables to the newest version. Whether there were none before.
pub(in crate::store) fn migrate(connection: &Connection, now_unix_ms: i64) -> Result<bool, Wrong> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS keytoll_migrations (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL)",
    )?;
    let found = version(connection)?.unwrap_or(0);
    for (version, migration) in (1..).zip(migrations::ALL).filter(|(version, _)| *version > found) {
        connection.execute_batch(migration)?;
        connection
            .execute("INSERT INTO keytoll_migrations (version, applied_at) VALUES (?1, ?2)", [version, now_unix_ms])?;
        failpoint::reach("migration-applied");
    }
    Ok(found == 0)
}

/// The application's own triggers on the shared tables: they do not run for Keytoll's writes, which a start says.
pub(in crate::store) fn foreign_triggers(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) IN ('users', 'api_keys', 'wallets')
         AND name NOT LIKE 'keytoll\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Columns of the shared tables that must have a value, have no default, and are not Keytoll's to write, as `users.tenant_id`.
pub(in crate::store) fn required_columns(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut required = Vec::new();
    for (table, columns) in COLUMNS {
        let mut statement = connection
            .prepare("SELECT name FROM pragma_table_info(?1) WHERE \"notnull\" AND dflt_value IS NULL AND pk = 0")?;
        for name in statement.query_map([table], |row| row.get::<_, String>(0))? {
            let name = name?;
            if !columns.iter().any(|column| name.eq_ignore_ascii_case(column)) {
                required.push(format!("{table}.{name}"));
            }
        }
    }
    Ok(required)
}

/// Whether some key stands in the file as it is, not as a digest.
pub(in crate::store) fn has_plain_keys(connection: &Connection) -> rusqlite::Result<bool> {
    let found: Option<i64> = connection
        .query_row("SELECT 1 FROM api_keys WHERE \"key\" NOT LIKE 'sha256:%' LIMIT 1", [], |row| row.get(0))
        .optional()?;
    Ok(found.is_some())
}

/// Takes Keytoll's triggers and tables out of the file; the shared tables stay as they are.
pub(in crate::store) fn uninstall(connection: &Connection) -> rusqlite::Result<()> {
    crate::store::file::triggers::drop_all(connection)?;
    let tables = {
        let mut statement = connection.prepare(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'keytoll\\_%' ESCAPE '\\' ORDER BY rowid DESC",
        )?;
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?
    };
    // Entries point to accounts: their table goes first.
    let (first, rest): (Vec<_>, Vec<_>) = tables.into_iter().partition(|name| name == "keytoll_entries");
    for table in first.into_iter().chain(rest) {
        connection.execute_batch(&format!("DROP TABLE \"{table}\""))?;
    }
    Ok(())
}

/// What is wrong with a schema.
#[derive(Debug)]
pub(in crate::store) enum Wrong {
    /// A shared table is missing.
    Table,
    IdType {
        table: &'static str,
        column: &'static str,
        found: String,
    },
    Column {
        table: &'static str,
        column: &'static str,
    },
    Newer {
        found: i64,
        known: i64,
    },
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Wrong {
    fn from(error: rusqlite::Error) -> Wrong {
        Wrong::Sqlite(error)
    }
}

impl Wrong {
    pub(in crate::store) fn at(self, path: &std::path::Path) -> OpenError {
        match self {
            Wrong::Table => OpenError::NotSetUp(path.to_owned()),
            Wrong::IdType { table, column, found } => OpenError::IdType { table, column, found },
            Wrong::Column { table, column } => OpenError::Column { table, column },
            Wrong::Newer { found, known } => OpenError::Newer { found, known },
            Wrong::Sqlite(error) => crate::store::file::open::open_error(path, error),
        }
    }
}
