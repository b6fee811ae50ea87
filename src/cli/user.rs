//! `keytoll user`: who owns keys and a wallet.

use serde::Serialize;

use super::args::{self, Common, Format, UserRef};
use super::exit::Failure;
use super::output::{self, Table, yes_no};
use super::session::{self, List, find_user, with_reader, with_store};
use crate::config::{Environment, Overrides};
use crate::model::{Cents, input};
use crate::store::{Needs, Store, USUAL_OPENING_BALANCE, UserChange, UserRecord};

const ADD_EXAMPLES: &str = "\
Examples:
  keytoll user add ada@example.com --name \"Ada Lovelace\"
  keytoll user add ada@example.com --name Ada --opening-cents 0 --database new.db --create";

const NAMED: &str = "\
Examples:
  … 7                      by id
  … ada@example.com        by e-mail address";

/// Subcommands of `user`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Add a user, with a wallet of 500 cents
    #[command(after_long_help = ADD_EXAMPLES)]
    Add {
        /// The address, unique in the file
        #[arg(value_name = "EMAIL", value_parser = input::email)]
        email: String,
        /// The user's name
        #[arg(long, value_name = "NAME", value_parser = input::name)]
        name: String,
        /// What the wallet holds at first, in cents
        #[arg(long, value_name = "CENTS", default_value_t = USUAL_OPENING_BALANCE.0, allow_negative_numbers = true,
              value_parser = |text: &str| args::opening_balance(text).map(|cents| cents.0))]
        opening_cents: i64,
        /// Make the database file when it is missing
        #[arg(long)]
        create: bool,
        #[command(flatten)]
        format: Format,
    },
    /// List all users
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Show a user
    #[command(after_long_help = NAMED)]
    Show(Named),
    /// Let a user's keys be good again
    #[command(after_long_help = NAMED)]
    Enable(Named),
    /// Refuse all keys of a user, at once
    #[command(after_long_help = NAMED)]
    Disable(Named),
}

/// A user to work on.
#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// The user's id or e-mail address
    #[arg(value_name = "ID|EMAIL")]
    user: UserRef,
    #[command(flatten)]
    format: Format,
}

/// A user together with what is in the wallet.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    user: UserRecord,
    balance_cents: Cents,
}

pub(super) fn run(command: Command, common: Common, environment: &Environment) -> Result<(), Failure> {
    let overrides = common.overrides();
    match command {
        Command::Add { email, name, opening_cents, create, format } => {
            let overrides = Overrides { create: create.then_some(true), ..overrides };
            with_store(&overrides, environment, async |store, _| {
                let user = store.add_user(&email, &name, Cents(opening_cents)).await?;
                show(store, user, format).await
            })
        }
        Command::List { format } => with_reader(Needs::Shared, &overrides, environment, async |store, _| {
            list(session::all(async |wish| store.users(wish).await).await?, format)
        }),
        Command::Show(named) => with_reader(Needs::Shared, &overrides, environment, async |store, _| {
            let user = find_user(store, &named.user).await?;
            show(store, user, named.format).await
        }),
        Command::Enable(named) => switch(&named, true, &overrides, environment),
        Command::Disable(named) => switch(&named, false, &overrides, environment),
    }
}

fn switch(named: &Named, is_active: bool, overrides: &Overrides, environment: &Environment) -> Result<(), Failure> {
    with_store(overrides, environment, async |store, _| {
        let user = find_user(store, &named.user).await?;
        let change = UserChange { is_active: Some(is_active), ..UserChange::default() };
        let user = store.update_user(user.id, change).await?;
        show(store, user, named.format).await
    })
}

async fn show(store: &Store, user: UserRecord, format: Format) -> Result<(), Failure> {
    let wallet = store.wallet(user.id).await?;
    let balance_cents = wallet.map_or(Cents::ZERO, |wallet| wallet.balance_cents);
    if format.json {
        return output::json(&Shown { user, balance_cents });
    }
    let mut table = Table::new(&["id", "email", "name", "active", "balance"], &[0, 4]);
    let UserRecord { id, email, name, is_active } = user;
    table.row([id.to_string(), email, name, yes_no(is_active), balance_cents.to_string()]);
    output::line(table)
}

fn list(users: Vec<UserRecord>, format: Format) -> Result<(), Failure> {
    if format.json {
        return output::json(&List { data: users });
    }
    let mut table = Table::new(&["id", "email", "name", "active"], &[0]);
    for UserRecord { id, email, name, is_active } in users {
        table.row([id.to_string(), email, name, yes_no(is_active)]);
    }
    output::line(table)
}
