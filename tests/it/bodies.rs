//! Bodies of any size pass through and are never gathered.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use socket2::SockRef;

use crate::harness::{Api, Gateway, PATIENCE, Process};

const GIB: usize = 1 << 30;
const PIECE: usize = 256 * 1024;
const MOST_GROWTH_KIB: u64 = 32 * 1024;
const SLOW_READERS: usize = 100;
/// Of both connections, without what the kernel keeps: some pieces of a reply, and what serves it.
const MOST_PER_SLOW_READER_KIB: u64 = 192;

/// Reads so many bytes, however they come.
fn swallow(stream: &mut impl Read, count: usize) {
    let mut buffer = vec![0; PIECE];
    let mut left = count;
    while left > 0 {
        let most = left.min(PIECE);
        let read = stream.read(&mut buffer[..most]).unwrap();
        assert!(read > 0, "ended {left} bytes before its end");
        left -= read;
    }
}

fn pour(stream: &mut impl Write, count: usize) {
    let buffer = vec![b'k'; PIECE];
    let mut left = count;
    while left > 0 {
        let piece = left.min(PIECE);
        stream.write_all(&buffer[..piece]).unwrap();
        left -= piece;
    }
}

/// The lines of a head; the first of them is the result.
fn head(reader: &mut impl BufRead) -> String {
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    first.trim().to_owned()
}

/// Takes `up` bytes of a request and answers with `down` bytes, connection by connection.
fn upstream(sizes: Vec<(usize, usize)>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (up, down) in sizes {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            head(&mut reader);
            swallow(&mut reader, up);
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {down}\r\n\r\n").unwrap();
            pour(&mut stream, down);
        }
    });
    address
}

fn exchange(process: &Process, key: &str, up: usize, down: usize) {
    let mut stream = TcpStream::connect(process.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nx-api-key: {key}\r\nContent-Length: {up}\r\n\r\n").unwrap();
    pour(&mut stream, up);
    let mut reader = BufReader::new(stream);
    assert_eq!(head(&mut reader), "HTTP/1.1 200 OK");
    swallow(&mut reader, down);
}

/// What the process grew by at most, after a first small exchange, while these bodies went through.
fn growth_kib(up: usize, down: usize) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(upstream(vec![(PIECE, PIECE), (up, down)]), directory.path());
    let key = process.customer("weather", 1_000).key;
    exchange(&process, &key, PIECE, PIECE);
    let before = process.memory_kib("VmRSS:");
    exchange(&process, &key, up, down);
    process.memory_kib("VmHWM:").saturating_sub(before)
}

#[test]
fn a_gibibyte_goes_up_in_little_memory() {
    let growth = growth_kib(GIB, 2);
    assert!(growth < MOST_GROWTH_KIB, "grew by {growth} KiB");
}

#[test]
fn a_gibibyte_comes_down_in_little_memory() {
    let growth = growth_kib(2, GIB);
    assert!(growth < MOST_GROWTH_KIB, "grew by {growth} KiB");
}

/// A reader that takes nothing is waited for, not stored for.
#[test]
fn a_client_that_does_not_read_makes_the_upstream_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::of(Api::new("weather", listener.local_addr().unwrap()));
    let customer = gateway.customer("weather", 500);
    let client = gateway.get("/").key(&customer.key).open();
    let (mut stream, _) = listener.accept().unwrap();
    head(&mut BufReader::new(stream.try_clone().unwrap()));
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n").unwrap();
    stream.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let piece = vec![b'k'; PIECE];
    let mut sent = 0;
    while sent < GIB {
        match stream.write(&piece) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    assert!(sent < GIB / 8, "{sent} bytes were taken for a client that reads nothing");
    client.leave();
    gateway.assert_charges(1, 0);
}

/// Accepts `count` requests and writes a long reply to each until the write blocks. Returns the blocked connections.
fn blocked_upstream(listener: &TcpListener, count: usize) -> Vec<TcpStream> {
    let streams = (0..count).map(|_| {
        let (mut stream, _) = listener.accept().unwrap();
        thread::spawn(move || {
            head(&mut BufReader::new(stream.try_clone().unwrap()));
            stream.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n").unwrap();
            let piece = vec![b'k'; PIECE];
            while stream.write(&piece).is_ok() {}
            stream
        })
    });
    let streams: Vec<_> = streams.collect();
    streams.into_iter().map(|stream| stream.join().unwrap()).collect()
}

/// What is kept of a reply in the gateway does not grow with what its upstream has.
#[test]
fn clients_that_do_not_read_cost_little_memory_each() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(listener.local_addr().unwrap(), directory.path());
    let key = process.customer("weather", 10_000).key;
    let clients = |count: usize| -> Vec<TcpStream> {
        let clients = (0..count).map(|_| {
            let mut stream = TcpStream::connect(process.address()).unwrap();
            // Little for the kernel to keep.
            SockRef::from(&stream).set_recv_buffer_size(PIECE / 16).unwrap();
            write!(stream, "GET / HTTP/1.1\r\nHost: a\r\nx-api-key: {key}\r\n\r\n").unwrap();
            stream
        });
        clients.collect()
    };
    let _first = (clients(1), blocked_upstream(&listener, 1));
    let before = process.memory_kib("VmRSS:");
    let _slow = (clients(SLOW_READERS), blocked_upstream(&listener, SLOW_READERS));
    let growth = process.memory_kib("VmRSS:").saturating_sub(before);
    assert!(growth < SLOW_READERS as u64 * MOST_PER_SLOW_READER_KIB, "grew by {growth} KiB for {SLOW_READERS} clients");
}
