//! `keytoll key`: what clients present. The key itself is shown once, by `issue` or `rotate`.

use serde::Serialize;

use super::args::{Common, Format, UserRef};
use super::exit::Failure;
use super::output::{self, Table, yes_no};
use super::session::{self, List, find_user, with_reader, with_store};
use crate::config::{self, Environment, Overrides};
use crate::model::{KeyId, Timestamp, input};
use crate::store::{KeyFilter, KeyRecord, Needs, NewKey};

const ISSUE_EXAMPLES: &str = "\
Examples:
  keytoll key issue --user ada@example.com --api weather
  KEY=$(keytoll key issue --user 7 --api weather)

The key alone goes to standard output. Keytoll keeps its SHA-256 and cannot show it again.";

const ROTATE_EXAMPLES: &str = "\
Examples:
  keytoll key rotate 7
  KEY=$(keytoll key rotate 7)

The new key alone goes to standard output. The old one is refused from then on, by running gateways too. The key keeps \
its id, user, API, time of creation, and whether it is enabled.";

/// Subcommands of `key`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Issue a key for a user and an API, and show it, once
    #[command(after_long_help = ISSUE_EXAMPLES)]
    Issue {
        /// The owner, whose wallet pays
        #[arg(long, value_name = "ID|EMAIL")]
        user: UserRef,
        /// The API that the key is good for, by its name in the configuration
        #[arg(long, value_name = "NAME", value_parser = input::api_name)]
        api: String,
        #[command(flatten)]
        format: Format,
    },
    /// List keys, all or those of a user or an API
    List {
        /// Only keys of this user
        #[arg(long, value_name = "ID|EMAIL")]
        user: Option<UserRef>,
        /// Only keys for this API
        #[arg(long, value_name = "NAME")]
        api: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Show what is known of a key; never the key itself
    Show(Named),
    /// Replace a lost or leaked key, and show the new one, once
    #[command(after_long_help = ROTATE_EXAMPLES)]
    Rotate(Named),
    /// Let a key be good again
    Enable(Named),
    /// Refuse a key, at once
    Disable(Named),
}

/// A key to work on.
#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// The key's id, as `key list` shows it
    #[arg(value_name = "ID")]
    id: i64,
    #[command(flatten)]
    format: Format,
}

/// A key that was just issued or rotated, with its secret.
#[derive(Serialize)]
struct Issued<'a> {
    key: &'a str,
    #[serde(flatten)]
    record: &'a KeyRecord,
}

pub(super) fn run(command: Command, common: Common, environment: &Environment) -> Result<(), Failure> {
    let overrides = common.overrides();
    match command {
        Command::Issue { user, api, format } => {
            let issued = with_store(&overrides, environment, async |store, settings| {
                let user = find_user(store, &user).await?;
                Ok(store.issue_key(user.id, &api, settings.keys.storage, &settings.keys.prefix).await?)
            })?;
            warn_of_unknown(&api, &overrides, environment);
            tell("key", &issued, format)
        }
        Command::List { user, api, format } => with_reader(Needs::Shared, &overrides, environment, async |store, _| {
            let user_id = match &user {
                Some(user) => Some(find_user(store, user).await?.id),
                None => None,
            };
            let filter = KeyFilter { user_id, api_name: api };
            let keys = session::all(async |wish| store.keys(filter.clone(), wish).await).await?;
            list(keys, format)
        }),
        Command::Show(Named { id, format }) => with_reader(Needs::Shared, &overrides, environment, async |store, _| {
            let id = KeyId(id);
            show(store.key(id).await?.ok_or(Failure::NoKey(id))?, format)
        }),
        Command::Rotate(Named { id, format }) => {
            let rotated = with_store(&overrides, environment, async |store, settings| {
                let id = KeyId(id);
                store.key(id).await?.ok_or(Failure::NoKey(id))?;
                Ok(store.rotate_key(id, settings.keys.storage, &settings.keys.prefix).await?)
            })?;
            tell("the new key", &rotated, format)?;
            if !rotated.record.is_active {
                output::warn(format_args!("key {id} is disabled; `keytoll key enable {id}` enables it"));
            }
            Ok(())
        }
        Command::Enable(named) => switch(&named, true, &overrides, environment),
        Command::Disable(named) => switch(&named, false, &overrides, environment),
    }
}

fn switch(named: &Named, is_active: bool, overrides: &Overrides, environment: &Environment) -> Result<(), Failure> {
    with_store(overrides, environment, async |store, _| {
        let id = KeyId(named.id);
        // The same words for a key that is not there, whichever command looked for it.
        store.key(id).await?.ok_or(Failure::NoKey(id))?;
        show(store.set_key_active(id, is_active).await?, named.format)
    })
}

/// A key for an API that no configuration knows is allowed: the API may come later, or be another gateway's.
fn warn_of_unknown(api: &str, overrides: &Overrides, environment: &Environment) {
    let Ok(loaded) = config::load(overrides, environment) else { return };
    let names: Vec<&str> = loaded.config.apis.iter().map(|api| &*api.name).collect();
    if !names.contains(&api) {
        let names = names.join(", ");
        output::warn(format_args!(
            "no API of the configuration is named {api:?} (there is: {names}); the key is good for none of them"
        ));
    }
}

/// `what`: "this is WHAT 7, of user …".
fn tell(what: &str, issued: &NewKey, format: Format) -> Result<(), Failure> {
    let NewKey { record, key } = issued;
    if format.json {
        output::json(&Issued { key: key.expose(), record })?;
    } else {
        output::line(key.expose())?;
    }
    let KeyRecord { id, user_id, api_name, .. } = record;
    output::note(format_args!("this is {what} {id}, of user {user_id}, for {api_name:?}; it is not shown again"));
    Ok(())
}

fn show(key: KeyRecord, format: Format) -> Result<(), Failure> {
    if format.json { output::json(&key) } else { output::line(table([key])) }
}

fn list(keys: Vec<KeyRecord>, format: Format) -> Result<(), Failure> {
    if format.json { output::json(&List { data: keys }) } else { output::line(table(keys)) }
}

fn table(keys: impl IntoIterator<Item = KeyRecord>) -> Table {
    let mut table = Table::new(&["id", "user", "api", "active", "created", "hint"], &[0, 1]);
    for KeyRecord { id, user_id, api_name, is_active, created_at, hint } in keys {
        let created = created_at.map_or_else(|| "-".to_owned(), Timestamp::to_rfc3339);
        table.row([id.to_string(), user_id.to_string(), api_name, yes_no(is_active), created, hint.0]);
    }
    table
}
