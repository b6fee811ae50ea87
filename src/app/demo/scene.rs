//! Sets the demo's scene: ports, files, the upstream, the gateway, and a user with a key.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::super::{self as app, AppError, Running};
use super::upstream;
use crate::config::{self, ConfigErrors, Environment, KeyStorage, Overrides};
use crate::http;
use crate::model::{ApiKey, Cents, IssuedKey, KeyPrefix, UserId};
use crate::store::{KeyRefused, Unavailable, UserRefused, WriteError};

/// Why the scene could not be set.
#[derive(Debug)]
pub enum DemoError {
    /// The demo's own configuration is refused.
    Config(ConfigErrors),
    /// The sample user could not be made.
    User(UserRefused),
    /// The sample key could not be issued.
    Key(KeyRefused),
    /// The operating system gives no randomness for keys.
    NoRandomness,
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DemoError::Config(errors) => write!(f, "the demo's configuration: {errors}"),
            DemoError::User(refused) => write!(f, "the demo's user could not be made: {refused:?}"),
            DemoError::Key(refused) => write!(f, "the demo's key could not be issued: {refused:?}"),
            DemoError::NoRandomness => f.write_str("the operating system gives no randomness for keys"),
        }
    }
}

impl std::error::Error for DemoError {}

/// The demo, running.
pub(super) struct Scene {
    pub(super) running: Running,
    pub(super) facts: Facts,
}

/// What the one who watches has to know.
pub(super) struct Facts {
    pub(super) gateway: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) upstream: SocketAddr,
    pub(super) config: PathBuf,
    pub(super) user: UserId,
    pub(super) key: ApiKey,
    pub(super) admin_token: ApiKey,
}

/// The user that the demo makes.
pub(super) const EMAIL: &str = "ada@example.com";
/// What the user's wallet holds at first.
pub(super) const OPENING_BALANCE: Cents = Cents(500);
/// What most requests cost.
pub(super) const PRICE: Cents = Cents(2);
/// What a report costs.
pub(super) const REPORT_PRICE: Cents = Cents(25);

/// The usual port when it is free; port 0, which stands for any, otherwise.
pub(super) fn usual_or_free(usual: u16) -> SocketAddr {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, usual));
    let port = if http::bind(address).is_ok() { usual } else { 0 };
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Scene {
    /// Starts everything, with its files in `directory`. `address` says where to listen instead of on a usual port.
    pub(super) async fn set(directory: &Path, address: fn(u16) -> SocketAddr) -> Result<Scene, AppError> {
        let upstream = upstream::start().await.map_err(AppError::Runtime)?;
        let admin_token = random("admin")?;
        let file = directory.join("keytoll.toml");
        let text = configuration(address(8080), address(8081), upstream, &directory.join("auth.db"));
        std::fs::write(&file, text).map_err(AppError::Runtime)?;
        let flags = Overrides { config: Some(file.clone()), ..Overrides::default() };
        let environment = Environment::of([("KEYTOLL_ADMIN_TOKEN", admin_token.expose())]);
        let loaded = config::load(&flags, &environment).map_err(DemoError::Config)?;
        let prefix = loaded.config.keys.prefix.clone();
        let running = app::start(loaded.config, None).await?;

        let store = running.store();
        let user =
            store.add_user(EMAIL, "Ada", OPENING_BALANCE).await.map_err(|error| fault(error, DemoError::User))?;
        let issued = store.issue_key(user.id, "weather", KeyStorage::Sha256, &prefix).await;
        let issued = issued.map_err(|error| fault(error, DemoError::Key))?;
        let facts = Facts {
            gateway: running.data_address(),
            admin: running.admin_address(),
            upstream,
            config: file,
            user: user.id,
            key: issued.key,
            admin_token,
        };
        Ok(Scene { running, facts })
    }
}

/// A secret in the form of an issued key.
fn random(prefix: &str) -> Result<ApiKey, DemoError> {
    let prefix = KeyPrefix::new(prefix).map_err(|_| DemoError::NoRandomness)?;
    IssuedKey::generate(&prefix).map(|issued| issued.key).map_err(|_| DemoError::NoRandomness)
}

fn fault<E>(error: WriteError<E>, refused: fn(E) -> DemoError) -> AppError {
    match error {
        WriteError::Refused(reason) => AppError::Demo(refused(reason)),
        // The demo's own database has no constraints that Keytoll does not know.
        WriteError::Constraint(_) => AppError::Database(Unavailable::Refused),
        WriteError::Unavailable(reason) => AppError::Database(reason),
    }
}

fn configuration(listen: SocketAddr, admin: SocketAddr, upstream: SocketAddr, database: &Path) -> String {
    // A basic string of TOML; a temporary directory has no control characters in its name.
    let database = database.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        r#"# The demo's configuration. The other commands work beside it: keytoll wallet show --user {EMAIL} --config THIS
[server]
listen = "{listen}"
workers = 2
drain_timeout_ms = 3000

[admin]
listen = "{admin}"

[database]
path = "{database}"
create = true

# For one who tries it: as few open files as every system allows.
[limits]
connections = 256
requests = 256

[[api]]
name = "weather"
path = "/weather"
strip_path = true
upstreams = ["http://{upstream}"]
price_cents = {price}

[[api.route]]
methods = ["POST"]
path = "/reports"
price_cents = {report_price}

[[api.route]]
path = "/status"
public = true
"#,
        price = PRICE.0,
        report_price = REPORT_PRICE.0,
    )
}
