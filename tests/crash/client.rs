//! A client: one connection at a time, kept as long as it goes, and a note of everything that it sent and got.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use fastrand::Rng;

use crate::file::File;
use crate::harness::{Client, Reply, Request};
use crate::manners::has_all;
use crate::plan::{Call, Keyed, Manner, ROUTES};
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
    /// The call whose connection ended when it should not have: the gateway is gone, or something is wrong.
    pub(crate) gone: &'a OnceLock<String>,
}

impl Caller<'_> {
    /// Calls until the round is over or the gateway is gone.
    pub(crate) fn run(mut self) {
        let (mut connected, mut id) = (None, String::new());
        for turn in 0.. {
            if self.enough.load(Ordering::Acquire) {
                return;
            }
            let call = Call::draw(&mut self.rng, USERS);
            let Some(client) = connected.take().or_else(|| Client::try_connect(self.gateway).ok()) else {
                break;
            };
            id = format!("{}.{}.{turn}", self.start, self.number);
            match self.call(client, call, &id) {
                Next::Keep(client) => connected = Some(client),
                Next::Close => {}
                Next::Gone => break,
            }
        }
        let _ = self.gone.set(id);
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
            manner: call.manner,
            body: call.body,
            start: self.start,
            began: records.now(),
            got: None,
        };
        records.sent.lock().unwrap().insert(id.to_owned(), sent);
        let next = self.converse(client, &call, &request, id);
        self.check(&call, &user, id);
        if let Some(retry) = retry
            && !matches!(call.manner, Manner::BreaksOffSmall { .. })
            && is_sent_again(records, id, call.patience)
        {
            self.file.retries.lock().unwrap().add(retry);
        }
        next
    }

    /// Who sends it, and under which key. What is sent again is the same request, whatever the plan said.
    fn identify(&self, call: &mut Call, id: &str) -> (Arc<User>, Option<Retry>) {
        if let Keyed::Again { which, stays } = call.keyed
            && !matches!(call.manner, Manner::BreaksOffSmall { .. })
            && let Some(retry) = self.file.retries.lock().unwrap().take(which, stays)
        {
            *call = call.as_request(retry.route, retry.method, retry.body);
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
            body: call.body,
        });
        (user, retry)
    }

    /// Whether there is no use in waiting for this gateway.
    pub(crate) fn is_over(&self) -> bool {
        self.enough.load(Ordering::Acquire) || self.gone.get().is_some()
    }

    /// Notes a reply, or the head of one.
    pub(crate) fn note(&self, id: &str, call: &Call, reply: &Reply) {
        let records = &self.file.records;
        let receipt = reply.receipt().map(|receipt| (receipt.charge, receipt.cost));
        let ended = records.now();
        if reply.status() == 503 {
            records.unavailable.fetch_add(1, Ordering::Relaxed);
        }
        if reply.whole && !has_all(call, reply) {
            records.violated(format!("I10: {id} had {} bytes of a large reply", reply.body.len()));
        }
        let got = Got { ended, status: reply.status(), whole: reply.whole, receipt, refused: refused(reply) };
        if let Some(sent) = records.sent.lock().unwrap().get_mut(id) {
            sent.got = Some(got);
        }
    }

    /// What can be said of a reply without the books.
    fn check(&self, call: &Call, user: &User, id: &str) {
        let records = &self.file.records;
        let (began, key, got) = {
            let sent = &records.sent.lock().unwrap()[id];
            (sent.began, sent.key.clone(), sent.got)
        };
        let Some(got) = got else { return };
        let is_priced = ROUTES[call.route].1 > 0;
        let is_free_by_the_table = matches!(call.manner, Manner::BreaksOffSmall { .. });
        if is_priced && got.whole && got.receipt.is_none() && got.status < 400 {
            records.violated(format!("{id}: a priced reply has no receipt: {got:?}"));
        }
        if is_free_by_the_table && (got.receipt.is_some() || got.status < 400) {
            records.violated(format!("I10: {id} broke off a small body, and was answered with {got:?}"));
        }
        let is_mistaken = match got.status {
            400 => !call.manner.breaks_off(),
            422 => true,
            _ => got.refused.is_some() && key.is_none(),
        };
        if is_mistaken {
            records.violated(format!("{id}: what was sent is no retry of another request: {got:?}"));
        }
        let revoked = user.off.lock().unwrap().iter().any(|(from, until)| *from < began && got.ended < *until);
        if got.receipt.is_some() && revoked {
            records.violated(format!("{id}: a hold was made with a key that was off: {got:?}"));
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

/// What becomes of a connection.
pub(crate) enum Next {
    Keep(Client),
    Close,
    Gone,
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
