//! The admin listener as a running part: served by the control thread, so that no operator slows a worker.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::admin::{self, AdminSettings, HostCheck};
use crate::config::Config;
use crate::server::Bound;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// How long requests of operators may take to finish at a stop.
const FINISH: Duration = Duration::from_secs(2);

pub(super) struct Operators {
    pub(super) address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Operators {
    pub(super) fn serve(
        bound: Bound,
        config: &Config,
        store: Store,
        metrics: Arc<Metrics>,
        draining: Arc<AtomicBool>,
    ) -> io::Result<Operators> {
        let address = bound.local_addr();
        let listener = bound.into_listener()?;
        let settings = AdminSettings {
            token: config.admin.token.clone(),
            apis: config.apis.iter().map(|api| Arc::clone(&api.name)).collect(),
            storage: config.keys.storage,
            prefix: config.keys.prefix.clone(),
            body_bytes: config.limits.admin_body_bytes,
            body_timeout: config.limits.request_body_idle,
            host_check: HostCheck::new(address.ip(), &config.admin.hosts),
        };
        let router = admin::router(store, metrics, draining, settings);
        let (stop, stopped) = oneshot::channel();
        let limits = config.limits.clone();
        let served = tokio::spawn(async move {
            // A sender that is gone means the same as one that has spoken.
            let stopped = async { drop(stopped.await) };
            admin::serve(listener, router, &limits, stopped).await;
        });
        Ok(Operators { address, stop, served })
    }

    pub(super) async fn stop(self) {
        // One that ended by itself needs no telling.
        let _ = self.stop.send(());
        let cut = self.served.abort_handle();
        if timeout(FINISH, self.served).await.is_err() {
            cut.abort();
            tracing::warn!("requests of operators were cut");
        }
    }
}
