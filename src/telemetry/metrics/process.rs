//! The `process_*` metrics that Prometheus client libraries agree on, and the number of threads, read from `/proc` at each
//! scrape. There are none on systems other than Linux.
//!
//! <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

#[derive(Debug)]
pub(super) struct ProcessCollector;

#[cfg(target_os = "linux")]
impl Collector for ProcessCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Without `/proc` the metrics are missing; the others are still shown.
        linux::read().map_or(Ok(()), |process| process.encode(encoder))
    }
}

#[cfg(not(target_os = "linux"))]
impl Collector for ProcessCollector {
    fn encode(&self, _: DescriptorEncoder<'_>) -> fmt::Result {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use procfs::WithCurrentSystemInfo;
    use procfs::process::{LimitValue, Process};
    use prometheus_client::encoding::EncodeMetric;
    use prometheus_client::metrics::counter::ConstCounter;
    use prometheus_client::metrics::gauge::ConstGauge;

    use super::{DescriptorEncoder, fmt};

    /// The process as `/proc` describes it at one moment.
    pub(super) struct ProcessState {
        cpu_seconds: f64,
        /// Since 1970-01-01T00:00:00Z.
        started_seconds: f64,
        threads: i64,
        open_files: u64,
        /// `None`: no limit.
        max_files: Option<u64>,
        resident_bytes: u64,
        virtual_bytes: u64,
    }

    pub(super) fn read() -> Option<ProcessState> {
        let process = Process::myself().ok()?;
        let stat = process.stat().ok()?;
        let ticks_per_second = procfs::ticks_per_second() as f64;
        let max_files = match process.limits().ok()?.max_open_files.soft_limit {
            LimitValue::Value(files) => Some(files),
            LimitValue::Unlimited => None,
        };
        Some(ProcessState {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks_per_second,
            started_seconds: procfs::boot_time_secs().ok()? as f64 + stat.starttime as f64 / ticks_per_second,
            threads: stat.num_threads,
            open_files: process.fd_count().ok()? as u64,
            max_files,
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
        })
    }

    impl ProcessState {
        pub(super) fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
            let mut write = |name: &str, help: &str, metric: &dyn EncodeMetric| {
                metric.encode(to.encode_descriptor(name, help, None, metric.metric_type())?)
            };
            let cpu = ConstCounter::new(self.cpu_seconds);
            write("process_cpu_seconds", "User and system CPU time spent, in seconds", &cpu)?;
            let started = ConstGauge::new(self.started_seconds);
            write("process_start_time_seconds", "When the process started, in seconds since 1970", &started)?;
            write("process_threads", "Threads of the process", &ConstGauge::new(self.threads))?;
            write("process_open_fds", "Open file descriptors", &ConstGauge::new(self.open_files))?;
            if let Some(max_files) = self.max_files {
                write("process_max_fds", "The limit on open file descriptors", &ConstGauge::new(max_files))?;
            }
            let resident = ConstGauge::new(self.resident_bytes);
            write("process_resident_memory_bytes", "Resident memory, in bytes", &resident)?;
            write("process_virtual_memory_bytes", "Virtual memory, in bytes", &ConstGauge::new(self.virtual_bytes))
        }
    }
}
