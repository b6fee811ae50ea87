//! The look-up of a presented key.

use rusqlite::{Connection, params};

use crate::model::{ApiKey, KeyId, Principal, UserId};

/// What the tables say of a presented key.
#[derive(Clone, Debug)]
pub enum Found {
    /// A key that is active, of a user that is active.
    Active {
        /// Who it stands for.
        principal: Principal,
        /// The only API that it is good for.
        api_name: String,
    },
    /// A key that is switched off, or whose user is.
    Inactive,
    /// No such key.
    Unknown,
}

/// Looks a key up by its digest and as it is; a row with the digest comes first.
pub(in crate::store) fn find(connection: &Connection, key: &ApiKey) -> rusqlite::Result<Found> {
    let digest = key.digest().to_stored();
    let mut select = connection.prepare_cached(
        "SELECT k.id, k.user_id, k.api_name, k.\"key\" = ?1, k.is_active IS 1 AND u.is_active IS 1
         FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.\"key\" IN (?1, ?2) ORDER BY k.\"key\" = ?1 DESC LIMIT 1",
    )?;
    let mut rows = select.query(params![digest.expose(), key.expose()])?;
    let Some(row) = rows.next()? else { return Ok(Found::Unknown) };
    if !row.get::<_, bool>(4)? {
        return Ok(Found::Inactive);
    }
    // The row holds one of the two that it was looked up by.
    let stored_key = if row.get(3)? { digest } else { key.to_stored() };
    let principal = Principal { key_id: KeyId(row.get(0)?), user_id: UserId(row.get(1)?), stored_key };
    Ok(Found::Active { principal, api_name: row.get(2)? })
}
