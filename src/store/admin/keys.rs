//! Keys: issued, listed without their secret, switched on and off, rotated, deleted.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use crate::config::KeyStorage;
use crate::model::{ApiKey, IssuedKey, KeyHint, KeyId, KeyPrefix, StoredKey, Timestamp, UserId};
use crate::store::admin::page::{Page, PageRequest};
use crate::store::admin::users;
use crate::store::books::sums;
use crate::store::writer::write::{WriteFault, WriteTx};
use crate::store::{Store, Unavailable, WriteError};

/// What may be shown of a row of `api_keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyRecord {
    /// `api_keys.id`.
    pub id: KeyId,
    /// The owner.
    pub user_id: UserId,
    /// The only API that the key is good for.
    pub api_name: String,
    /// Whether the key is switched on; NULL in the file counts as off.
    pub is_active: bool,
    /// When it was made; `None` when the file does not say so readably.
    pub created_at: Option<Timestamp>,
    /// What tells it from other keys.
    pub hint: KeyHint,
}

/// A key that was just issued or rotated. The key itself cannot be retrieved again.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// As it is listed from now on.
    pub record: KeyRecord,
    /// The key, to be shown once.
    pub key: ApiKey,
}

/// Which keys a list is of; `None` is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFilter {
    /// Of this user.
    pub user_id: Option<UserId>,
    /// For this API.
    pub api_name: Option<String>,
}

/// Why a key was not issued, changed or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefused {
    /// No key with this id.
    NotFound,
    /// No user with this id.
    NoUser,
    /// The user has a key for this API already.
    Duplicate,
    /// Charges were made with the key: it can be switched off, not deleted.
    HasCharges,
    /// The operating system gives no randomness.
    NoRandomness,
}

const SELECT: &str =
    "SELECT k.id, k.user_id, k.api_name, k.is_active IS 1, k.created_at, k.\"key\", h.stored_hint, h.hint
    FROM api_keys k LEFT JOIN keytoll_key_hints h ON h.key_id = k.id";

impl Store {
    /// Issues a key for a user and an API. Good from the moment of the answer.
    ///
    /// # Errors
    /// A [`KeyRefused`], or the file cannot be written now.
    pub async fn issue_key(
        &self,
        user_id: UserId,
        api_name: &str,
        storage: KeyStorage,
        prefix: &KeyPrefix,
    ) -> Result<NewKey, WriteError<KeyRefused>> {
        let (issued, stored) = generate(storage, prefix)?;
        let (api_name, hint) = (api_name.to_owned(), issued.hint);
        let record = self.write(move |tx| issue(tx, user_id, api_name, &stored, hint)).await?;
        Ok(NewKey { record, key: issued.key })
    }

    /// Replaces the secret of a key. From the moment of the answer the new one is accepted and the old one is unknown.
    ///
    /// The row keeps its id, user, API, `is_active` and `created_at`, which is the age of the user's access, not of its
    /// secret. The new secret is stored as `storage` says, however the old one was.
    ///
    /// # Errors
    /// [`KeyRefused::NotFound`], [`KeyRefused::NoRandomness`], or the file cannot be written now.
    pub async fn rotate_key(
        &self,
        id: KeyId,
        storage: KeyStorage,
        prefix: &KeyPrefix,
    ) -> Result<NewKey, WriteError<KeyRefused>> {
        let (issued, stored) = generate(storage, prefix)?;
        let hint = issued.hint;
        let record = self.write(move |tx| rotate(tx, id, &stored, &hint)).await?;
        Ok(NewKey { record, key: issued.key })
    }

    /// The key with this id.
    ///
    /// # Errors
    /// The file cannot be read now.
    pub async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, Unavailable> {
        self.read(move |connection| get(connection, id)).await
    }

    /// Keys in the order of their ids.
    ///
    /// # Errors
    /// The file cannot be read now.
    pub async fn keys(&self, filter: KeyFilter, wish: PageRequest) -> Result<Page<KeyRecord>, Unavailable> {
        self.read(move |connection| list(connection, &filter, wish)).await
    }

    /// Switches a key on or off. In force for every hold that commits afterwards.
    ///
    /// # Errors
    /// [`KeyRefused::NotFound`], or the file cannot be written now.
    pub async fn set_key_active(&self, id: KeyId, is_active: bool) -> Result<KeyRecord, WriteError<KeyRefused>> {
        self.write(move |tx| {
            let mut update = tx.connection().prepare_cached("UPDATE api_keys SET is_active = ?2 WHERE id = ?1")?;
            update.execute(params![id.0, is_active])?;
            let key = get(tx.connection(), id)?.ok_or(WriteFault::Refused(KeyRefused::NotFound))?;
            drop(update);
            tx.keys_changed();
            Ok(key)
        })
        .await
    }

    /// Deletes a key that no charge was made with.
    ///
    /// # Errors
    /// [`KeyRefused::NotFound`], [`KeyRefused::HasCharges`], or the file cannot be read or written now.
    pub async fn delete_key(&self, id: KeyId) -> Result<(), WriteError<KeyRefused>> {
        // Charges carry no index by key, so that the many are read beside the writer, and the few that may have come
        // since then inside of the transaction.
        let read = self.read(move |connection| {
            let through = sums::marks(connection)?.charges_through;
            Ok((through, has_charges(connection, id, i64::MIN)? || has_usage(connection, id)?))
        });
        let (through, has_charges_now) = read.await.map_err(WriteError::Unavailable)?;
        self.write(move |tx| {
            if get(tx.connection(), id)?.is_none() {
                return Err(WriteFault::Refused(KeyRefused::NotFound));
            }
            if has_charges_now || has_charges(tx.connection(), id, through)? {
                return Err(WriteFault::Refused(KeyRefused::HasCharges));
            }
            // The hint stays: no later key gets the id of one that Keytoll issued.
            tx.connection().prepare_cached("DELETE FROM api_keys WHERE id = ?1")?.execute([id.0])?;
            tx.keys_changed();
            Ok(())
        })
        .await
    }
}

/// A new key, and what its row holds.
fn generate(storage: KeyStorage, prefix: &KeyPrefix) -> Result<(IssuedKey, StoredKey), WriteError<KeyRefused>> {
    let issued = IssuedKey::generate(prefix).map_err(|_| WriteError::Refused(KeyRefused::NoRandomness))?;
    let stored = match storage {
        KeyStorage::Sha256 => issued.key.digest().to_stored(),
        KeyStorage::Plain => issued.key.to_stored(),
    };
    Ok((issued, stored))
}

fn issue(
    tx: &mut WriteTx<'_>,
    user_id: UserId,
    api_name: String,
    stored: &StoredKey,
    hint: KeyHint,
) -> Result<KeyRecord, WriteFault<KeyRefused>> {
    let connection = tx.connection();
    if !users::exists(connection, user_id)? {
        return Err(WriteFault::Refused(KeyRefused::NoUser));
    }
    let mut taken = connection.prepare_cached("SELECT 1 FROM api_keys WHERE user_id = ?1 AND api_name = ?2")?;
    if taken.exists(params![user_id.0, api_name])? {
        return Err(WriteFault::Refused(KeyRefused::Duplicate));
    }
    drop(taken);
    let id: Option<i64> = connection
        .prepare_cached(
            "SELECT max(coalesce((SELECT max(id) FROM api_keys), 0), coalesce((SELECT max(key_id) FROM keytoll_key_hints), 0))",
        )?
        .query_row([], |row| row.get(0).map(|highest: i64| highest.checked_add(1)))?;
    let created_at = Timestamp::from_unix_ms(tx.now_unix_ms());
    connection
        .prepare_cached(
            "INSERT INTO api_keys (id, \"key\", user_id, api_name, is_active, created_at) VALUES (?1, ?2, ?3, ?4, 1, ?5)",
        )?
        .execute(params![id, stored.expose(), user_id.0, api_name, created_at.to_sqlalchemy()])?;
    let id = KeyId(connection.last_insert_rowid());
    keep_hint(connection, id, stored, &hint)?;
    tx.keys_changed();
    Ok(KeyRecord { id, user_id, api_name, is_active: true, created_at: Some(created_at), hint })
}

fn rotate(
    tx: &mut WriteTx<'_>,
    id: KeyId,
    stored: &StoredKey,
    hint: &KeyHint,
) -> Result<KeyRecord, WriteFault<KeyRefused>> {
    let connection = tx.connection();
    let mut update = connection.prepare_cached("UPDATE api_keys SET \"key\" = ?2 WHERE id = ?1")?;
    if update.execute(params![id.0, stored.expose()])? == 0 {
        return Err(WriteFault::Refused(KeyRefused::NotFound));
    }
    drop(update);
    keep_hint(connection, id, stored, hint)?;
    let key = get(connection, id)?.ok_or(WriteFault::Refused(KeyRefused::NotFound))?;
    tx.keys_changed();
    Ok(key)
}

/// Keeps what is shown of a key, together with the stored key that it belongs to.
fn keep_hint(connection: &Connection, id: KeyId, stored: &StoredKey, hint: &KeyHint) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO keytoll_key_hints (key_id, stored_hint, hint) VALUES (?1, ?2, ?3)")?
        .execute(params![id.0, stored.digest_hint().0, hint.0])?;
    Ok(())
}

fn list(connection: &Connection, filter: &KeyFilter, wish: PageRequest) -> rusqlite::Result<Page<KeyRecord>> {
    // With a user the rows come from the index of (user_id, api_name); otherwise in the order of the table.
    let user = if filter.user_id.is_some() { "k.user_id = ?3" } else { "?3 IS NULL" };
    let mut select = connection.prepare_cached(&format!(
        "{SELECT} WHERE k.id > ?1 AND {user} AND (?4 IS NULL OR k.api_name = ?4) ORDER BY k.id LIMIT ?2"
    ))?;
    let user_id = filter.user_id.map(|id| id.0);
    let rows = select.query_map(params![wish.after(), wish.rows(), user_id, filter.api_name], record)?;
    Ok(Page::of(rows.collect::<rusqlite::Result<_>>()?, wish, |key| key.id.0))
}

/// Whether charges after a position were made with the key.
fn has_charges(connection: &Connection, id: KeyId, after: i64) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM keytoll_charges WHERE position > ?1 AND key_id = ?2 LIMIT 1")?
        .exists([after, id.0])
}

/// Whether charges with the key have become usage.
fn has_usage(connection: &Connection, id: KeyId) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM keytoll_usage WHERE key_id = ?1 LIMIT 1")?.exists([id.0])
}

fn get(connection: &Connection, id: KeyId) -> rusqlite::Result<Option<KeyRecord>> {
    connection.prepare_cached(&format!("{SELECT} WHERE k.id = ?1"))?.query_row([id.0], record).optional()
}

fn record(row: &Row<'_>) -> rusqlite::Result<KeyRecord> {
    let own_hint = StoredKey::from_column(&users::text(row.get_ref(5)?)).digest_hint();
    let kept_for: Option<String> = row.get(6)?;
    // A hint that was kept for another key, which had this id before, says nothing of this one.
    let hint = if kept_for.as_ref() == Some(&own_hint.0) { KeyHint(row.get(7)?) } else { own_hint };
    Ok(KeyRecord {
        id: KeyId(row.get(0)?),
        user_id: UserId(row.get(1)?),
        api_name: users::text(row.get_ref(2)?),
        is_active: row.get(3)?,
        created_at: match row.get_ref(4)? {
            ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(Timestamp::parse_sqlalchemy),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => None,
        },
        hint,
    })
}

#[cfg(test)]
mod tests;
