//! Log lines: text on a terminal, JSON otherwise, always on standard error, so that standard output is the commands'.
//!
//! Lines are handed to a thread of their own through a bounded queue. When whoever reads them is too slow, lines are
//! dropped and counted: a log never stalls a request.

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogConfig, LogFormat};

/// Lines that wait for their writer.
const QUEUED_LINES: usize = 16_384;

/// Keeps the log going; dropped last, it writes what is still queued.
#[must_use = "lines are lost once it is dropped"]
pub struct Guard {
    _writer: WorkerGuard,
    dropped: DroppedLines,
    is_json: bool,
}

impl Guard {
    /// Whether lines are JSON.
    pub fn is_json(&self) -> bool {
        self.is_json
    }

    /// The count of lines that were dropped.
    pub fn dropped_lines(&self) -> DroppedLines {
        self.dropped.clone()
    }
}

/// How many log lines were dropped because their reader was too slow.
#[derive(Clone)]
pub struct DroppedLines(ErrorCounter);

impl DroppedLines {
    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.dropped_lines().try_into().unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for DroppedLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Why logging cannot begin.
#[derive(Debug)]
pub enum LogsError {
    /// The filter is not in `EnvFilter`'s form.
    Filter {
        /// The filter as it was written.
        text: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process logs already.
    AlreadyStarted,
}

impl fmt::Display for LogsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogsError::Filter { text, source } => {
                write!(
                    f,
                    "the log filter {text:?} is not one: {source}; write for example \"info,keytoll::access=off\""
                )
            }
            LogsError::AlreadyStarted => f.write_str("the process logs already"),
        }
    }
}

impl std::error::Error for LogsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LogsError::Filter { source, .. } => Some(source),
            LogsError::AlreadyStarted => None,
        }
    }
}

/// Sends the log of the whole process to standard error.
///
/// # Errors
/// A filter that is none, or a second call.
pub fn init(config: &LogConfig) -> Result<Guard, LogsError> {
    let is_terminal = io::stderr().is_terminal();
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUED_LINES).thread_name("log");
    let (writer, guard) = builder.finish(io::stderr());
    let dropped = DroppedLines(writer.error_counter());
    let subscriber = subscriber(config, is_terminal, writer)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogsError::AlreadyStarted)?;
    Ok(Guard { _writer: guard, dropped, is_json: is_json(config, is_terminal) })
}

fn is_json(config: &LogConfig, is_terminal: bool) -> bool {
    match config.format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    }
}

/// What formats and filters lines, into any writer.
fn subscriber<W>(
    config: &LogConfig,
    is_terminal: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogsError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(&config.filter)
        .map_err(|source| LogsError::Filter { text: config.filter.clone(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(if is_json(config, is_terminal) {
        Box::new(lines.json().flatten_event(true).with_current_span(false).with_span_list(false).finish())
    } else {
        Box::new(lines.with_ansi(is_terminal).finish())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::telemetry::access::AccessLine;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn config(format: LogFormat, filter: &str) -> LogConfig {
        LogConfig { format, filter: filter.to_owned() }
    }

    fn logged(config: &LogConfig, is_terminal: bool, event: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(config, is_terminal, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, event);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn access_line() -> AccessLine<'static> {
        AccessLine {
            listener: "data",
            request_id: "id-1",
            client: "10.0.0.9".parse().unwrap(),
            method: "GET",
            path: "/weather",
            api: Some("weather"),
            user_id: Some(7),
            key_id: None,
            status: 200,
            problem: None,
            cost_cents: Some(2),
            settlement: Some("captured"),
            charge_id: Some(9),
            request_bytes: 0,
            reply_bytes: 15,
            duration: Duration::from_nanos(1_234_567),
            upstream: Some(Duration::from_micros(900)),
        }
    }

    #[test]
    fn a_request_is_one_object_with_fixed_names() {
        let text = logged(&config(LogFormat::Auto, "info"), false, || access_line().emit());
        let mut line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(line.as_object_mut().unwrap().remove("timestamp").is_some());
        let expected = serde_json::json!({
            "level": "INFO", "target": "keytoll::access", "message": "request", "listener": "data", "request_id": "id-1",
            "client": "10.0.0.9", "method": "GET", "path": "/weather", "api": "weather", "user_id": 7, "status": 200,
            "cost_cents": 2, "settlement": "captured", "charge_id": 9, "request_bytes": 0, "reply_bytes": 15,
            "duration_ms": 1.235, "upstream_ms": 0.9,
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn access_lines_can_be_switched_off_alone() {
        let text = logged(&config(LogFormat::Json, "info,keytoll::access=off"), false, || {
            access_line().emit();
            tracing::info!("other");
        });
        assert!(text.contains("other") && !text.contains("id-1"), "{text}");
    }

    #[test]
    fn a_terminal_gets_text_and_nothing_else_gets_colours() {
        let event = || tracing::warn!("hello");
        assert!(logged(&config(LogFormat::Auto, "info"), true, event).contains("\u{1b}["));
        let piped = logged(&config(LogFormat::Text, "info"), false, event);
        assert!(piped.contains("WARN") && !piped.contains('\u{1b}') && !piped.starts_with('{'), "{piped}");
        assert!(logged(&config(LogFormat::Json, "info"), true, event).starts_with('{'));
    }

    #[test]
    fn a_bad_filter_is_named() {
        let refused = subscriber(&config(LogFormat::Auto, "keytoll=loudly"), false, io::sink).err().unwrap();
        assert!(refused.to_string().contains("keytoll=loudly"), "{refused}");
    }
}
