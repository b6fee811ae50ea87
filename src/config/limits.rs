//! `[limits]`: the bound of every queue, cache, buffer, count and wait, with its default.

use std::time::Duration;

use super::DAY;

/// `[limits]`: the bound of every queue, cache, buffer, count and wait.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of clients open at once. Past it the one that has waited longest for a request head is closed.
    pub connections: usize,
    /// Connections beyond that, which serve probes and answer everything else 503.
    pub probe_connections: usize,
    /// From the start of such a connection to the end of a request head.
    pub probe_header_timeout: Duration,
    /// Connections of one client address; no limit when 0.
    pub connections_per_address: usize,
    /// After this age a connection is closed with its next reply, or as soon as it has been idle for a second.
    pub connection_age: Duration,
    /// How long a client's connection may be silent before TCP probes it.
    pub tcp_keepalive: Duration,
    /// How long data sent to a client may stay unacknowledged (`TCP_USER_TIMEOUT`).
    pub tcp_user_timeout: Duration,
    /// Requests in flight at once, until the body of the reply has ended; past it 503.
    pub requests: usize,
    /// Requests in flight of one client address; past it 429. No limit when 0.
    pub requests_per_address: usize,
    /// Requests in flight of one user; past it 429. No limit when 0.
    pub requests_per_user: usize,
    /// Bytes of a request's header section; past it 431.
    pub header_bytes: usize,
    /// Header fields of a request; past it 431.
    pub headers: usize,
    /// From the start of a connection, or the end of its last reply, to the end of a request head; then 408 where one was
    /// begun, and the connection is closed.
    pub header_timeout: Duration,
    /// The Content-Length up to which a request's body is collected before its price is held; longer ones are streamed.
    pub collected_body_bytes: usize,
    /// Bytes of collected bodies in the whole process; past it bodies are streamed.
    pub collected_bytes: usize,
    /// How long the upstream may take to answer `Expect: 100-continue` before the client is asked for its body anyway.
    pub expect_continue: Duration,
    /// Bytes of a request's body; past it 413.
    pub request_body_bytes: u64,
    /// Between two pieces of a request's body; then 408.
    pub request_body_idle: Duration,
    /// For a request's whole body, counted while the client is waited for; then 408.
    pub request_body_timeout: Duration,
    /// Each so many bytes of a body that arrive prolong that by a second.
    pub request_body_bytes_per_second: u64,
    /// The Content-Length of a refused body up to which it is read and the connection is kept.
    pub refused_body_bytes: u64,
    /// Silence after which the rest of a refused body is no longer waited for.
    pub refused_body_idle: Duration,
    /// How long the rest of a refused body is read, in all.
    pub refused_body_timeout: Duration,
    /// While a client takes nothing of its reply; then it is cut off.
    pub reply_write_idle: Duration,
    /// How long a client's TCP may acknowledge nothing of its reply before a reply that the upstream then breaks off is
    /// charged.
    pub client_stall: Duration,
    /// For a connection to an upstream; then the next one is tried, or 502.
    pub connect_timeout: Duration,
    /// From the request sent to the upstream's reply head; then 504.
    pub upstream_head_timeout: Duration,
    /// From the start of forwarding to the head of the reply, also while the body of the request moves; then 504.
    pub upstream_head_deadline: Duration,
    /// Between two pieces of an upstream's body; then the reply is broken off.
    pub upstream_body_idle: Duration,
    /// The same for a reply of type `text/event-stream`.
    pub event_stream_idle: Duration,
    /// From the request sent to the end of the reply; then 504, or the reply is broken off. `None`: no limit.
    pub total_timeout: Option<Duration>,
    /// Header fields of an upstream's reply; past it 502. 100 is the limit at which hyper needs no allocation.
    pub reply_headers: usize,
    /// Bytes that an upstream may send before the head of its final reply, which are those of its 1xx replies; past it 502.
    pub interim_reply_bytes: usize,
    /// How long an unused connection to an upstream is kept.
    pub upstream_keep_idle: Duration,
    /// How many unused connections to one upstream a worker keeps.
    pub upstream_keep_connections: usize,
    /// How long both sides of an upgraded connection (WebSocket) may be silent; then it is closed.
    pub tunnel_idle: Duration,
    /// From the request for a hold to its commit; then 503.
    pub hold_timeout: Duration,
    /// From an outcome to its commit; then the reply is broken off and the hold released.
    pub settle_timeout: Duration,
    /// How long a sync of the write-ahead log may take before holds wait for it.
    pub sync_late: Duration,
    /// How long a request with an `Idempotency-Key` is remembered.
    pub idempotency_ttl: Duration,
    /// How many are remembered at most; past it a new key gets 503.
    pub idempotency_keys: usize,
    /// How many of one user; past it a new key of that user's gets 503.
    pub idempotency_keys_per_user: usize,
    /// Charges held and not settled yet; past it 503.
    pub open_charges: usize,
    /// How long this gateway may send no heartbeat before another one on the same file considers it dead and releases its
    /// holds, even if its lock file is locked. A request is not forwarded with a hold that is older than half of this.
    pub instance_timeout: Duration,
    /// Holds and settlements in one transaction.
    pub batch: usize,
    /// Wallets that the writer remembers.
    pub cached_wallets: usize,
    /// Bytes of the write-ahead log past which the writer stops to let it start over.
    pub wal_bytes: u64,
    /// Bytes of a presented key; a longer one is no key.
    pub key_bytes: usize,
    /// Valid keys in the cache.
    pub cached_keys: u64,
    /// Time to live of a cached key.
    pub key_ttl: Duration,
    /// Unknown and inactive keys in the cache.
    pub cached_refusals: u64,
    /// Time to live of a cached refusal.
    pub refusal_ttl: Duration,
    /// Reads of the database waiting for a connection; past it 503.
    pub queued_reads: usize,
    /// Admin writes waiting for the writer; past it 503.
    pub queued_writes: usize,
    /// Connections of operators open at once.
    pub admin_connections: usize,
    /// Bytes of an admin request's body; past it 413.
    pub admin_body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 10_000,
            probe_connections: 64,
            probe_header_timeout: Duration::from_secs(1),
            connections_per_address: 0,
            connection_age: Duration::from_secs(3_600),
            tcp_keepalive: Duration::from_secs(60),
            tcp_user_timeout: Duration::from_secs(60),
            requests: 10_000,
            requests_per_address: 0,
            requests_per_user: 0,
            header_bytes: 32 * 1024,
            headers: 100,
            header_timeout: Duration::from_secs(60),
            collected_body_bytes: 64 * 1024,
            collected_bytes: 64 << 20,
            expect_continue: Duration::from_secs(1),
            request_body_bytes: 16 << 30,
            request_body_idle: Duration::from_secs(30),
            request_body_timeout: Duration::from_secs(30),
            request_body_bytes_per_second: 500,
            refused_body_bytes: 64 * 1024,
            refused_body_idle: Duration::from_secs(5),
            refused_body_timeout: Duration::from_secs(30),
            reply_write_idle: Duration::from_secs(60),
            client_stall: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(3),
            upstream_head_timeout: Duration::from_secs(60),
            upstream_head_deadline: Duration::from_secs(3_600),
            upstream_body_idle: Duration::from_secs(60),
            event_stream_idle: Duration::from_secs(300),
            total_timeout: None,
            reply_headers: 100,
            interim_reply_bytes: 64 * 1024,
            upstream_keep_idle: Duration::from_secs(4),
            upstream_keep_connections: 10_000,
            tunnel_idle: Duration::from_secs(300),
            hold_timeout: Duration::from_secs(5),
            settle_timeout: Duration::from_secs(5),
            sync_late: Duration::from_millis(100),
            idempotency_ttl: DAY,
            idempotency_keys: 1_000_000,
            idempotency_keys_per_user: 100_000,
            open_charges: 20_000,
            instance_timeout: Duration::from_secs(60),
            batch: 256,
            cached_wallets: 100_000,
            wal_bytes: 64 << 20,
            key_bytes: 512,
            cached_keys: 100_000,
            key_ttl: Duration::from_secs(60),
            cached_refusals: 10_000,
            refusal_ttl: Duration::from_secs(5),
            queued_reads: 1_000,
            queued_writes: 256,
            admin_connections: 64,
            admin_body_bytes: 64 * 1024,
        }
    }
}
