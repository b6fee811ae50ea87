//! Keytoll: an API-key gateway that bills every request exactly once.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod model;
pub mod store;
pub mod telemetry;
