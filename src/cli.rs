//! The command line: arguments in, an exit status out, one file a command.
//!
//! Answers go to standard output, as small tables for people or as JSON; everything else goes to standard error, a
//! line each, beginning with `keytoll:`. No secret is ever taken from an argument, where every user of the machine
//! could read it. Called by `main` alone.

mod args;
mod check;
mod demo;
mod doctor;
mod exit;
mod health;
mod init;
mod key;
mod output;
mod serve;
mod session;
mod uninstall;
mod user;
mod wallet;

#[cfg(test)]
mod tests;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::config::Environment;
use args::Common;
pub use exit::Exit;
use exit::Failure;

const LONG_ABOUT: &str = "\
Keytoll stands in front of an HTTP API. It checks the key on every request, takes the price of the call out of the \
owner's wallet, in cents, and forwards what has been paid for. Its records are in an SQLite database: your \
application's own, or one that it makes.";

const EXAMPLES: &str = "\
Examples:
  keytoll demo                            try it: a gateway, an API behind it, and a key
  keytoll serve --upstream http://127.0.0.1:3000 --api weather --price 2 --database auth.db --create
  keytoll init --database auth.db         set the application's own database up
  keytoll user add ada@example.com --name Ada --database auth.db
  keytoll key issue --user ada@example.com --api weather --database auth.db
  keytoll wallet credit --user ada@example.com --cents 1000 --note \"invoice 17\" --database auth.db
  keytoll doctor --database auth.db       prove that the books balance

Exit status:
  0  done            1  the answer is no       2  wrong use
  66 the database    69 a port is taken        78 the configuration

Secrets come from a file or the environment (KEYTOLL_ADMIN_TOKEN), never from an argument.";

/// An API-key gateway that bills every request exactly once
#[derive(Debug, Parser)]
#[command(name = "keytoll", version, about, long_about = LONG_ABOUT, after_long_help = EXAMPLES)]
#[command(arg_required_else_help = true, subcommand_required = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::Args),
    /// Try Keytoll: a gateway, a sample API, a database and a key
    Demo(demo::Args),
    /// Set a database up: Keytoll's tables and triggers, and the application's wallets onto the books
    Init(init::Args),
    /// Say what the configuration means, or every mistake in it
    Check(check::Args),
    /// Ask a running gateway whether it is ready; for container health checks
    Health(health::Args),
    /// Add, list, show, enable and disable users
    #[command(subcommand)]
    User(user::Command),
    /// Issue, list, show, rotate, enable and disable API keys
    #[command(subcommand)]
    Key(key::Command),
    /// Show a wallet, put money in, take money out
    #[command(subcommand)]
    Wallet(wallet::Command),
    /// Prove the books and the file; status 1 when they do not hold
    Doctor(doctor::Args),
    /// Take Keytoll's triggers and tables out of a shared file
    Uninstall(uninstall::Args),
}

/// Runs one command. `arguments` begin with the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // Help and version are answers; the rest is wrong use. Nothing can be said where nobody reads.
        Err(error) => {
            drop(error.print());
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    match dispatch(cli, &Environment::of_process()) {
        Ok(()) => Exit::Done,
        Err(failure) => {
            output::failure(&failure);
            failure.exit()
        }
    }
}

fn dispatch(cli: Cli, environment: &Environment) -> Result<(), Failure> {
    let Cli { common, command } = cli;
    match command {
        Command::Serve(args) => serve::run(args, common, environment),
        Command::Demo(args) => demo::run(&args),
        Command::Init(args) => init::run(&args, common, environment),
        Command::Check(args) => check::run(args, common, environment),
        Command::Health(args) => health::run(args, common, environment),
        Command::User(command) => user::run(command, common, environment),
        Command::Key(command) => key::run(command, common, environment),
        Command::Wallet(command) => wallet::run(command, common, environment),
        Command::Doctor(args) => doctor::run(&args, common, environment),
        Command::Uninstall(args) => uninstall::run(&args, common, environment),
    }
}
