//! The file: its journal mode, its tables, its pages, its references, its triggers.

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode};

use super::{Check, Finding, Report};
use crate::store::schema::{self, Wrong};
use crate::store::triggers;

const RESTORE: &str =
    "stop every program on the file, keep a copy of it, and restore a backup or use sqlite3's .recover";
const PUT_BACK: &str =
    "run `keytoll user list` or start the gateway: the triggers are put back and every wallet is compared";

/// Whether Keytoll's tables are there, of the version that this program knows. Without them nothing else can be said.
pub(super) fn tables(connection: &Connection, report: &mut Report) -> Result<bool, Wrong> {
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        let message = format!("the journal mode is {mode}, not wal: readers and writers stop each other");
        let remedy = "start the gateway, or run `keytoll user list` while no other program has the file open";
        report.add(Finding::wrong(Check::Journal, message, remedy));
    }
    if !schema::is_current(connection)? {
        let remedy =
            "start the gateway or run `keytoll user list`: they are made, and the wallets taken onto the books";
        report.add(Finding::wrong(
            Check::Tables,
            "Keytoll's tables are not in the file, or of an older version",
            remedy,
        ));
        return Ok(false);
    }
    schema::check_shared(connection)?;
    Ok(true)
}

/// SQLite's check of the pages. While a gateway runs, table by table: one read of a large file would keep its
/// write-ahead log from starting over. Whether the file is whole.
pub(super) fn integrity(connection: &Connection, in_use: bool, report: &mut Report) -> rusqlite::Result<bool> {
    let mut found = Vec::new();
    if in_use {
        for table in tables_of(connection)? {
            found.extend(lines(connection, &format!("PRAGMA integrity_check({})", quoted(&table)))?);
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

/// Keytoll's triggers and those of others. Whether Keytoll's are in place.
pub(super) fn triggers(connection: &Connection, report: &mut Report) -> rusqlite::Result<bool> {
    let in_place = triggers::in_place(connection)?;
    if !in_place {
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
    Ok(in_place)
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
