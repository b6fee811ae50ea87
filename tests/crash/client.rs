//! A client: one connection at a time, kept as long as it goes, and a note of everything that it sent and got.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fastrand::Rng;

use crate::file::File;
use crate::harness::{Client, Head, Reply, Request};
use crate::plan::{Call, Keyed, Leaves, ROUTES};
use crate::records::{Got, Records, Refused, Sent, User, is_charged};
use crate::retries::Retry;
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

    fn call(&self, client: Client, mut call: Call, id: &str) -> Next {
        let (user, retry) = self.identify(&mut call, id);
        let (path, cents) = ROUTES[call.route];
        let request = Request::new(self.gateway, call.method, path).key(&user.key);
        let mut request = request.field("x-request-id", id).field(SCRIPT, call.script.to_string());
        if let Some(retry) = &retry {
            request = request.field("Idempotency-Key", format!("\"{}\"", retry.key));
        }
        let records = &self.file.records;
        let sent = Sent {
            user: user.id,
            key: retry.as_ref().map(|retry| retry.key.clone()),
            cents,
            left: call.leaves != Leaves::Never,
            start: self.start,
            began: records.now(),
            got: None,
        };
        records.sent.lock().unwrap().insert(id.to_owned(), sent);
        let next = self.converse(client, &call, request, &user, id);
        if let Some(retry) = retry
            && is_sent_again(records, id, call.patience)
        {
            self.file.retries.lock().unwrap().add(retry);
        }
        next
    }

    /// Who sends it, and under which key. What is sent again is the same request, whatever the plan said.
    fn identify(&self, call: &mut Call, id: &str) -> (Arc<User>, Option<Retry>) {
        if let Keyed::Again { which, stays } = call.keyed
            && let Some(retry) = self.file.retries.lock().unwrap().take(which, stays)
        {
            *call = Call { route: retry.route, is_chunked: retry.is_chunked, ..*call }.with_method(retry.method);
            return (Arc::clone(&retry.user), Some(retry));
        }
        let user = self.file.user(call.user);
        // On free routes a key does not count.
        let has_key = call.keyed != Keyed::Without && ROUTES[call.route].1 > 0;
        let retry = has_key.then(|| Retry {
            key: format!("key-of-{id}"),
            user: Arc::clone(&user),
            route: call.route,
            method: call.method,
            is_chunked: call.is_chunked,
        });
        (user, retry)
    }

    /// Sends it, and takes what comes, or leaves.
    fn converse(&self, mut client: Client, call: &Call, mut request: Request, user: &User, id: &str) -> Next {
        let records = &self.file.records;
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
                let Some(head) = client.try_head() else { return Next::Gone };
                note(records, user, id, ROUTES[call.route].1, &begun(head));
                client.leave();
                Next::Close
            }
            Leaves::Never => match client.try_reply() {
                None => Next::Gone,
                Some(reply) => {
                    note(records, user, id, ROUTES[call.route].1, &reply);
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

/// Whether a client sends it again: always when it saw no end of it, sometimes although it did.
fn is_sent_again(records: &Records, id: &str, patience: u8) -> bool {
    let got = records.sent.lock().unwrap()[id].got;
    match got {
        None => true,
        Some(got) if !got.whole => true,
        Some(Got { refused: Some(Refused::InFlight), .. }) => patience < 10,
        Some(Got { refused: Some(Refused::AlreadyCharged(_)), .. }) => patience < 2,
        Some(got) if is_charged(got.status) => patience < 5,
        Some(_) => patience < 8,
    }
}

/// A reply of which its client took the head alone.
fn begun(head: Head) -> Reply {
    Reply { head, body: Vec::new(), trailers: Vec::new(), whole: false }
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
    let got = Got { ended, status: reply.status(), whole: reply.whole, receipt, refused: refused(reply) };
    let mut sent = records.sent.lock().unwrap();
    let Some(sent) = sent.get_mut(id) else { return };
    sent.got = Some(got);
    if (got.refused.is_some() && sent.key.is_none()) || matches!(got.status, 400 | 422) {
        records.violated(format!("{id}: what was sent is no retry of another request: {reply:?}"));
    }
    let began = sent.began;
    let revoked = user.off.lock().unwrap().iter().any(|(from, until)| *from < began && ended < *until);
    if receipt.is_some() && revoked {
        records.violated(format!("{id}: a hold was made with a key that was off: {reply:?}"));
    }
}

/// The upstream never says 409.
fn refused(reply: &Reply) -> Option<Refused> {
    if reply.status() != 409 || !reply.whole {
        return None;
    }
    // It says when to come again; the other says that there is no use in it. HEAD has no more to tell them by.
    if reply.field("retry-after").is_some() {
        return Some(Refused::InFlight);
    }
    let problem: Option<serde_json::Value> = serde_json::from_slice(&reply.body).ok();
    Some(Refused::AlreadyCharged(problem.and_then(|problem| problem["charge_id"].as_i64())))
}
