//! What the kernel says of real connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::super::socket_info::{SocketInfo, TcpState};

fn pair(listen: &str, connect: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(listen).unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(format!("{connect}:{port}")).unwrap();
    (client, listener.accept().unwrap().0)
}

fn info(stream: &TcpStream) -> Option<SocketInfo> {
    SocketInfo::look_up(stream.local_addr().unwrap(), stream.peer_addr().unwrap()).unwrap()
}

#[track_caller]
fn until(stream: &TcpStream, is_so: impl Fn(&SocketInfo) -> bool) -> SocketInfo {
    let begun = Instant::now();
    loop {
        let found = info(stream).unwrap();
        if is_so(&found) {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{found:?}");
    }
}

#[test]
fn bytes_are_unacknowledged_until_the_other_side_has_received_them() {
    for (listen, connect) in
        [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]"), ("[::]:0", "127.0.0.1"), ("[::]:0", "[::ffff:127.0.0.1]")]
    {
        let (mut client, server) = pair(listen, connect);
        let before = info(&server).unwrap();
        assert_eq!((before.state, before.unacknowledged_bytes), (TcpState::Established, 0), "{listen} {connect}");
        // More than both kernels take while nothing is read.
        server.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(count) = (&server).write(&[b'x'; 1 << 16]) {
            written += count;
        }
        let full = until(&server, |info| info.unacknowledged_bytes > 0);
        let acknowledged = |info: &SocketInfo| info.acknowledged_bytes.unwrap() - before.acknowledged_bytes.unwrap();
        assert!(acknowledged(&full) + u64::from(full.unacknowledged_bytes) <= written as u64, "{full:?}");
        assert!(!before.is_ahead_of(&full) && !full.is_ahead_of(&full));
        let mut all = vec![0; written];
        client.read_exact(&mut all).unwrap();
        let empty = until(&server, |info| info.unacknowledged_bytes == 0);
        assert_eq!(acknowledged(&empty), written as u64, "{listen} {connect}");
        assert!(empty.is_ahead_of(&full));
        let uncounted = |info: SocketInfo| SocketInfo { acknowledged_bytes: None, ..info };
        assert!(uncounted(empty).is_ahead_of(&full) && !uncounted(full).is_ahead_of(&empty));
    }
}

#[test]
fn a_side_that_has_closed_is_seen() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        until(&server, |info| info.state == TcpState::CloseWait);
        until(&client, |info| info.state == TcpState::Other);
        let (local, peer) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
        drop(server);
        // The listener with the same address is not taken for it.
        assert_eq!(SocketInfo::look_up(local, peer).unwrap(), None);
    }
}
