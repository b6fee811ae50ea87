//! Two gateways on one file: each keeps its own holds, a dead one's are given back, and nothing is lost from one to the
//! next.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::{
    Api, Client, Customer, Database, ENOSPC, Gateway, GatewayBuilder, Ground, OK, Process, Request, Upstream, Word,
    until,
};

/// How long a dead gateway's holds may stay.
const RELEASED_WITHIN: Duration = Duration::from_secs(5);

/// An API that answers at once, and one that answers when the test says.
struct Upstreams {
    quick: Upstream,
    scripted: Upstream,
}

impl Upstreams {
    fn new() -> Upstreams {
        Upstreams { quick: Upstream::fine(), scripted: Upstream::scripted() }
    }

    fn gateway(&self, directory: &Path) -> Process {
        self.builder(directory).spawn()
    }

    /// One that counts as dead after this time without a heartbeat.
    fn gateway_with_timeout(&self, directory: &Path, timeout: Duration) -> Process {
        self.builder(directory).limit("instance_timeout_ms", u64::try_from(timeout.as_millis()).unwrap()).spawn()
    }

    fn builder(&self, directory: &Path) -> GatewayBuilder {
        let quick = Api::new("quick", self.quick.address()).path("/quick").price(1);
        let scripted = Api::new("scripted", self.scripted.address()).path("/scripted");
        Gateway::builder().api(quick).api(scripted).at(directory).workers(2).durability("full")
    }
}

/// What an instance leases.
fn leased_by(database: &Database, instance: i64) -> i64 {
    database.number(&format!("SELECT coalesce(sum(cents), 0) FROM keytoll_leases WHERE instance_id = {instance}"))
}

fn captured_of(database: &Database, customer: &Customer) -> i64 {
    database.number(&format!(
        "SELECT coalesce(sum(c.cents), 0) FROM keytoll_charges c JOIN keytoll_accounts a ON a.id = c.account_id
         WHERE c.state = 1 AND a.user_id = {}",
        customer.id
    ))
}

/// Waits until what the application wrote is on the books.
fn absorbed(database: &Database) {
    until("what others wrote is entered", || database.number("SELECT count(*) FROM keytoll_wallet_log") == 0);
}

/// Clients of one wallet, which go wherever the gateway is, and the application, which tops the wallet up.
struct Traffic {
    gateways: Arc<RwLock<Vec<SocketAddr>>>,
    enough: Arc<AtomicBool>,
    delivered: Arc<AtomicI64>,
    broken: Arc<AtomicI64>,
    /// How many replies each client had from where it goes now.
    here: Vec<Arc<AtomicI64>>,
    clients: Vec<JoinHandle<()>>,
    application: Option<JoinHandle<i64>>,
}

const CLIENTS: usize = 4;

impl Traffic {
    /// Each client begins with the gateway of its turn.
    fn start(database: &Database, customer: &Customer, gateways: &[SocketAddr]) -> Traffic {
        let (enough, delivered, broken) = (Arc::<AtomicBool>::default(), Arc::default(), Arc::default());
        let mut traffic = Traffic {
            gateways: Arc::new(RwLock::new(gateways.to_vec())),
            enough: Arc::clone(&enough),
            delivered,
            broken,
            here: Vec::new(),
            clients: Vec::new(),
            application: None,
        };
        for turn in 0..CLIENTS {
            traffic.client(turn, &customer.key);
        }
        let (connection, user) = (database.open(), customer.id);
        traffic.application = Some(thread::spawn(move || {
            let mut added = 0;
            while !enough.load(Ordering::Relaxed) {
                connection.execute("UPDATE wallets SET balance = balance + 3 WHERE user_id = ?1", [user]).unwrap();
                added += 3;
                thread::sleep(Duration::from_millis(1));
            }
            added
        }));
        traffic
    }

    fn client(&mut self, turn: usize, key: &str) {
        let here = Arc::new(AtomicI64::new(0));
        self.here.push(Arc::clone(&here));
        let (gateways, enough) = (Arc::clone(&self.gateways), Arc::clone(&self.enough));
        let (delivered, broken) = (Arc::clone(&self.delivered), Arc::clone(&self.broken));
        let key = key.to_owned();
        self.clients.push(thread::spawn(move || {
            let mut connected: Option<(SocketAddr, Client)> = None;
            while !enough.load(Ordering::Relaxed) {
                let address = {
                    let gateways = gateways.read().unwrap();
                    gateways[turn % gateways.len()]
                };
                let client = match &mut connected {
                    Some((to, client)) if *to == address => client,
                    other => {
                        here.store(0, Ordering::Release);
                        match Client::try_connect(address) {
                            Ok(client) => &mut other.insert((address, client)).1,
                            Err(_) => continue,
                        }
                    }
                };
                client.send_request(&Request::new(address, "GET", "/quick").key(&key));
                match client.try_reply() {
                    Some(reply) if reply.whole => {
                        assert_eq!(reply.status(), 200, "{reply:?}");
                        assert_eq!(reply.receipt().unwrap().cost, 1);
                        delivered.fetch_add(1, Ordering::AcqRel);
                        here.fetch_add(1, Ordering::AcqRel);
                    }
                    Some(_) | None => {
                        broken.fetch_add(1, Ordering::AcqRel);
                        connected = None;
                    }
                }
            }
        }));
    }

    /// Waits until every client is served where it is to go now.
    fn flows(&self) {
        until("traffic", || self.here.iter().all(|served| served.load(Ordering::Acquire) >= 20));
    }

    fn go(&self, gateways: &[SocketAddr]) {
        // From here on no reply of the old gateway counts as one of the new.
        gateways.clone_into(&mut self.gateways.write().unwrap());
        for here in &self.here {
            here.store(0, Ordering::Release);
        }
        self.flows();
    }

    /// Replies that were delivered, that were not, and what the application put in.
    fn end(mut self) -> (i64, i64, i64) {
        self.enough.store(true, Ordering::Relaxed);
        self.clients.drain(..).for_each(|client| client.join().unwrap());
        let added = self.application.take().unwrap().join().unwrap();
        (self.delivered.load(Ordering::Acquire), self.broken.load(Ordering::Acquire), added)
    }
}

#[test]
fn a_dead_gateways_holds_are_given_back_within_5_s_and_a_living_ones_never() {
    let (directory, upstreams) = (tempfile::tempdir().unwrap(), Upstreams::new());
    let (dying, living) = (upstreams.gateway(directory.path()), upstreams.gateway(directory.path()));
    let database = living.database().clone();
    let (busy, slow) = (database.customer("quick", 1_000_000), database.customer("scripted", 1_000));
    let traffic = Traffic::start(&database, &busy, &[dying.address(), living.address()]);
    traffic.flows();
    let open = |gateway: &Process| gateway.get("/scripted").key(&slow.key).open();
    let _left: Vec<Client> = (0..3).map(|_| open(&dying)).collect();
    let _calls: Vec<_> = (0..3).map(|_| upstreams.scripted.call()).collect();
    let mut waiting: Vec<Client> = (0..2).map(|_| open(&living)).collect();
    let calls: Vec<_> = (0..2).map(|_| upstreams.scripted.call()).collect();
    let own_holds = |instance| {
        database.number(&format!(
            "SELECT coalesce(sum(l.cents), 0) FROM keytoll_leases l JOIN keytoll_accounts a ON a.id = l.account_id
             WHERE a.user_id = {} AND l.instance_id = {instance}",
            slow.id
        ))
    };
    assert_eq!((own_holds(1), own_holds(2), database.balance(slow.id)), (30, 20, 950));

    let killed = Instant::now();
    assert!(!dying.kill());
    until("the dead one's holds are given back", || {
        assert_eq!(own_holds(2), 20, "the living one's holds stay");
        leased_by(&database, 1) == 0
    });
    assert!(killed.elapsed() < RELEASED_WITHIN, "after {:?}", killed.elapsed());
    assert_eq!((own_holds(2), database.balance(slow.id)), (20, 980));
    // They may have come in another order than they were sent.
    calls.into_iter().for_each(|call| call.reply(OK));
    for client in &mut waiting {
        let reply = client.reply();
        assert_eq!((reply.status(), reply.receipt().unwrap().cost), (200, 10));
    }

    let (delivered, broken, added) = traffic.end();
    assert!(broken >= 1, "the kill was felt");
    until("all is settled", || database.leased() == 0);
    absorbed(&database);
    let captured = captured_of(&database, &busy);
    // Captured and not seen whole: the one window, at most once for each client of the dead one.
    assert!((delivered..=delivered + 2).contains(&captured), "{delivered} delivered, {captured} captured");
    assert_eq!(database.balance(busy.id), 1_000_000 + added - captured);
    assert_eq!((captured_of(&database, &slow), database.balance(slow.id)), (20, 980));
    database.assert_books();
    database.assert_doctor();
    living.stop();
}

#[test]
fn a_rolling_restart_loses_nothing() {
    let (directory, upstreams) = (tempfile::tempdir().unwrap(), Upstreams::new());
    let mut current = upstreams.gateway(directory.path());
    let database = current.database().clone();
    let (busy, slow) = (database.customer("quick", 1_000_000), database.customer("scripted", 1_000));
    let traffic = Traffic::start(&database, &busy, &[current.address()]);
    traffic.flows();
    for round in 0..3 {
        let next = upstreams.gateway(directory.path());
        let mut client = current.get("/scripted").key(&slow.key).open();
        let call = upstreams.scripted.call();
        // As whatever stands in front of the two does it: new requests go to the new one, and then the old one ends.
        traffic.go(&[next.address()]);
        current.signal("TERM");
        until("it closes its listener", || Client::try_connect(current.address()).is_err());
        call.reply(OK);
        client.reply().assert_receipt(10, 1_000 - 10 * (round + 1));
        current.stop();
        current = next;
    }
    let (delivered, broken, added) = traffic.end();
    assert_eq!(broken, 0, "a request was lost");
    current.stop();
    assert_eq!(captured_of(&database, &busy), delivered);
    assert_eq!(database.balance(busy.id), 1_000_000 + added - delivered);
    assert_eq!((database.leased(), database.charges(2)), (0, 0));
    database.assert_doctor();
    let left = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_str().unwrap().contains("lock")).collect();
    assert_eq!(left, ["auth.db-keytoll-usage.lock"], "the one that all gateways share stays");
}

#[test]
fn a_living_gateways_holds_stay_when_its_lock_file_is_removed() {
    let (directory, upstreams) = (tempfile::tempdir().unwrap(), Upstreams::new());
    let (first, second) = (upstreams.gateway(directory.path()), upstreams.gateway(directory.path()));
    let database = first.database().clone();
    let slow = database.customer("scripted", 1_000);
    let mut client = first.get("/scripted").key(&slow.key).open();
    let call = upstreams.scripted.call();
    let lock = directory.path().join("auth.db-keytoll-1.lock");
    // Long enough, all in all, for the other one to look, and not for four looks.
    for _ in 0..6 {
        std::fs::remove_file(&lock).unwrap();
        until("the lock file is put back", || lock.exists());
        assert_eq!(leased_by(&database, 1), 10);
    }
    assert!(first.has_said("lock file was removed by others"));
    call.reply(OK);
    client.reply().assert_receipt(10, 990);
    assert_eq!((database.charges(1), database.charges(2)), (1, 0));
    // And the one that was put back is a lock: when its process dies, that is seen.
    let _client = first.get("/scripted").key(&slow.key).open();
    let _call = upstreams.scripted.call();
    first.kill();
    until("its hold is given back", || database.leased() == 0);
    assert_eq!(database.balance(slow.id), 990);
    second.stop();
}

#[test]
fn a_file_that_comes_without_lock_files_has_its_holds_given_back() {
    let (directory, upstreams) = (tempfile::tempdir().unwrap(), Upstreams::new());
    let dying = upstreams.gateway(directory.path());
    let database = dying.database().clone();
    let slow = database.customer("scripted", 1_000);
    let _client = dying.get("/scripted").key(&slow.key).open();
    let _call = upstreams.scripted.call();
    dying.kill();
    // As in a copy of the database file alone, on another machine.
    std::fs::remove_file(directory.path().join("auth.db-keytoll-1.lock")).unwrap();
    let started = Instant::now();
    let next = upstreams.gateway(directory.path());
    until("its hold is given back", || database.leased() == 0);
    assert!(started.elapsed() < RELEASED_WITHIN + Duration::from_secs(1), "after {:?}", started.elapsed());
    assert_eq!(database.balance(slow.id), 1_000);
    next.stop();
}

/// Enough for a heartbeat on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Transactions of an instance, which are its heartbeats.
fn beats(database: &Database, instance: i64) -> i64 {
    database.number(&format!("SELECT turn FROM keytoll_instances WHERE id = {instance}"))
}

#[test]
fn a_stranger_who_holds_the_lock_of_a_dead_gateway_freezes_its_holds_for_a_limited_time() {
    let (directory, upstreams) = (tempfile::tempdir().unwrap(), Upstreams::new());
    let dying = upstreams.gateway_with_timeout(directory.path(), TIMEOUT);
    let database = dying.database().clone();
    let slow = database.customer("scripted", 1_000);
    let _client = dying.get("/scripted").key(&slow.key).open();
    let _call = upstreams.scripted.call();
    dying.kill();
    let lock = directory.path().join("auth.db-keytoll-1.lock");
    let stranger = File::options().write(true).open(&lock).unwrap();
    stranger.try_lock().unwrap();
    let started = Instant::now();
    // What this one says of itself does not count for the other.
    let next = upstreams.gateway(directory.path());
    assert_eq!((leased_by(&database, 1), database.balance(slow.id)), (10, 990));
    until("its hold is given back", || database.leased() == 0);
    let frozen = started.elapsed();
    assert!(TIMEOUT <= frozen && frozen < TIMEOUT + RELEASED_WITHIN, "after {frozen:?}");
    assert_eq!(database.balance(slow.id), 1_000);
    until("it says so", || next.has_said("a gateway sent no heartbeat within its instance_timeout"));
    until("the lock file is removed", || !lock.exists());
    next.stop();
    database.assert_doctor();
}

#[test]
fn a_suspended_gateway_whose_holds_were_released_stops_when_it_wakes_and_spends_nothing() {
    let (directory, upstreams) = (tempfile::tempdir().unwrap(), Upstreams::new());
    let mut suspended = upstreams.gateway_with_timeout(directory.path(), TIMEOUT);
    let database = suspended.database().clone();
    let slow = database.customer("scripted", 1_000);
    let mut client = suspended.get("/scripted").key(&slow.key).open();
    let call = upstreams.scripted.call();
    let next = upstreams.gateway(directory.path());
    suspended.signal("STOP");
    until("its hold is given back", || database.leased() == 0);
    assert_eq!(database.balance(slow.id), 1_000);
    // Its upstream has answered, and another request waits, by the time that it wakes.
    call.reply(OK);
    let _waiting = suspended.get("/scripted").key(&slow.key).open();
    suspended.signal("CONT");
    assert_eq!(suspended.wait().code(), Some(66));
    assert!(suspended.has_said("took this one for dead"));
    assert!(client.try_reply().is_none_or(|reply| reply.status() != 200 || !reply.whole), "an unpaid reply was sent");
    assert_eq!((database.leased(), database.charges(1), database.balance(slow.id)), (0, 0, 1_000));
    assert_eq!(upstreams.scripted.seen(), 1, "a request was forwarded by a gateway that counts as dead");
    assert!(!directory.path().join("auth.db-keytoll-1.lock").exists());
    next.stop();
    database.assert_doctor();
}

#[test]
fn a_living_gateways_holds_stay_for_much_longer_than_its_timeout() {
    let (directory, upstreams) = (tempfile::tempdir().unwrap(), Upstreams::new());
    let first = upstreams.gateway_with_timeout(directory.path(), TIMEOUT);
    let database = first.database().clone();
    let slow = database.customer("scripted", 1_000);
    let mut client = first.get("/scripted").key(&slow.key).open();
    let call = upstreams.scripted.call();
    let second = upstreams.gateway_with_timeout(directory.path(), TIMEOUT);
    for instance in [1, 2] {
        let begun = beats(&database, instance);
        until("heartbeats for three times its timeout", || beats(&database, instance) >= begun + 3 * 6);
        assert_eq!(leased_by(&database, 1), 10);
    }
    call.reply(OK);
    client.reply().assert_receipt(10, 990);
    first.stop();
    second.stop();
    database.assert_doctor();
}

#[test]
fn a_request_is_not_forwarded_with_a_hold_that_others_may_have_released() {
    let (directory, upstreams) = (tempfile::tempdir().unwrap(), Upstreams::new());
    let timeout = Duration::from_secs(1);
    let gateway = upstreams.gateway_with_timeout(directory.path(), timeout);
    let database = gateway.database().clone();
    let slow = database.customer("scripted", 1_000);
    let lock = database.lock();
    let mut client = gateway.get("/scripted").key(&slow.key).open();
    let sent = Instant::now();
    until("half of the timeout", || sent.elapsed() > timeout / 2);
    lock.release();
    client.reply().assert_problem(503, "billing-unavailable");
    until("its hold is given back", || database.charges(2) == 1);
    assert_eq!((upstreams.scripted.seen(), database.balance(slow.id)), (0, 1_000));
    gateway.stop();
    database.assert_doctor();
}

#[test]
fn gateways_whose_common_disk_was_full_do_not_take_each_other_for_dead() {
    let ground = Ground::with_cents(1_000);
    let (shim, upstream) = (ground.shim(), Upstream::fine());
    let timeout_ms = u64::try_from(TIMEOUT.as_millis()).unwrap();
    let gateway = || ground.gateway(upstream.address()).under(&shim).limit("instance_timeout_ms", timeout_ms).spawn();
    let (mut first, mut second) = (gateway(), gateway());
    let database = ground.database();
    let (one, other) = (beats(&database, 1), beats(&database, 2));
    until("both send heartbeats", || beats(&database, 1) > one && beats(&database, 2) > other);
    shim.set(Word::WriteError, ENOSPC);
    until("writes fail", || shim.get(Word::Failed) > 0);
    // Neither can send a heartbeat for longer than an instance may be silent.
    std::thread::sleep(TIMEOUT * 2);
    shim.set(Word::WriteError, 0);
    let (one, other) = (beats(&database, 1), beats(&database, 2));
    until("both send heartbeats again", || {
        assert!(first.ended().is_none() && second.ended().is_none(), "a gateway took the other one for dead");
        beats(&database, 1) > one && beats(&database, 2) > other
    });
    for process in [&first, &second] {
        assert_eq!(process.get("/").key(&ground.key).send().status(), 200);
    }
    first.stop();
    second.stop();
}
