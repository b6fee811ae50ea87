//! Files as an application has them: with so many users, a key each, and perhaps a wallet each.

use std::path::Path;
use std::sync::Arc;

use keytoll::config::{DatabaseConfig, Durability, Limits};
use keytoll::model::{ApiKey, Cents, KeyId, Principal, UserId};
use keytoll::store::{self, Role, Store, Uninstalled};
use keytoll::telemetry::metrics::{MetricNames, Metrics};
use rusqlite::{Connection, params};

/// The API that all keys are good for.
pub(crate) const API: &str = "weather";

/// Prime to every count that a bench uses, and about 0.618 of the largest: who goes round by it meets everyone once,
/// and never a neighbour of those just met, who would be on the same page of the file.
const STRIDE: usize = 618_033;

/// Whose turn it is among `count`.
pub(crate) fn scattered(turn: usize, count: usize) -> usize {
    turn * STRIDE % count
}

/// The keys of so many users, in the order of their digests: so they go into the file without a search for their place.
pub(crate) fn keys(count: usize) -> Vec<ApiKey> {
    let key = |number| ApiKey::new(&format!("an-application-key-of-39-bytes-{number:08}")).expect("not empty");
    let mut keys: Vec<ApiKey> = (0..count).map(key).collect();
    keys.sort_by_cached_key(|key| key.digest().0);
    keys
}

/// The owner of `keys[index]`.
pub(crate) fn principal(index: usize, key: &ApiKey) -> Principal {
    let id = i64::try_from(index + 1).expect("a small number");
    Principal { user_id: UserId(id), key_id: KeyId(id), stored_key: key.digest().to_stored() }
}

/// A gateway's store on a new file with the owners of these keys, each with a wallet of `balance` if there is one.
pub(crate) fn store(path: &Path, keys: &[ApiKey], balance: Option<Cents>, durability: Durability) -> Store {
    let database =
        DatabaseConfig { path: path.to_owned(), create: true, file_mode: 0o600, durability, keep_charges: None };
    let open = |role| {
        let metrics = Metrics::new(&MetricNames::default(), None);
        Store::open(&database, &Limits::default(), role, Arc::clone(&metrics.store)).expect("a database").0
    };
    // The application's tables alone, as if Keytoll had never been there; it adopts what it finds when it comes.
    open(Role::Tool).close();
    assert_eq!(store::uninstall(&database).expect("a database that nobody uses"), Uninstalled::Done);
    fill(path, keys, balance).expect("rows");
    open(Role::Gateway)
}

fn fill(path: &Path, keys: &[ApiKey], balance: Option<Cents>) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF")?;
    let all = connection.transaction()?;
    {
        let mut user = all.prepare("INSERT INTO users (id, email, name, is_active) VALUES (?1, ?2, 'User', 1)")?;
        let mut api_key = all.prepare(
            "INSERT INTO api_keys (id, \"key\", user_id, api_name, is_active, created_at)
             VALUES (?1, ?2, ?1, ?3, 1, '2026-01-01 00:00:00.000000')",
        )?;
        let mut wallet = all.prepare("INSERT INTO wallets (user_id, balance) VALUES (?1, ?2)")?;
        for (id, key) in (1_i64..).zip(keys) {
            user.execute(params![id, format!("user{id:08}@example.com")])?;
            api_key.execute(params![id, key.digest().to_stored().expose(), API])?;
            if let Some(balance) = balance {
                wallet.execute(params![id, balance.0])?;
            }
        }
    }
    all.commit()
}
