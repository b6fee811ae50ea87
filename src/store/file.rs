//! The database file: how it is opened, its schema and migrations, who else uses it, and whether it is still the same file.

pub(in crate::store) mod contents;
pub(in crate::store) mod health;
pub(in crate::store) mod identity;
pub(in crate::store) mod instance;
pub(in crate::store) mod lock_file;
pub(in crate::store) mod migrations;
pub(in crate::store) mod open;
pub(in crate::store) mod readers;
pub(in crate::store) mod schema;
pub(in crate::store) mod set_up;
pub(in crate::store) mod silence;
pub(in crate::store) mod triggers;
pub(in crate::store) mod view;
