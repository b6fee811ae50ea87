//! One database file with everything that belongs to it: users, upstream, records.

use std::sync::{Arc, Mutex, RwLock};

use fastrand::Rng;
use rusqlite::{Connection, params};

use crate::application::Application;
use crate::audit::after_death;
use crate::harness::http::Head;
use crate::harness::process::Started;
use crate::harness::{Api, Database, Gateway, Process};
use crate::past::{CAPTURED, Past};
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
        if self.is_older { 4 } else { 5 }
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
        {
            let (sent, served) = (self.records.sent.lock().unwrap(), self.records.served.lock().unwrap());
            let forwarded = served.iter().map(|(charge, reply)| {
                let request = &sent[&reply.request];
                (*charge, request.user, request.cents)
            });
            self.past.lock().unwrap().note_death(&self.database.open(), forwarded, &violated);
        }
        after_death(self);
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

/// Sees what reaches the upstream: nothing unpaid, no small body that broke off, and no charge twice.
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
                let retry_of = head.number("keytoll-retry-of");
                let now = Served { request: request.clone(), script, retry_of };
                forwarded(&records, &connection, charge, &now);
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

/// A request that was paid for is at the upstream: its price is leased, or its charge is captured because its client broke
/// it off before the upstream came to look.
fn forwarded(records: &Records, connection: &Connection, charge: i64, now: &Served) {
    let (user, cents, manner, may_break_off) = {
        let sent = &records.sent.lock().unwrap()[&now.request];
        (sent.user, sent.cents, sent.manner, sent.may_break_off())
    };
    if matches!(manner, Manner::BreaksOffSmall { .. }) {
        records.violated(format!("I10: {} broke off a small body, and went upstream", now.request));
    }
    let select = "SELECT (SELECT state FROM keytoll_charges WHERE id = ?1),
             (SELECT coalesce(sum(l.cents), 0) FROM keytoll_leases l JOIN keytoll_accounts a ON a.id = l.account_id
              WHERE a.user_id = ?2),
             (SELECT count(*) FROM keytoll_entries WHERE charge_id = ?3)";
    let row = connection.query_row(select, params![charge, user, now.retry_of], |row| {
        Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    let (state, leased, refunds) = row.unwrap();
    let is_paid = match state {
        None => leased >= cents,
        Some(state) => state == CAPTURED && may_break_off,
    };
    if !is_paid {
        records.violated(format!("I7: {now:?} went upstream for charge {charge}, {state:?}, with {leased} leased"));
    }
    if refunds != i64::from(now.retry_of.is_some()) {
        records.violated(format!("I7: {now:?} went upstream, and the earlier charge has {refunds} refunds"));
    }
    if let Some(before) = records.served.lock().unwrap().insert(charge, now.clone()) {
        records.violated(format!("I7: {now:?} went upstream for charge {charge}, which paid for {before:?}"));
    }
}
