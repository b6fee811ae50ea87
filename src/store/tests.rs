//! The promises of the store, on real files, with a second connection that plays the application.

mod external;
mod idle;
mod ledger;
mod migration;
mod model;
mod recovery;
mod requests;
mod uninstall;
