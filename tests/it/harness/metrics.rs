//! What `/metrics` says.

use std::net::SocketAddr;

use super::Request;

/// The sum of a metric's samples that have all of these labels, whatever their order; 0 when there is none. `admin` is
/// the address of the admin listener.
#[track_caller]
pub(crate) fn metric(admin: SocketAddr, name: &str, labels: &[(&str, &str)]) -> u64 {
    let reply = Request::new(admin, "GET", "/metrics").field("Connection", "close").send();
    assert_eq!(reply.status(), 200, "{reply:?}");
    let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    let samples = reply.text().lines().filter_map(|line| line.rsplit_once(' '));
    let samples = samples.filter(|(sample, _)| {
        let of_name = sample.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        of_name && labels.iter().all(|label| sample.contains(label))
    });
    samples.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}
