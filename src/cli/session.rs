//! A command's time with the database: configuration, log, runtime, store, and the store's end.

use crate::config::{self, DatabaseSettings, Environment, LogConfig, LogFormat, Overrides};
use crate::store::{Page, PageWish, Role, Store, Unavailable, UserRecord};
use crate::telemetry::logs;
use crate::telemetry::metrics::{MetricNames, Metrics};

use super::args::UserRef;
use super::exit::Failure;
use super::output;

/// Opens the database, runs `body`, and closes it whatever came of that.
pub(super) fn with_store<T>(
    overrides: &Overrides,
    environment: &Environment,
    body: impl AsyncFnOnce(&Store, &DatabaseSettings) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let settings = config::load_database(overrides, environment)?;
    settings.warnings.iter().for_each(output::warn);
    // What the store says about a database in trouble, in more words than the command's own line.
    let log = LogConfig { format: LogFormat::Text, filter: "error".to_owned() };
    let _log = logs::init(&log).map_err(Failure::Logs)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    let metrics = Metrics::new(&MetricNames::default(), None);
    let (store, opening) = Store::open(&settings.database, &settings.limits, Role::Tool, metrics.store)?;
    if opening.adopted_wallets > 0 {
        let (path, count) = (settings.database.path.display(), opening.adopted_wallets);
        output::note(format_args!("{path}: first use with Keytoll; {count} wallets were taken onto the books"));
    }
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
    mut read: impl AsyncFnMut(PageWish) -> Result<Page<T>, Unavailable>,
) -> Result<Vec<T>, Failure> {
    let mut data = Vec::new();
    let mut cursor = None;
    loop {
        let page = read(PageWish { limit: PageWish::MOST, cursor }).await?;
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
