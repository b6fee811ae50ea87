//! `keytoll init`: sets a database up, and says what was changed.

use std::fmt::Write;

use super::args::Common;
use super::exit::Failure;
use super::{output, session};
use crate::config::{Environment, Overrides};
use crate::store::{self, Opening};

const EXAMPLES: &str = "\
Examples:
  keytoll init --database auth.db               the application's own database
  keytoll init --database auth.db --create      a new one

Makes Keytoll's tables and its triggers on wallets, and users, api_keys and wallets where they are missing; takes the balances \
of the application onto the books; and brings the file into WAL mode. `keytoll serve` does the same when it starts; no other \
command does. A file that is set up already is left as it is. `keytoll uninstall` reverts it.";

/// Flags of `init`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Make the database file when it is missing or empty
    #[arg(long)]
    create: bool,
}

pub(super) fn run(args: &Args, common: Common, environment: &Environment) -> Result<(), Failure> {
    let overrides = Overrides { create: args.create.then_some(true), ..common.overrides() };
    let settings = session::database_settings(&overrides, environment)?;
    let opening = store::init(&settings.database)?;
    output::print(&told(&settings.database.path.display().to_string(), &opening))
}

fn told(path: &str, opening: &Opening) -> String {
    let set_up = opening.set_up;
    if !set_up.any() {
        return format!("{path} is set up already; nothing was changed\n");
    }
    let journal = match (set_up.is_new, set_up.was_rollback) {
        (true, _) => "WAL, as of a new file",
        (false, true) => "changed from a rollback journal to WAL",
        (false, false) => "WAL, as it was",
    };
    let upgraded = if set_up.is_upgrade { ", older ones upgraded" } else { "" };
    let mut text = format!("{path} is set up for Keytoll\n");
    let lines = [
        ("journal mode", journal.to_owned()),
        ("tables", format!("{} made{upgraded}", set_up.tables)),
        ("wallets", format!("{} taken onto the books", opening.adopted_wallets)),
    ];
    for (name, value) in lines {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "  {name:<14}{value}");
    }
    for column in &opening.required_columns {
        let column = output::visible(column);
        let _ = writeln!(
            text,
            "  note          {column} must not be NULL and has no default: Keytoll cannot add rows to its table"
        );
    }
    for trigger in &opening.foreign_triggers {
        let trigger = output::visible(trigger);
        let _ =
            writeln!(text, "  note          the application's trigger {trigger} does not run for what Keytoll writes");
    }
    text
}
