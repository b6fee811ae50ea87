//! A client: one connection at a time, kept as long as it goes, and a note of everything that it sent and got.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fastrand::Rng;

use crate::file::File;
use crate::harness::{Client, Reply, Request};
use crate::plan::{Call, Leaves, ROUTES};
use crate::records::{Got, Records, Sent, User};
use crate::upstream::SCRIPT;

/// Users that calls are drawn for; while there are fewer, the first ones are called more often.
const USERS: usize = 12;

/// A client of one start of the gateway.
pub(crate) struct Caller<'a> {
    pub(crate) file: &'a File,
    pub(crate) gateway: SocketAddr,
    pub(crate) start: u64,
    pub(crate) number: usize,
    pub(crate) rng: Rng,
    /// The round is over.
    pub(crate) enough: &'a AtomicBool,
    /// Set when a connection ended that should not have: the gateway is gone, or something is wrong.
    pub(crate) gone: &'a AtomicBool,
}

impl Caller<'_> {
    /// Calls until the round is over or the gateway is gone.
    pub(crate) fn run(mut self) {
        let mut connected = None;
        for turn in 0.. {
            if self.enough.load(Ordering::Acquire) {
                return;
            }
            let call = Call::draw(&mut self.rng, USERS);
            let Some(client) = connected.take().or_else(|| Client::try_connect(self.gateway).ok()) else {
                break;
            };
            match self.call(client, call, &format!("{}.{}.{turn}", self.start, self.number)) {
                Next::Keep(client) => connected = Some(client),
                Next::Close => {}
                Next::Gone => break,
            }
        }
        self.gone.store(true, Ordering::Release);
    }

    fn call(&self, mut client: Client, call: Call, id: &str) -> Next {
        let user = self.file.user(call.user);
        let (path, cents) = ROUTES[call.route];
        let request = Request::new(self.gateway, call.method, path).key(&user.key);
        let mut request = request.field("x-request-id", id).field(SCRIPT, call.script.to_string());
        let records = &self.file.records;
        let sent = Sent {
            user: user.id,
            cents,
            left: call.leaves != Leaves::Never,
            start: self.start,
            began: records.now(),
            got: None,
        };
        records.sent.lock().unwrap().insert(id.to_owned(), sent);
        let mut rest: &[u8] = b"";
        if call.method == "POST" {
            let (name, value, body): (&str, &str, &[u8]) = match call.is_chunked {
                true => ("Transfer-Encoding", "chunked", b"5\r\nhello\r\n0\r\n\r\n"),
                false => ("Content-Length", "5", b"hello"),
            };
            (request, rest) = (request.field(name, value), body);
        }
        client.send_request(&request);
        let rest = if call.leaves == Leaves::InItsBody { &rest[..rest.len() / 2] } else { rest };
        let _ = client.try_send(rest);
        match call.leaves {
            Leaves::InItsBody => {
                client.leave();
                Next::Close
            }
            Leaves::Before => {
                // Not before the request was forwarded, as often as not.
                thread::sleep(call.script.delay / 2);
                client.leave();
                Next::Close
            }
            Leaves::AfterTheHead => {
                let head = client.try_head();
                client.leave();
                if head.is_some() { Next::Close } else { Next::Gone }
            }
            Leaves::Never => match client.try_reply() {
                None => Next::Gone,
                Some(reply) => {
                    note(records, &user, id, cents, &reply);
                    let closes = reply.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                    match reply.whole {
                        true if closes => Next::Close,
                        true => Next::Keep(client),
                        // The upstream's doing, if it was told so.
                        false if !call.script.is_whole() => Next::Close,
                        false => Next::Gone,
                    }
                }
            },
        }
    }
}

/// What becomes of a connection.
enum Next {
    Keep(Client),
    Close,
    Gone,
}

fn note(records: &Records, user: &User, id: &str, cents: i64, reply: &Reply) {
    let receipt = reply.receipt().map(|receipt| (receipt.charge, receipt.cost));
    let ended = records.now();
    if reply.status() == 503 {
        records.unavailable.fetch_add(1, Ordering::Relaxed);
    }
    if cents > 0 && reply.whole && receipt.is_none() && reply.status() < 400 {
        records.violated(format!("{id}: a priced reply has no receipt: {reply:?}"));
    }
    let got = Got { status: reply.status(), whole: reply.whole, receipt };
    let mut sent = records.sent.lock().unwrap();
    let Some(sent) = sent.get_mut(id) else { return };
    sent.got = Some(got);
    let began = sent.began;
    let revoked = user.off.lock().unwrap().iter().any(|(from, until)| *from < began && ended < *until);
    if receipt.is_some() && revoked {
        records.violated(format!("{id}: a hold was made with a key that was off: {reply:?}"));
    }
}
