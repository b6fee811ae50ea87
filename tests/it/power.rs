//! Power cuts: the program is killed, or ends otherwise, under traffic, and its files are put back as a disk may hold them
//! then, with what was synced, and of the rest nothing or any part. It starts again on them.
//!
//! `KEYTOLL_IT_CUTS` says how many cuts are made, `KEYTOLL_IT_SEED` which; the seed is printed, and the same one makes
//! the same plan.

mod disk;

use std::collections::HashSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use disk::Disk;
use fastrand::Rng;
use serde_json::{Value, json};

use crate::harness::{Answer, Crowd, Deed, EIO, Ground, OK, Process, Request, Shim, Upstream, Word, number, until};

const USUAL_CUTS: usize = 10;
/// Times as many, before it is believed that nothing is ever lost.
const MORE_CUTS: usize = 10;
const CLIENTS: usize = 4;
const PRICE: i64 = 10;

/// How the program ends, before the cut.
#[derive(Clone, Copy, Debug)]
enum End {
    Killed,
    /// In order.
    Stopped,
    /// By itself, when a sync failed: what was to be synced may be gone as after a cut.
    SyncFailed,
}

/// When one cut comes.
#[derive(Debug)]
struct Plan {
    /// In the middle of the start, and nothing else happens.
    in_start: bool,
    /// Replies before operators write, and how often they do.
    replies_before: usize,
    writes: usize,
    /// Replies after that, and a moment more.
    replies_after: usize,
    moment: Duration,
    end: End,
    /// Whether the index in memory, of a system that is gone, is found again.
    stale_index: bool,
}

impl Plan {
    fn draw(random: &mut Rng) -> Plan {
        // Some are long enough for checkpoints, and for the write-ahead log to start over.
        let most = if random.u8(..5) == 0 { 1_000 } else { 60 };
        Plan {
            in_start: random.u8(..4) == 0,
            replies_before: random.usize(..most),
            writes: random.usize(..3),
            replies_after: if random.u8(..4) == 0 { 0 } else { random.usize(..most) },
            moment: Duration::from_micros(random.u64(..3_000)),
            end: match random.u8(..6) {
                0 => End::Stopped,
                1 => End::SyncFailed,
                _ => End::Killed,
            },
            stale_index: random.bool(),
        }
    }
}

/// What must be found again, because somebody was told of it.
#[derive(Default)]
struct Told {
    /// Charges of replies that were delivered whole.
    charges: Vec<i64>,
    /// Entries of credits, and keys, that operators made.
    entries: Vec<i64>,
    keys: Vec<i64>,
}

/// A file that lives through all cuts.
struct Town {
    ground: Ground,
    shim: Shim,
    upstream: Upstream,
    /// The charges of all requests that came to the upstream, and those that came twice.
    issued: Arc<Mutex<(HashSet<i64>, Vec<i64>)>>,
    durability: &'static str,
    told: Told,
    lost: usize,
    /// How often the write-ahead log started over, or began, and was copied into the database.
    began: usize,
    copied: usize,
    random: Rng,
}

impl Town {
    fn new(durability: &'static str, seed: u64) -> Town {
        let ground = Ground::with_cents(1_000_000_000);
        let shim = ground.shim();
        let issued: Arc<Mutex<(HashSet<i64>, Vec<i64>)>> = Arc::default();
        let seen = Arc::clone(&issued);
        let upstream = Upstream::answering(move |head, _| {
            let (charge, mut seen) = (head.number("keytoll-charge-id").unwrap(), seen.lock().unwrap());
            if !seen.0.insert(charge) {
                seen.1.push(charge);
            }
            OK.into()
        });
        let random = Rng::with_seed(seed);
        Town { ground, shim, upstream, issued, durability, told: Told::default(), lost: 0, began: 0, copied: 0, random }
    }

    fn start(&self) -> Process {
        let gateway = self.ground.gateway(self.upstream.address()).logged_by(&self.shim);
        gateway.durability(self.durability).limit("wal_bytes", 1 << 20).spawn()
    }

    /// Starts on what the last cut left, lets everybody work, and cuts.
    fn live_and_cut(&mut self) {
        let plan = Plan::draw(&mut self.random);
        let mut disk = Disk::of(&self.ground.data());
        let process = self.start();
        if plan.in_start {
            process.kill();
        } else {
            self.live_and_end(&plan, process);
        }
        let mut steps = self.shim.log();
        if plan.in_start {
            // Nobody was told anything: the power may have gone at any moment of it.
            steps.truncate(self.random.usize(..=steps.len()));
        }
        for step in steps {
            self.began += usize::from(step.file == "-wal" && matches!(step.deed, Deed::Write { place: 0, .. }));
            self.copied += usize::from(step.file.is_empty() && matches!(step.deed, Deed::Sync));
            disk.follow(step);
        }
        let index = fs::read(self.ground.file("-shm"));
        disk.cut(&mut self.random, &self.ground.data());
        if let Ok(index) = index
            && plan.stale_index
        {
            fs::write(self.ground.file("-shm"), index).unwrap();
        }
    }

    /// Clients and operators work, and remember what they were told, until the program ends.
    fn live_and_end(&mut self, plan: &Plan, mut process: Process) {
        self.assert_all_there();
        let crowd = Crowd::of(CLIENTS, &process.get("/").key(&self.ground.key));
        until("traffic", || crowd.served() >= plan.replies_before);
        for _ in 0..plan.writes {
            self.operate(&process);
        }
        let served = crowd.served();
        until("traffic", || crowd.served() >= served + plan.replies_after);
        thread::sleep(plan.moment);
        match plan.end {
            End::Killed => assert!(!process.kill()),
            End::Stopped => process.stop(),
            End::SyncFailed => {
                self.shim.set(Word::SyncError, EIO);
                assert_eq!(process.wait().code(), Some(66));
                self.shim.set(Word::SyncError, 0);
            }
        }
        for answer in crowd.leave() {
            if let Answer::Whole { status: 200, receipt, .. } = answer {
                let receipt = receipt.expect("a reply that was paid for has a receipt");
                assert_eq!(receipt.cost, PRICE);
                self.told.charges.push(receipt.charge);
            }
        }
    }

    /// A credit, and a user with a key.
    fn operate(&mut self, process: &Process) {
        let credit = json!({"kind": "credit", "amount_cents": 3, "note": "before the cut"});
        self.told.entries.push(made(&process.post("/v1/users/1/wallet/entries", &credit)));
        let email = format!("{}@example.com", self.random.u64(..));
        let user = made(&process.post("/v1/users", &json!({"email": email, "name": "Bob"})));
        let key = process.post(&format!("/v1/users/{user}/keys"), &json!({"api_name": "weather"}));
        self.told.keys.push(made(&key));
    }

    /// A gateway runs on what a cut left: all that the setting promises is there, and the rest fits together.
    fn assert_all_there(&mut self) {
        let database = self.ground.database();
        database.assert_whole();
        let charges = database.charges_by_id();
        let delivered = self.told.charges.len();
        self.told.charges.retain(|charge| charges.get(charge) == Some(&(1, PRICE)));
        let lost = delivered - self.told.charges.len();
        assert!(self.durability == "normal" || lost == 0, "{lost} of {delivered} delivered charges are lost");
        self.lost += lost;
        for (told, table) in [(&self.told.entries, "keytoll_entries"), (&self.told.keys, "api_keys")] {
            let connection = database.open();
            let mut found = connection.prepare(&format!("SELECT 1 FROM {table} WHERE id = ?1")).unwrap();
            for id in told {
                assert!(found.exists([id]).unwrap(), "{id} of {table} was acknowledged and is lost");
            }
        }
        database.assert_doctor();
        let issued = self.issued.lock().unwrap();
        assert!(issued.1.is_empty(), "charge ids used twice: {:?}", issued.1);
    }
}

/// Sends it; the id of what it made.
#[track_caller]
fn made(request: &Request) -> i64 {
    let reply = request.send();
    assert_eq!(reply.status(), 201, "{reply:?}");
    serde_json::from_slice::<Value>(&reply.body).unwrap()["id"].as_i64().unwrap()
}

/// How many cuts are made, and the seed of their plan.
fn cuts_and_seed() -> (usize, u64) {
    let cuts = number("KEYTOLL_IT_CUTS").map_or(USUAL_CUTS, |cuts| usize::try_from(cuts).unwrap());
    let seed = number("KEYTOLL_IT_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("{cuts} cuts, KEYTOLL_IT_SEED={seed}");
    (cuts, seed)
}

/// Delivered charges that the cuts took away. `must_lose`: there are more cuts until some were.
fn lost_in_cuts(durability: &'static str, must_lose: bool) -> usize {
    let (cuts, seed) = cuts_and_seed();
    let mut town = Town::new(durability, seed);
    let most = if must_lose { cuts * MORE_CUTS } else { cuts };
    for cut in 0..most {
        if cut >= cuts && town.lost > 0 {
            break;
        }
        town.live_and_cut();
    }
    let process = town.start();
    town.assert_all_there();
    process.stop();
    town.ground.database().assert_doctor();
    let (forwarded, kept) = (town.issued.lock().unwrap().0.len(), town.told.charges.len());
    let (entries, keys) = (town.told.entries.len(), town.told.keys.len());
    println!("{forwarded} requests forwarded, {} delivered charges lost, {kept} kept", town.lost);
    println!(
        "{entries} credits and {keys} keys kept; the log began {} times and was copied {} times",
        town.began, town.copied
    );
    town.lost
}

#[test]
fn at_full_durability_no_power_cut_loses_a_delivered_charge() {
    assert_eq!(lost_in_cuts("full", false), 0);
}

#[test]
fn at_normal_durability_power_cuts_lose_charges_and_nothing_else() {
    assert_ne!(lost_in_cuts("normal", true), 0, "the cuts cut nothing: nobody would see a charge that is lost");
}

#[test]
fn what_a_command_has_done_survives_a_power_cut_even_in_a_new_file() {
    let (cuts, seed) = cuts_and_seed();
    let mut random = Rng::with_seed(seed);
    for _ in 0..cuts {
        let ground = Ground::empty();
        let shim = ground.shim();
        let mut run = |arguments: &[&str]| {
            let mut disk = Disk::of(&ground.data());
            let printed = ground.run_logged_by(&shim, arguments);
            shim.log().into_iter().for_each(|step| disk.follow(step));
            disk.cut(&mut random, &ground.data());
            printed
        };
        run(&["user", "add", "ada@example.com", "--name", "Ada", "--create", "--opening-cents", "20"]);
        run(&["key", "issue", "--user", "ada@example.com", "--api", "weather"]);
        run(&["wallet", "credit", "--user", "ada@example.com", "--cents", "3", "--note", "before the cut"]);
        let database = ground.database();
        assert_eq!((database.balance(1), database.number("SELECT count(*) FROM api_keys")), (23, 1));
        database.assert_doctor();
    }
}
