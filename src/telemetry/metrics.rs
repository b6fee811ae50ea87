//! Metrics, in OpenMetrics or Prometheus text.
//!
//! Each part is given its own struct of handles, resolved when the program starts: counting is an atomic addition, with
//! no label looked up and no lock taken. Everything is registered in one registry, which only [`Metrics::encode`] reads.

mod auth;
mod edge;
mod gateway;
mod histogram;
mod process;
mod prometheus_text;
mod store;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use auth::AuthMetrics;
pub use edge::EdgeMetrics;
pub use gateway::{ApiMetrics, GatewayMetrics};
pub use histogram::{Histogram, Unit};
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use store::StoreMetrics;

use super::logs::DroppedLines;
use process::ProcessCollector;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    PrometheusText,
    /// OpenMetrics text 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::PrometheusText => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The values of the labels that are known when the program starts, each in the order of its index.
#[derive(Clone, Copy, Debug, Default)]
pub struct MetricNames<'a> {
    /// The names of the APIs.
    pub apis: &'a [Arc<str>],
    /// The codes of all problems.
    pub problems: &'a [&'static str],
    /// The reasons why a connection is closed before a request.
    pub refusal_reasons: &'a [&'static str],
    /// The reasons why a hold is captured or released.
    pub settlements: &'a [&'static str],
}

/// All metrics of the process; made once.
#[derive(Debug)]
pub struct Metrics {
    /// For the data listener.
    pub data: Arc<EdgeMetrics>,
    /// For the admin listener.
    pub admin: Arc<EdgeMetrics>,
    /// For the request path.
    pub gateway: Arc<GatewayMetrics>,
    /// For the view of the keys.
    pub auth: Arc<AuthMetrics>,
    /// For the database.
    pub store: Arc<StoreMetrics>,
    registry: Registry,
    /// Metrics whose names do not begin with `keytoll_`.
    process: Registry,
}

impl Metrics {
    /// `dropped_lines`: `None` where the process does not log.
    pub fn new(names: &MetricNames<'_>, dropped_lines: Option<DroppedLines>) -> Metrics {
        let mut registry = Registry::with_prefix("keytoll");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that is running", build);
        let listeners = edge::edge_metrics(&mut registry, ["data", "admin"], names.problems, names.refusal_reasons);
        let [data, admin] = listeners.map(Arc::new);
        let gateway = Arc::new(GatewayMetrics::new(&mut registry, names.apis, names.settlements));
        let auth = Arc::new(AuthMetrics::new(&mut registry));
        let store = Arc::new(StoreMetrics::new(&mut registry));
        if let Some(lines) = dropped_lines {
            registry.register_collector(Box::new(DroppedLinesCollector(lines)));
        }
        let mut process = Registry::default();
        process.register_collector(Box::new(ProcessCollector));
        Metrics { data, admin, gateway, auth, store, registry, process }
    }

    /// Everything, as text in this format.
    pub fn encode(&self, format: Format) -> String {
        let open_metrics = self.encode_open_metrics().expect("a String takes any text");
        match format {
            Format::PrometheusText => prometheus_text::from_open_metrics(&open_metrics),
            Format::OpenMetrics => open_metrics,
        }
    }

    fn encode_open_metrics(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &self.process)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct DroppedLinesCollector(DroppedLines);

impl Collector for DroppedLinesCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counter = ConstCounter::new(self.0.get());
        let help = "Log lines dropped because their reader was too slow";
        counter.encode(encoder.encode_descriptor("log_lines_dropped", help, None, counter.metric_type())?)
    }
}

/// Registers what a struct of handles is made of. Names go without `keytoll_` in front; counters without `_total`.
struct Register<'r>(&'r mut Registry);

impl Register<'_> {
    fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.0.register(name, help, counter.clone());
        counter
    }

    fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.0.register(name, help, gauge.clone());
        gauge
    }

    fn histogram(&mut self, name: &str, help: &str, unit: Unit, bounds: &'static [u64]) -> Histogram {
        let histogram = Histogram::new(unit, bounds);
        self.0.register(name, help, histogram.clone());
        histogram
    }
}

/// Increments the counter at `index`, if there is one.
fn increment(counters: &[Counter], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.inc();
    }
}

#[cfg(test)]
mod tests;
