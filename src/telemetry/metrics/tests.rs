use std::time::Duration;

use http::StatusCode;

use super::*;

fn metrics() -> Metrics {
    let names = MetricNames {
        apis: &["weather".into(), "maps".into()],
        problems: &["missing-key", "no-route"],
        refusal_reasons: &["evicted"],
        settlements: &["captured", "released"],
    };
    Metrics::new(&names, None)
}

fn has_line(text: &str, line: &str) -> bool {
    text.lines().any(|there| there == line)
}

#[test]
fn a_request_is_counted_under_its_api_and_class() {
    let metrics = metrics();
    let weather = metrics.gateway.api(0).unwrap();
    weather.replied(StatusCode::NO_CONTENT, Duration::from_micros(500));
    weather.replied(StatusCode::OK, Duration::from_micros(501));
    weather.replied(StatusCode::from_u16(999).unwrap(), Duration::from_secs(90));
    weather.upstream_answered(Duration::from_millis(2));
    metrics.data.refused(1);
    metrics.data.refused(2);
    metrics.admin.connection_refused(0);
    metrics.gateway.settled(1);
    assert!(metrics.gateway.api(2).is_none());

    let text = metrics.encode();
    for line in [
        "keytoll_requests_total{api=\"weather\",status=\"2xx\"} 2",
        "keytoll_requests_total{api=\"weather\",status=\"5xx\"} 0",
        "keytoll_requests_total{api=\"maps\",status=\"2xx\"} 0",
        "keytoll_request_seconds_bucket{le=\"0.0005\",api=\"weather\"} 1",
        "keytoll_request_seconds_bucket{le=\"0.001\",api=\"weather\"} 2",
        "keytoll_request_seconds_bucket{le=\"60.0\",api=\"weather\"} 2",
        "keytoll_request_seconds_bucket{le=\"+Inf\",api=\"weather\"} 3",
        "keytoll_request_seconds_count{api=\"weather\"} 3",
        "keytoll_request_seconds_sum{api=\"weather\"} 90.001001",
        "keytoll_upstream_seconds_count{api=\"weather\"} 1",
        "keytoll_refusals_total{listener=\"data\",problem=\"missing-key\"} 0",
        "keytoll_refusals_total{listener=\"data\",problem=\"no-route\"} 1",
        "keytoll_connections_refused_total{listener=\"admin\",reason=\"evicted\"} 1",
        "keytoll_settlements_total{reason=\"captured\"} 0",
        "keytoll_settlements_total{reason=\"released\"} 1",
    ] {
        assert!(has_line(&text, line), "{line} is not in\n{text}");
    }
}

#[test]
fn every_part_counts_into_one_page() {
    let metrics = metrics();
    metrics.store.captures.inc();
    metrics.store.captured_cents.inc_by(25);
    metrics.store.batch_size.observe(3);
    metrics.store.commit_seconds.observe_duration(Duration::from_micros(85));
    metrics.auth.hits.inc();
    metrics.data.connections_open.inc();

    let text = metrics.encode();
    for line in [
        "keytoll_captures_total 1",
        "keytoll_captured_cents_total 25",
        "keytoll_batch_size_bucket{le=\"2.0\"} 0",
        "keytoll_batch_size_bucket{le=\"4.0\"} 1",
        "keytoll_batch_size_sum 3.0",
        "keytoll_commit_seconds_bucket{le=\"0.0001\"} 1",
        "keytoll_key_cache_hits_total 1",
        "keytoll_connections_open{listener=\"data\"} 1",
        "keytoll_holds_open 0",
        concat!("keytoll_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "# EOF",
    ] {
        assert!(has_line(&text, line), "{line} is not in\n{text}");
    }
}

#[test]
fn every_name_is_ours_and_registered_once() {
    let text = metrics().encode();
    let mut names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(names.iter().all(|name| name.starts_with("keytoll_")));
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}
