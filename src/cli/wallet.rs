//! `keytoll wallet`: what is in a wallet, and every change of it that is no charge.

use serde::Serialize;

use super::args::{self, Common, Format, UserRef};
use super::exit::Failure;
use super::output::{self, Table};
use super::session::{self, List, find_user, with_reader, with_store};
use crate::config::{Environment, Overrides};
use crate::model::{Cents, IdempotencyKey, input};
use crate::store::{Booked, Booking, Direction, EntryRecord, Needs, Page, WalletRecord};

const EXAMPLES: &str = "\
Examples:
  keytoll wallet credit --user ada@example.com --cents 1000 --note \"invoice 17\"
  keytoll wallet debit --user 7 --cents 250
  keytoll wallet credit --user 7 --cents 1000 --idempotency-key invoice-17

Amounts are whole cents, and positive. A debit of more than there is, is refused. With \
an idempotency key the same command may be given again: the second time it books nothing.";

/// Subcommands of `wallet`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show what is in a wallet
    Show(Named),
    /// Put money into a wallet; one that is missing is made
    #[command(after_long_help = EXAMPLES)]
    Credit(Amount),
    /// Take money out of a wallet
    #[command(after_long_help = EXAMPLES)]
    Debit(Amount),
    /// List credits, debits and what other programs changed; not the charges
    Entries(Named),
}

/// A wallet to look at.
#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// The wallet's owner
    #[arg(long, value_name = "ID|EMAIL")]
    user: UserRef,
    #[command(flatten)]
    format: Format,
}

/// Money to move.
#[derive(Debug, clap::Args)]
pub(super) struct Amount {
    #[command(flatten)]
    named: Named,
    /// How much, in cents
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = args::amount)]
    cents: Cents,
    /// Why, for the books
    #[arg(long, value_name = "TEXT", value_parser = input::note)]
    note: Option<String>,
    /// Who, for the books [default: cli: and the name that you are logged in with]
    #[arg(long, value_name = "NAME", value_parser = input::actor)]
    actor: Option<String>,
    /// Given again with the same key, user, amount and note, nothing is booked twice
    #[arg(long, value_name = "KEY", value_parser = args::idempotency_key)]
    idempotency_key: Option<IdempotencyKey>,
}

/// A credit or debit that was made.
#[derive(Serialize)]
struct Made {
    #[serde(flatten)]
    entry: EntryRecord,
    balance_cents: Cents,
}

pub(super) fn run(command: Command, common: Common, environment: &Environment) -> Result<(), Failure> {
    let overrides = common.overrides();
    match command {
        Command::Show(named) => with_reader(Needs::Shared, &overrides, environment, async |store, _| {
            let user = find_user(store, &named.user).await?;
            show(store.wallet(user.id).await?.ok_or(Failure::NoUser(named.user))?, named.format)
        }),
        Command::Credit(amount) => book(amount, Direction::In, &overrides, environment),
        Command::Debit(amount) => book(amount, Direction::Out, &overrides, environment),
        Command::Entries(named) => with_reader(Needs::Books, &overrides, environment, async |store, _| {
            let user = find_user(store, &named.user).await?;
            let read = async |wish| {
                let page = store.entries(user.id, wish).await?;
                Ok(page.unwrap_or(Page { data: Vec::new(), next_cursor: None }))
            };
            list(session::all(read).await?, named.format)
        }),
    }
}

fn book(amount: Amount, direction: Direction, overrides: &Overrides, environment: &Environment) -> Result<(), Failure> {
    let Amount { named, cents, note, actor, idempotency_key } = amount;
    let actor = actor.unwrap_or_else(|| args::own_actor(environment));
    let booking = Booking { direction, amount: cents, note, actor: Some(actor), key: idempotency_key };
    with_store(overrides, environment, async |store, _| {
        let user = find_user(store, &named.user).await?;
        let Booked { entry, balance, is_new } = store.book(user.id, booking).await?;
        if !is_new {
            output::note(format_args!(
                "entry {} was made with this idempotency key before; nothing was booked",
                entry.id
            ));
        }
        if named.format.json {
            return output::json(&Made { entry, balance_cents: balance });
        }
        show(WalletRecord { user_id: user.id, balance_cents: balance }, named.format)
    })
}

fn show(wallet: WalletRecord, format: Format) -> Result<(), Failure> {
    if format.json {
        return output::json(&wallet);
    }
    let mut table = Table::new(&["user", "balance", "cents"], &[0, 1, 2]);
    let WalletRecord { user_id, balance_cents } = wallet;
    table.row([user_id.to_string(), balance_cents.to_string(), balance_cents.0.to_string()]);
    output::line(table)
}

fn list(entries: Vec<EntryRecord>, format: Format) -> Result<(), Failure> {
    if format.json {
        return output::json(&List { data: entries });
    }
    let mut table = Table::new(&["id", "time", "kind", "amount", "actor", "note"], &[0, 3]);
    for EntryRecord { id, kind, amount_cents, note, actor, created_at, .. } in entries {
        let kind = kind.as_str().to_owned();
        let (actor, note) = (actor.unwrap_or_default(), note.unwrap_or_default());
        table.row([id.to_string(), created_at.to_rfc3339(), kind, amount_cents.to_string(), actor, note]);
    }
    output::line(table)
}
