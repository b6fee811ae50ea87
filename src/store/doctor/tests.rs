//! Files that are right, files that were tampered with, files in use.

mod in_use;
mod repair;
mod tampered;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use tempfile::TempDir;

use crate::config::{DatabaseConfig, Durability, Limits};
use crate::model::Cents;
use crate::store::doctor::{Check, Finding, Report, Severity, examine};
use crate::store::sample::Sample;
use crate::store::{Role, Store};
use crate::telemetry::metrics::{MetricNames, Metrics};

/// A file with users 1 to 5, each with 500 cents, on which no gateway runs.
struct File {
    directory: TempDir,
}

impl File {
    async fn new() -> File {
        let file = File { directory: tempfile::tempdir().unwrap() };
        let store = file.open();
        for name in ["a", "b", "c", "d", "e"] {
            store.add_user(&format!("{name}@example.com"), "Somebody", Cents(500)).await.unwrap();
        }
        store.close();
        file
    }

    fn database(&self) -> DatabaseConfig {
        DatabaseConfig {
            path: self.directory.path().join("auth.db"),
            create: true,
            file_mode: 0o600,
            durability: Durability::Full,
            keep_charges: None,
        }
    }

    fn open(&self) -> Store {
        let metrics = Metrics::new(&MetricNames::default(), None);
        Store::open(&self.database(), &Limits::default(), Role::Tool, metrics.store).unwrap().0
    }

    fn connect(&self) -> Connection {
        Connection::open(self.database().path).unwrap()
    }

    fn examine(&self) -> Report {
        examine(&self.database()).unwrap()
    }

    /// What another program writes, with triggers and all.
    fn application(&self, sql: &str) {
        self.connect().execute_batch(sql).unwrap();
    }

    /// What no trigger sees.
    fn behind_its_back(&self, sql: &str) {
        let connection = self.connect();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    /// The only finding that is wrong.
    fn only_wrong(&self) -> Finding {
        let report = self.examine();
        assert!(!report.holds());
        let mut wrong = wrong(&report);
        assert_eq!(wrong.len(), 1, "{wrong:#?}");
        wrong.remove(0)
    }
}

/// Examines the file of a store that is open.
fn examined(sample: &Sample) -> Report {
    let path = sample.application().path().unwrap().into();
    examine(&DatabaseConfig { path, create: false, file_mode: 0o600, durability: Durability::Full, keep_charges: None })
        .unwrap()
}

fn wrong(report: &Report) -> Vec<Finding> {
    report.findings.iter().filter(|finding| finding.severity == Severity::Wrong).cloned().collect()
}

/// Who and how much, for one check.
fn of_check(report: &Report, check: Check) -> Vec<(i64, i64)> {
    let found = report.findings.iter().filter(|finding| finding.check == check);
    found.map(|finding| (finding.user_id.map_or(0, |id| id.0), finding.cents.map_or(0, |cents| cents.0))).collect()
}
