//! Requests that are sent again under the same `Idempotency-Key`: what clients have up their sleeve, and what has to hold.
//!
//! - I6: of all charges of one key, within one account, at most one is captured and not refunded.
//! - I7: a charge pays for one forward. It is refunded at most once, by one entry for the whole of it, and only to a retry. A
//!   retry that is given up before it is forwarded is charged in its place.
//! - I8: what a retry is told is true. After a head that reached its client it is `already-charged`, unless the gateway died
//!   since: then the charge may be refunded, and the retry held and forwarded. `already-charged` names a charge that is paid
//!   for good, and whose reply somebody may have seen. `request-in-flight` is said only while something of this gateway can
//!   be.

use std::collections::HashMap;
use std::sync::Arc;

use crate::audit::Audit;
use crate::past::{CAPTURED, Charge};
use crate::plan::Body;
use crate::records::{Refused, Sent, User, is_charged};

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
        self.refunded_once();
        let mut by_key: HashMap<&str, Attempts<'_>> = HashMap::new();
        for (id, request) in self.sent.iter() {
            if let Some(key) = &request.key {
                by_key.entry(key).or_default().push((id, request));
            }
        }
        for (key, attempts) in &by_key {
            self.refunded_to_retries(key, attempts);
            self.told(key, attempts);
        }
        self.remembered();
    }

    /// I8: what the file remembers of requests.
    fn remembered(&self) {
        let in_flight = self.number("SELECT count(*) FROM keytoll_requests WHERE state = 0");
        if in_flight != 0 {
            self.violated(format!("I8: {in_flight} requests are in flight, and nothing moves"));
        }
        let (rows, count) =
            ("SELECT count(*) FROM keytoll_requests", "SELECT value FROM keytoll_meta WHERE name = 'requests'");
        let (rows, count) = (self.number(rows), self.number(count));
        if rows != count {
            self.violated(format!("I8: {rows} requests are remembered, and {count} are counted"));
        }
        let unpaid = self.number(
            "SELECT count(*) FROM keytoll_requests r JOIN keytoll_charges c ON c.id = r.charge_id
             WHERE c.state <> 1 OR c.cents <> r.cents OR c.account_id <> r.account_id
             OR EXISTS (SELECT 1 FROM keytoll_entries e WHERE e.charge_id = c.id)",
        );
        if unpaid != 0 {
            self.violated(format!("I8: {unpaid} requests are remembered as charged, and are not"));
        }
    }

    /// Whether the charge of this request may be refunded although it had its reply: its gateway died before it had noted
    /// that, and its client sent the request again.
    pub(crate) fn may_be_refunded(&self, id: &str, request: &Sent, charge: i64) -> bool {
        let was_lost = self.killed.contains(&request.start);
        let is_retried = |other: &Sent| other.key == request.key && other.start > request.start;
        let is_of_charge = self.served.get(&charge).is_some_and(|served| served.request == id);
        request.key.is_some()
            && was_lost
            && is_of_charge
            && self.refunded.contains_key(&charge)
            && self.sent.values().any(is_retried)
    }

    /// Whether a charge without a request at the upstream stands for one that was refunded to a retry, which was given up
    /// before it was forwarded. Its key is known unless it was refunded in its turn.
    pub(crate) fn is_restored(&self, id: i64, charge: &Charge) -> bool {
        let key = self.restored.get(&id);
        let stands_for = |earlier: &i64| {
            let is_of_key = self.served.get(earlier).is_some_and(|served| {
                let found = self.sent[&served.request].key.as_ref();
                found.is_some() && (key.is_none() || found == key)
            });
            let found = self.charges.get(earlier);
            is_of_key && found.is_some_and(|found| (found.account, found.cents) == (charge.account, charge.cents))
        };
        charge.status.is_none()
            && (key.is_some() || self.refunded.contains_key(&id))
            && self.refunded.keys().any(stands_for)
    }

    /// Whether a charge is that of a retry: an earlier one of its key was refunded. A captured retry is the last, whatever
    /// became of its reply.
    fn is_of_retry(&self, charge: i64) -> bool {
        let request = &self.sent[&self.served[&charge].request];
        let is_earlier = |other: &&i64| {
            let served = self.served.get(other);
            **other < charge && served.is_some_and(|served| self.sent[&served.request].key == request.key)
        };
        request.key.is_some() && self.refunded.keys().any(|other| is_earlier(&other))
    }

    /// Whether there is another request with its key.
    pub(crate) fn is_sent_again(&self, id: &str, request: &Sent) -> bool {
        request.key.is_some() && self.sent.iter().any(|(other, sent)| other != id && sent.key == request.key)
    }

    /// I6.
    fn paid_once(&self) {
        let mut paid: HashMap<(&str, i64), Vec<i64>> = HashMap::new();
        for (charge, served) in self.served.iter() {
            if let Some(key) = &self.sent[&served.request].key
                && self.is_kept(*charge)
            {
                paid.entry((key, self.charges[charge].account)).or_default().push(*charge);
            }
        }
        for (charge, key) in self.restored.iter().filter(|(charge, _)| self.is_kept(**charge)) {
            paid.entry((key, self.charges[charge].account)).or_default().push(*charge);
        }
        for ((key, _), charges) in paid.iter().filter(|(_, charges)| charges.len() > 1) {
            self.violated(format!("I6: {key} was paid with the charges {charges:?}"));
        }
    }

    /// I7: one entry for a charge, for the whole of it, and only for one that was captured and has a key.
    fn refunded_once(&self) {
        for (charge, entries) in &self.refunded {
            let Some(found) = self.charges.get(charge) else {
                self.violated(format!("I7: charge {charge} was refunded, and is none"));
                continue;
            };
            let has_key = match self.served.get(charge) {
                Some(served) => self.sent[&served.request].key.is_some(),
                None => self.is_restored(*charge, found),
            };
            if entries[..] != [(found.account, found.cents)] || found.state != CAPTURED || !has_key {
                self.violated(format!("I7: charge {charge} was refunded by {entries:?}, and is {found:?}"));
            }
        }
    }

    /// I7: each refund was made for another attempt, so there are fewer of them.
    fn refunded_to_retries(&self, key: &str, attempts: &Attempts<'_>) {
        let is_of_key = |charge: &&i64| {
            let served = self.served.get(charge);
            served.is_some_and(|served| attempts.iter().any(|(id, _)| *id == served.request))
        };
        let refunds = self.refunded.keys().filter(is_of_key).count();
        if refunds > 0 && refunds >= attempts.len() {
            self.violated(format!("I7: {key} was sent {} times, and refunded {refunds} times", attempts.len()));
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
            // What a client broke off may be refunded to a retry, although it was answered with 400.
            let is_answered = is_charged(got.status) && !request.manner.breaks_off();
            let Some((charge, _)) = got.receipt.filter(|_| is_answered) else { continue };
            for (later, after) in attempts.iter().filter(|(_, other)| other.began > got.ended) {
                let Some((other, _)) = after.got.and_then(|got| got.receipt) else { continue };
                if other == charge {
                    self.violated(format!("I8: {later} was forwarded for charge {charge}, whose reply {id} had"));
                    continue;
                }
                let account = |charge: i64| self.charges.get(&charge).map(|charge| charge.account);
                let is_same_account = account(other).is_some() && account(other) == account(charge);
                // Its gateway may have died before it had noted that the head was sent.
                let was_lost = self.killed.contains(&request.start) && after.start > request.start;
                // A reply that broke off was released.
                let is_captured = self.charges.get(&charge).is_some_and(|found| found.state == CAPTURED);
                if is_same_account && is_captured && (self.is_kept(charge) || !was_lost) {
                    self.violated(format!("I8: {later} was held for again, and charge {charge} had paid for {id}"));
                }
            }
        }
    }

    /// I8: a charge of this key that is paid for good, and that somebody had a reply for, or may have had.
    fn already_charged(&self, id: &str, named: Option<i64>, attempts: &Attempts<'_>) {
        let of_key = |charge: i64| {
            let served = self.served.get(&charge);
            served.is_some_and(|served| attempts.iter().any(|(other, _)| *other == served.request))
        };
        let seen = |charge: i64| {
            let request = &self.sent[&self.served[&charge].request];
            request.left()
                || self.is_of_retry(charge)
                || request.got.and_then(|got| got.receipt).is_some_and(|(other, _)| other == charge)
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
