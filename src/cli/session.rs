//! A command's time with the database: configuration, log, runtime, store, and the store's end.

use std::sync::Arc;

use crate::config::{self, DatabaseSettings, Environment, LogConfig, LogFormat, Overrides};
use crate::store::{Needs, Page, PageRequest, Role, Store, Unavailable, UserRecord};
use crate::telemetry::logs;
use crate::telemetry::metrics::{MetricNames, Metrics};

use super::args::UserRef;
use super::exit::Failure;
use super::output;

#[derive(Clone, Copy)]
enum Access {
    Read(Needs),
    Write,
}

/// Loads the settings of the database, and prints their warnings.
pub(super) fn database_settings(overrides: &Overrides, environment: &Environment) -> Result<DatabaseSettings, Failure> {
    let settings = config::load_database(overrides, environment)?;
    settings.warnings.iter().for_each(output::warn);
    Ok(settings)
}

/// Opens the database for a command that writes, runs `body`, and closes it whatever came of that.
pub(super) fn with_store<T>(
    overrides: &Overrides,
    environment: &Environment,
    body: impl AsyncFnOnce(&Store, &DatabaseSettings) -> Result<T, Failure>,
) -> Result<T, Failure> {
    with(Access::Write, overrides, environment, body)
}

/// The same for a command that only reads: nothing is created or changed.
pub(super) fn with_reader<T>(
    needs: Needs,
    overrides: &Overrides,
    environment: &Environment,
    body: impl AsyncFnOnce(&Store, &DatabaseSettings) -> Result<T, Failure>,
) -> Result<T, Failure> {
    with(Access::Read(needs), overrides, environment, body)
}

fn with<T>(
    access: Access,
    overrides: &Overrides,
    environment: &Environment,
    body: impl AsyncFnOnce(&Store, &DatabaseSettings) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let settings = database_settings(overrides, environment)?;
    // What the store says about a database in trouble, in more words than the command's own line.
    let log = LogConfig { format: LogFormat::Text, filter: "error".to_owned() };
    let _log = logs::init(&log).map_err(Failure::Logs)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    let metrics = Metrics::new(&MetricNames::default(), None);
    let store = match access {
        Access::Read(needs) => {
            Store::open_to_read(&settings.database, &settings.limits, needs, Arc::clone(&metrics.store))?
        }
        Access::Write => Store::open(&settings.database, &settings.limits, Role::Tool, Arc::clone(&metrics.store))?.0,
    };
    let result = runtime.block_on(body(&store, &settings));
    store.close();
    result
}

/// The user that an argument names.
pub(super) async fn find_user(store: &Store, user: &UserRef) -> Result<UserRecord, Failure> {
    let found = match user {
        UserRef::Id(id) => store.user(*id).await?,
        UserRef::Email(email) => store.user_by_email(email).await?,
    };
    found.ok_or_else(|| Failure::NoUser(user.clone()))
}

/// Every page of a list.
pub(super) async fn all<T>(
    mut read: impl AsyncFnMut(PageRequest) -> Result<Page<T>, Unavailable>,
) -> Result<Vec<T>, Failure> {
    let mut data = Vec::new();
    let mut cursor = None;
    loop {
        let page = read(PageRequest { limit: PageRequest::MOST, cursor }).await?;
        data.extend(page.data);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(data);
        }
    }
}

/// A list in JSON, shaped as the admin plane's, without a next page.
#[derive(serde::Serialize)]
pub(super) struct List<T> {
    pub(super) data: Vec<T>,
}
