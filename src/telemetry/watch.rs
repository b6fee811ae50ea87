//! Requests for somebody who watches: each access line as a value instead of a line of text.
//!
//! For a program that shows its requests as they come, such as the demo. The watcher is told through a bounded queue;
//! what it is too slow for is dropped, and never stalls a request.

use std::fmt;
use std::io;

use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::access;
use super::logs::LogsError;

/// Requests that wait to be shown.
const QUEUED_REQUESTS: usize = 1_024;

/// What an access line says of one request, as far as a watcher wants to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The status of the reply.
    pub status: u16,
    /// The code of the problem, when Keytoll itself answered.
    pub problem: Option<String>,
    /// `users.id` of the payer.
    pub user_id: Option<i64>,
    /// What was captured; nothing when nothing was.
    pub cost_cents: i64,
    /// The charge, captured or released.
    pub charge_id: Option<i64>,
}

/// Sends requests to a watcher, and warnings of the whole process to standard error, instead of a log.
///
/// # Errors
/// The process logs already.
pub fn init() -> Result<mpsc::Receiver<Seen>, LogsError> {
    let (watch, requests) = watcher();
    let warnings = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_filter(LevelFilter::WARN);
    let subscriber = tracing_subscriber::registry().with(watch).with(warnings);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogsError::AlreadyStarted)?;
    Ok(requests)
}

/// The layer that takes access lines, and where they come out.
fn watcher<S>() -> (impl Layer<S>, mpsc::Receiver<Seen>)
where
    S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let (sender, requests) = mpsc::channel(QUEUED_REQUESTS);
    let access_lines = Targets::new().with_target(access::TARGET, Level::INFO);
    (Watch { sender }.with_filter(access_lines), requests)
}

struct Watch {
    sender: mpsc::Sender<Seen>,
}

impl<S: Subscriber> Layer<S> for Watch {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut seen = Seen::default();
        event.record(&mut seen);
        // Full or gone: nobody watches as fast, or at all.
        drop(self.sender.try_send(seen));
    }
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "method" => value.clone_into(&mut self.method),
            "path" => value.clone_into(&mut self.path),
            "problem" => self.problem = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        match field.name() {
            "user_id" => self.user_id = Some(value),
            "cost_cents" => self.cost_cents = value,
            "charge_id" => self.charge_id = Some(value),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "status" {
            self.status = u16::try_from(value).unwrap_or_default();
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::access::AccessLine;

    #[test]
    fn a_watcher_is_told_of_requests_and_of_nothing_else() {
        let (layer, mut requests) = watcher();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!("something else");
            AccessLine {
                listener: "data",
                request_id: "id-1",
                client: "127.0.0.1".parse().unwrap(),
                method: "POST",
                path: "/weather/reports",
                api: Some("weather"),
                user_id: Some(7),
                key_id: Some(8),
                status: 402,
                problem: Some("insufficient-funds"),
                cost_cents: Some(25),
                settlement: Some("captured"),
                charge_id: Some(9),
                request_bytes: 3,
                reply_bytes: 5,
                duration: Duration::from_millis(1),
                upstream: None,
            }
            .emit();
        });
        let expected = Seen {
            method: "POST".into(),
            path: "/weather/reports".into(),
            status: 402,
            problem: Some("insufficient-funds".into()),
            user_id: Some(7),
            cost_cents: 25,
            charge_id: Some(9),
        };
        assert_eq!(requests.try_recv().unwrap(), expected);
        assert!(requests.try_recv().is_err());
    }
}
