//! What is left of charges whose rows are gone: is it well formed, and what did it take out of the wallets.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params};

use crate::store::doctor::{Check, Finding, PAGE, Report};

/// A row of `keytoll_usage`.
pub(super) struct Used {
    pub(super) account: i64,
    pub(super) charges: u64,
    pub(super) captured_cents: i64,
}

/// The columns by which rows are told apart, as another program may have written them: pages go on after any value.
struct Key([Value; 5]);

/// Every row, in short reads. Nothing may become usage meanwhile.
pub(super) fn each(connection: &Connection, report: &mut Report, mut visit: impl FnMut(&Used)) -> rusqlite::Result<()> {
    let mut select = connection.prepare(
        "SELECT hour, account_id, key_id, route_id, status_class, captured, captured_cents, released, released_cents
         FROM keytoll_usage WHERE (hour, account_id, key_id, route_id, status_class) > (?1, ?2, ?3, ?4, ?5)
         ORDER BY hour, account_id, key_id, route_id, status_class LIMIT ?6",
    )?;
    let mut after = Key(std::array::from_fn(|_| Value::Integer(i64::MIN)));
    loop {
        let Key([hour, account, key, route, class]) = &after;
        let mut rows = select.query(params![hour, account, key, route, class, PAGE])?;
        let mut read = 0;
        while let Some(row) = rows.next()? {
            after = Key::of(row)?;
            visit(&used(row, &after, report)?);
            read += 1;
        }
        if read < PAGE {
            return Ok(());
        }
    }
}

/// What a row says; what is no number counts as nothing.
fn used(row: &Row<'_>, key: &Key, report: &mut Report) -> rusqlite::Result<Used> {
    let number = |column: usize| row.get_ref(column).map(|value| value.as_i64().ok());
    let counts = [number(5)?, number(6)?, number(7)?, number(8)?];
    if let Some(message) = key.fault().or_else(|| key.fault_of(&counts)) {
        let remedy = "another program wrote it, or the file was damaged: compare it with a backup";
        report.add(Finding::wrong(Check::Rows, message, remedy));
    }
    let [captured, captured_cents, released, _] = counts.map(|count| count.unwrap_or(0));
    let charges = captured.unsigned_abs().saturating_add(released.unsigned_abs());
    Ok(Used { account: number(1)?.unwrap_or(0), charges, captured_cents })
}

impl Key {
    fn of(row: &Row<'_>) -> rusqlite::Result<Key> {
        Ok(Key([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]))
    }

    fn fault(&self) -> Option<String> {
        let is_whole = self.0.iter().all(|value| matches!(value, Value::Integer(_)));
        let message =
            "a row of keytoll_usage has an hour, account, key, route or class of status that is no whole number";
        (!is_whole).then(|| message.to_owned())
    }

    fn fault_of(&self, counts: &[Option<i64>]) -> Option<String> {
        let [Value::Integer(hour), Value::Integer(account), ..] = &self.0 else { return None };
        let is_wrong = counts.iter().any(|count| count.is_none_or(|count| count < 0));
        is_wrong.then(|| {
            format!(
                "the usage of hour {hour} of account {account} has a count or sum that is no whole number, or negative"
            )
        })
    }
}
