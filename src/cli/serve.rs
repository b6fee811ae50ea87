//! `keytoll serve`: the gateway.

use super::args::Common;
use super::exit::Failure;
use crate::app;
use crate::config::{Environment, Overrides};

const EXAMPLES: &str = "\
Examples:
  keytoll serve                                 with ./keytoll.toml
  keytoll serve --config /etc/keytoll/prod.toml --listen 0.0.0.0:8080
  keytoll serve --upstream http://127.0.0.1:3000 --api weather --price 2 --database auth.db --create

A flag beats the environment (KEYTOLL_LISTEN, KEYTOLL_UPSTREAM, …), which beats the file.
The admin token is KEYTOLL_ADMIN_TOKEN, or in the file that admin.token_file names.";

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) flags: Flags,
}

/// What `serve` and `check` take; alone they describe a single API at "/".
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// Where clients connect [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where the API is served, such as http://127.0.0.1:3000; several with commas between
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// What api_keys.api_name holds for the API's keys
    #[arg(long, value_name = "NAME")]
    api: Option<String>,
    /// What a request costs, in cents; 0 is free and still needs a key
    #[arg(long, value_name = "CENTS", allow_hyphen_values = true)]
    price: Option<String>,
    /// Make the database file when it is missing
    #[arg(long)]
    create: bool,
    /// Where operators connect [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,
}

impl Flags {
    pub(super) fn overrides(self, common: Common) -> Overrides {
        Overrides {
            listen: self.listen,
            upstream: self.upstream,
            api: self.api,
            price: self.price,
            create: self.create.then_some(true),
            admin_listen: self.admin_listen,
            ..common.overrides()
        }
    }
}

pub(super) fn run(args: Args, common: Common, environment: &Environment) -> Result<(), Failure> {
    Ok(app::serve(args.flags.overrides(common), environment.clone())?)
}
