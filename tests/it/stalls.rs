//! Upstreams that give up on a client that takes nothing of its reply: the client pays. An upstream that breaks off for a
//! reason of its own is not paid, however slowly the client reads.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Api, Gateway, Process, until};

const ID: &str = "the-request-of-the-test";
const SIZE: usize = 32 << 20;
const STALL: Duration = Duration::from_millis(300);
/// How long the upstream waits for a client that takes nothing.
const PATIENCE: Duration = Duration::from_millis(1_200);
/// After a stall, a break of the upstream is the client's fault for so long.
const AFTERMATH: Duration = Duration::from_secs(1);

struct Scene {
    listener: TcpListener,
    process: Process,
    client: TcpStream,
}

/// A client that has asked for a large reply, and read nothing.
fn scene() -> (Scene, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = Api::new("weather", listener.local_addr().unwrap());
    let stall_ms = u64::try_from(STALL.as_millis()).unwrap();
    let process = Gateway::builder().api(api).limit("client_stall_ms", stall_ms).access_log().spawn();
    let key = process.customer("weather", 500).key;
    let mut client = TcpStream::connect(process.address()).unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nX-Request-Id: {ID}\r\n\r\n");
    client.write_all(head.as_bytes()).unwrap();
    let mut upstream = listener.accept().unwrap().0;
    let mut request = [0; 4096];
    assert!(upstream.read(&mut request).unwrap() > 0);
    upstream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes()).unwrap();
    (Scene { listener, process, client }, upstream)
}

/// Sends until the gateway has taken nothing for `patience`; how much was taken.
fn send_until_it_is_stuck(upstream: &mut TcpStream, patience: Duration) -> usize {
    upstream.set_write_timeout(Some(patience)).unwrap();
    let piece = vec![b'x'; 1 << 16];
    let mut sent = 0;
    while sent < SIZE {
        match upstream.write(&piece) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sent,
            Err(error) => panic!("the gateway broke off: {error}"),
        }
    }
    panic!("the client's buffers took everything");
}

/// Reads so many bytes a second for a while; how many came.
fn read_slowly(client: &mut TcpStream, bytes_per_second: usize, time: Duration) -> usize {
    let begun = Instant::now();
    let (mut piece, mut count) = (vec![0; bytes_per_second / 100], 0);
    while begun.elapsed() < time {
        count += client.read(&mut piece).unwrap();
        thread::sleep(Duration::from_millis(10));
    }
    count
}

/// Reads until the connection ends.
fn read_rest(client: &mut TcpStream) -> usize {
    let (mut piece, mut count) = (vec![0; 1 << 16], 0);
    while let Ok(more @ 1..) = client.read(&mut piece) {
        count += more;
    }
    count
}

impl Scene {
    #[track_caller]
    fn assert_settled(self, reason: &str, captured: i64) {
        let line = self.process.access_line(ID);
        assert_eq!((&line["settlement"], &line["cost_cents"]), (&reason.into(), &(10 * captured).into()), "{line}");
        let database = self.process.database();
        until("it is in the books", || database.leased() == 0 && database.charges(1) == captured);
        database.assert_books();
        drop(self.listener);
        self.process.stop();
    }
}

#[test]
fn a_client_that_stalls_until_its_upstream_gives_up_pays() {
    let (mut scene, mut upstream) = scene();
    send_until_it_is_stuck(&mut upstream, PATIENCE);
    drop(upstream);
    assert!(read_rest(&mut scene.client) < SIZE);
    scene.assert_settled("client_stalled", 1);
}

/// What was on its way when the upstream gave up keeps the client busy for longer than the break may be late.
#[test]
fn a_client_that_stalls_and_then_reads_slowly_pays() {
    let (mut scene, mut upstream) = scene();
    send_until_it_is_stuck(&mut upstream, PATIENCE);
    drop(upstream);
    let slowly = read_slowly(&mut scene.client, 1 << 20, AFTERMATH * 3 / 2);
    assert!(slowly + read_rest(&mut scene.client) < SIZE);
    scene.assert_settled("client_stalled", 1);
}

#[test]
fn a_client_that_stalled_and_went_on_does_not_pay_for_a_later_break() {
    let (scene, mut upstream) = scene();
    let mut reader = scene.client.try_clone().unwrap();
    send_until_it_is_stuck(&mut upstream, PATIENCE);
    let reading = thread::spawn(move || read_rest(&mut reader));
    // The client reads everything that comes now, and some time passes before the upstream breaks off.
    upstream.write_all(&vec![b'x'; 1 << 20]).unwrap();
    thread::sleep(AFTERMATH + STALL);
    upstream.write_all(b"x").unwrap();
    drop(upstream);
    assert!(reading.join().unwrap() < SIZE);
    scene.client.shutdown(std::net::Shutdown::Both).ok();
    scene.assert_settled("released", 0);
}

#[test]
fn a_client_that_reads_slowly_does_not_pay_for_a_break() {
    let (mut scene, mut upstream) = scene();
    let sending = thread::spawn(move || {
        // More than the buffers hold, so that the gateway waits for the client, and the upstream for the gateway.
        let sent = send_until_it_is_stuck(&mut upstream, STALL / 2);
        (upstream, sent)
    });
    let slowly = read_slowly(&mut scene.client, 1 << 20, STALL * 5);
    let (upstream, _) = sending.join().unwrap();
    drop(upstream);
    assert!(slowly + read_rest(&mut scene.client) < SIZE);
    scene.assert_settled("released", 0);
}
