//! The file: its journal mode, its tables, its pages, its references, its triggers.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode};

use crate::store::doctor::{Check, Finding, Report};
use crate::store::file::open::Journal;
use crate::store::file::schema::{self, Shared, Wrong};
use crate::store::file::triggers;

const RESTORE: &str =
    "stop every program on the file, keep a copy of it, and restore a backup or use sqlite3's .recover";
const PUT_BACK: &str =
    "run `keytoll doctor --repair` or start the gateway: the triggers are put back, and every wallet is compared";

/// Which SQLite changed the file's first page last, as its header says: bytes 96 to 99
/// (<https://www.sqlite.org/fileformat2.html>, §1.3.22), as of the last checkpoint. Older ones can lose what was
/// committed to a write-ahead log that starts over (<https://www.sqlite.org/wal.html>). That a program has
/// `synchronous=OFF` leaves no trace in a file.
pub(super) fn written_by(path: &Path, report: &mut Report) -> io::Result<()> {
    let mut header = Vec::with_capacity(100);
    File::open(path)?.take(100).read_to_end(&mut header)?;
    let Some(bytes) = header.get(96..100).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) else { return Ok(()) };
    let version = u32::from_be_bytes(bytes);
    if version != 0 && !is_safe(version) {
        let (major, minor, patch) = (version / 1_000_000, version / 1_000 % 1_000, version % 1_000);
        let message = format!(
            "a program with SQLite {major}.{minor}.{patch} writes to the file: it has the WAL-reset bug, which can lose commits"
        );
        let remedy = "give that program SQLite 3.51.3 or newer, or 3.50.7 or 3.44.6 of the older lines";
        report.add(Finding::note(Check::Sqlite, message, remedy));
    }
    Ok(())
}

/// Whether a version of SQLite is without the WAL-reset bug.
fn is_safe(version: u32) -> bool {
    match version {
        3_044_006..3_045_000 | 3_050_007..3_051_000 => true,
        version => version >= 3_051_003,
    }
}

/// Whether Keytoll's tables are there, of the version that this program knows. Without them nothing else can be said.
pub(super) fn tables(connection: &Connection, journal: Option<Journal>, report: &mut Report) -> Result<bool, Wrong> {
    if journal != Some(Journal::Wal) {
        let message = "the file has a rollback journal and is not in WAL mode: readers and writers stop each other";
        let remedy = "start the gateway, or run `keytoll init` while no other program has the file open";
        report.add(Finding::wrong(Check::Journal, message, remedy));
    }
    let message = match schema::version(connection)? {
        None => "Keytoll's tables are not in the file",
        Some(version) if version < schema::known() => "Keytoll's tables are of an older version",
        Some(_) => {
            schema::check_shared(connection, Shared::MustExist)?;
            return Ok(true);
        }
    };
    let remedy = "run `keytoll init` or start the gateway: they are made, and the wallets are taken onto the books";
    report.add(Finding::wrong(Check::Tables, message, remedy));
    Ok(false)
}

/// Tables that grow with the traffic, and have no index besides: every row is read anyway, in many short reads.
const READ_ANYWAY: [&str; 2] = ["keytoll_charges", "keytoll_usage"];

/// SQLite's check of the pages. While a gateway runs, table by table, and without the largest: one read of a large file
/// would keep its write-ahead log from starting over. Whether the file is whole.
pub(super) fn integrity(connection: &Connection, in_use: bool, report: &mut Report) -> rusqlite::Result<bool> {
    let mut found = Vec::new();
    if in_use {
        for table in tables_of(connection)?.iter().filter(|table| !READ_ANYWAY.contains(&table.as_str())) {
            found.extend(lines(connection, &format!("PRAGMA integrity_check({})", quoted(table)))?);
        }
    } else {
        found = lines(connection, "PRAGMA integrity_check")?;
    }
    found.retain(|line| line != "ok");
    for line in &found {
        report.add(Finding::wrong(Check::Integrity, format!("the file is damaged: {line}"), RESTORE));
    }
    Ok(found.is_empty())
}

/// References that lead nowhere. Those of wallets are told with the wallets, those of other tables are notes.
pub(super) fn foreign_keys(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    for table in tables_of(connection)?.into_iter().filter(|table| !table.eq_ignore_ascii_case("wallets")) {
        // An application's own table may refer to one that does not exist; that is not for Keytoll to judge.
        let Ok(mut check) = connection.prepare(&format!("PRAGMA foreign_key_check({})", quoted(&table))) else {
            continue;
        };
        let rows = check.query_map([], |row| Ok((row.get::<_, Value>(1)?, row.get::<_, String>(2)?)))?;
        for row in rows {
            let Ok((rowid, parent)) = row else { break };
            let rowid =
                if let Value::Integer(rowid) = rowid { rowid.to_string() } else { "without a rowid".to_owned() };
            let message = format!("row {rowid} of {table} points to a row of {parent} that does not exist");
            let ours = table.starts_with("keytoll_") || table.eq_ignore_ascii_case("api_keys");
            report.add(if ours {
                Finding::wrong(Check::ForeignKeys, message, "delete the row, or make the one that it points to")
            } else {
                Finding::note(Check::ForeignKeys, message, "none needed by Keytoll; the table is the application's")
            });
        }
    }
    Ok(())
}

/// Keytoll's triggers and those of others.
pub(super) fn triggers(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    if !triggers::in_place(connection)? {
        let message = "the triggers on wallets are not in place: changes by other programs are not noted";
        report.add(Finding::wrong(Check::Triggers, message, PUT_BACK));
    }
    for name in schema::foreign_triggers(connection)? {
        let message = format!("the application's own trigger {name} does not run for what Keytoll writes");
        report.add(Finding::note(
            Check::Triggers,
            message,
            "make sure that nothing depends on it for Keytoll's writes",
        ));
    }
    Ok(())
}

fn tables_of(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    // Virtual tables may need a module that is not there.
    let mut select = connection.prepare(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name",
    )?;
    select.query_map([], |row| row.get(0))?.collect()
}

/// The lines of a check. SQLite ends it with an error where the damage lets it read no further; that is one more line.
fn lines(connection: &Connection, pragma: &str) -> rusqlite::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut check = connection.prepare(pragma)?;
    for line in check.query_map([], |row| row.get(0))? {
        match line {
            Ok(line) => lines.push(line),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
                lines.push(error.to_string());
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(lines)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
