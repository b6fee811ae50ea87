//! Wallets by themselves: is it money, is it enough, is it anybody's.

use rusqlite::Connection;

use crate::model::UserId;
use crate::store::doctor::{Check, Finding, Report};

/// Looks at every wallet and every user.
pub(super) fn examine(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    negative(connection, report)?;
    no_money(connection, report)?;
    strangers(connection, report)?;
    missing(connection, report)
}

fn negative(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    let mut select =
        connection.prepare("SELECT user_id, balance FROM wallets WHERE typeof(balance) = 'integer' AND balance < 0")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (user, balance): (i64, i64) = (row.get(0)?, row.get(1)?);
        let cents = balance.unsigned_abs();
        let remedy = format!(
            "another program did it, Keytoll never does; to even it out: keytoll wallet credit --user {user} --cents {cents}"
        );
        let finding = Finding::wrong(Check::Wallets, "the balance is negative", remedy);
        report.add(finding.of(UserId(user)).cents(balance.into()));
    }
    Ok(())
}

/// NULL is how a program leaves a balance out; a text or a real was written by mistake.
fn no_money(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    let mut select =
        connection.prepare("SELECT user_id, typeof(balance) FROM wallets WHERE typeof(balance) <> 'integer'")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (user, kind): (i64, String) = (row.get(0)?, row.get(1)?);
        let finding = if kind == "null" {
            let message = "the balance is NULL, which is no money";
            Finding::note(Check::Wallets, message, "let the application write a whole number of cents")
        } else {
            let message = format!("the balance is of type {kind}, which is no money: requests are refused");
            Finding::wrong(Check::Wallets, message, "let the application write a whole number of cents")
        };
        report.add(finding.of(UserId(user)));
    }
    Ok(())
}

fn strangers(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    let mut select = connection.prepare(
        "SELECT user_id, CASE WHEN typeof(balance) = 'integer' THEN balance ELSE 0 END FROM wallets w
         WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.id = w.user_id)",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (user, balance): (i64, i64) = (row.get(0)?, row.get(1)?);
        let remedy = "another program deleted the user and left the wallet: let it delete that too";
        let finding = Finding::wrong(Check::Wallets, "the wallet belongs to no user", remedy);
        report.add(finding.of(UserId(user)).cents(balance.into()));
    }
    Ok(())
}

fn missing(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    let mut select = connection.prepare(
        "SELECT id FROM users u WHERE NOT EXISTS (SELECT 1 FROM wallets w WHERE w.user_id = u.id) ORDER BY id",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let user: i64 = row.get(0)?;
        let remedy = format!("keytoll wallet credit --user {user} --cents N makes one");
        report.add(Finding::note(Check::Wallets, "the user has no wallet, which is no money", remedy).of(UserId(user)));
    }
    Ok(())
}
