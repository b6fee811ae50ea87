//! The look-up of a presented key.

use std::sync::Arc;

use rusqlite::{Connection, params};

use crate::model::{ApiKey, KeyId, Principal, StoredKey, UserId};

/// What the tables say of a presented key.
#[derive(Clone, Debug)]
pub enum Found {
    /// A key that is active, of a user that is active.
    Active(Arc<Principal>),
    /// A key that is switched off, or whose user is.
    Inactive,
    /// No such key.
    Unknown,
}

/// Looks a key up by its digest and as it is; a row with the digest comes first.
pub(super) fn find(connection: &Connection, key: &ApiKey) -> rusqlite::Result<Found> {
    let digest = key.digest().to_stored();
    let mut select = connection.prepare_cached(
        "SELECT k.id, k.user_id, k.api_name, k.\"key\", k.is_active IS 1 AND u.is_active IS 1
         FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.\"key\" IN (?1, ?2) ORDER BY k.\"key\" = ?1 DESC LIMIT 1",
    )?;
    let mut rows = select.query(params![digest.expose(), key.expose()])?;
    let Some(row) = rows.next()? else { return Ok(Found::Unknown) };
    if !row.get::<_, bool>(4)? {
        return Ok(Found::Inactive);
    }
    Ok(Found::Active(Arc::new(Principal {
        key_id: KeyId(row.get(0)?),
        user_id: UserId(row.get(1)?),
        api_name: row.get::<_, String>(2)?.into(),
        stored_key: StoredKey::from_column(&row.get::<_, String>(3)?),
    })))
}
