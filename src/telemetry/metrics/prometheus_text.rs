//! OpenMetrics text as Prometheus text 0.0.4, for readers that know only the older format.
//!
//! The samples are the same in both. What differs is the metadata: there is no type `info`, no unit, and no mark at the
//! end; and the name in `# HELP` and `# TYPE` is that of the samples (`…_total`, `…_info`).
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

/// Converts what `prometheus_client` writes: for each metric a `# HELP`, then a `# TYPE`, then its samples, none with an
/// exemplar.
pub(super) fn from_open_metrics(text: &str) -> String {
    let mut converted = String::with_capacity(text.len() + text.len() / 8);
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Written with the type, which says what the name becomes.
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "stateset" => ("", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                push(&mut converted, &["# HELP ", name, suffix, " ", help, "\n"]);
            }
            push(&mut converted, &["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            push(&mut converted, &[line, "\n"]);
        }
    }
    converted
}

fn push(text: &mut String, parts: &[&str]) {
    text.extend(parts.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_metadata_changes() {
        let open_metrics = "\
# HELP a_build The program.
# TYPE a_build info
a_build_info{version=\"1 # TYPE\"} 1
# HELP a_requests Requests, by # and type.
# TYPE a_requests counter
a_requests_total{status=\"2xx\"} 7
# HELP a_wait_seconds Waiting.
# TYPE a_wait_seconds histogram
# UNIT a_wait_seconds seconds
a_wait_seconds_sum 0.5
a_wait_seconds_count 1
a_wait_seconds_bucket{le=\"+Inf\"} 1
# HELP a_open Open.
# TYPE a_open gauge
a_open -1
# HELP a_other Other.
# TYPE a_other unknown
a_other 3.0
# EOF
";
        let text = "\
# HELP a_build_info The program.
# TYPE a_build_info gauge
a_build_info{version=\"1 # TYPE\"} 1
# HELP a_requests_total Requests, by # and type.
# TYPE a_requests_total counter
a_requests_total{status=\"2xx\"} 7
# HELP a_wait_seconds Waiting.
# TYPE a_wait_seconds histogram
a_wait_seconds_sum 0.5
a_wait_seconds_count 1
a_wait_seconds_bucket{le=\"+Inf\"} 1
# HELP a_open Open.
# TYPE a_open gauge
a_open -1
# HELP a_other Other.
# TYPE a_other untyped
a_other 3.0
";
        assert_eq!(from_open_metrics(open_metrics), text);
    }
}
