//! Config -> running parts: the only wiring, and the order in which things start and stop.
//!
//! Start: database, ports, workers, then the first request. Stop: `/readyz` says no, the listener closes, requests
//! finish or are cut at the deadline, every hold is settled, the workers end, the books are closed. Nothing above or
//! below knows this order.

pub mod demo;
mod error;
mod listeners;
mod open_files;
mod startup;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

pub use error::AppError;
use startup::StoreThread;

use crate::auth::Auth;
use crate::billing::SettlementReason;
use crate::config::{Config, Environment, KeyStorage, Loaded, LogFormat, Overrides};
use crate::failpoint;
use crate::gateway::{Parts, Readiness, RouteTable, Shared};
use crate::http::{self, Lifecycle, ProblemKind, RefusalReason, Server, Workers};
use crate::model::RouteId;
use crate::store::{Fatal, Opening, Store, Unavailable};
use crate::telemetry::logs::{self, DroppedLines};
use crate::telemetry::metrics::{MetricNames, Metrics};

/// The end of the time for a drain: for the last settlements and for closing the books.
const CLOSING: Duration = Duration::from_secs(1);

/// How often the sizes of the caches are measured.
const MEASURE: Duration = Duration::from_secs(5);

/// A running gateway.
pub struct Running {
    store: Store,
    workers: Workers,
    server: Server,
    admin_workers: Workers,
    admin_server: Server,
    lifecycle: Arc<Lifecycle>,
    drain_delay: Duration,
    drain_timeout: Duration,
}

/// Reads the configuration and runs a gateway until a signal ends it. A signal ends the start as well. Blocks.
///
/// # Errors
/// What kept it from starting, or made going on unsafe.
pub fn serve(flags: Overrides, environment: Environment) -> Result<(), AppError> {
    let mut guard = None;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Runtime)?;
    let result = runtime.block_on(async {
        // Before anything that can block: a process that is the first of its container ignores signals without handlers.
        let mut signals = Signals::new().map_err(AppError::Runtime)?;
        let loaded = startup::read_configuration(flags, environment, &mut signals).await?;
        let Some(Loaded { config, file }) = loaded else { return Ok(()) };
        let dropped_lines = guard.insert(logs::init(&config.log)?).dropped_lines();
        match &file {
            Some(file) => tracing::info!(file = %file.display(), "configuration read"),
            None => tracing::info!("no configuration file: flags and environment alone"),
        }
        let mut store_thread = StoreThread::default();
        let started = tokio::select! {
            started = assemble(config, Some(dropped_lines), &mut store_thread) => Ok(started),
            name = signals.next() => Err(name),
        };
        let running = match started {
            Ok(Ok(running)) => running,
            Ok(Err(error)) => {
                store_thread.close_or_signal(&mut signals).await;
                return Err(error);
            }
            Err(name) => {
                store_thread.close_after_signal(name, &mut signals).await;
                return Ok(());
            }
        };
        let fatal = running.run_until(&mut signals).await;
        running.stop(&mut signals).await;
        match fatal {
            Some(fatal) => Err(AppError::Fatal(fatal)),
            None => Ok(()),
        }
    });
    drop(runtime);
    result.map_err(|error| log_as_json(error, guard.as_ref()))
}

/// Where log lines are JSON, the error that ends the program is one, too. `guard`: of the log, if it has begun; a
/// configuration that is refused names its own format.
fn log_as_json(error: AppError, guard: Option<&logs::Guard>) -> AppError {
    let own = match &error {
        AppError::Config(errors) if errors.log.format == LogFormat::Json => logs::init(&errors.log).ok(),
        _ => None,
    };
    if !guard.or(own.as_ref()).is_some_and(logs::Guard::is_json) {
        return error;
    }
    match &error {
        AppError::Config(errors) => errors.mistakes.iter().for_each(|mistake| tracing::error!("{mistake}")),
        error => tracing::error!("{error}"),
    }
    AppError::Logged(Box::new(error))
}

/// Starts a gateway; it serves when this comes back. `dropped_lines`: of the log, for the metrics.
///
/// # Errors
/// What keeps it from starting; nothing is left running then.
pub async fn start(config: Config, dropped_lines: Option<DroppedLines>) -> Result<Running, AppError> {
    let mut store_thread = StoreThread::default();
    let started = assemble(config, dropped_lines, &mut store_thread).await;
    if started.is_err() {
        store_thread.close().await;
    }
    started
}

/// Starts every part, in order. Dropping the future leaves the store to its thread.
async fn assemble(
    config: Config,
    dropped_lines: Option<DroppedLines>,
    store_thread: &mut StoreThread,
) -> Result<Running, AppError> {
    failpoint::arm(config.fail_point.as_ref());
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let names = config.api_names();
    let names_of_labels = MetricNames {
        apis: &names,
        problems: ProblemKind::CODES,
        refusal_reasons: &RefusalReason::NAMES,
        settlements: &SettlementReason::NAMES,
    };
    let metrics = Arc::new(Metrics::new(&names_of_labels, dropped_lines));
    open_files::allow(&config.limits, config.server.workers);
    // The ports first: a second gateway that is started by mistake never touches the database.
    let data = http::bind(config.server.listen)?;
    let admin = http::bind(config.admin.listen)?;
    let (store, opening) = store_thread.open(&config, &metrics.store).await?;
    tell(&opening, &config);
    let routes = Arc::new(RouteTable::new(&config.apis));
    let route_ids = number_routes(&store, &routes).await?;
    let lifecycle = Arc::new(Lifecycle::default());
    let readiness = Readiness::new(store.clone(), Arc::clone(&lifecycle));
    let auth = Auth::new(store.clone(), &config.keys, &config.limits, &names, Arc::clone(&metrics.auth));
    tokio::spawn(measure(auth.clone()));
    tokio::spawn(warn_of_unknown_apis(store.clone(), names));
    let shared = Arc::new(Shared::new(Parts {
        routes,
        route_ids,
        sources: config.keys.sources.clone(),
        prefix: config.keys.prefix.clone(),
        auth,
        limits: config.limits.clone(),
        readiness,
    }));
    let workers = listeners::start_data(&config, &store, &shared, &metrics, &lifecycle).await?;
    let admin_workers = listeners::start_admin(&config, &store, &metrics, &lifecycle).await?;
    let admin_server = admin_workers.serve(admin).map_err(AppError::Runtime)?;
    let server = workers.serve(data).map_err(AppError::Runtime)?;
    store_thread.keep();
    tracing::info!(clients = %server.local_addr(), operators = %admin_server.local_addr(), "keytoll serves");
    Ok(Running {
        store,
        workers,
        server,
        admin_workers,
        admin_server,
        lifecycle,
        drain_delay: config.server.drain_delay,
        drain_timeout: config.server.drain_timeout,
    })
}

/// Every route has its number in the books before the first request.
async fn number_routes(store: &Store, routes: &RouteTable) -> Result<Vec<RouteId>, Unavailable> {
    let mut ids = Vec::with_capacity(routes.routes().len());
    for route in routes.routes() {
        let api = routes.apis().get(route.api).map_or("", |api| &*api.name);
        ids.push(store.route_id(api, &route.label).await?);
    }
    Ok(ids)
}

/// Says what opening the database found.
fn tell(opening: &Opening, config: &Config) {
    let path = config.database.path.display();
    tracing::info!(database = %path, "database open");
    let set_up = &opening.set_up;
    if set_up.any() {
        tracing::info!(
            tables = set_up.tables,
            wallets = opening.adopted_wallets,
            journal_mode_changed_to_wal = set_up.was_rollback,
            upgraded = set_up.is_upgrade,
            "database set up: tables made, wallets of the application taken onto the books"
        );
    }
    if opening.external_entries > 0 {
        tracing::info!(entries = opening.external_entries, "balances that changed while Keytoll was away were entered");
    }
    opening.recovered.log();
    if !opening.foreign_triggers.is_empty() {
        let triggers = opening.foreign_triggers.join(", ");
        tracing::warn!(triggers, "the application's own triggers on the shared tables do not run for Keytoll's writes");
    }
    if !opening.required_columns.is_empty() {
        let columns = opening.required_columns.join(", ");
        tracing::warn!(
            columns,
            "columns of the application that must not be NULL and have no default: Keytoll cannot add rows to their tables, and \
             serves what the application adds"
        );
    }
    if opening.has_plain_keys && !config.keys.storage_is_explicit && config.keys.storage == KeyStorage::Sha256 {
        tracing::warn!(
            "this file holds plain keys, and new ones will be stored as SHA-256: an application that shows or compares \
             keys from that column will not find them; set keys.storage to \"plain\", or to \"sha256\" to say that this is meant"
        );
    }
}

/// Reads every key, so that the start does not wait for it.
async fn warn_of_unknown_apis(store: Store, names: Vec<Arc<str>>) {
    match store.unknown_apis(names).await {
        Ok(Some(found)) => tracing::warn!("{found}"),
        Ok(None) => {}
        Err(reason) => tracing::debug!(%reason, "the APIs of keys could not be compared with the configuration"),
    }
}

async fn measure(auth: Auth) {
    let mut ticks = tokio::time::interval(MEASURE);
    loop {
        ticks.tick().await;
        auth.measure();
    }
}

impl Running {
    /// Where clients connect.
    pub fn data_address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Where operators connect.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_server.local_addr()
    }

    /// The open database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Waits for a signal, or for a reason to stop at once.
    async fn run_until(&self, signals: &mut Signals) -> Option<Fatal> {
        tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "shutting down; send the signal again to stop immediately");
                None
            }
            fatal = unsafe_to_go_on(self.store.fatal()) => Some(fatal),
        }
    }

    /// Stops in order; a second signal cuts what is left.
    async fn stop(self, signals: &mut Signals) {
        let at_once = async {
            let name = signals.next().await;
            tracing::warn!(signal = name, "stopping immediately");
        };
        self.shut_down(at_once).await;
    }

    /// Stops as configured.
    pub async fn drain(self) {
        self.shut_down(std::future::pending()).await;
    }

    /// One deadline for everything: both listeners, the last settlements, and closing the books.
    async fn shut_down(self, at_once: impl Future<Output = ()>) {
        let Running { store, workers, server, admin_workers, admin_server, lifecycle, drain_delay, drain_timeout } =
            self;
        lifecycle.begin_drain();
        let is_unsafe = store.fatal().borrow().is_some();
        let drain_timeout = if is_unsafe { Duration::ZERO } else { drain_timeout };
        let now = Instant::now();
        let deadline = now + drain_timeout;
        let closing = CLOSING.min(drain_timeout / 5);
        let cut_at = deadline - closing;
        let in_order = async {
            if !is_unsafe {
                sleep_until(cut_at.min(now + drain_delay)).await;
            }
            drain(server, cut_at).await;
            // Requests whose clients have left are settled by tasks of their own.
            if timeout_at(cut_at + closing / 4, store.settled()).await.is_err() {
                tracing::warn!(
                    charges = store.open_charges(),
                    "requests whose clients have left are cut off; their holds are released"
                );
            }
            // Probes and metrics are served until here.
            drain(admin_server, cut_at + closing / 2).await;
        };
        tokio::select! {
            () = in_order => {}
            () = at_once => {}
        }
        lifecycle.begin_cut();
        workers.stop().await;
        admin_workers.stop().await;
        if timeout_at(deadline.max(Instant::now() + CLOSING / 2), store.settled()).await.is_err() {
            tracing::error!(
                charges = store.open_charges(),
                "not everything could be settled; the next start releases the rest"
            );
        }
        // Joins threads: nothing else runs on this runtime now.
        store.close();
        tracing::info!("stopped");
    }
}

/// Drains a listener; what is left at the deadline is cut off.
async fn drain(server: Server, deadline: Instant) {
    let drained = server.drain(deadline.saturating_duration_since(Instant::now())).await;
    if drained.cut > 0 {
        tracing::warn!(
            connections = drained.cut,
            "connections were cut off at the deadline; what they held is released"
        );
    }
}

async fn unsafe_to_go_on(mut fatal: watch::Receiver<Option<Fatal>>) -> Fatal {
    match fatal.wait_for(Option::is_some).await.map(|fatal| *fatal) {
        Ok(Some(fatal)) => fatal,
        Ok(None) | Err(_) => Fatal::WriterDied,
    }
}

/// Sent when a file meets its limit (`ulimit -f`), with the same number on all machines that this is built for.
const SIGXFSZ: i32 = 25;

/// SIGTERM and SIGINT; SIGHUP, which is logged and ignored; and SIGXFSZ, which has no effect.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        // The write that met the limit fails, which is enough to know; the process must not end of it.
        drop(signal(SignalKind::from_raw(SIGXFSZ))?);
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP is ignored: a new configuration takes effect after a restart");
                }
            }
        }
    }
}
