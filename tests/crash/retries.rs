//! Requests that are sent again under the same `Idempotency-Key`: what clients have up their sleeve, and what has to hold.
//!
//! - I6: of all charges of one key, within one account, at most one is captured and not refunded.
//! - I7: a retry of a request that was charged and not answered is a new request with a charge of its own; the earlier charge
//!   is refunded, once and whole, and the upstream learns which one that was. A retry that was given up before it went
//!   upstream has paid again what was refunded: its charge is *restored*.
//! - I8: what a retry is told is true. After a head that reached its client it is `already-charged`, or, if the gateway died
//!   since, the charge of that reply is refunded. `already-charged` names a charge that is paid for good, and whose reply
//!   somebody may have seen. `request-in-flight` is said only while something of this gateway can be.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::audit::Audit;
use crate::past::{CAPTURED, Charge};
use crate::plan::Body;
use crate::records::{Refused, Sent, Served, User, is_charged};

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

/// Whether a charge is one of a retry that was given up before it went upstream, and has paid again what was refunded.
pub(crate) fn is_restored(charge: &Charge, served: Option<&Served>) -> bool {
    charge.state == CAPTURED && charge.status.is_none() && served.is_none()
}

/// The attempts of one key.
type Attempts<'a> = Vec<(&'a str, &'a Sent)>;

impl Audit<'_> {
    /// I6 to I8.
    pub(crate) fn retries(&self) {
        let mut by_key: HashMap<&str, Attempts<'_>> = HashMap::new();
        for (id, request) in self.sent.iter() {
            if let Some(key) = &request.key {
                by_key.entry(key).or_default().push((id, request));
            }
        }
        let keys = self.keys();
        self.paid_once(&keys);
        self.refunded_to_retries(&keys, &by_key);
        self.retries_refund(&keys);
        self.restored();
        for (key, attempts) in &by_key {
            self.told(key, attempts, &keys);
        }
        self.recorded();
    }

    pub(crate) fn is_restored(&self, charge: i64) -> bool {
        self.charges.get(&charge).is_some_and(|found| is_restored(found, self.served.get(&charge)))
    }

    /// Whether a charge may have been refunded although this request had its reply: its gateway died before it had noted
    /// that.
    pub(crate) fn may_be_refunded(&self, request: &Sent, charge: i64) -> bool {
        let is_retried = |other: &Sent| other.key == request.key && other.start > request.start;
        let was_lost = request.key.is_some() && self.killed.contains(&request.start);
        was_lost && self.refunds.contains_key(&charge) && self.sent.values().any(is_retried)
    }

    /// The `Idempotency-Key` of each charge that has one, as far as it is known: a charge that was restored is known by the
    /// retry that followed, or by its record.
    fn keys(&self) -> HashMap<i64, &str> {
        let mut keys: HashMap<i64, &str> = HashMap::new();
        let mut by_digest: HashMap<&[u8], &str> = HashMap::new();
        for (charge, reply) in self.served.iter() {
            let Some(key) = &self.sent[&reply.request].key else { continue };
            keys.insert(*charge, key);
            if let Some(digest) = self.digests.get(charge) {
                by_digest.insert(digest, key);
            }
        }
        for reply in self.served.values() {
            if let (Some(earlier), Some(key)) = (reply.retry_of, &self.sent[&reply.request].key) {
                keys.entry(earlier).or_insert(key);
            }
        }
        for (charge, digest) in &self.digests {
            if let Some(key) = by_digest.get(&digest[..]) {
                keys.entry(*charge).or_insert(key);
            }
        }
        keys
    }

    /// The account that pays a charge; `None` if the charge is not in the file.
    fn account(&self, charge: i64) -> Option<i64> {
        self.charges.get(&charge).map(|found| found.account)
    }

    /// The charges that a retry named at the upstream as refunded.
    fn named(&self) -> HashSet<i64> {
        self.served.values().filter_map(|reply| reply.retry_of).collect()
    }

    /// I6.
    fn paid_once(&self, keys: &HashMap<i64, &str>) {
        let mut paid: HashMap<(&str, i64), Vec<i64>> = HashMap::new();
        for (charge, key) in keys.iter().filter(|(charge, _)| self.is_kept(**charge)) {
            paid.entry((key, self.charges[charge].account)).or_default().push(*charge);
        }
        for ((key, _), charges) in paid.iter().filter(|(_, charges)| charges.len() > 1) {
            self.violated(format!("I6: {key} was paid with the charges {charges:?}"));
        }
    }

    /// I7: one entry for a charge, for the whole of it, only for one that was captured and has a key, and only for a retry:
    /// one that went upstream with this charge named, one that was given up before, so that its charge is restored, or one
    /// whose gateway was killed before.
    fn refunded_to_retries(&self, keys: &HashMap<i64, &str>, by_key: &HashMap<&str, Attempts<'_>>) {
        let named = self.named();
        let restored: Vec<i64> = self.charges.keys().filter(|id| self.is_restored(**id)).copied().collect();
        for (charge, entries) in &self.refunds {
            let Some(found) = self.charges.get(charge) else {
                self.violated(format!("I7: charge {charge} was refunded, and is none"));
                continue;
            };
            if entries[..] != [(found.account, found.cents)] || found.state != CAPTURED {
                self.violated(format!("I7: charge {charge} was refunded by {entries:?}, and is {found:?}"));
            }
            let Some(reply) = self.served.get(charge) else { continue };
            let began = self.sent[&reply.request].began;
            let is_for_a_retry = keys.get(charge).is_some_and(|key| {
                let is_lost = |(id, other): &(&str, &Sent)| {
                    let is_unsettled = self.killed.contains(&other.start) && !self.drained.contains(&other.start);
                    let is_open = is_unsettled && other.got.is_none() && !self.arrived.contains_key(*id);
                    is_open && other.began > began
                };
                // The key of one that was soon refunded itself may not be known.
                let is_restored = |id: &i64| {
                    let restored = self.charges[id];
                    keys.get(id).is_none_or(|other| other == key)
                        && (restored.account, restored.cents) == (found.account, found.cents)
                };
                named.contains(charge) || by_key[key].iter().any(is_lost) || restored.iter().any(is_restored)
            });
            if !is_for_a_retry {
                self.violated(format!("I7: charge {charge} was refunded, and not to a retry: {}", self.facts(reply)));
            }
        }
    }

    /// I7: what the upstream was told of refunds.
    fn retries_refund(&self, keys: &HashMap<i64, &str>) {
        let mut retries: HashMap<i64, i64> = HashMap::new();
        for (charge, reply) in self.served.iter() {
            let Some(earlier) = reply.retry_of else { continue };
            // What was in flight when its gateway died has no account.
            let is_of_one_account =
                self.account(*charge).is_none_or(|of_retry| self.account(earlier) == Some(of_retry));
            let is_of_one_key = self.sent[&reply.request].key.as_deref() == keys.get(&earlier).copied();
            if !self.refunds.contains_key(&earlier) || !is_of_one_account || !is_of_one_key {
                let (found, facts) = (self.charges.get(&earlier), self.facts(reply));
                self.violated(format!("I7: charge {charge} is for a retry of {earlier}, {found:?}: {facts}"));
            }
            if let Some(other) = retries.insert(earlier, *charge) {
                self.violated(format!("I7: charge {earlier} was refunded to {charge} and to {other}"));
            }
        }
    }

    /// I7: a restored charge takes a refund back that no retry went upstream with.
    fn restored(&self) {
        let named = self.named();
        let mut left: HashMap<(i64, i64), i64> = HashMap::new();
        for entries in self.refunds.iter().filter(|(charge, _)| !named.contains(charge)).map(|(_, entries)| entries) {
            for refund in entries {
                *left.entry(*refund).or_default() += 1;
            }
        }
        for (id, charge) in self.charges.iter().filter(|(id, _)| self.is_restored(**id)) {
            let left = left.entry((charge.account, charge.cents)).or_default();
            *left -= 1;
            if *left < 0 {
                self.violated(format!("I7: charge {id} was never refunded, and never went upstream: {charge:?}"));
            }
        }
    }

    /// I8, for one key.
    fn told(&self, key: &str, attempts: &Attempts<'_>, keys: &HashMap<i64, &str>) {
        for (id, request) in attempts {
            let Some(got) = request.got else { continue };
            match got.refused {
                Some(Refused::AlreadyCharged(charge)) => self.already_charged(id, charge, key, keys),
                Some(Refused::InFlight) => {
                    let mut others = attempts.iter().filter(|(other, _)| other != id);
                    if !others.any(|(_, other)| other.start == request.start && other.began < got.ended) {
                        self.violated(format!("I8: {id} was told that {key} is under way, and nothing is"));
                    }
                }
                None => {}
            }
            // What a client broke off may be sent again, although it was answered with 400.
            let is_answered = is_charged(got.status) && !request.manner.breaks_off();
            let Some((charge, _)) = got.receipt.filter(|_| is_answered) else { continue };
            if self.refunds.contains_key(&charge) && !self.may_be_refunded(request, charge) {
                self.violated(format!("I8: charge {charge} was refunded, whose reply {id} had: {request:?}"));
            }
            for (later, after) in attempts.iter().filter(|(_, other)| other.began > got.ended) {
                let Some((other, _)) = after.got.and_then(|got| got.receipt) else { continue };
                if self.account(other) == self.account(charge) && self.is_kept(charge) {
                    self.violated(format!("I8: {later} was held for again, and charge {charge} had paid for {id}"));
                }
            }
        }
    }

    /// I8: a charge of this key that is paid for good, and that somebody had a reply for, or may have had. That of a retry
    /// counts as answered in any case.
    fn already_charged(&self, id: &str, named: Option<i64>, key: &str, keys: &HashMap<i64, &str>) {
        let is_seen = |charge: i64| {
            self.served.get(&charge).is_some_and(|reply| {
                let request = &self.sent[&reply.request];
                let receipt = request.got.and_then(|got| got.receipt);
                reply.retry_of.is_some() || request.left() || receipt.is_some_and(|(paid, _)| paid == charge)
            })
        };
        let fits = |charge: i64| keys.get(&charge) == Some(&key) && self.is_kept(charge) && is_seen(charge);
        let is_true = match named {
            Some(charge) => fits(charge),
            // The head alone does not say which.
            None => keys.keys().any(|charge| fits(*charge)),
        };
        if !is_true {
            self.violated(format!("I8: {id} was told that charge {named:?} had paid for it"));
        }
    }

    /// I5 and I8: the records of requests are those of captured charges that were not refunded, and are counted.
    fn recorded(&self) {
        let in_flight = self.number("SELECT count(*) FROM keytoll_requests WHERE state = 0");
        if in_flight != 0 {
            self.violated(format!("I5: {in_flight} requests are in flight after a start"));
        }
        let rows = self.number("SELECT count(*) FROM keytoll_requests");
        let count = self.number("SELECT value FROM keytoll_meta WHERE name = 'requests'");
        let by_account = self.number("SELECT coalesce(sum(requests), 0) FROM keytoll_accounts");
        if (rows, rows) != (count, by_account) {
            self.violated(format!("I8: {rows} requests are recorded, and {count} and {by_account} are counted"));
        }
        for (charge, account, cents) in self.recorded_charges() {
            let found = self.charges.get(&charge);
            if !self.is_kept(charge) || found.is_none_or(|found| (found.account, found.cents) != (account, cents)) {
                self.violated(format!("I8: a request is recorded with charge {charge}, which is {found:?}"));
            }
        }
    }
}
