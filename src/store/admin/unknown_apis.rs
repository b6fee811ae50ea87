//! Active keys for APIs that the configuration does not have: a renamed API, or a mistake in writing.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use rusqlite::Connection;

use crate::config::DatabaseConfig;
use crate::store::Store;
use crate::store::error::{OpenError, Unavailable};
use crate::store::file::{open, schema};

/// How many names are listed.
const LISTED: usize = 5;
/// Characters of a name that are shown; other programs can write names of any length.
const NAME_CHARACTERS: usize = 64;

/// Active keys that are good for no configured API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownApis {
    keys: u64,
    /// The names with the most keys, and how many.
    listed: Vec<(String, u64)>,
    /// How many names are not listed.
    unlisted: u64,
}

impl Store {
    /// Counts the active keys for APIs other than these. `None`: there are none.
    ///
    /// # Errors
    /// The database cannot be read now.
    pub async fn unknown_apis(&self, known: Vec<Arc<str>>) -> Result<Option<UnknownApis>, Unavailable> {
        self.read(move |connection| count(connection, &known)).await
    }
}

/// The same for a command, without a store: creates and changes nothing, whether or not other programs use the database.
/// `None` also when there is no database, or it has no keys.
///
/// # Errors
/// The file is not an SQLite database, or cannot be read now.
pub fn unknown_apis(database: &DatabaseConfig, known: &[Arc<str>]) -> Result<Option<UnknownApis>, OpenError> {
    let file = match open::prepare_file(&database.path, None) {
        Ok(file) => file,
        Err(OpenError::Missing(_) | OpenError::NoDirectory(_) | OpenError::Empty(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let connection = open::observer(&file)?;
    let error = |error| open::open_error(&file.path, error);
    if schema::has_table(&connection, "api_keys").map_err(error)? {
        count(&connection, known).map_err(error)
    } else {
        Ok(None)
    }
}

fn count(connection: &Connection, known: &[Arc<str>]) -> rusqlite::Result<Option<UnknownApis>> {
    let mut select = connection
        .prepare("SELECT api_name, count(*) FROM api_keys WHERE is_active IS 1 GROUP BY api_name ORDER BY 2 DESC, 1")?;
    let mut rows = select.query([])?;
    let mut found = UnknownApis::default();
    while let Some(row) = rows.next()? {
        // Not every program writes UTF-8.
        let name = row.get_ref(0)?.as_bytes().map(String::from_utf8_lossy).unwrap_or_default();
        if known.iter().any(|known| **known == *name) {
            continue;
        }
        let keys = u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
        found.keys += keys;
        if found.listed.len() < LISTED {
            found.listed.push((name.chars().take(NAME_CHARACTERS).collect(), keys));
        } else {
            found.unlisted += 1;
        }
    }
    Ok((found.keys > 0).then_some(found))
}

impl fmt::Display for UnknownApis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.keys, self.listed.len()) {
            (1, _) => f.write_str("1 active key is for an API that is not configured: ")?,
            (keys, 1) => write!(f, "{keys} active keys are for an API that is not configured: ")?,
            (keys, _) => write!(f, "{keys} active keys are for APIs that are not configured: ")?,
        }
        for (index, (name, keys)) in self.listed.iter().enumerate() {
            write!(f, "{}{name:?} ({keys})", if index > 0 { ", " } else { "" })?;
        }
        if self.unlisted > 0 {
            write!(f, " and {} other names", self.unlisted)?;
        }
        f.write_char('.')
    }
}
