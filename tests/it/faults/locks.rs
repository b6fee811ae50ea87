//! Another program that holds the write lock.

use std::thread;
use std::time::{Duration, Instant};

use super::Scene;
use crate::harness::{Answer, GLANCE, until};

#[test]
fn a_lock_of_one_second_is_waited_for_and_nobody_is_refused() {
    let scene = Scene::new();
    let process = scene.start();
    let crowd = scene.crowd(&process);
    let lock = scene.ground.database().lock();
    // Whatever was held before the lock is on its way.
    thread::sleep(GLANCE);
    let forwarded = scene.upstream.seen();
    thread::sleep(Duration::from_secs(1));
    assert_eq!(scene.upstream.seen(), forwarded, "something was forwarded that cannot have been paid");
    lock.release();
    scene.assert_resuming(&process, &crowd);
    let answers = crowd.leave();
    assert!(answers.iter().all(|answer| answer.has_status(200)), "a client was not served");
    process.stop();
    scene.assert_accounts(&answers);
}

#[test]
fn a_lock_of_ten_seconds_forwards_nothing_and_service_resumes_at_its_end() {
    let scene = Scene::new();
    let process = scene.start();
    let crowd = scene.crowd(&process);
    let lock = scene.ground.database().lock();
    let locked = Instant::now();
    until("a refusal", || crowd.refused() > 0);
    let forwarded = scene.upstream.seen();
    until("the reason", || process.trouble().is_some_and(|reason| reason.contains("locked by another program")));
    until("ten seconds", || locked.elapsed() >= Duration::from_secs(10));
    assert_eq!(scene.upstream.seen(), forwarded, "something was forwarded that cannot have been paid");
    lock.release();
    scene.assert_resuming(&process, &crowd);
    // What was under way when the lock was taken could not be captured in time: broken off, and given back.
    let broken = crowd.count(|answer| matches!(answer, Answer::Broken));
    assert!(broken <= super::CLIENTS, "{broken} replies were broken off");
    scene.close(process, crowd);
}
