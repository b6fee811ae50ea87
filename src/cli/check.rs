//! `keytoll check`: what the configuration means, or every mistake in it with its place.

use serde::Serialize;

use super::args::{Common, Format};
use super::exit::{Exit, Failure};
use super::{output, serve};
use crate::config::{self, Config, ConfigErrors, Environment, Loaded};
use crate::store;

const EXAMPLES: &str = "\
Examples:
  keytoll check                                 ./keytoll.toml, with the environment as it is
  keytoll check --config new.toml && mv new.toml keytoll.toml
  keytoll check --upstream http://127.0.0.1:3000 --price 2

The flags are those of `serve`. Nothing is made, changed or listened on. If there is a database, its keys are compared with the
configured APIs. Status 78 when there are mistakes; warnings do not count.";

/// Arguments of `check`: the flags of `serve`, and how to answer.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    flags: serve::Flags,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Good<'a> {
    ok: bool,
    file: Option<String>,
    warnings: &'a [String],
    summary: String,
}

#[derive(Serialize)]
struct Bad {
    ok: bool,
    mistakes: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    place: String,
    key: String,
    message: String,
}

pub(super) fn run(args: Args, common: Common, environment: &Environment) -> Result<(), Failure> {
    let Args { flags, format } = args;
    match (config::load(&flags.overrides(common), environment), format.json) {
        (Ok(mut loaded), false) => {
            warn_of_unknown_apis(&mut loaded.config);
            explain(&loaded)
        }
        (Ok(Loaded { mut config, file }), true) => {
            warn_of_unknown_apis(&mut config);
            let file = file.map(|path| path.display().to_string());
            output::json(&Good { ok: true, file, warnings: &config.warnings, summary: config.explain() })
        }
        (Err(errors), false) => Err(Failure::Config(errors)),
        (Err(errors), true) => {
            output::json(&bad(&errors))?;
            Err(Failure::No(Exit::Config))
        }
    }
}

/// Adds what is to be said of the keys in the database, if there is one.
fn warn_of_unknown_apis(config: &mut Config) {
    let names = config.api_names();
    match store::unknown_apis(&config.database, &names) {
        Ok(Some(found)) => config.warnings.push(found.to_string()),
        Ok(None) => {}
        Err(error) => {
            config.warnings.push(format!("The keys in the database cannot be compared with the APIs: {error}."));
        }
    }
}

fn explain(loaded: &Loaded) -> Result<(), Failure> {
    if let Some(file) = &loaded.file {
        output::line(format_args!("file      {}", file.display()))?;
    }
    output::print(&loaded.config.explain())
}

fn bad(errors: &ConfigErrors) -> Bad {
    let lines = errors.mistakes.iter().map(|mistake| Line {
        place: mistake.place.to_string(),
        key: mistake.key.clone(),
        message: mistake.fault.to_string(),
    });
    Bad { ok: false, mistakes: lines.collect() }
}
