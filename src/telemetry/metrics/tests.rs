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

    let text = metrics.encode(Format::OpenMetrics);
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

    let text = metrics.encode(Format::OpenMetrics);
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
fn every_name_is_ours_or_the_process_and_registered_once() {
    for format in [Format::OpenMetrics, Format::PrometheusText] {
        let text = metrics().encode(format);
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut names: Vec<_> = types.map(|line| line.split(' ').next().unwrap()).collect();
        let (own, foreign): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.starts_with("keytoll_"));
        assert!(own.len() > 20, "{own:?}");
        let of_process = |name: &&str| {
            PROCESS_METRICS.iter().any(|known| known.trim_end_matches("_total") == name.trim_end_matches("_total"))
        };
        assert!(foreign.iter().all(of_process), "{foreign:?}");
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}

/// The names that all Prometheus client libraries use, and the number of threads.
const PROCESS_METRICS: [&str; 7] = [
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "process_virtual_memory_bytes",
];

fn value(text: &str, name: &str) -> f64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = lines.next().unwrap_or_else(|| panic!("{name} is not in\n{text}"));
    assert_eq!(lines.next(), None, "{name}");
    value.parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_is_read_from_proc_at_each_scrape() {
    let text = metrics().encode(Format::PrometheusText);
    let of = |name: &str| value(&text, name);
    PROCESS_METRICS.iter().for_each(|name| assert!(of(name) >= 0.0, "{name}"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let age = now - of("process_start_time_seconds");
    // The kernel rounds the time of the boot to seconds.
    assert!((-2.0..24.0 * 3600.0).contains(&age), "{age}");
    assert!(of("process_threads") >= 1.0 && of("process_threads") < 10_000.0);
    assert!(of("process_open_fds") >= 3.0 && of("process_open_fds") <= of("process_max_fds"));
    let (resident, all) = (of("process_resident_memory_bytes"), of("process_virtual_memory_bytes"));
    assert!(resident > 1e6 && resident <= all, "{resident} {all}");

    let files: Vec<_> = (0..200).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    // Other tests of this process open and close files meanwhile, but not a hundred.
    let text = metrics().encode(Format::PrometheusText);
    assert!(value(&text, "process_open_fds") >= of("process_open_fds") + 100.0);
    drop(files);
}

#[test]
fn prometheus_text_has_the_same_samples_without_the_metadata_that_it_does_not_know() {
    let metrics = metrics();
    metrics.store.captures.inc_by(3);
    let text = metrics.encode(Format::PrometheusText);
    for line in [
        "# TYPE keytoll_captures_total counter",
        "# HELP keytoll_captures_total Captures committed.",
        "keytoll_captures_total 3",
        "# TYPE keytoll_build_info gauge",
        "# TYPE keytoll_request_seconds histogram",
        "# TYPE keytoll_holds_open gauge",
    ] {
        assert!(has_line(&text, line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("# EOF") && !text.contains("# UNIT") && !text.contains(" info\n"), "{text}");
    let is_sample = |line: &&str| !line.starts_with(['#']) && line.starts_with("keytoll_");
    let open_metrics = metrics.encode(Format::OpenMetrics);
    assert!(text.lines().filter(is_sample).eq(open_metrics.lines().filter(is_sample)));
    assert!(open_metrics.ends_with("# EOF\n") && has_line(&open_metrics, "# TYPE keytoll_captures counter"));
}
