//! Why a gateway did not start, or had to stop.

use std::fmt;
use std::io;

use super::demo::DemoError;
use crate::config::ConfigErrors;
use crate::http::{BindError, StartError};
use crate::store::{Fatal, OpenError, Unavailable};
use crate::telemetry::logs::LogsError;

/// What ended a gateway.
#[derive(Debug)]
pub enum AppError {
    /// The configuration has mistakes.
    Config(ConfigErrors),
    /// The log cannot begin.
    Logs(LogsError),
    /// A port cannot be listened on.
    Bind(BindError),
    /// The database cannot be opened.
    Open(OpenError),
    /// The database cannot be written.
    Database(Unavailable),
    /// A worker did not start.
    Worker(StartError),
    /// The operating system gave no runtime, signal or socket.
    Runtime(io::Error),
    /// Going on would be unsafe.
    Fatal(Fatal),
    /// The demo could not set its scene.
    Demo(DemoError),
    /// Any of these, already written to the log.
    Logged(Box<AppError>),
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppError::Config(errors) => errors.fmt(f),
            AppError::Logs(error) => error.fmt(f),
            AppError::Bind(error) => error.fmt(f),
            AppError::Open(error) => error.fmt(f),
            AppError::Database(error) => error.fmt(f),
            AppError::Worker(error) => error.fmt(f),
            AppError::Runtime(error) => error.fmt(f),
            AppError::Fatal(error) => error.fmt(f),
            AppError::Demo(error) => error.fmt(f),
            AppError::Logged(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AppError {}

macro_rules! from {
    ($($variant:ident($source:ty)),*) => {$(
        impl From<$source> for AppError {
            fn from(error: $source) -> AppError {
                AppError::$variant(error)
            }
        }
    )*};
}
from!(
    Config(ConfigErrors),
    Logs(LogsError),
    Bind(BindError),
    Open(OpenError),
    Database(Unavailable),
    Worker(StartError),
    Demo(DemoError)
);
