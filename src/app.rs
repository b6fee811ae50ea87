//! PLACEHOLDER, replaced at the merge: it only holds the signatures that the command line calls.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::config::Loaded;
use crate::store::{Fatal, OpenError};

/// Why a gateway did not start, or stopped.
#[derive(Debug)]
pub enum AppError {
    /// The database was not opened.
    Database(OpenError),
    /// Going on with the database would have been unsafe.
    Fatal(Fatal),
    /// An address could not be listened on.
    Listen(SocketAddr, io::Error),
    /// The operating system gave no thread, timer or signal.
    Runtime(io::Error),
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppError::Database(error) => error.fmt(f),
            AppError::Fatal(fatal) => fatal.fmt(f),
            AppError::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            AppError::Runtime(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AppError {}

/// Placeholder.
///
/// # Errors
/// Always.
pub fn serve(_loaded: Loaded) -> Result<(), AppError> {
    Err(AppError::Runtime(io::ErrorKind::Unsupported.into()))
}

/// Placeholder.
///
/// # Errors
/// Always.
pub fn demo() -> Result<(), AppError> {
    Err(AppError::Runtime(io::ErrorKind::Unsupported.into()))
}
