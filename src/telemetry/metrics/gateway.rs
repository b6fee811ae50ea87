//! What the request path counts.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::histogram::{Histogram, REQUEST_TIMES, Unit};
use super::increment;

/// Handles of the request path.
#[derive(Debug)]
pub struct GatewayMetrics {
    apis: Box<[ApiMetrics]>,
    settlements: Box<[Counter]>,
}

/// Handles of one API.
#[derive(Debug)]
pub struct ApiMetrics {
    /// By first digit of the status, from 1.
    replies: [Counter; 5],
    duration: Histogram,
    upstream_duration: Histogram,
}

type ApiLabel = [(&'static str, Arc<str>); 1];
type ReplyLabels = [(&'static str, Arc<str>); 2];

impl GatewayMetrics {
    /// `settlements`: the name of every reason why a hold was captured or released.
    pub(super) fn new(registry: &mut Registry, apis: &[Arc<str>], settlements: &[&'static str]) -> GatewayMetrics {
        let replies: Family<ReplyLabels, Counter> = Family::default();
        let durations: Family<ApiLabel, Histogram, fn() -> Histogram> = Family::new_with_constructor(times);
        let upstream_durations: Family<ApiLabel, Histogram, fn() -> Histogram> = Family::new_with_constructor(times);
        let settled: Family<[(&'static str, &'static str); 1], Counter> = Family::default();
        registry.register("requests", "Requests answered, by class of status", replies.clone());
        registry.register("request_seconds", "From a request's head to the end of its reply", durations.clone());
        let help = "From forwarding a request to the head of the upstream's reply";
        registry.register("upstream_seconds", help, upstream_durations.clone());
        let help = "Requests with a hold, by the reason why they were charged or not";
        registry.register("settlements", help, settled.clone());

        let of_api = |name: &Arc<str>| ApiMetrics {
            replies: ["1xx", "2xx", "3xx", "4xx", "5xx"]
                .map(|class| replies.get_or_create_owned(&[("api", name.clone()), ("status", class.into())])),
            duration: durations.get_or_create_owned(&[("api", name.clone())]),
            upstream_duration: upstream_durations.get_or_create_owned(&[("api", name.clone())]),
        };
        let apis = apis.iter().map(of_api).collect();
        let settlements =
            settlements.iter().map(|reason| settled.get_or_create_owned(&[("reason", *reason)])).collect();
        GatewayMetrics { apis, settlements }
    }

    /// The handles of an API, by its index in the configuration; `None` past the last.
    pub fn api(&self, index: usize) -> Option<&ApiMetrics> {
        self.apis.get(index)
    }

    /// Counts a request with a hold, by the index of its settlement in the list that the metrics were made with.
    pub fn settled(&self, settlement: usize) {
        increment(&self.settlements, settlement);
    }
}

impl ApiMetrics {
    /// Counts a reply that has ended.
    pub fn replied(&self, status: http::StatusCode, duration: Duration) {
        let class = usize::from(status.as_u16() / 100);
        if let Some(counter) = class.checked_sub(1).and_then(|place| self.replies.get(place)) {
            counter.inc();
        }
        self.duration.observe_duration(duration);
    }

    /// Counts the head of an upstream's reply.
    pub fn upstream_answered(&self, duration: Duration) {
        self.upstream_duration.observe_duration(duration);
    }
}

fn times() -> Histogram {
    Histogram::new(Unit::Microseconds, REQUEST_TIMES)
}
