//! Bodies are streamed: a gigabyte each way leaves no trace in the gateway's memory.

use std::io::{BufReader, Read, Write};
use std::thread;

use super::{Gateway, Ground, Head, answer, upstream};

const GIBIBYTE: u64 = 1 << 30;
const PIECE: usize = 1 << 16;

#[test]
fn a_gibibyte_each_way_grows_the_process_by_less_than_32_mebibytes() {
    let ground = Ground::with_cents(500);
    let (address, _) = upstream(|head, reader| {
        let expected = head.number("content-length").unwrap_or(0);
        let taken = std::io::copy(&mut reader.by_ref().take(expected), &mut std::io::sink()).ok()?;
        assert_eq!(taken, expected);
        if expected > 0 {
            return answer(reader, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
        answer(reader, &format!("HTTP/1.1 200 OK\r\ncontent-length: {GIBIBYTE}\r\n\r\n"))?;
        pour(reader.get_mut())
    });
    let gateway = Gateway::start(&ground, address, 3);
    small_call(&gateway, &ground.key);
    let before = gateway.resident_bytes();

    let mut up = gateway.connect();
    let head =
        format!("POST / HTTP/1.1\r\nhost: weather\r\nx-api-key: {}\r\ncontent-length: {GIBIBYTE}\r\n\r\n", ground.key);
    up.write_all(head.as_bytes()).unwrap();
    let mut sending = up.try_clone().unwrap();
    let sender = thread::spawn(move || pour(&mut sending));
    let mut reader = BufReader::new(up);
    assert_eq!(Head::read(&mut reader).unwrap().status, 200);
    assert_eq!(sender.join().unwrap(), Some(()));

    let mut down = gateway.connect();
    down.write_all(format!("GET / HTTP/1.1\r\nhost: weather\r\nx-api-key: {}\r\n\r\n", ground.key).as_bytes()).unwrap();
    let mut reader = BufReader::new(down);
    let head = Head::read(&mut reader).unwrap();
    assert_eq!(head.number("content-length"), Some(GIBIBYTE));
    let taken = std::io::copy(&mut reader.by_ref().take(GIBIBYTE), &mut std::io::sink()).unwrap();
    assert_eq!(taken, GIBIBYTE);

    let grown = gateway.resident_bytes() - before;
    assert!(grown < 32 << 20, "grew by {grown} bytes");
    gateway.stop();
    assert_eq!(ground.number("SELECT count(*) FROM keytoll_charges WHERE state = 1"), 3);
    ground.assert_books_balance();
}

fn small_call(gateway: &Gateway, key: &str) {
    let mut stream = gateway.connect();
    let head = format!("POST / HTTP/1.1\r\nhost: weather\r\nx-api-key: {key}\r\ncontent-length: 1\r\n\r\n1");
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(Head::read(&mut BufReader::new(stream)).unwrap().status, 200);
}

/// Writes a gibibyte.
fn pour(stream: &mut std::net::TcpStream) -> Option<()> {
    let piece = vec![b'x'; PIECE];
    for _ in 0..GIBIBYTE / PIECE as u64 {
        stream.write_all(&piece).ok()?;
    }
    Some(())
}
