//! A reader of another program that keeps its snapshot.

use std::fs;

use super::Scene;
use crate::harness::{Crowd, until};

/// The least that the setting allows.
const WAL_BYTES: u64 = 1 << 20;

#[test]
fn a_long_reader_lets_the_log_grow_stops_nobody_and_at_its_end_the_log_comes_down() {
    let scene = Scene::new();
    let process = scene.gateway().durability("normal").limit("wal_bytes", WAL_BYTES).spawn();
    let wal = scene.ground.file("-wal");
    let length = || fs::metadata(&wal).unwrap().len();
    let crowd = Crowd::of(8, &process.get("/").key(&scene.ground.key));
    until("traffic", || crowd.served() >= 10);
    let reader = scene.ground.database().open();
    reader.execute_batch("BEGIN").unwrap();
    let read = || reader.query_row("SELECT max(id) FROM keytoll_charges", [], |row| row.get::<_, i64>(0)).unwrap();
    let seen = read();
    until("the log past its bound", || length() > 2 * WAL_BYTES);
    assert_eq!((read(), process.trouble()), (seen, None), "the reader's snapshot, and the service");
    reader.execute_batch("COMMIT").unwrap();
    until("the log below its bound", || length() <= WAL_BYTES);
    let answers = crowd.leave();
    assert!(answers.iter().all(|answer| answer.has_status(200)), "a client was not served");
    process.stop();
    scene.assert_accounts(&answers);
}
