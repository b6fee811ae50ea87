//! A lane: one file after the other, and on each one start of the gateway after the other, until it is dead.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::application::Application;
use crate::audit::audit;
use crate::client::Caller;
use crate::file::File;
use crate::harness::process::Started;
use crate::harness::{PATIENCE, Process, until};
use crate::past::{CAPTURED, OLD, RELEASED, grow_old};
use crate::plan::{Deck, Ending};
use crate::records::{Refused, Sent};
use crate::retries::is_restored;

/// Starts of the gateway on one file.
const STARTS: u64 = 20;
const CLIENTS: usize = 6;
/// Between two things that the application does.
const PAUSE: Duration = Duration::from_millis(2);
/// How long after a connection broke the gateway may still look alive.
const DYING: Duration = Duration::from_secs(3);

/// What all lanes add up to.
#[derive(Default)]
pub(crate) struct Tally {
    /// By ending: how often it was tried, and how often the process died of it.
    pub(crate) endings: Mutex<BTreeMap<&'static str, (u64, u64)>>,
    pub(crate) kills: AtomicUsize,
    pub(crate) starts: AtomicU64,
    pub(crate) stops: AtomicU64,
    pub(crate) calls: AtomicUsize,
    pub(crate) charges: AtomicUsize,
    pub(crate) delivered: AtomicUsize,
    /// Charges that were made old, and those that became usage.
    pub(crate) grown_old: AtomicUsize,
    pub(crate) used: AtomicUsize,
    /// Requests that were sent again, forwarded as a retry, told that they were paid for, and refunds.
    pub(crate) retries: [AtomicUsize; 4],
    /// Charges of retries that were given up before they went upstream.
    pub(crate) restored: AtomicUsize,
    /// By manner: calls, those that reached the upstream, charges that are captured, and charges that are released.
    pub(crate) manners: Mutex<BTreeMap<&'static str, [usize; 4]>>,
    pub(crate) violations: Mutex<Vec<String>>,
}

impl Tally {
    /// Adds the calls of a file that is done with, by manner.
    fn count_manners(&self, file: &File) {
        let (charges, arrived) = (file.past.lock().unwrap().all(), file.records.arrived.lock().unwrap());
        let mut manners = self.manners.lock().unwrap();
        for (id, sent) in file.records.sent.lock().unwrap().iter() {
            let numbers = manners.entry(sent.manner.name()).or_default();
            let state = arrived.get(id).and_then(|arrived| charges.get(&arrived.charge?)).map(|charge| charge.state);
            let counts = [true, arrived.contains_key(id), state == Some(CAPTURED), state == Some(RELEASED)];
            numbers.iter_mut().zip(counts).for_each(|(number, counts)| *number += usize::from(counts));
        }
    }

    fn tried(&self, ending: &Ending) {
        self.endings.lock().unwrap().entry(ending.name()).or_default().0 += 1;
    }

    fn died(&self, of: &'static str) {
        self.endings.lock().unwrap().entry(of).or_default().1 += 1;
        self.kills.fetch_add(1, Ordering::AcqRel);
    }

    fn is_over(&self, kills: usize) -> bool {
        self.kills.load(Ordering::Acquire) >= kills || !self.violations.lock().unwrap().is_empty()
    }
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    AtThePoint,
    FromOutside,
    InOrder,
}

/// Goes on until there were so many kills, in all lanes, or something is wrong.
pub(crate) fn run(mut rng: Rng, kills: usize, tally: &Tally) {
    let mut deck = Deck::new();
    while !tally.is_over(kills) {
        let file = File::new(&mut rng);
        let application = Application::open(&file);
        let starts_of_a_new_file = rng.u8(1..=2);
        for start in 0..STARTS {
            if tally.is_over(kills) {
                break;
            }
            // A start that dies while it makes the tables has made none.
            let is_new = start < u64::from(starts_of_a_new_file);
            let ending = match is_new {
                true => Deck::of_a_new_file(&mut rng, file.migrations(), file.is_older),
                false => deck.next(&mut rng),
            };
            tally.tried(&ending);
            if ending.is_of_old_age() || rng.u8(..8) == 0 {
                tally.grown_old.fetch_add(grow_old(&file, &mut rng, ending.is_of_old_age()), Ordering::Relaxed);
            }
            round(&file, &application, &mut rng, start, &ending, tally);
            // The application works on while the gateway is away.
            for _ in 0..rng.u8(..4) {
                application.act(&file, &mut rng);
            }
            application.put_right();
            if !file.records.violations().is_empty() {
                break;
            }
        }
        close(&file, &mut rng, tally);
    }
}

/// The last start on a file, which ends in order: the books balance before and after, and after all old charges have become
/// usage.
fn close(file: &File, rng: &mut Rng, tally: &Tally) {
    tally.grown_old.fetch_add(grow_old(file, rng, false), Ordering::Relaxed);
    let process = file.start_plainly();
    audit(file);
    until("what is old becomes usage", || file.database.number(OLD) == 0);
    audit(file);
    process.stop();
    audit(file);
    tally.count_manners(file);
    let sent = file.records.sent.lock().unwrap();
    tally.calls.fetch_add(sent.len(), Ordering::Relaxed);
    tally.used.fetch_add(file.past.lock().unwrap().gone(), Ordering::Relaxed);
    let delivered = sent.values().filter(|sent| sent.got.is_some_and(|got| got.whole && got.receipt.is_some()));
    tally.delivered.fetch_add(delivered.count(), Ordering::Relaxed);
    let served = file.records.served.lock().unwrap();
    tally.charges.fetch_add(served.len(), Ordering::Relaxed);
    let charges = file.past.lock().unwrap().all();
    let restored = charges.iter().filter(|(id, charge)| is_restored(charge, served.get(id)));
    tally.restored.fetch_add(restored.count(), Ordering::Relaxed);
    let keys: HashSet<&String> = sent.values().filter_map(|sent| sent.key.as_ref()).collect();
    let again = sent.values().filter(|sent| sent.key.is_some()).count() - keys.len();
    let forwarded = served.values().filter(|served| served.retry_of.is_some()).count();
    let told = |sent: &&Sent| matches!(sent.got.and_then(|got| got.refused), Some(Refused::AlreadyCharged(_)));
    let told = sent.values().filter(told).count();
    let refunds = usize::try_from(file.database.refunds()).unwrap();
    for (sum, more) in tally.retries.iter().zip([again, forwarded, told, refunds]) {
        sum.fetch_add(more, Ordering::Relaxed);
    }
    let unavailable = file.records.unavailable.load(Ordering::Relaxed);
    if unavailable > sent.len() as u64 / 100 + 5 {
        file.records.violated(format!("{unavailable} of {} requests could not be billed", sent.len()));
    }
    tally.violations.lock().unwrap().extend(file.records.violations());
}

/// From one start to one death, or to an end in order.
fn round(file: &File, application: &Application, rng: &mut Rng, start: u64, ending: &Ending, tally: &Tally) {
    tally.starts.fetch_add(1, Ordering::Relaxed);
    let process = match file.start(Some(ending)) {
        Started::Ended(status) => {
            assert_eq!(status.signal(), Some(9), "the gateway does not start: {status}");
            file.records.killed.lock().unwrap().push(start);
            return tally.died(ending.name());
        }
        Started::Serving(process) => process,
    };
    audit(file);
    let ended = traffic(file, application, rng, start, ending, process);
    file.note_death();
    if matches!(ending, Ending::End { .. }) && ended != Ended::FromOutside {
        file.records.drained.lock().unwrap().push(start);
    }
    if ended != Ended::InOrder {
        file.records.killed.lock().unwrap().push(start);
    }
    match ended {
        Ended::AtThePoint => tally.died(ending.name()),
        Ended::FromOutside => tally.died("from outside"),
        Ended::InOrder => {
            tally.stops.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Clients and the application are busy until the gateway is gone.
fn traffic(
    file: &File,
    application: &Application,
    rng: &mut Rng,
    start: u64,
    ending: &Ending,
    process: Process,
) -> Ended {
    let (enough, gone) = (AtomicBool::new(false), OnceLock::new());
    let (enough, gone) = (&enough, &gone);
    let gateway = process.address();
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let rng = rng.fork();
            let caller = Caller { file, gateway, start, number, rng, enough, gone };
            scope.spawn(move || caller.run());
        }
        let own = rng.fork();
        let watcher = scope.spawn(move || {
            let ended = watch(file, ending, process, gone);
            enough.store(true, Ordering::Release);
            ended
        });
        let mut rng = own;
        while !enough.load(Ordering::Acquire) {
            application.act(file, &mut rng);
            thread::sleep(PAUSE);
        }
        watcher.join().unwrap()
    })
}

/// Waits for the end, or brings it.
fn watch(file: &File, ending: &Ending, mut process: Process, gone: &OnceLock<String>) -> Ended {
    let (within, ends) = match ending {
        Ending::Point { within, .. } => (*within, false),
        Ending::End { after, .. } => (*after, true),
        Ending::Outside { after } => (*after, false),
    };
    let deadline = Instant::now() + within;
    let mut broken_at = None;
    loop {
        if process.ended().is_some() {
            process.kill();
            return Ended::AtThePoint;
        }
        match gone.get() {
            // A gateway that is dying is waited for, also after the deadline.
            Some(id) if broken_at.get_or_insert_with(Instant::now).elapsed() > DYING => {
                let sent = file.records.sent.lock().unwrap();
                let call = sent.get(id);
                file.records
                    .violated(format!("a connection broke while the gateway lives, at {ending:?}: {id}, {call:?}"));
                break;
            }
            Some(_) => {}
            None if Instant::now() >= deadline => break,
            None => {}
        }
        thread::sleep(Duration::from_micros(500));
    }
    if !ends {
        return if process.kill() { Ended::AtThePoint } else { Ended::FromOutside };
    }
    process.signal("TERM");
    let deadline = Instant::now() + PATIENCE;
    loop {
        match process.ended() {
            Some(status) if status.success() => return Ended::InOrder,
            Some(_) => {
                process.kill();
                return Ended::AtThePoint;
            }
            None => assert!(Instant::now() < deadline, "the gateway does not end"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}
