//! Requests that are sent again under the same `Idempotency-Key`: what clients have up their sleeve, and what has to hold.
//!
//! - I6: of all charges of one key, within one account, at most one is captured and not given back.
//! - I7: a request is forwarded once more only for a charge that is captured, once at most (the upstream sees that), and
//!   the price is given back exactly if that failed, by one entry.
//! - I8: what a retry is told is true. After a head that reached its client it is `already-charged`, or, if the gateway died
//!   since, one forward more for the same charge. `already-charged` names a charge that is paid for good, and whose reply
//!   somebody may have seen. `request-in-flight` is said only while something of this gateway can be.

use std::collections::HashMap;
use std::sync::Arc;

use crate::audit::Audit;
use crate::past::CAPTURED;
use crate::plan::Body;
use crate::records::{Refused, Sent, User, is_charged};
use crate::table::Due;

/// Requests that clients of one file remember at most.
const MOST: usize = 24;

/// A request that its client may send again.
#[derive(Clone)]
pub(crate) struct Retry {
    pub(crate) key: String,
    pub(crate) user: Arc<User>,
    pub(crate) route: usize,
    pub(crate) method: &'static str,
    pub(crate) body: Body,
}

/// Those of one file, whichever client sent them and whatever became of its gateway.
#[derive(Default)]
pub(crate) struct Retries(Vec<Retry>);

impl Retries {
    /// One of them. `stays`: another client may send it at the same time.
    pub(crate) fn take(&mut self, which: usize, stays: bool) -> Option<Retry> {
        let which = which.checked_rem(self.0.len())?;
        Some(if stays { self.0[which].clone() } else { self.0.swap_remove(which) })
    }

    pub(crate) fn add(&mut self, retry: Retry) {
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(retry);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The attempts of one key.
type Attempts<'a> = Vec<(&'a str, &'a Sent)>;

impl Audit<'_> {
    /// I6 to I8.
    pub(crate) fn retries(&self) {
        self.paid_once();
        self.given_back_once();
        self.forwarded_again();
        let mut by_key: HashMap<&str, Attempts<'_>> = HashMap::new();
        for (id, request) in self.sent.iter() {
            if let Some(key) = &request.key {
                by_key.entry(key).or_default().push((id, request));
            }
        }
        for (key, attempts) in &by_key {
            self.told(key, attempts);
        }
        let under_way = self.number("SELECT count(*) FROM keytoll_requests WHERE again_by IS NOT NULL");
        if under_way != 0 {
            self.violated(format!("I7: {under_way} requests are still being forwarded once more"));
        }
        let (rows, count) =
            ("SELECT count(*) FROM keytoll_requests", "SELECT value FROM keytoll_meta WHERE name = 'requests'");
        let (rows, count) = (self.number(rows), self.number(count));
        if rows != count {
            self.violated(format!("I8: {rows} requests are remembered, and {count} are counted"));
        }
    }

    /// Whether these two may both have had a reply for one charge: the second was forwarded once more, because the gateway
    /// of the first died before it had noted that its reply was seen.
    pub(crate) fn may_pay_twice(&self, one: &Sent, other: &Sent) -> bool {
        let first = if one.start < other.start { one } else { other };
        one.key.is_some() && one.key == other.key && one.start != other.start && self.killed.contains(&first.start)
    }

    /// Whether a charge may have been given back although this request had its reply: its gateway died before it had noted
    /// that, and the retry that was forwarded once more failed.
    pub(crate) fn may_be_given_back(&self, id: &str, request: &Sent, charge: i64) -> bool {
        let is_first = self.served.get(&charge).is_some_and(|served| served[0].request == id);
        let is_retried = |other: &Sent| other.key == request.key && other.start > request.start;
        let was_lost = request.key.is_some() && self.killed.contains(&request.start);
        is_first && was_lost && self.given_back.contains_key(&charge) && self.sent.values().any(is_retried)
    }

    /// I6.
    fn paid_once(&self) {
        let mut paid: HashMap<(&str, i64), Vec<i64>> = HashMap::new();
        for (charge, served) in self.served.iter() {
            if let Some(key) = &self.sent[&served[0].request].key
                && self.is_kept(*charge)
            {
                paid.entry((key, self.charges[charge].account)).or_default().push(*charge);
            }
        }
        for ((key, _), charges) in paid.iter().filter(|(_, charges)| charges.len() > 1) {
            self.violated(format!("I6: {key} was paid with the charges {charges:?}"));
        }
    }

    /// I7: one entry for a charge, for the whole of it, and only for one that was captured and has a key.
    fn given_back_once(&self) {
        for (charge, entries) in &self.given_back {
            let Some(found) = self.charges.get(charge) else {
                self.violated(format!("I7: charge {charge} was given back, and is none"));
                continue;
            };
            let has_key = self.served.get(charge).is_some_and(|served| self.sent[&served[0].request].key.is_some());
            if entries[..] != [(found.account, found.cents)] || found.state != CAPTURED || !has_key {
                self.violated(format!("I7: charge {charge} was given back by {entries:?}, and is {found:?}"));
            }
        }
    }

    /// I7: how a second forward ended. What its gateway was still forwarding when it was killed is given back.
    fn forwarded_again(&self) {
        for (charge, served) in self.served.iter() {
            let [_, again] = &served[..] else { continue };
            let due = self.due(again);
            let is_given_back = self.given_back.contains_key(charge);
            let fits = match (self.forwarded_at_death.contains(charge), is_given_back) {
                (true, is_given_back) => is_given_back,
                (false, true) => due.may_be_free(),
                (false, false) => due != Due::Free,
            };
            if !fits {
                let facts = self.facts(again);
                self.violated(format!("I7: charge {charge} was given back: {is_given_back}, after {facts}"));
            }
        }
    }

    /// I8, for one key.
    fn told(&self, key: &str, attempts: &Attempts<'_>) {
        for (id, request) in attempts {
            let Some(got) = request.got else { continue };
            match got.refused {
                Some(Refused::AlreadyCharged(charge)) => self.already_charged(id, charge, attempts),
                Some(Refused::InFlight) => {
                    let mut others = attempts.iter().filter(|(other, _)| other != id);
                    if !others.any(|(_, other)| other.start == request.start && other.began < got.ended) {
                        self.violated(format!("I8: {id} was told that {key} is under way, and nothing is"));
                    }
                }
                None => {}
            }
            // What a client broke off may be sent again for the same charge, although it was answered with 400.
            let is_answered = is_charged(got.status) && !request.manner.breaks_off();
            let Some((charge, _)) = got.receipt.filter(|_| is_answered) else { continue };
            for (later, after) in attempts.iter().filter(|(_, other)| other.began > got.ended) {
                let Some((other, _)) = after.got.and_then(|got| got.receipt) else { continue };
                let is_second = self.served[&charge].first().is_none_or(|first| first.request != *id);
                if other == charge && (is_second || !self.may_pay_twice(request, after)) {
                    self.violated(format!("I8: {later} was forwarded for charge {charge}, whose reply {id} had"));
                }
                let is_same_account = self.charges[&other].account == self.charges[&charge].account;
                if other != charge && is_same_account && self.is_kept(charge) {
                    self.violated(format!("I8: {later} was held for anew, and charge {charge} had paid for {id}"));
                }
            }
        }
    }

    /// I8: a charge of this key that is paid for good, and that somebody had a reply for, or may have had.
    fn already_charged(&self, id: &str, named: Option<i64>, attempts: &Attempts<'_>) {
        let of_key = |charge: i64| {
            let served = self.served.get(&charge);
            served.is_some_and(|served| attempts.iter().any(|(other, _)| *other == served[0].request))
        };
        let seen = |charge: i64| {
            let served = &self.served[&charge];
            let may_have = |request: &Sent| {
                request.left() || request.got.and_then(|got| got.receipt).is_some_and(|(other, _)| other == charge)
            };
            served.len() > 1 || served.iter().any(|reply| may_have(&self.sent[&reply.request]))
        };
        let fits = |charge: i64| of_key(charge) && self.is_kept(charge) && seen(charge);
        let is_true = match named {
            Some(charge) => fits(charge),
            // The head alone does not say which.
            None => self.served.keys().any(|charge| fits(*charge)),
        };
        if !is_true {
            self.violated(format!("I8: {id} was told that charge {named:?} had paid for it"));
        }
    }
}
