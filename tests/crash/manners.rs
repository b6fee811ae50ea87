//! What clients do while their requests are under way: some stay, some leave, break off, reset, half-close or stall.

use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use socket2::{Domain, SockRef, Socket, Type};

use crate::client::{Caller, Next};
use crate::harness::{Client, Head, PATIENCE, Reply, Request};
use crate::plan::{Body, Call, End, LARGE_BYTES, Manner, Part};
use crate::records::Arrived;

/// The longest body that is collected.
const COLLECTED_BYTES: usize = 65_536;
/// Between two looks at what a client waits for.
const LOOK: Duration = Duration::from_micros(300);
/// The receive buffer of a client that reads nothing.
const SMALL_BUFFER_BYTES: usize = 4_096;
/// The same when it reads on.
const LARGE_BUFFER_BYTES: usize = 1 << 20;

/// A call and the connection that it goes over.
struct Conversation<'a> {
    caller: &'a Caller<'a>,
    client: Client,
    call: &'a Call,
    id: &'a str,
}

impl Caller<'_> {
    /// Sends the request in the manner of the call. Returns what becomes of the connection.
    pub(crate) fn converse(&self, client: Client, call: &Call, request: &Request, id: &str) -> Next {
        let conversation = Conversation { caller: self, client, call, id };
        match call.manner {
            Manner::BreaksOffSmall { part, end } => conversation.break_off(request, part, end, false),
            Manner::BreaksOffStream { part, end, waits } => conversation.break_off(request, part, end, waits),
            Manner::Stays => conversation.whole(request).read_reply(),
            Manner::LeavesEarly => conversation.whole(request).leave_early(),
            Manner::LeavesAfterTheHead => conversation.whole(request).leave_after_the_head(),
            Manner::Resets => conversation.whole(request).reset(),
            Manner::HalfCloses => {
                let conversation = conversation.whole(request);
                conversation.end_with(End::Fin);
                conversation.read_reply()
            }
            Manner::Stalls { stall, leaves } => {
                let Ok(client) = connect_with_small_buffer(self.gateway) else {
                    return Next::Gone;
                };
                Conversation { client, ..conversation }.whole(request).stall(stall, leaves)
            }
        }
    }
}

impl Conversation<'_> {
    /// Sends all of the request. A gateway that is gone, or that refuses early, may not take it.
    fn whole(mut self, request: &Request) -> Self {
        let (request, body) = match self.call.body {
            Body::Nothing => (request.clone(), Vec::new()),
            Body::Small => (request.clone().field("Content-Length", "5"), b"hello".to_vec()),
            Body::Chunked => {
                (request.clone().field("Transfer-Encoding", "chunked"), b"5\r\nhello\r\n0\r\n\r\n".to_vec())
            }
            Body::Long => (request.clone().field("Content-Length", long().to_string()), vec![b'x'; long()]),
        };
        self.client.send_request(&request);
        let _ = self.client.try_send(&body);
        self
    }

    /// Sends the head of the request and a part of its body.
    fn begin(&mut self, request: &Request, part: Part) {
        let chunks = b"5\r\nhello\r\n0\r\n\r\n";
        let (name, value, bytes) = match self.call.body {
            Body::Chunked => ("Transfer-Encoding", "chunked".to_owned(), chunks.to_vec()),
            Body::Long => ("Content-Length", long().to_string(), vec![b'x'; long()]),
            Body::Nothing | Body::Small => ("Content-Length", COLLECTED_BYTES.to_string(), vec![b'x'; COLLECTED_BYTES]),
        };
        self.client.send_request(&request.clone().field(name, value));
        let sent = match part {
            Part::Nothing => 0,
            Part::Some => bytes.len() / 2,
            Part::Most => bytes.len() - 1,
        };
        let _ = self.client.try_send(&bytes[..sent]);
    }

    /// Sends only a part of the request. `waits`: the upstream has its head before it breaks off.
    fn break_off(mut self, request: &Request, part: Part, end: End, waits: bool) -> Next {
        self.begin(request, part);
        if waits && self.wait_for(|_| true).is_none() && has_come(&self.client.sender()) {
            // Refused, or the gateway is gone.
            return self.read_reply();
        }
        if end.reads() {
            self.end_with(end);
            return self.read_reply();
        }
        self.leave(end)
    }

    fn leave_early(self) -> Next {
        // Not before the request was forwarded, as often as not.
        thread::sleep(self.call.script.delay / 2);
        self.leave(End::Close)
    }

    fn leave_after_the_head(mut self) -> Next {
        let Some(head) = self.client.try_head() else { return Next::Gone };
        self.caller.note(self.id, self.call, &begun(head));
        self.leave(End::Close)
    }

    /// Resets the connection while the upstream works.
    fn reset(self) -> Next {
        if self.wait_for(|arrived| arrived.is_whole).is_some() {
            thread::sleep(self.call.script.delay / 2);
        }
        self.leave(End::Reset)
    }

    /// Reads nothing for a while.
    fn stall(self, stall: Duration, leaves: Option<End>) -> Next {
        if leaves.is_some() {
            // A client that leaves before this has broken off its request.
            self.wait_for(|arrived| arrived.is_whole);
        }
        thread::sleep(stall);
        match leaves {
            Some(end) => self.leave(end),
            None => {
                // With the small one, this would take long.
                let _ = SockRef::from(&self.client.sender()).set_recv_buffer_size(LARGE_BUFFER_BYTES);
                self.read_reply()
            }
        }
    }

    /// Reads the reply to its end.
    fn read_reply(mut self) -> Next {
        let Some(reply) = self.client.try_reply() else { return Next::Gone };
        self.caller.note(self.id, self.call, &reply);
        let closes = reply.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        match reply.whole {
            true if closes || self.call.manner != Manner::Stays => Next::Close,
            true => Next::Keep(self.client),
            // The upstream broke it off, if it was told to.
            false if !self.call.script.is_whole() => Next::Close,
            false => Next::Gone,
        }
    }

    /// Goes away, and waits until the charge is settled.
    fn leave(self, end: End) -> Next {
        let Conversation { caller, client, call, id } = self;
        let socket = client.sender();
        // Neither can fail in a way that matters: the connection may have ended already.
        let _ = match end {
            End::Reset => SockRef::from(&socket).set_linger(Some(Duration::ZERO)),
            End::Close | End::Fin | End::NoChunk => socket.shutdown(Shutdown::Both),
        };
        drop((socket, client));
        if call.manner != Manner::LeavesEarly {
            caller.see_settled(id);
        }
        Next::Close
    }

    /// Ends this side of the connection, and keeps it.
    fn end_with(&self, end: End) {
        let mut socket = self.client.sender();
        // The connection may have ended already.
        let _ = match end {
            End::NoChunk => socket.write_all(b"\r\nno chunk\r\n"),
            End::Fin | End::Close | End::Reset => socket.shutdown(Shutdown::Write),
        };
    }

    /// Waits until the upstream has as much of the request as the condition says. `None`: a reply or the end of the
    /// connection came first, or the round is over.
    fn wait_for(&self, condition: impl Fn(&Arrived) -> bool) -> Option<Arrived> {
        let socket = self.client.sender();
        loop {
            if let Some(arrived) = self.caller.arrived(self.id).filter(&condition) {
                return Some(arrived);
            }
            if self.caller.is_over() || has_come(&socket) {
                return None;
            }
            thread::sleep(LOOK);
        }
    }
}

impl Caller<'_> {
    fn arrived(&self, id: &str) -> Option<Arrived> {
        self.file.records.arrived.lock().unwrap().get(id).copied()
    }

    /// Waits until the hold of this call is settled. What it is then is a matter of the audit; that a gateway
    /// which lives settles it is one of this.
    fn see_settled(&self, id: &str) {
        let Some(charge) = self.arrived(id).and_then(|arrived| arrived.charge) else { return };
        let connection: Connection = self.file.database.open();
        let mut settled = connection.prepare("SELECT 1 FROM keytoll_charges WHERE id = ?1").unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !settled.exists([charge]).unwrap() {
            if self.is_over() {
                return;
            }
            if Instant::now() > deadline {
                self.file.records.violated(format!("I10: the gateway lives, and charge {charge} of {id} stays open"));
                return;
            }
            thread::sleep(LOOK);
        }
    }
}

/// A connection of a client to which little is sent while it does not read.
fn connect_with_small_buffer(gateway: SocketAddr) -> io::Result<Client> {
    let socket = Socket::new(Domain::for_address(gateway), Type::STREAM, None)?;
    // Before it connects, because the window is negotiated then.
    socket.set_recv_buffer_size(SMALL_BUFFER_BYTES)?;
    socket.connect(&gateway.into())?;
    Client::on(socket.into())
}

/// A length that is too long to be collected.
fn long() -> usize {
    COLLECTED_BYTES + 1
}

/// Whether the connection has ended, or something came on it.
fn has_come(socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    let found = socket.peek(&mut [0]);
    socket.set_nonblocking(false).unwrap();
    found.is_ok() || found.is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
}

/// A reply of which its client took the head alone.
fn begun(head: Head) -> Reply {
    Reply { head, body: Vec::new(), trailers: Vec::new(), whole: false }
}

/// Whether a reply that is whole is all that the upstream sent.
pub(crate) fn has_all(call: &Call, reply: &Reply) -> bool {
    use crate::plan::Framing::{Large, LargeChunks};
    let is_large = matches!(call.script.framing, Large | LargeChunks) && reply.status() == call.script.status;
    !is_large || reply.body.len() == LARGE_BYTES
}
