//! How a command ends: the exit status, and the words for standard error.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use super::args::UserRef;
use crate::app::AppError;
use crate::config::ConfigErrors;
use crate::model::{Cents, KeyId};
use crate::store::{ConstraintError, KeyRefused, OpenError, Unavailable, UserRefused, WalletRefused, WriteError};
use crate::telemetry::logs::LogsError;

/// The exit status. The high numbers are those of sysexits.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, or the answer is yes.
    Done,
    /// 1: the answer is no.
    No,
    /// 2: wrong use.
    Usage,
    /// 66: the database cannot be used.
    Database,
    /// 69: a port cannot be listened on.
    Port,
    /// 78: mistakes in the configuration.
    Config,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::Usage => 2,
            Exit::Database => 66,
            Exit::Port => 69,
            Exit::Config => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        exit.code().into()
    }
}

/// Why a command was not done, or what the answer "no" rests on.
#[derive(Debug)]
pub(super) enum Failure {
    /// The answer was given; it is no.
    No(Exit),
    Config(ConfigErrors),
    Open(OpenError),
    Unavailable(Unavailable),
    Constraint(ConstraintError),
    NoUser(UserRef),
    NoKey(KeyId),
    User(UserRefused),
    Key(KeyRefused),
    Wallet(WalletRefused),
    /// A gateway that does not answer, or says that it is not ready.
    NotReady(NotReady),
    /// `uninstall` with nobody to ask.
    NeedsYes,
    /// `uninstall`, answered with no.
    NotConfirmed,
    App(AppError),
    Logs(LogsError),
    Runtime(io::Error),
    /// Standard output could not be written.
    Output(io::Error),
}

impl Failure {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Failure::No(exit) => *exit,
            Failure::Config(_) => Exit::Config,
            Failure::Open(_) | Failure::Unavailable(_) => Exit::Database,
            Failure::NoUser(_)
            | Failure::NoKey(_)
            | Failure::Constraint(_)
            | Failure::User(_)
            | Failure::Key(_)
            | Failure::Wallet(_)
            | Failure::NotReady(_)
            | Failure::NotConfirmed
            | Failure::Runtime(_)
            | Failure::Output(_) => Exit::No,
            Failure::NeedsYes => Exit::Usage,
            Failure::Logs(_) => Exit::Config,
            Failure::App(error) => of_app(error),
        }
    }
}

fn of_app(error: &AppError) -> Exit {
    match error {
        AppError::Open(_) | AppError::Database(_) | AppError::Fatal(_) => Exit::Database,
        AppError::Bind(_) => Exit::Port,
        AppError::Config(_) | AppError::Logs(_) => Exit::Config,
        AppError::Worker(_) | AppError::Runtime(_) | AppError::Demo(_) => Exit::No,
        AppError::Logged(error) => of_app(error),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::No(_) => Ok(()),
            Failure::Config(errors) => errors.fmt(f),
            Failure::Open(OpenError::Missing(path)) => write!(
                f,
                "{}: there is no such file; correct the path, or make a new database with `keytoll init --create`, `keytoll serve --create` or `keytoll user add --create`",
                path.display()
            ),
            Failure::Open(error) => error.fmt(f),
            Failure::Unavailable(reason) => write!(f, "{reason}; nothing was changed"),
            Failure::Constraint(error) => write!(f, "{error}; nothing was changed"),
            Failure::NoUser(user) => write!(f, "there is no user {user}"),
            Failure::NoKey(id) => write!(f, "there is no key {id}"),
            Failure::User(refused) => user_refused(f, *refused),
            Failure::Key(refused) => key_refused(f, *refused),
            Failure::Wallet(refused) => wallet_refused(f, *refused),
            Failure::NotReady(reason) => write!(f, "not ready: {reason}"),
            Failure::NeedsYes => f.write_str("nobody can be asked here; say --yes to go on without a question"),
            Failure::NotConfirmed => f.write_str("nothing was changed"),
            Failure::App(error) => error.fmt(f),
            Failure::Logs(error) => error.fmt(f),
            Failure::Runtime(error) => write!(f, "the operating system gives no runtime: {error}"),
            Failure::Output(error) => write!(f, "standard output cannot be written: {error}"),
        }
    }
}

/// Why a gateway is not ready, or cannot be asked.
#[derive(Debug)]
pub(super) enum NotReady {
    /// No server answers at the address.
    Connect(SocketAddr, io::Error),
    /// Something broke off while asking.
    Answer(SocketAddr, io::Error),
    /// What answers is no HTTP server.
    NotHttp(SocketAddr),
    /// The gateway says no.
    Status(SocketAddr, u16),
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotReady::Connect(address, error) => write!(f, "nothing answers on {address}: {error}"),
            NotReady::Answer(address, error) => write!(f, "{address} gave no answer in time: {error}"),
            NotReady::NotHttp(address) => write!(f, "what answers on {address} is no gateway"),
            NotReady::Status(address, status) => write!(f, "the gateway on {address} answers {status}"),
        }
    }
}

fn user_refused(f: &mut fmt::Formatter<'_>, refused: UserRefused) -> fmt::Result {
    f.write_str(match refused {
        UserRefused::NotFound => "there is no such user",
        UserRefused::DuplicateEmail => "another user has this e-mail address",
        UserRefused::NegativeBalance => "a wallet does not begin below zero",
    })
}

fn key_refused(f: &mut fmt::Formatter<'_>, refused: KeyRefused) -> fmt::Result {
    f.write_str(match refused {
        KeyRefused::NotFound => "there is no such key",
        KeyRefused::NoUser => "there is no such user",
        KeyRefused::Duplicate => {
            "the user has a key for this API already; a user has one key for each API; `keytoll key rotate` replaces it"
        }
        KeyRefused::HasCharges => "charges were made with the key; it can be disabled or rotated, not deleted",
        KeyRefused::NoRandomness => "the operating system gives no randomness for a key",
    })
}

fn wallet_refused(f: &mut fmt::Formatter<'_>, refused: WalletRefused) -> fmt::Result {
    match refused {
        WalletRefused::NoUser => f.write_str("there is no such user"),
        WalletRefused::NotPositive => f.write_str("the amount must be positive"),
        WalletRefused::NotMoney => {
            f.write_str("the wallet's balance is no whole number of cents; the application has to put that right")
        }
        WalletRefused::Overdrawn { balance } => write!(f, "there is only {} in the wallet", Money(balance)),
        WalletRefused::KeyReused { .. } => f.write_str(
            "another entry of this wallet, with another kind, amount or note, was made with this idempotency key",
        ),
        WalletRefused::Overflow => f.write_str("the balance would not fit 64 bits of cents"),
    }
}

/// `$5.00 (500 cents)`.
struct Money(Cents);

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} cents)", self.0, self.0.0)
    }
}

impl From<Unavailable> for Failure {
    fn from(reason: Unavailable) -> Failure {
        Failure::Unavailable(reason)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        Failure::Open(error)
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Failure {
        Failure::Config(errors)
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Failure {
        Failure::App(error)
    }
}

macro_rules! from_refused {
    ($($refused:ident => $variant:ident),*) => {$(
        impl From<WriteError<$refused>> for Failure {
            fn from(error: WriteError<$refused>) -> Failure {
                match error {
                    WriteError::Refused(refused) => Failure::$variant(refused),
                    WriteError::Constraint(error) => Failure::Constraint(error),
                    WriteError::Unavailable(reason) => Failure::Unavailable(reason),
                }
            }
        }
    )*};
}
from_refused!(UserRefused => User, KeyRefused => Key, WalletRefused => Wallet);
