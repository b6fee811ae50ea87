//! Triggers on `wallets` that note what other programs do to balances.
//!
//! They fire for other programs only, since Keytoll's own connections have triggers switched off. They must never
//! make another program's write fail: they append to one plain table without constraints, in a syntax that SQLite
//! 3.8 reads. `REPLACE INTO` fires no DELETE trigger, so that a BEFORE INSERT trigger notes the rows that an insert is
//! about to replace (<https://www.sqlite.org/lang_conflict.html>).

use rusqlite::Connection;

/// Name and text of each. The text is compared with `sqlite_master`, so that its white space matters.
const TRIGGERS: [(&str, &str); 5] = [
    (
        "keytoll_wallets_before_insert",
        "CREATE TRIGGER keytoll_wallets_before_insert BEFORE INSERT ON wallets BEGIN \
         INSERT INTO keytoll_wallet_log (op, wallet_id, user_id, balance) \
         SELECT 'replace', id, user_id, balance FROM wallets WHERE id = NEW.id OR user_id = NEW.user_id; END",
    ),
    (
        "keytoll_wallets_after_insert",
        "CREATE TRIGGER keytoll_wallets_after_insert AFTER INSERT ON wallets BEGIN \
         INSERT INTO keytoll_wallet_log (op, wallet_id, user_id, balance) \
         VALUES ('insert', NEW.id, NEW.user_id, NEW.balance); END",
    ),
    (
        "keytoll_wallets_after_delete",
        "CREATE TRIGGER keytoll_wallets_after_delete AFTER DELETE ON wallets BEGIN \
         INSERT INTO keytoll_wallet_log (op, wallet_id, user_id, balance) \
         VALUES ('delete', OLD.id, OLD.user_id, OLD.balance); END",
    ),
    (
        "keytoll_wallets_before_update",
        "CREATE TRIGGER keytoll_wallets_before_update BEFORE UPDATE OF id, user_id ON wallets BEGIN \
         INSERT INTO keytoll_wallet_log (op, wallet_id, user_id, balance) \
         SELECT 'replace', id, user_id, balance FROM wallets \
         WHERE (id = NEW.id OR user_id = NEW.user_id) AND id <> OLD.id; END",
    ),
    (
        "keytoll_wallets_after_update",
        "CREATE TRIGGER keytoll_wallets_after_update AFTER UPDATE OF id, user_id, balance ON wallets \
         WHEN OLD.balance IS NOT NEW.balance OR OLD.user_id IS NOT NEW.user_id OR OLD.id IS NOT NEW.id BEGIN \
         INSERT INTO keytoll_wallet_log (op, wallet_id, user_id, balance) \
         VALUES ('from', OLD.id, OLD.user_id, OLD.balance); \
         INSERT INTO keytoll_wallet_log (op, wallet_id, user_id, balance) \
         VALUES ('to', NEW.id, NEW.user_id, NEW.balance); END",
    ),
];

/// Whether every trigger is there, word for word.
pub(in crate::store) fn in_place(connection: &Connection) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name = ?1 AND sql = ?2 AND tbl_name = 'wallets'",
    )?;
    for (name, text) in TRIGGERS {
        let count: i64 = statement.query_row([name, text], |row| row.get(0))?;
        if count != 1 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Puts every trigger in place, anew.
pub(in crate::store) fn install(connection: &Connection) -> rusqlite::Result<()> {
    drop_all(connection)?;
    TRIGGERS.iter().try_for_each(|(_, text)| connection.execute_batch(text))
}

/// Takes every trigger away.
pub(in crate::store) fn drop_all(connection: &Connection) -> rusqlite::Result<()> {
    TRIGGERS.iter().try_for_each(|(name, _)| connection.execute_batch(&format!("DROP TRIGGER IF EXISTS {name}")))
}
