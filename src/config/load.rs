//! The way from file, environment and flags to a checked configuration. A flag beats the environment, which beats the
//! file, which beats the defaults. Every layer is read whole, so that every mistake is told at once.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::api::{self, API_KEYS, ApiParts};
use super::environment::FAIL_POINT;
use super::fault::Fault;
use super::file;
use super::given::Raw;
use super::keys::{Draft, KEYS, SECTIONS, Settings};
use super::mistake::{ConfigErrors, Mistake, Mistakes, Place};
use super::suggest::nearest;
use super::token;
use super::{AdminConfig, Config, DatabaseConfig, Environment, KeysConfig, Limits, LogConfig, Overrides};
use crate::failpoint;

/// A checked configuration and the file that it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What was said.
    pub config: Config,
    /// The file, when there is one.
    pub file: Option<PathBuf>,
}

/// What a command needs that works on the database alone.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// `[database]`.
    pub database: DatabaseConfig,
    /// `[keys]`.
    pub keys: KeysConfig,
    /// `[limits]`.
    pub limits: Limits,
    /// `[log]`.
    pub log: LogConfig,
    /// What is not wrong but should be said, a sentence each.
    pub warnings: Vec<String>,
}

/// What a command needs that asks a running gateway.
#[derive(Clone, Copy, Debug)]
pub struct Listeners {
    /// `server.listen`.
    pub data: SocketAddr,
    /// `admin.listen`.
    pub admin: SocketAddr,
}

/// The whole configuration, with at least one API.
///
/// # Errors
/// Every mistake in it.
pub fn load(flags: &Overrides, environment: &Environment) -> Result<Loaded, ConfigErrors> {
    let mut read = Reading::of(flags, environment);
    if read.apis.is_empty() && !read.hides_apis {
        let place = read.file.as_deref().map_or(Place::Nowhere, |file| Place::File(file.into()));
        read.mistakes.add(place, "api", Fault::NoApi);
    }
    let listeners = [read.settings.parts.server.listen, read.settings.parts.admin_listen];
    api::refuse_loops(&read.apis, listeners, &mut read.mistakes);
    let apis = api::finish(&read.apis, &read.settings.parts.limits, &mut read.mistakes);
    refuse_one_address_twice(&read.settings, &mut read.mistakes);
    let (token, token_warning) = token::read(&read.settings, environment, &mut read.mistakes);
    read.mistakes.into_result(&read.settings.parts.log, |_| true)?;

    let Settings { mut server, admin_listen, admin_hosts, database, keys, limits, log, token_file: _ } =
        read.settings.parts;
    if server.workers == 0 {
        server.workers = environment.processors.max(1);
    }
    let mut warnings = read.warnings;
    warnings.extend(token_warning);
    warnings.extend(admin_warning(admin_listen, token.is_some()));
    let admin = AdminConfig { listen: admin_listen, hosts: admin_hosts, token };
    let fail_point = environment.fail_point();
    Ok(Loaded {
        config: Config { server, admin, database, keys, limits, log, apis, warnings, fail_point },
        file: read.file,
    })
}

/// The parts for commands that work on the database alone. APIs, listeners and the admin token need not be there, and
/// mistakes in them do not count.
///
/// # Errors
/// Every mistake in the file as a whole and in the sections that are used.
pub fn load_database(flags: &Overrides, environment: &Environment) -> Result<DatabaseSettings, ConfigErrors> {
    let read = Reading::of(flags, environment);
    read.mistakes
        .into_result(&read.settings.parts.log, |mistake| concerns(mistake, &["database", "keys", "limits", "log"]))?;
    let Settings { database, keys, limits, log, .. } = read.settings.parts;
    Ok(DatabaseSettings { database, keys, limits, log, warnings: read.warnings })
}

/// The addresses of a gateway that this configuration is for. APIs and the admin token need not be there, and
/// mistakes elsewhere do not count.
///
/// # Errors
/// Every mistake in the file as a whole and in `[server]` and `[admin]`.
pub fn load_listeners(flags: &Overrides, environment: &Environment) -> Result<Listeners, ConfigErrors> {
    let read = Reading::of(flags, environment);
    read.mistakes.into_result(&read.settings.parts.log, |mistake| concerns(mistake, &["server", "admin"]))?;
    Ok(Listeners { data: read.settings.parts.server.listen, admin: read.settings.parts.admin_listen })
}

/// Whether a mistake is in one of these sections, or may be: a section of unknown name could be a mistyped one.
fn concerns(mistake: &Mistake, sections: &[&str]) -> bool {
    let section = mistake.key.split('.').next().unwrap_or_default();
    sections.contains(&section) || !SECTIONS.into_iter().chain(["api"]).any(|known| known == section)
}

/// Everything that was read, not yet checked as a whole.
struct Reading {
    settings: Draft<Settings>,
    apis: Vec<Draft<ApiParts>>,
    mistakes: Mistakes,
    warnings: Vec<String>,
    file: Option<PathBuf>,
    /// Whether there is a file, or an `api` in it, that could not be read: then nothing can be said about APIs that lack.
    hides_apis: bool,
}

impl Reading {
    fn of(flags: &Overrides, environment: &Environment) -> Reading {
        let mut mistakes = Mistakes::default();
        let mut settings = Draft::new(Settings::default(), Place::Nowhere);
        let mut apis = Vec::new();
        let source = file::find(flags, environment, &mut mistakes);
        if let Some(source) = &source {
            file::read_sections(source, &mut settings, &mut apis, &mut mistakes);
        }
        let hides_apis = mistakes.hide_apis();
        for key in KEYS {
            for (place, text) in key.around(flags, environment) {
                settings.apply(key, place, Raw::Text(text), &mut mistakes);
            }
        }
        api::from_around(flags, environment, &mut apis, &mut mistakes);
        let warnings = variable_warnings(environment);
        let file = source.map(|source| source.path.to_path_buf());
        Reading { settings, apis, mistakes, warnings, file, hides_apis }
    }
}

/// Two listeners cannot share an address, and one on every address leaves none of its port to the other.
fn refuse_one_address_twice(settings: &Draft<Settings>, mistakes: &mut Mistakes) {
    let (data, admin) = (settings.parts.server.listen, settings.parts.admin_listen);
    let either_takes_all = data.ip().is_unspecified() || admin.ip().is_unspecified();
    if data.port() == 0 || data.port() != admin.port() || !(data.ip() == admin.ip() || either_takes_all) {
        return;
    }
    if settings.places.contains_key("admin.listen") {
        mistakes.add(settings.place("admin.listen"), "admin.listen", Fault::SameListener { other: "server.listen" });
    } else {
        mistakes.add(settings.place("server.listen"), "server.listen", Fault::SameListener { other: "admin.listen" });
    }
}

fn admin_warning(listen: SocketAddr, has_token: bool) -> Option<String> {
    let closed = "/v1/* of the admin listener answers 403 until KEYTOLL_ADMIN_TOKEN or admin.token_file is set";
    match (listen.ip().is_loopback(), has_token) {
        (true, true) => None,
        (true, false) => Some(format!("There is no admin token: {closed}.")),
        (false, true) => Some(format!(
            "The admin listener {listen} is not on loopback: whoever reaches it can read /metrics, and tokens and keys travel unencrypted."
        )),
        (false, false) => Some(format!(
            "The admin listener {listen} is not on loopback and there is no admin token: whoever reaches it can read /metrics, and {closed}."
        )),
    }
}

/// What is said about variables that begin with `KEYTOLL_` and are not used. Their values are not shown.
fn variable_warnings(environment: &Environment) -> Vec<String> {
    let mut known = vec!["KEYTOLL_CONFIG".to_owned(), "KEYTOLL_ADMIN_TOKEN".to_owned()];
    known.extend(API_KEYS.iter().filter_map(|key| key.variable).map(str::to_owned));
    known.extend(failpoint::COMPILED.then(|| FAIL_POINT.to_owned()));
    let mut warnings = Vec::new();
    for key in KEYS {
        let long = key.long_variable();
        if let Some(short) = key.variable {
            let is_set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
            if is_set(short) && is_set(&long) {
                warnings.push(format!("{long} is not used: {short} says the same thing and beats it."));
            }
            known.push(short.to_owned());
        }
        known.push(long);
    }
    let mut strangers = Vec::new();
    for name in environment.own_names().filter(|name| !known.iter().any(|known| known == name)) {
        match nearest(&name["KEYTOLL_".len()..], known.iter().filter_map(|known| known.strip_prefix("KEYTOLL_"))) {
            Some(near) => warnings.push(format!("{name} is no setting and is not used; did you mean KEYTOLL_{near}?")),
            None => strangers.push(name),
        }
    }
    if !strangers.is_empty() {
        let (is, are) = if strangers.len() == 1 { ("is", "no setting") } else { ("are", "no settings") };
        warnings.push(format!("{} {is} {are} of Keytoll and {is} not used.", strangers.join(", ")));
    }
    warnings
}
