//! The seeded run: several lanes, each with a gateway that dies again and again.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use fastrand::Rng;
use keytoll::failpoint::POINTS;

use crate::harness::number;
use crate::lane::{self, Tally};
use crate::plan::MANNERS;

const LANES: usize = 3;
const USUAL_KILLS: usize = 100;
/// From so many kills on, every point must have been the death of some.
const MANY_KILLS: usize = 1_000;

#[test]
fn whenever_it_is_killed_the_books_balance_and_all_records_agree() {
    let seed = number("KEYTOLL_IT_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = number("KEYTOLL_IT_KILLS").map_or(USUAL_KILLS, |kills| usize::try_from(kills).unwrap());
    println!("KEYTOLL_IT_SEED={seed} KEYTOLL_IT_KILLS={kills}");
    let (tally, began) = (Tally::default(), Instant::now());
    let mut seeds = Rng::with_seed(seed);
    thread::scope(|scope| {
        for _ in 0..LANES {
            let rng = seeds.fork();
            let tally = &tally;
            scope.spawn(move || lane::run(rng, kills, tally));
        }
    });
    let endings = tally.endings.lock().unwrap();
    for (name, (tried, died)) in endings.iter() {
        println!("{name:24} tried {tried:5}  died {died:5}");
    }
    let count = |number: &std::sync::atomic::AtomicUsize| number.load(Ordering::Relaxed);
    println!(
        "{} kills, {} starts, {} ends in order, {} calls, {} charges that went upstream, {} receipts, {:?}",
        count(&tally.kills),
        tally.starts.load(Ordering::Relaxed),
        tally.stops.load(Ordering::Relaxed),
        count(&tally.calls),
        count(&tally.charges),
        count(&tally.delivered),
        began.elapsed()
    );
    let [again, forwarded, told, refunds] = &tally.retries;
    println!(
        "{} sent again, {} forwarded as retries, {} told that they were paid for, {} refunds, {} paid again; {} charges grew old, {} became usage",
        count(again),
        count(forwarded),
        count(told),
        count(refunds),
        count(&tally.restored),
        count(&tally.grown_old),
        count(&tally.used)
    );
    let manners = tally.manners.lock().unwrap();
    for (name, [calls, arrived, captured, released]) in manners.iter() {
        println!("{name:24} {calls:5} calls  {arrived:5} upstream  {captured:5} captured  {released:5} released");
    }
    let violations = tally.violations.lock().unwrap();
    println!("{} violations", violations.len());
    assert!(violations.is_empty(), "seed {seed}: {:#?}", &violations[..violations.len().min(20)]);
    assert!(count(&tally.delivered) > kills, "there was no traffic worth the name");
    assert!(tally.retries.iter().all(|number| count(number) > 0), "some kind of retry was never tried");
    assert!(MANNERS.iter().all(|name| manners.contains_key(name)), "some manner was never tried");
    if kills >= MANY_KILLS {
        let never: Vec<_> =
            POINTS.iter().filter(|name| endings.get(*name).is_none_or(|(_, died)| *died == 0)).collect();
        assert!(never.is_empty(), "never reached: {never:?}");
    }
}
