//! What the database's writer and readers count.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Register;
use super::histogram::{COMMIT_TIMES, Histogram, SIZES, Unit};

/// Handles of the store. A hold, capture or release is counted when it is committed.
#[derive(Debug)]
pub struct StoreMetrics {
    /// Holds.
    pub holds: Counter,
    /// What they took, in cents.
    pub held_cents: Counter,
    /// Captures.
    pub captures: Counter,
    /// What they made final, in cents.
    pub captured_cents: Counter,
    /// Releases.
    pub releases: Counter,
    /// What they gave back, in cents.
    pub released_cents: Counter,
    /// Captured charges that were given back.
    pub refunds: Counter,
    /// Holds that are not settled.
    pub holds_open: Gauge,
    /// Accounts of which this gateway leases money.
    pub leases: Gauge,
    /// How much it leases.
    pub leased_cents: Gauge,
    /// Entries for what other programs did to balances.
    pub external_entries: Counter,
    /// Messages in one transaction.
    pub batch_size: Histogram,
    /// Messages waiting for the writer.
    pub queue_depth: Gauge,
    /// From the begin of a transaction to the end of its commit.
    pub commit_seconds: Histogram,
    /// Syncs of the write-ahead log, which captures under durability `full` and operators' writes wait for.
    pub sync_seconds: Histogram,
    /// Transactions that could not be committed.
    pub commits_failed: Counter,
    /// Reads waiting for a connection.
    pub reads_queued: Gauge,
    /// Wallets that the writer remembers.
    pub wallets_cached: Gauge,
    /// Bytes of the write-ahead log.
    pub wal_bytes: Gauge,
    /// Checkpoints.
    pub checkpoints: Counter,
    /// Old charges that became usage.
    pub charges_rolled_up: Counter,
    /// Users whose wallet was not what the books say, when they were last compared.
    pub books_unbalanced_users: Gauge,
    /// When that was, in seconds since 1970; 0 before the first time.
    pub books_checked_seconds: Gauge,
}

impl StoreMetrics {
    pub(super) fn new(registry: &mut Registry) -> StoreMetrics {
        let mut register = Register(registry);
        StoreMetrics {
            holds: register.counter("holds", "Holds committed"),
            held_cents: register.counter("held_cents", "Cents taken by holds"),
            captures: register.counter("captures", "Captures committed"),
            captured_cents: register.counter("captured_cents", "Cents made final by captures"),
            releases: register.counter("releases", "Releases committed"),
            released_cents: register.counter("released_cents", "Cents given back by releases"),
            refunds: register.counter("refunds", "Captured charges that were given back"),
            holds_open: register.gauge("holds_open", "Holds that are not settled"),
            leases: register.gauge("leases", "Accounts of which this gateway leases money"),
            leased_cents: register.gauge("leased_cents", "Cents that this gateway leases"),
            external_entries: register.counter("external_entries", "Entries for balances that other programs changed"),
            batch_size: register.histogram("batch_size", "Messages in one transaction", Unit::Count, SIZES),
            queue_depth: register.gauge("write_queue_depth", "Messages waiting for the writer"),
            commit_seconds: register.histogram(
                "commit_seconds",
                "From the begin of a transaction to the end of its commit",
                Unit::Microseconds,
                COMMIT_TIMES,
            ),
            sync_seconds: register.histogram(
                "sync_seconds",
                "Syncs of the write-ahead log",
                Unit::Microseconds,
                COMMIT_TIMES,
            ),
            commits_failed: register.counter("commits_failed", "Transactions that could not be committed"),
            reads_queued: register.gauge("reads_queued", "Reads waiting for a connection"),
            wallets_cached: register.gauge("wallets_cached", "Wallets in memory"),
            wal_bytes: register.gauge("wal_bytes", "Size of the write-ahead log"),
            checkpoints: register.counter("checkpoints", "Checkpoints of the write-ahead log"),
            charges_rolled_up: register.counter("charges_rolled_up", "Old charges that became usage"),
            books_unbalanced_users: register
                .gauge("books_unbalanced_users", "Users whose wallet is not what the books say"),
            books_checked_seconds: register
                .gauge("books_checked_timestamp_seconds", "When wallets and books were last compared"),
        }
    }
}
