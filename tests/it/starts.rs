//! A start that is ended: whatever it waits for, SIGTERM ends it, with status 0 and nothing half done.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::process::{Starting, program};
use crate::harness::{Ground, Upstream, Word, until};

/// Far less than a start waits for the lock of another program, and more than it takes to close what was opened.
const SOON: Duration = Duration::from_secs(4);

#[track_caller]
fn ends_soon(starting: Starting, words: &str) {
    let asked = Instant::now();
    let (status, said) = starting.terminate();
    assert_eq!(status.code(), Some(0), "{status}: {said}");
    assert!(asked.elapsed() < SOON, "after {:?}: {said}", asked.elapsed());
    assert!(said.contains(words), "{said}");
}

#[test]
fn a_start_that_waits_for_the_lock_of_another_program_is_ended() {
    let (ground, upstream) = (Ground::with_cents(1_000), Upstream::fine());
    let lock = ground.database().lock();
    let starting = ground.gateway(upstream.address()).begin();
    until("it reads the configuration", || starting.has_said("configuration read"));
    ends_soon(starting, "stopping before the gateway serves");
    lock.release();
    ground.gateway(upstream.address()).spawn().stop();
    ground.database().assert_doctor();
}

#[test]
fn a_start_that_waits_for_the_disk_is_ended_and_the_next_one_finds_all_in_order() {
    let (ground, upstream) = (Ground::with_cents(1_000), Upstream::fine());
    let shim = ground.shim();
    for _ in 0..2 {
        shim.set(Word::HangSyncs, 1);
        let hanging = shim.get(Word::Hanging);
        let starting = ground.gateway(upstream.address()).under(&shim).begin();
        until("a sync that hangs", || shim.get(Word::Hanging) > hanging);
        ends_soon(starting, "the next start recovers");
    }
    shim.set(Word::HangSyncs, 0);
    let process = ground.gateway(upstream.address()).spawn();
    process.get("/").key(&ground.key).send().assert_receipt(10, 990);
    process.stop();
    ground.database().assert_doctor();
}

#[test]
fn the_demo_starts_without_a_warning_and_ends_in_order() {
    let mut demo = program();
    let mut demo = demo.arg("demo").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.trim_start().starts_with("curl ")), "it shows no request");
    let id = demo.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    lines.for_each(drop);
    let output = demo.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_start_that_waits_for_its_configuration_is_ended() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("keytoll.toml");
    super::files::fifo(&fifo);
    let mut command = program();
    command.args(["serve", "--config"]).arg(&fifo);
    let starting = Starting::of(command, directory);
    starting.handles_signals();
    ends_soon(starting, "stopped before the configuration was read");
}
