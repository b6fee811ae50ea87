//! Killed under load: what was delivered is paid, what was not is given back, and the books balance.

use std::io::{BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{Gateway, Ground, Head, answer, upstream};

const CLIENTS: usize = 8;
const KILLS: u64 = 6;
const REPLIES_BEFORE_A_KILL: u64 = 400;

#[test]
fn the_books_balance_after_every_kill_under_load() {
    let ground = Arc::new(Ground::with_cents(1_000_000));
    let (address, served) = upstream(|_, reader| answer(reader, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nsunny"));
    let delivered = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..KILLS {
        let gateway = Gateway::start(&ground, address, 3);
        let count = Arc::new(AtomicU64::new(0));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let stream = gateway.connect();
                let (ground, delivered, count) = (Arc::clone(&ground), Arc::clone(&delivered), Arc::clone(&count));
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    while let Some(charge) = call(&mut reader, &ground.key) {
                        delivered.lock().unwrap().push(charge);
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        while count.load(Ordering::SeqCst) < REPLIES_BEFORE_A_KILL {
            thread::yield_now();
        }
        gateway.kill();
        clients.into_iter().for_each(|client| client.join().unwrap());
    }
    // The next start finds what the last one held.
    Gateway::start(&ground, address, 3).stop();
    ground.assert_books_balance();
    assert_eq!(ground.number("SELECT count(*) FROM keytoll_charges WHERE state = 0"), 0);
    let delivered = delivered.lock().unwrap();
    assert!(delivered.len() as u64 >= KILLS * REPLIES_BEFORE_A_KILL);
    let application = ground.application();
    let mut captured = application.prepare("SELECT 1 FROM keytoll_charges WHERE id = ?1 AND state = 1").unwrap();
    for charge in delivered.iter() {
        assert!(
            captured.exists([i64::try_from(*charge).unwrap()]).unwrap(),
            "charge {charge} was delivered and is not captured"
        );
    }
    let captured = ground.number("SELECT count(*) FROM keytoll_charges WHERE state = 1");
    assert!(u64::try_from(captured).unwrap() <= served.load(Ordering::SeqCst), "more captured than served");
    assert_eq!(ground.number("SELECT balance FROM wallets"), 1_000_000 - 3 * captured);
}

/// One call on a connection that is kept; the charge of its reply if that came whole.
fn call(reader: &mut BufReader<std::net::TcpStream>, key: &str) -> Option<u64> {
    let request = format!("GET /today HTTP/1.1\r\nhost: weather\r\nx-api-key: {key}\r\n\r\n");
    reader.get_mut().write_all(request.as_bytes()).ok()?;
    let head = Head::read(reader)?;
    assert_eq!(head.status, 200);
    let mut body = vec![0; usize::try_from(head.number("content-length")?).unwrap()];
    reader.read_exact(&mut body).ok()?;
    assert_eq!(body, b"sunny");
    head.number("keytoll-charge-id")
}

#[test]
fn a_second_gateway_on_the_same_port_is_refused_and_touches_nothing() {
    let ground = Ground::with_cents(500);
    let (address, _) = upstream(|_, _| None);
    let gateway = Gateway::start(&ground, address, 3);
    let output = super::command(&ground.database())
        .args(["serve", "--listen", &gateway.address.to_string(), "--admin-listen", "127.0.0.1:0", "--api", "weather"])
        .args(["--upstream", &format!("http://{address}"), "--price", "3"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(ground.number("SELECT count(*) FROM keytoll_instances"), 1);
    gateway.stop();
    ground.assert_books_balance();
    assert_eq!(ground.number("SELECT count(*) FROM keytoll_instances WHERE ended_at IS NULL"), 0);
}
