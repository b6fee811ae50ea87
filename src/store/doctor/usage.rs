//! What is left of charges whose rows are gone: is it well formed, and what did it take out of the wallets.

use rusqlite::Connection;

use super::rows::PAGE;
use super::{Check, Finding, Report};

/// A row of `keytoll_usage`.
pub(super) struct Used {
    pub(super) account: i64,
    pub(super) charges: u64,
    pub(super) captured_cents: i64,
}

/// Every row, in short reads. Nothing may become usage meanwhile.
pub(super) fn each(connection: &Connection, report: &mut Report, mut visit: impl FnMut(&Used)) -> rusqlite::Result<()> {
    let mut select = connection.prepare(
        "SELECT hour, account_id, key_id, route_id, status_class, captured, captured_cents, released, released_cents
         FROM keytoll_usage WHERE (hour, account_id, key_id, route_id, status_class) > (?1, ?2, ?3, ?4, ?5)
         ORDER BY hour, account_id, key_id, route_id, status_class LIMIT ?6",
    )?;
    let mut after = [i64::MIN; 5];
    loop {
        let [hour, account, key, route, class] = after;
        let mut rows = select.query([hour, account, key, route, class, PAGE])?;
        let mut read = 0;
        while let Some(row) = rows.next()? {
            let number = |column: usize| row.get_ref(column).map(|value| value.as_i64().unwrap_or(-1));
            after = [number(0)?, number(1)?, number(2)?, number(3)?, number(4)?];
            let counts = [number(5)?, number(6)?, number(7)?, number(8)?];
            if counts.iter().any(|count| *count < 0) {
                let message = format!("the usage of hour {} of account {} has a negative count", after[0], after[1]);
                let remedy = "another program wrote it, or the file was damaged: compare it with a backup";
                report.add(Finding::wrong(Check::Rows, message, remedy));
            }
            let [captured, captured_cents, released, _] = counts;
            let charges = captured.unsigned_abs().saturating_add(released.unsigned_abs());
            visit(&Used { account: after[1], charges, captured_cents });
            read += 1;
        }
        if read < PAGE {
            return Ok(());
        }
    }
}
