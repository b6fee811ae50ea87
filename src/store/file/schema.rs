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

/// Makes the shared tables that are missing, and checks the columns of those that are there.
pub(in crate::store) fn ensure_shared(connection: &Connection) -> Result<(), Wrong> {
    connection.execute_batch(SHARED)?;
    check_shared(connection)
}

/// Checks the columns of the shared tables.
pub(in crate::store) fn check_shared(connection: &Connection) -> Result<(), Wrong> {
    for (table, columns) in COLUMNS {
        let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
        let found = statement.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        for column in columns {
            if !found.iter().any(|name| name.eq_ignore_ascii_case(column)) {
                return Err(Wrong::Column { table, column });
            }
        }
    }
    Ok(())
}

/// Compares the version of Keytoll's tables with the one that this program knows. `false`: there are none, or older ones.
pub(in crate::store) fn is_current(connection: &Connection) -> Result<bool, Wrong> {
    let installed: Option<i64> = connection
        .query_row("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'keytoll_migrations'", [], |row| {
            row.get(0)
        })
        .optional()?;
    if installed.is_none() {
        return Ok(false);
    }
    let found: i64 =
        connection.query_row("SELECT coalesce(max(version), 0) FROM keytoll_migrations", [], |row| row.get(0))?;
    let known = i64::try_from(migrations::ALL.len()).unwrap_or(i64::MAX);
    if found > known { Err(Wrong::Newer { found, known }) } else { Ok(found == known) }
}

/// Brings Keytoll's tables to the newest version. Whether they were made just now.
pub(in crate::store) fn migrate(connection: &Connection, now_unix_ms: i64) -> Result<bool, Wrong> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS keytoll_migrations (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL)",
    )?;
    let found: i64 =
        connection.query_row("SELECT coalesce(max(version), 0) FROM keytoll_migrations", [], |row| row.get(0))?;
    let known = i64::try_from(migrations::ALL.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(Wrong::Newer { found, known });
    }
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
    Column { table: &'static str, column: &'static str },
    Newer { found: i64, known: i64 },
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
            Wrong::Column { table, column } => OpenError::Column { table, column },
            Wrong::Newer { found, known } => OpenError::Newer { found, known },
            Wrong::Sqlite(error) => crate::store::file::open::open_error(path, error),
        }
    }
}
