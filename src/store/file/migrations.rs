//! The numbered migrations of Keytoll's own tables.
//!
//! The number of one is its place, from 1, and one that was released is never changed. Other programs read the schema
//! with whatever SQLite they have: nothing newer than 3.8.2.
//!
//! Times are milliseconds since 1970, `hour` hours since 1970 (UTC), `status_class` the first digit of the status or 0 for
//! none.

/// All of them, the oldest first.
pub(in crate::store) const ALL: [&str; 5] = [BOOKS, SUMS, RETRIES, BEATS, LEDGER];
/// The version of [`LEDGER`]: a file of an older one is not migrated while a gateway runs on it.
pub(in crate::store) const LEDGER_VERSION: i64 = 5;

/// Charges, entries, and what makes them safe.
const BOOKS: &str = "
CREATE TABLE keytoll_meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
);
INSERT INTO keytoll_meta (name, value) VALUES ('next_charge_id', 1);
CREATE TABLE keytoll_instances (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    started_at INTEGER NOT NULL,
    low_water INTEGER NOT NULL,
    ended_at INTEGER
);
CREATE TABLE keytoll_accounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    email TEXT,
    opened_at INTEGER NOT NULL,
    closed_at INTEGER
);
CREATE UNIQUE INDEX keytoll_accounts_open ON keytoll_accounts (user_id) WHERE closed_at IS NULL;
CREATE TABLE keytoll_entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id INTEGER NOT NULL REFERENCES keytoll_accounts (id),
    kind TEXT NOT NULL,
    amount_cents INTEGER NOT NULL,
    note TEXT,
    created_at INTEGER NOT NULL
);
CREATE INDEX keytoll_entries_account ON keytoll_entries (account_id, id);
CREATE TABLE keytoll_routes (
    id INTEGER PRIMARY KEY,
    api_name TEXT NOT NULL,
    route TEXT NOT NULL,
    UNIQUE (api_name, route)
);
CREATE TABLE keytoll_charges (
    id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    route_id INTEGER NOT NULL,
    instance_id INTEGER NOT NULL,
    cents INTEGER NOT NULL,
    state INTEGER NOT NULL,
    held_at INTEGER NOT NULL,
    settled_at INTEGER,
    status INTEGER
);
CREATE TABLE keytoll_key_hints (
    key_id INTEGER PRIMARY KEY,
    stored_hint TEXT NOT NULL,
    hint TEXT NOT NULL
);
CREATE TABLE keytoll_wallet_log (
    id INTEGER PRIMARY KEY,
    op,
    wallet_id,
    user_id,
    balance
);
";

/// What every account's settled charges and entries come to, so that nothing has to read them all; and what is left of
/// charges whose rows are gone. Two meta values tell up to where the rows are in the sums. `ids_below`: the end of the
/// ids that an instance has reserved.
const SUMS: &str = "
ALTER TABLE keytoll_instances ADD COLUMN ids_below INTEGER;
INSERT INTO keytoll_meta (name, value) VALUES ('summed_charges_below', 0), ('summed_entries_through', 0);
CREATE TABLE keytoll_sums (
    account_id INTEGER PRIMARY KEY,
    entered_cents INTEGER NOT NULL,
    charged_cents INTEGER NOT NULL
);
CREATE TABLE keytoll_usage (
    hour INTEGER NOT NULL,
    account_id INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    route_id INTEGER NOT NULL,
    status_class INTEGER NOT NULL,
    captured INTEGER NOT NULL,
    captured_cents INTEGER NOT NULL,
    released INTEGER NOT NULL,
    released_cents INTEGER NOT NULL,
    PRIMARY KEY (hour, account_id, key_id, route_id, status_class)
) WITHOUT ROWID;
";

/// Requests with an `Idempotency-Key`, each with the charge that stands for it; a meta value counts them all, and each
/// account its own. Entries tell who made them, and under which key.
const RETRIES: &str = "
INSERT INTO keytoll_meta (name, value) VALUES ('requests', 0);
CREATE TABLE keytoll_requests (
    charge_id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL,
    api_name TEXT NOT NULL,
    key_digest BLOB NOT NULL,
    request_digest BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    is_spent INTEGER NOT NULL DEFAULT 0,
    again_by INTEGER,
    is_given_back INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account_id, api_name, key_digest)
);
ALTER TABLE keytoll_accounts ADD COLUMN requests INTEGER NOT NULL DEFAULT 0;
CREATE INDEX keytoll_requests_created ON keytoll_requests (created_at);
CREATE INDEX keytoll_requests_again ON keytoll_requests (again_by) WHERE again_by IS NOT NULL;
ALTER TABLE keytoll_entries ADD COLUMN actor TEXT;
ALTER TABLE keytoll_entries ADD COLUMN key_digest BLOB;
CREATE UNIQUE INDEX keytoll_entries_key ON keytoll_entries (account_id, key_digest) WHERE key_digest IS NOT NULL;
";

/// Heartbeats: while other instances use the file, an instance increments `beats` at least once per `timeout_ms`
/// milliseconds. `timeout_ms` is NULL for an instance of an older version, which sends none.
const BEATS: &str = "
ALTER TABLE keytoll_instances ADD COLUMN beats INTEGER NOT NULL DEFAULT 0;
ALTER TABLE keytoll_instances ADD COLUMN timeout_ms INTEGER;
";

/// The ledger with leases: charges are appended when they are settled, in the order of `position`, and are final; what is
/// held is in `keytoll_leases`. `state` of a request is [`Progress`](crate::ledger::idempotency::Progress); with
/// `ends_answered` it counts as answered once it is captured. A refund names its charge. `turn` counts the transactions of an instance, and is its heartbeat.
///
/// What gateways of version 4 left open becomes leases, which the next gateway returns like those of any other that is gone:
/// held charges become released, and a captured charge whose request was being forwarded again is refunded. Renaming a table
/// must not look at the application's views and triggers, one of which may be broken.
const LEDGER: &str = "
PRAGMA legacy_alter_table = ON;
ALTER TABLE keytoll_entries ADD COLUMN charge_id INTEGER;
CREATE UNIQUE INDEX keytoll_entries_charge ON keytoll_entries (charge_id) WHERE charge_id IS NOT NULL;
CREATE TABLE keytoll_leases (
    id INTEGER PRIMARY KEY,
    instance_id INTEGER NOT NULL,
    account_id INTEGER NOT NULL,
    cents INTEGER NOT NULL
);
CREATE TABLE keytoll_journals (
    instance_id INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    applied_through INTEGER NOT NULL,
    PRIMARY KEY (instance_id, lane)
) WITHOUT ROWID;
ALTER TABLE keytoll_charges RENAME TO keytoll_charges_4;
CREATE TABLE keytoll_charges (
    position INTEGER PRIMARY KEY,
    id INTEGER NOT NULL UNIQUE,
    account_id INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    route_id INTEGER NOT NULL,
    cents INTEGER NOT NULL,
    state INTEGER NOT NULL,
    held_at INTEGER NOT NULL,
    settled_at INTEGER NOT NULL,
    status INTEGER
);
DROP INDEX keytoll_requests_created;
DROP INDEX keytoll_requests_again;
ALTER TABLE keytoll_requests RENAME TO keytoll_requests_4;
CREATE TABLE keytoll_requests (
    charge_id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL,
    api_name TEXT NOT NULL,
    key_digest BLOB NOT NULL,
    request_digest BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    instance_id INTEGER NOT NULL,
    cents INTEGER NOT NULL,
    state INTEGER NOT NULL,
    ends_answered INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account_id, api_name, key_digest)
);
CREATE INDEX keytoll_requests_created ON keytoll_requests (created_at);
CREATE INDEX keytoll_requests_in_flight ON keytoll_requests (instance_id) WHERE state = 0;
ALTER TABLE keytoll_instances RENAME TO keytoll_instances_4;
CREATE TABLE keytoll_instances (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    timeout_ms INTEGER,
    turn INTEGER NOT NULL DEFAULT 0,
    nonce INTEGER NOT NULL DEFAULT 0
);
INSERT INTO keytoll_instances (id, started_at, ended_at) SELECT id, started_at, ended_at FROM keytoll_instances_4;
DROP TABLE keytoll_instances_4;
PRAGMA legacy_alter_table = OFF;
INSERT INTO keytoll_meta (name, value) VALUES ('database_id', random());
CREATE TEMP TABLE keytoll_forwarded_again AS
    SELECT c.id, c.account_id, c.cents, r.again_by FROM keytoll_requests_4 r JOIN keytoll_charges_4 c ON c.id = r.charge_id
    WHERE r.again_by IS NOT NULL AND r.is_given_back = 0 AND c.state = 1;
INSERT INTO keytoll_entries (account_id, kind, amount_cents, note, created_at, actor, charge_id)
    SELECT account_id, 'refund', cents, 'charge ' || id || ' refunded', CAST(strftime('%s', 'now') AS INTEGER) * 1000, 'keytoll', id
    FROM keytoll_forwarded_again ORDER BY id;
INSERT INTO keytoll_leases (instance_id, account_id, cents)
    SELECT instance_id, account_id, sum(cents) FROM (
        SELECT instance_id, account_id, cents FROM keytoll_charges_4 WHERE state = 0
        UNION ALL SELECT again_by, account_id, cents FROM keytoll_forwarded_again)
    GROUP BY instance_id, account_id;
DROP TABLE keytoll_forwarded_again;
INSERT INTO keytoll_charges (position, id, account_id, key_id, route_id, cents, state, held_at, settled_at, status)
    SELECT id, id, account_id, key_id, route_id, cents, CASE WHEN state = 0 THEN 2 ELSE state END, held_at,
        coalesce(settled_at, held_at), status
    FROM keytoll_charges_4 ORDER BY id;
INSERT INTO keytoll_requests (charge_id, account_id, api_name, key_digest, request_digest, created_at, instance_id, cents, state)
    SELECT r.charge_id, r.account_id, r.api_name, r.key_digest, r.request_digest, r.created_at, 0, coalesce(c.cents, 0),
        CASE WHEN r.is_spent = 0 AND c.id IS NOT NULL THEN 1 ELSE 2 END
    FROM keytoll_requests_4 r LEFT JOIN keytoll_charges_4 c ON c.id = r.charge_id
    WHERE r.is_given_back = 0 AND r.again_by IS NULL AND (c.id IS NULL OR c.state NOT IN (0, 2));
UPDATE keytoll_accounts SET requests = (SELECT count(*) FROM keytoll_requests r WHERE r.account_id = keytoll_accounts.id)
    WHERE requests <> 0;
UPDATE keytoll_meta SET value = (SELECT count(*) FROM keytoll_requests) WHERE name = 'requests';
INSERT INTO keytoll_meta (name, value)
    SELECT 'summed_charges_through', min(value - 1, coalesce((SELECT max(position) FROM keytoll_charges), 0))
    FROM keytoll_meta WHERE name = 'summed_charges_below';
DELETE FROM keytoll_meta WHERE name = 'summed_charges_below';
DROP TABLE keytoll_requests_4;
DROP TABLE keytoll_charges_4;
";
