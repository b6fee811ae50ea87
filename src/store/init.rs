//! `keytoll init`: sets a file up, and says what it did.

use crate::config::DatabaseConfig;
use crate::store::error::OpenError;
use crate::store::file::{open, set_up};
use crate::store::start::start;
use crate::store::{Opening, Role};

/// Makes Keytoll's tables and triggers in a file, upgrades older ones, takes the application's wallets onto the books, and
/// brings the file into WAL mode. A gateway may run on the file.
///
/// # Errors
/// What is wrong with the file and what to do about it; nothing was changed then.
pub fn init(database: &DatabaseConfig) -> Result<Opening, OpenError> {
    let file = open::prepare_file(&database.path, database.create.then_some(database.file_mode))?;
    open::share_access(&file.path);
    let connection = open::read_write(&file.path)?;
    set_up::check(&connection, &file, true)?;
    open::make_writer(&connection, &file.path)?;
    let (_, opening) = start(&connection, &file, Role::Tool, std::time::Duration::ZERO)?;
    Ok(opening)
}
