//! Keytoll: an API-key gateway that bills every request exactly once.

pub mod config;
pub mod model;
pub mod server;
pub mod upstream;
