//! `keytoll uninstall`: a shared file as if Keytoll had never been there.

use std::io::{self, BufRead, IsTerminal, Write};

use super::args::Common;
use super::exit::Failure;
use super::{output, session};
use crate::config::Environment;
use crate::store::{self, Uninstalled};

const GONE: &str = "Keytoll's tables and triggers are gone; users, api_keys and wallets stay";

const EXAMPLES: &str = "\
Examples:
  keytoll uninstall --database auth.db          asks before it does anything
  keytoll uninstall --database auth.db --yes

Every table and trigger whose name begins with keytoll_ is dropped, with the record of all charges and entries.
users, api_keys and wallets stay as they are, and the journal mode is again the one that Keytoll found. No gateway may run
on the file.";

/// Flags of `uninstall`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: &Args, common: Common, environment: &Environment) -> Result<(), Failure> {
    let settings = session::database_settings(&common.overrides(), environment)?;
    let path = settings.database.path.display().to_string();
    if !args.yes {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Err(Failure::NeedsYes);
        }
        if !confirmed(&path, &mut stdin.lock(), &mut io::stderr().lock()).map_err(Failure::Output)? {
            return Err(Failure::NotConfirmed);
        }
    }
    match store::uninstall(&settings.database)? {
        Uninstalled::Nothing => output::line(format_args!("{path}: there is nothing of Keytoll in it")),
        Uninstalled::Done => output::line(format_args!("{path}: {GONE}")),
        Uninstalled::StillWal => {
            output::warn(format_args!(
                "{path}: the journal mode stays WAL, because another program has the file open; Keytoll found a rollback \
                 journal: close that program, and run PRAGMA journal_mode = DELETE"
            ));
            output::line(format_args!("{path}: {GONE}"))
        }
    }
}

fn confirmed(path: &str, input: &mut impl BufRead, prompt: &mut impl Write) -> io::Result<bool> {
    writeln!(prompt, "This deletes the record of all charges and entries from {path}.")?;
    write!(prompt, "users, api_keys and wallets stay. Go on? [y/N] ")?;
    prompt.flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        let answered = |text: &str| confirmed("auth.db", &mut text.as_bytes(), &mut Vec::new()).unwrap();
        assert!(answered("y\n") && answered("YES\n"));
        assert!(!answered("") && !answered("\n") && !answered("n\n") && !answered("yesterday\n"));
    }
}
