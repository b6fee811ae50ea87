//! Keytoll: an API-key gateway that bills every request exactly once.

pub mod admin;
pub mod app;
pub mod auth;
pub mod billing;
pub mod config;
pub mod gateway;
pub mod model;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod upstream;
