//! One database file with everything that belongs to it: users, upstream, records.

use std::sync::{Arc, Mutex, RwLock};

use fastrand::Rng;
use rusqlite::{Connection, params};

use crate::application::Application;
use crate::harness::http::Head;
use crate::harness::process::Started;
use crate::harness::{Api, Database, Gateway, Process};
use crate::past::{CAPTURED, HELD, Past};
use crate::plan::{Ending, Framing, Manner, ROUTES, Script};
use crate::records::{Arrived, Records, Served, Treatment, User};
use crate::retries::Retries;
use crate::upstream::{Progress, Upstream, Witness};

/// A file.
pub(crate) struct File {
    pub(crate) database: Database,
    pub(crate) records: Arc<Records>,
    users: RwLock<Vec<Arc<User>>>,
    upstream: Upstream,
    durability: &'static str,
    /// Whether it has tables of Keytoll already, of version 1.
    pub(crate) is_older: bool,
    pub(crate) past: Mutex<Past>,
    pub(crate) retries: Mutex<Retries>,
}

const TREATMENTS: [Treatment; 7] = [
    Treatment::Adds,
    Treatment::Adds,
    Treatment::Overwrites,
    Treatment::Replaces,
    Treatment::MakesAnew,
    Treatment::Revokes,
    Treatment::Anything,
];

impl File {
    /// A file of the application alone, or one that an older Keytoll was killed on.
    pub(crate) fn new(rng: &mut Rng) -> File {
        let records = Arc::new(Records::new());
        let database = Database::new(records.directory.path().join("auth.db"));
        database.open().execute_batch(include_str!("application.sql")).unwrap();
        let (own, path) = (Arc::clone(&records), database.clone());
        let upstream = Upstream::start(move || witness(&own, &path));
        let durability = if rng.u8(..4) == 0 { "full" } else { "normal" };
        let is_older = rng.bool();
        let file = File {
            database,
            records,
            users: RwLock::default(),
            upstream,
            durability,
            is_older,
            past: Mutex::default(),
            retries: Mutex::default(),
        };
        let application = Application::open(&file);
        for treatment in TREATMENTS {
            file.add(application.insert_user(treatment, rng.i64(20..200), true));
        }
        if is_older {
            file.grow_older();
        }
        file
    }

    /// Puts the tables of version 1 into the file, with two holds of a gateway that was killed.
    fn grow_older(&self) {
        let connection = self.database.open();
        connection.execute_batch(include_str!("version_1.sql")).unwrap();
        let books = "
            INSERT INTO keytoll_accounts (user_id, email, opened_at) SELECT id, email, 1 FROM users ORDER BY id;
            INSERT INTO keytoll_entries (account_id, kind, amount_cents, note, created_at)
                SELECT a.id, 'opening', w.balance, 'adopted', 1
                FROM keytoll_accounts a JOIN wallets w ON w.user_id = a.user_id;
            INSERT INTO keytoll_instances (id, started_at, low_water) VALUES (1, 1, 1);
            UPDATE keytoll_meta SET value = 1000001;
            INSERT INTO keytoll_charges (id, account_id, key_id, route_id, instance_id, cents, state, held_at)
                SELECT id, id, id, 1, 1, 7, 0, 1000 * CAST(strftime('%s', 'now') AS INTEGER) FROM keytoll_accounts WHERE id <= 2;
            INSERT INTO keytoll_routes (id, api_name, route) VALUES (1, 'weather', '/');
            DROP TRIGGER keytoll_wallets_after_update;
            UPDATE wallets SET balance = balance - 7 WHERE user_id IN (SELECT user_id FROM keytoll_accounts WHERE id <= 2);
        ";
        connection.execute_batch(books).unwrap();
        let trigger = include_str!("version_1.sql").lines().find(|line| line.contains("keytoll_wallets_after_update"));
        connection.execute_batch(trigger.unwrap()).unwrap();
        std::fs::write(self.records.directory.path().join("auth.db-keytoll-1.lock"), "").unwrap();
    }

    /// How many migrations the first start makes.
    pub(crate) fn migrations(&self) -> u64 {
        if self.is_older { 2 } else { 3 }
    }

    /// Starts the gateway, armed for this ending.
    pub(crate) fn start(&self, ending: Option<&Ending>) -> Started {
        let mut api = Api::new("weather", self.upstream.address()).with("idempotency = \"on\"");
        for (path, cents) in ROUTES {
            api = api.route(&format!("path = \"{path}\"\nprice_cents = {cents}"));
        }
        let gateway = Gateway::builder().api(api).at(self.records.directory.path()).durability(self.durability);
        let gateway = gateway.workers(2).line("keys", "storage = \"plain\"").limit("wal_bytes", 1 << 20);
        gateway.try_spawn(ending.and_then(Ending::fail_point).as_deref())
    }

    /// The same, which is killed by nobody.
    pub(crate) fn start_plainly(&self) -> Process {
        match self.start(None) {
            Started::Serving(process) => process,
            Started::Ended(status) => panic!("the gateway does not start: {status}"),
        }
    }

    /// Takes in what a gateway that is gone has left: before the next start, and before anybody else writes.
    pub(crate) fn note_death(&self) {
        self.upstream.quiesce();
        let violated = |what| self.records.violated(what);
        self.past.lock().unwrap().note_death(&self.database.open(), &violated);
    }

    /// The user of that number; while there are fewer, one of those.
    pub(crate) fn user(&self, number: usize) -> Arc<User> {
        let users = self.users.read().unwrap();
        Arc::clone(&users[number % users.len()])
    }

    pub(crate) fn users(&self) -> usize {
        self.users.read().unwrap().len()
    }

    pub(crate) fn all_users(&self) -> Vec<Arc<User>> {
        self.users.read().unwrap().clone()
    }

    pub(crate) fn add(&self, user: User) {
        self.users.write().unwrap().push(Arc::new(user));
    }
}

/// Sees what reaches the upstream: nothing unpaid, no small body that broke off, and no charge twice, except for one
/// retry of a captured request.
fn witness(records: &Arc<Records>, database: &Database) -> Witness {
    let (records, connection) = (Arc::clone(records), database.open());
    Box::new(move |head: &Head, script: Script, progress: Progress| {
        let request = head.field("x-request-id").unwrap().to_owned();
        match (progress, records.arrived.lock().unwrap().get_mut(&request)) {
            (Progress::Head, None) => {}
            (Progress::Head, Some(before)) => {
                // Sent again, because the kept connection ended without a byte of reply (RFC 9110 §9.2.2).
                let may_repeat = script.framing == Framing::NoHead && matches!(head.method(), "GET" | "HEAD");
                if before.is_repeated || !may_repeat {
                    records.violated(format!("I10: {request} went upstream again: {before:?}, {head:?}"));
                }
                before.is_repeated = true;
                return;
            }
            (Progress::Whole, before) => {
                before.expect("its head was seen").is_whole = true;
                return;
            }
        }
        let charge = head.number("keytoll-charge-id");
        match charge {
            Some(charge) => {
                let now = Served { request: request.clone(), script, is_early: false };
                forwarded(&records, &connection, charge, now);
            }
            None if head.target().starts_with("/free") => {}
            None => {
                records.violated(format!("{request}: a priced request went upstream without a charge: {head:?}"));
            }
        }
        // Last: its client may go on by this.
        let arrived = Arrived { charge, is_whole: false, is_repeated: false };
        records.arrived.lock().unwrap().insert(request, arrived);
    })
}

/// A request that was paid for is at the upstream.
fn forwarded(records: &Records, connection: &Connection, charge: i64, mut now: Served) {
    let facts_of = |request: &String| {
        let sent = &records.sent.lock().unwrap()[request];
        (sent.key.clone(), sent.manner, sent.may_break_off())
    };
    let (key, manner, may_break_off) = facts_of(&now.request);
    if matches!(manner, Manner::BreaksOffSmall { .. }) {
        records.violated(format!("I10: {} broke off a small body, and went upstream", now.request));
    }
    let select = "SELECT state FROM keytoll_charges WHERE id = ?1";
    let state = connection.query_row(select, params![charge], |row| row.get::<_, i64>(0));
    let mut served = records.served.lock().unwrap();
    let earlier = served.entry(charge).or_default();
    match (&earlier[..], &state) {
        ([], Ok(HELD)) => {}
        // It broke off before the upstream came to look.
        ([], Ok(CAPTURED)) if may_break_off => {}
        ([], Ok(CAPTURED)) if key.is_some() => now.is_early = true,
        ([before], Ok(CAPTURED)) if key.is_some() && facts_of(&before.request).0 == key => {
            if before.is_early && may_break_off {
                return earlier.insert(0, now);
            }
        }
        _ => records.violated(format!("I7: {now:?} went upstream for charge {charge}, {state:?}, after {earlier:?}")),
    }
    earlier.push(now);
}
