//! Files of older versions: what becomes of their rows, and of what was open in them.

use rusqlite::types::Value;
use rusqlite::{Connection, params};
use tempfile::TempDir;

use crate::config::{DatabaseConfig, Durability, Limits};
use crate::model::{ApiKey, Cents, ChargeId};
use crate::store::doctor::{self, Summary};
use crate::store::file::lock_file::{self, LockFile};
use crate::store::file::{migrations, schema, triggers};
use crate::store::tests::requests::idempotent_request;
use crate::store::{
    Found, Held, HoldRequest, OpenError, Opening, Recovered, Role, Settled, Store, Uninstalled, init, uninstall,
};
use crate::telemetry::metrics::{MetricNames, Metrics};

/// The key of user 1, as an operator stored it.
const KEY: &str = "a-plain-key";

/// What every version has: two users with 1,000 cents each; charges of user 1 captured, released and held, and one of user 2
/// held, by a gateway that has not ended.
const BOOKS: &str = "
INSERT INTO users VALUES (1, 'a@example.com', 'A', 1), (2, 'b@example.com', 'B', 1);
INSERT INTO api_keys VALUES (1, 'a-plain-key', 1, 'weather', 1, NULL);
INSERT INTO wallets VALUES (1, 1, 935), (2, 2, 995);
INSERT INTO keytoll_accounts (id, user_id, email, opened_at) VALUES (1, 1, 'a@example.com', 1), (2, 2, 'b@example.com', 1);
INSERT INTO keytoll_entries (id, account_id, kind, amount_cents, created_at) VALUES (1, 1, 'opening', 1000, 1), (2, 2, 'opening', 1000, 1);
INSERT INTO keytoll_routes VALUES (1, 'weather', '/');
INSERT INTO keytoll_instances (id, started_at, low_water) VALUES (3, 1, 1);
INSERT INTO keytoll_charges VALUES (1, 1, 1, 1, 3, 40, 1, 1000, 1001, 200), (2, 1, 1, 1, 3, 30, 2, 1000, 1001, 502),
    (3, 1, 1, 1, 3, 25, 0, 1000, NULL, NULL), (4, 2, 1, 1, 3, 5, 0, 1000, NULL, NULL);
UPDATE keytoll_meta SET value = 1000 WHERE name = 'next_charge_id';
";

/// From version 2 on: older charges of user 1, captured over 100 cents, have become usage; sums of what was settled by then.
const USAGE: &str = "
INSERT INTO keytoll_usage VALUES (0, 1, 1, 1, 2, 4, 100, 2, 7);
INSERT INTO keytoll_sums VALUES (1, 1000, 140), (2, 1000, 0);
UPDATE keytoll_meta SET value = 3 WHERE name = 'summed_charges_below';
UPDATE keytoll_meta SET value = 2 WHERE name = 'summed_entries_through';
UPDATE wallets SET balance = balance - 100 WHERE user_id = 1;
";

/// From version 3 on: requests of user 1 with an `Idempotency-Key`.
/// 10: captured, and forwarded again just now. 11: captured and answered. 12: captured, forwarded again and given back.
/// 13: captured, its row has become usage. 14: held. 15: captured, and not answered (its digests are bound).
const REQUESTS: &str = "
INSERT INTO keytoll_charges VALUES (10, 1, 1, 1, 3, 50, 1, 1000, 1001, 200), (11, 1, 1, 1, 3, 7, 1, 1000, 1001, 200),
    (12, 1, 1, 1, 3, 11, 1, 1000, 1001, 200), (14, 1, 1, 1, 3, 2, 0, 1000, NULL, NULL), (15, 1, 1, 1, 3, 60, 1, 1000, 1001, 200);
INSERT INTO keytoll_entries (id, account_id, kind, amount_cents, note, actor, created_at)
    VALUES (3, 1, 'credit', 11, 'charge 12 given back', 'keytoll', 1);
INSERT INTO keytoll_requests VALUES (10, 1, 'weather', x'10', x'00', 9e15, 1, 3, 0), (11, 1, 'weather', x'11', x'00', 9e15, 1, NULL, 0),
    (12, 1, 'weather', x'12', x'00', 9e15, 1, NULL, 1), (13, 1, 'weather', x'13', x'00', 9e15, 0, NULL, 0),
    (14, 1, 'weather', x'14', x'00', 9e15, 0, NULL, 0);
UPDATE keytoll_accounts SET requests = 6 WHERE id = 1;
UPDATE keytoll_meta SET value = 6 WHERE name = 'requests';
UPDATE wallets SET balance = balance - 50 - 7 - 11 + 11 - 2 - 60 WHERE user_id = 1;
";

struct OldFile {
    directory: TempDir,
}

impl OldFile {
    /// A file of this version with the rows that it can have. The gateway that is open in it is gone.
    fn of(version: usize) -> OldFile {
        let file = OldFile::empty(version);
        let connection = file.connect();
        connection.execute_batch(BOOKS).unwrap();
        if version >= 2 {
            connection.execute_batch(USAGE).unwrap();
        }
        if version >= 3 {
            connection.execute_batch(REQUESTS).unwrap();
            let request = idempotent_request("key", "thing");
            connection
                .execute(
                    "INSERT INTO keytoll_requests VALUES (15, 1, 'weather', ?1, ?2, 9e15, 0, NULL, 0)",
                    params![request.key.digest(), request.request.digest()],
                )
                .unwrap();
        }
        if version >= 4 {
            connection.execute_batch("UPDATE keytoll_instances SET beats = 7, timeout_ms = 60000").unwrap();
        }
        triggers::install(&connection).unwrap();
        drop(LockFile::make(&file.path(), 3).unwrap());
        file
    }

    fn empty(version: usize) -> OldFile {
        let file = OldFile { directory: tempfile::tempdir().unwrap() };
        let connection = file.connect();
        connection.execute_batch("PRAGMA journal_mode = WAL").unwrap();
        schema::ensure_shared(&connection).unwrap();
        let versions = "CREATE TABLE keytoll_migrations (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL)";
        connection.execute_batch(versions).unwrap();
        for (number, migration) in (1_i64..).zip(&migrations::ALL[..version]) {
            connection.execute_batch(migration).unwrap();
            connection.execute("INSERT INTO keytoll_migrations VALUES (?1, 1)", [number]).unwrap();
        }
        file
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("auth.db")
    }

    fn connect(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.pragma_update(None, "foreign_keys", false).unwrap();
        connection
    }

    fn number(&self, select: &str) -> i64 {
        self.connect().query_row(select, [], |row| row.get(0)).unwrap()
    }

    fn balances(&self) -> (i64, i64) {
        let of = |user| self.number(&format!("SELECT balance FROM wallets WHERE user_id = {user}"));
        (of(1), of(2))
    }

    fn database(&self) -> DatabaseConfig {
        let (path, durability) = (self.path(), Durability::Normal);
        DatabaseConfig { path, create: false, file_mode: 0o600, durability, keep_charges: None }
    }

    fn open(&self, role: Role) -> Result<(Store, Opening), OpenError> {
        let metrics = Metrics::new(&MetricNames::default(), None);
        Store::open(&self.database(), &Limits::default(), role, metrics.store)
    }

    /// The books, proved.
    fn proved(&self) -> Summary {
        let report = doctor::examine(&self.database()).unwrap();
        assert!(report.holds(), "{report:#?}");
        report.summary.unwrap()
    }

    /// Everything in the file.
    fn dump(&self) -> Vec<(String, Vec<Vec<Value>>)> {
        let connection = self.connect();
        let mut select =
            connection.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").unwrap();
        let tables: Vec<String> = select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let rows = |table: &String| {
            let mut select = connection.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
            let columns = select.column_count();
            let rows = select.query_map([], |row| (0..columns).map(|column| row.get(column)).collect()).unwrap();
            rows.collect::<rusqlite::Result<Vec<Vec<Value>>>>().unwrap()
        };
        let tables = tables.iter().map(|table| (table.clone(), rows(table)));
        let schema = ("sqlite_master".to_owned(), rows(&"sqlite_master".to_owned()));
        tables.chain([schema]).collect()
    }
}

/// A hold of user 1 under the key of request 15.
async fn retry(store: &Store, cents: i64) -> Held {
    let (ledger, answers) = store.ledger();
    tokio::spawn(answers);
    let (generation, route) = (store.generation(), store.route_id("weather", "/").await.unwrap());
    let Found::Active { principal, .. } = store.find_key(ApiKey::new(KEY).unwrap()).await.unwrap() else { panic!() };
    let request = HoldRequest { principal, generation, route, price: Cents(cents) };
    ledger.hold(request, Some(idempotent_request("key", "thing"))).await.unwrap()
}

#[tokio::test]
async fn what_a_gateway_of_an_older_version_left_open_is_returned_by_the_first_start() {
    // Held of user 1: 25, and from version 3 on 2; forwarded again: 50.
    for (version, user_1, cents) in [(1, 960, 30), (2, 860, 30), (3, 793, 82), (4, 793, 82)] {
        let file = OldFile::of(version);
        let (store, opening) = file.open(Role::Gateway).unwrap();
        assert_eq!(opening.recovered, Recovered { instances: 1, accounts: 2, cents }, "{version}");
        assert_eq!((file.balances(), opening.external_entries), ((user_1, 1000), 0), "{version}");
        assert_eq!(file.number("SELECT count(*) FROM keytoll_leases"), 0);
        assert_eq!(file.number("SELECT count(*) FROM keytoll_instances WHERE ended_at IS NULL"), 1);
        assert!(!lock_file::path(&file.path(), 3).exists(), "its lock file goes too");
        assert_eq!(file.number("SELECT group_concat(state, '') = '1222' FROM keytoll_charges WHERE id < 5"), 1);
        store.close();
        let summary = file.proved();
        assert_eq!((summary.users, summary.unbalanced, summary.leased), (2, 0, 0), "{version}");
        assert_eq!(summary.charges, if version < 3 { 4 } else { 9 });
        let (store, opening) = file.open(Role::Gateway).unwrap();
        assert_eq!((opening.recovered, file.balances()), (Recovered::default(), (user_1, 1000)), "{version}");
        store.close();
    }
}

#[test]
fn what_a_gateway_of_an_older_version_left_open_is_returned_by_uninstall() {
    for (version, user_1) in [(1, 960), (2, 860), (3, 793), (4, 793)] {
        let file = OldFile::of(version);
        assert_eq!(uninstall(&file.database()).unwrap(), Uninstalled::Done, "{version}");
        assert_eq!(file.balances(), (user_1, 1000), "{version}");
        assert_eq!(file.number("SELECT count(*) FROM sqlite_master WHERE name LIKE 'keytoll%'"), 0, "{version}");
    }
}

#[tokio::test]
async fn a_request_that_was_being_forwarded_again_is_refunded_once() {
    let file = OldFile::of(4);
    let (store, _) = file.open(Role::Gateway).unwrap();
    let refunds = "SELECT count(*) * 1000 + sum(amount_cents) FROM keytoll_entries WHERE kind = 'refund' AND charge_id = 10
                   AND account_id = 1 AND actor = 'keytoll' AND note = 'charge 10 refunded' AND created_at > 1600000000000";
    assert_eq!(file.number(refunds), 1050);
    assert_eq!(file.number("SELECT count(*) FROM keytoll_entries WHERE kind = 'refund'"), 1);
    assert_eq!(file.number("SELECT state FROM keytoll_charges WHERE id = 10"), 1, "history is not edited");
    store.close();
}

#[tokio::test]
async fn requests_keep_what_was_known_of_them() {
    let file = OldFile::of(4);
    let (store, _) = file.open(Role::Gateway).unwrap();
    // What cost nothing is forgotten; a charge that is gone from the books counts as answered.
    let rows = "SELECT group_concat(charge_id || ':' || state || ':' || cents, ' ') = '11:2:7 13:2:0 15:1:60'
                FROM (SELECT * FROM keytoll_requests ORDER BY charge_id)";
    assert_eq!(file.number(rows), 1);
    assert_eq!(file.number("SELECT value FROM keytoll_meta WHERE name = 'requests'"), 3);
    assert_eq!(file.number("SELECT group_concat(requests, ' ') = '3 0' FROM keytoll_accounts"), 1);
    // A retry of what was paid and not answered: 60 come back, 45 are held.
    let held = retry(&store, 45).await;
    assert_eq!((held.charge.retry_of(), held.balance), (Some(ChargeId(15)), Cents(793 + 60 - 45)));
    assert!(held.charge.id().0 >= 1000, "no id is used twice");
    assert_eq!(held.charge.capture(200).await, Settled::Captured);
    assert_eq!(file.number("SELECT max(position) = 16 AND position = 16 FROM keytoll_charges WHERE id >= 1000"), 1);
    store.close();
    file.proved();
}

#[tokio::test]
async fn a_file_on_which_a_gateway_of_an_older_version_runs_is_left_as_it_is() {
    for version in 1..=4 {
        let file = OldFile::of(version);
        let lock = LockFile::make(&file.path(), 3).unwrap();
        let before = file.dump();
        assert!(matches!(file.open(Role::Gateway), Err(OpenError::InUse(_))), "{version}");
        assert!(matches!(init(&file.database()), Err(OpenError::InUse(_))), "{version}");
        assert!(matches!(file.open(Role::Tool), Err(OpenError::Older(_))), "{version}");
        assert!(file.dump() == before, "{version}");
        // When it has ended, the file is migrated.
        drop(lock);
        let (store, opening) = file.open(Role::Gateway).unwrap();
        assert_eq!(opening.recovered.instances, 1);
        store.close();
        file.proved();
    }
}

#[tokio::test]
async fn init_migrates_a_file_and_leaves_what_was_open_to_the_next_gateway() {
    let file = OldFile::of(4);
    let before = file.balances();
    let opening = init(&file.database()).unwrap();
    assert_eq!((opening.recovered, file.balances()), (Recovered::default(), before));
    let summary = file.proved();
    assert_eq!((summary.leased, summary.leased_cents), (2, Cents(82)));
    let (store, opening) = file.open(Role::Gateway).unwrap();
    assert_eq!(opening.recovered, Recovered { instances: 1, accounts: 2, cents: 82 });
    store.close();
    file.proved();
}

#[tokio::test]
async fn what_was_held_for_a_user_who_was_replaced_since_is_not_paid_to_the_new_one() {
    let file = OldFile::of(4);
    file.connect()
        .execute_batch(
            "DELETE FROM wallets WHERE user_id = 1; DELETE FROM api_keys; DELETE FROM users WHERE id = 1;
             INSERT INTO users VALUES (1, 'new@example.com', 'New', 1); INSERT INTO wallets VALUES (1, 1, 70)",
        )
        .unwrap();
    let (store, opening) = file.open(Role::Gateway).unwrap();
    assert_eq!((opening.recovered.cents, file.balances()), (82, (70, 1000)));
    store.close();
    file.proved();
}

#[tokio::test]
async fn a_file_whose_charges_have_all_become_usage_goes_on_with_new_ones() {
    let file = OldFile::empty(4);
    file.connect()
        .execute_batch(
            "INSERT INTO users VALUES (1, 'a@example.com', 'A', 1); INSERT INTO wallets VALUES (1, 1, 400);
             INSERT INTO api_keys VALUES (1, 'a-plain-key', 1, 'weather', 1, NULL);
             INSERT INTO keytoll_accounts (id, user_id, email, opened_at) VALUES (1, 1, 'a@example.com', 1);
             INSERT INTO keytoll_entries (id, account_id, kind, amount_cents, created_at) VALUES (1, 1, 'opening', 500, 1);
             INSERT INTO keytoll_usage VALUES (0, 1, 1, 1, 2, 4, 100, 0, 0);
             INSERT INTO keytoll_sums VALUES (1, 500, 100);
             UPDATE keytoll_meta SET value = 5000 WHERE name IN ('next_charge_id', 'summed_charges_below');
             UPDATE keytoll_meta SET value = 1 WHERE name = 'summed_entries_through'",
        )
        .unwrap();
    triggers::install(&file.connect()).unwrap();
    let (store, opening) = file.open(Role::Gateway).unwrap();
    assert_eq!((opening.recovered, opening.external_entries), (Recovered::default(), 0));
    for turn in 1..=3 {
        let held = retry(&store, 10).await;
        assert!(held.charge.id().0 >= 5000);
        assert_eq!(held.charge.release(Some(502)).await, Settled::Released { balance: Some(Cents(400)) });
        assert_eq!(file.number("SELECT max(position) FROM keytoll_charges"), turn);
    }
    assert_eq!(retry(&store, 10).await.charge.capture(200).await, Settled::Captured);
    // The gateway adds it up.
    let through = "SELECT value FROM keytoll_meta WHERE name = 'summed_charges_through'";
    while file.number(through) < 4 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(file.number("SELECT charged_cents FROM keytoll_sums"), 110);
    store.close();
    let summary = file.proved();
    assert_eq!((summary.charges, summary.rolled_up, file.number("SELECT balance FROM wallets")), (4, 4, 390));
}

#[tokio::test]
async fn a_view_of_the_application_that_is_broken_does_not_keep_a_file_from_being_migrated() {
    let file = OldFile::of(4);
    file.connect().execute_batch("CREATE VIEW broken AS SELECT * FROM a_table_that_was_dropped").unwrap();
    let (store, _) = file.open(Role::Gateway).unwrap();
    store.close();
    file.proved();
}
