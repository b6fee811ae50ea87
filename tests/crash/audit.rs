//! The audit: while nothing moves, the file is compared with what clients got, what the upstream served and what the
//! application moved.
//!
//! - I1: the books balance. For every account entries less charges and leases are what the wallet holds, and what the
//!   application put in, less what was paid, is there; the sums that Keytoll keeps say the same. The second holds when a
//!   gateway has just died, too.
//! - I2: no balance is below zero.
//! - I3: every reply that was delivered whole, with a status that is charged, has one captured charge that is not refunded,
//!   with its price; one with another status cost nothing.
//! - I4: every captured charge has a reply of the upstream whose outcome is charged, and which was delivered, unless its
//!   client left or its gateway was killed.
//! - I5: every hold is settled, once: what went upstream has a charge, unless its gateway was killed; a charge never
//!   changes; and after a start nothing is leased.
//! - I6 to I8 are about requests that are sent again: [`super::retries`].
//! - I10: every call is charged as the table says ([`super::table`]): what a gateway captured or released fits its row, and
//!   what it had not settled when it was killed has no charge.
//! - I9: charges that became usage are counted there as they were settled: [`super::past`].

use std::collections::HashMap;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use crate::file::File;
use crate::past::{CAPTURED, Charge, RELEASED, leased, rows};
use crate::plan::{BROKEN_OFF_CENTS, Manner};
use crate::records::{Arrived, Got, Sent, Served, Treatment, is_charged};
use crate::table::Due;

/// Compares everything. Needs a gateway that has started since the last one died, and no traffic.
pub(crate) fn audit(file: &File) {
    let connection = file.database.open();
    // One snapshot: old charges become usage meanwhile.
    connection.execute_batch("BEGIN").unwrap();
    let audit = Audit::new(file, &connection);
    audit.books();
    audit.sums();
    audit.balances();
    audit.settled();
    audit.free();
    audit.delivered();
    audit.retries();
    drop(audit);
    if let Err(said) = file.database.doctor() {
        file.records.violated(format!("doctor: {said}"));
    }
}

/// Compares the wallets. Needs a gateway that is gone, and none that has started since.
pub(crate) fn after_death(file: &File) {
    let connection = file.database.open();
    connection.execute_batch("BEGIN").unwrap();
    Audit::new(file, &connection).balances();
}

/// What is compared.
pub(crate) struct Audit<'a> {
    file: &'a File,
    connection: &'a Connection,
    /// All that there ever were.
    pub(crate) charges: HashMap<i64, Charge>,
    /// The digest of the `Idempotency-Key`, by charge.
    pub(crate) digests: HashMap<i64, Vec<u8>>,
    /// Charges that were refunded, with the account and the amount of each entry.
    pub(crate) refunds: HashMap<i64, Vec<(i64, i64)>>,
    pub(crate) sent: MutexGuard<'a, HashMap<String, Sent>>,
    pub(crate) arrived: MutexGuard<'a, HashMap<String, Arrived>>,
    pub(crate) served: MutexGuard<'a, HashMap<i64, Served>>,
    pub(crate) killed: MutexGuard<'a, Vec<u64>>,
    pub(crate) drained: MutexGuard<'a, Vec<u64>>,
}

impl<'a> Audit<'a> {
    fn new(file: &'a File, connection: &'a Connection) -> Audit<'a> {
        let records = &file.records;
        let (charges, digests) = {
            let mut past = file.past.lock().unwrap();
            past.remember(rows(connection), &|what| records.violated(what));
            past.compare_usage(connection, &|what| records.violated(what));
            (past.all(), past.remember_digests(connection))
        };
        Audit {
            file,
            connection,
            charges,
            digests,
            refunds: refunds(connection),
            sent: records.sent.lock().unwrap(),
            arrived: records.arrived.lock().unwrap(),
            served: records.served.lock().unwrap(),
            killed: records.killed.lock().unwrap(),
            drained: records.drained.lock().unwrap(),
        }
    }

    pub(crate) fn violated(&self, what: String) {
        self.file.records.violated(what);
    }

    pub(crate) fn number(&self, select: &str) -> i64 {
        self.connection.query_row(select, [], |row| row.get(0)).unwrap()
    }

    /// The charges that requests are recorded with now, each with its account and price.
    pub(crate) fn recorded_charges(&self) -> Vec<(i64, i64, i64)> {
        let mut select = self.connection.prepare("SELECT charge_id, account_id, cents FROM keytoll_requests").unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// Whether the price is out of the wallet for good.
    pub(crate) fn is_kept(&self, charge: i64) -> bool {
        self.charges.get(&charge).is_some_and(|found| found.state == CAPTURED) && !self.refunds.contains_key(&charge)
    }

    /// I1 and I2, from the books; and I5: nothing is leased.
    fn books(&self) {
        let select = "SELECT a.id, a.user_id,
                 coalesce((SELECT sum(amount_cents) FROM keytoll_entries WHERE account_id = a.id), 0)
                 - coalesce((SELECT sum(cents) FROM keytoll_charges WHERE account_id = a.id AND state = 1), 0)
                 - coalesce((SELECT sum(captured_cents) FROM keytoll_usage WHERE account_id = a.id), 0)
                 - coalesce((SELECT sum(cents) FROM keytoll_leases WHERE account_id = a.id), 0),
                 CASE WHEN a.closed_at IS NULL
                     THEN coalesce((SELECT balance FROM wallets w WHERE w.user_id = a.user_id AND typeof(balance) = 'integer'), 0)
                     ELSE 0 END
             FROM keytoll_accounts a";
        let mut select = self.connection.prepare(select).unwrap();
        let mut rows = select.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let number = |column: usize| row.get::<_, i64>(column).unwrap();
            let (account, user, books, balance) = (number(0), number(1), number(2), number(3));
            if books != balance {
                self.violated(format!(
                    "I1: account {account} of user {user}: the books say {books}, the wallet {balance}"
                ));
            }
            if balance < 0 {
                self.violated(format!("I2: user {user} has {balance}"));
            }
        }
        let strays = "SELECT count(*) FROM wallets WHERE user_id NOT IN (SELECT user_id FROM keytoll_accounts WHERE closed_at IS NULL)";
        let strays = self.number(strays);
        if strays != 0 {
            self.violated(format!("I1: {strays} wallets are not on the books"));
        }
        let leases = self.number("SELECT count(*) FROM keytoll_leases WHERE cents <> 0");
        if leases != 0 {
            self.violated(format!("I5: {leases} leases are left after a start"));
        }
    }

    /// I1: the sums are those of the rows before their marks, and of all usage.
    fn sums(&self) {
        let mark = |name: &str| format!("(SELECT value FROM keytoll_meta WHERE name = '{name}')");
        let (charges, entries) = (mark("summed_charges_through"), mark("summed_entries_through"));
        let wrong = self.number(&format!(
            "SELECT count(*) FROM keytoll_accounts a LEFT JOIN keytoll_sums s ON s.account_id = a.id
             WHERE coalesce(s.entered_cents, 0) <>
                 coalesce((SELECT sum(amount_cents) FROM keytoll_entries WHERE account_id = a.id AND id <= {entries}), 0)
             OR coalesce(s.charged_cents, 0) <>
                 coalesce((SELECT sum(cents) FROM keytoll_charges WHERE account_id = a.id AND state = 1 AND position <= {charges}), 0)
                 + coalesce((SELECT sum(captured_cents) FROM keytoll_usage WHERE account_id = a.id), 0)"
        ));
        if wrong != 0 {
            self.violated(format!("I1: the sums of {wrong} accounts are not those of their rows"));
        }
    }

    /// I1, told without the books' own entries.
    fn balances(&self) {
        for user in self.file.all_users() {
            if user.treatment == Treatment::Anything {
                continue;
            }
            let opened = self.number(&format!(
                "SELECT count(*) FROM keytoll_entries e JOIN keytoll_accounts a ON a.id = e.account_id
                 WHERE a.user_id = {} AND e.kind = 'opening'",
                user.id
            ));
            if user.was_adopted && opened != 1 {
                self.violated(format!("I1: user {} has {opened} opening entries", user.id));
            }
            let paid = self.charges.iter().filter(|(id, charge)| charge.user == user.id && self.is_kept(**id));
            let paid: i64 = paid.map(|(_, charge)| charge.cents).sum();
            let put_in = user.put_in.load(Ordering::SeqCst);
            let balance = self.number(&format!("SELECT balance FROM wallets WHERE user_id = {}", user.id));
            let leased = leased(self.connection, user.id);
            if balance != put_in - paid - leased {
                let treatment = user.treatment;
                self.violated(format!(
                    "I1: user {} ({treatment:?}): {put_in} put in, {paid} paid, {leased} leased, {balance} there",
                    user.id
                ));
            }
        }
    }

    /// What the table says of a call that reached the upstream.
    pub(crate) fn due(&self, reply: &Served) -> Due {
        Due::of(&self.sent[&reply.request], self.arrived[&reply.request], reply)
    }

    /// I4, I5 and I10.
    fn settled(&self) {
        for (id, charge) in &self.charges {
            let reply = self.served.get(id);
            match charge.state {
                CAPTURED => self.captured(*id, charge, reply),
                RELEASED => {
                    if let Some(reply) = reply.filter(|reply| !self.due(reply).may_be_free()) {
                        self.violated(format!("I10: charge {id} was released, and is due: {}", self.facts(reply)));
                    }
                }
                state => self.violated(format!("I5: charge {id} is in state {state}")),
            }
        }
        for (id, reply) in self.served.iter().filter(|(id, _)| !self.charges.contains_key(id)) {
            // A gateway that ended in order has waited for the reply, whether or not its client left.
            let start = self.sent[&reply.request].start;
            if !self.killed.contains(&start) || self.drained.contains(&start) {
                self.violated(format!("I5: charge {id} went upstream and is not in the file: {}", self.facts(reply)));
            }
        }
    }

    fn captured(&self, id: i64, charge: &Charge, reply: Option<&Served>) {
        let Some(reply) = reply else {
            if self.is_restored(id) {
                return;
            }
            return self.violated(format!("I4: charge {id} is captured, and the upstream never saw it: {charge:?}"));
        };
        let request = &self.sent[&reply.request];
        if !self.due(reply).may_be_paid(charge.status) {
            let facts = self.facts(reply);
            self.violated(format!("I10: charge {id} is captured with {:?}: {facts}", charge.status));
        }
        if (charge.user, charge.cents) != (request.user, request.cents) {
            self.violated(format!("I4: charge {id} is {charge:?}, for {reply:?}"));
        }
        let is_delivered = request.got.is_some_and(|got| got.whole);
        if !is_delivered && !request.left() && !self.killed.contains(&request.start) {
            self.violated(format!("I4: charge {id} is captured, and its reply was lost: {}", self.facts(reply)));
        }
    }

    /// A call, for a message.
    pub(crate) fn facts(&self, reply: &Served) -> String {
        let (request, arrived) = (&self.sent[&reply.request], self.arrived[&reply.request]);
        let killed = self.killed.contains(&request.start);
        format!("due {:?}, {arrived:?}, {reply:?}, {request:?}, killed: {killed}", self.due(reply))
    }

    /// I10: a call whose small body broke off has no charge, not even a released one.
    fn free(&self) {
        for (id, charge) in self.charges.iter().filter(|(_, charge)| charge.cents == BROKEN_OFF_CENTS) {
            self.violated(format!("I10: charge {id} is for a small body that broke off: {charge:?}"));
        }
    }

    /// I3.
    fn delivered(&self) {
        let mut seen: HashMap<i64, &Sent> = HashMap::new();
        for (id, request) in self.sent.iter() {
            let Some(got) = request.got.filter(|got| got.whole) else { continue };
            if let Manner::BreaksOffStream { .. } = request.manner {
                self.told_of_its_break(id, request, got);
                continue;
            }
            let Some((charge, cost)) = got.receipt else { continue };
            if let Some(other) = seen.insert(charge, request) {
                self.violated(format!("I3: charge {charge} paid for more than one reply, {id} and {other:?}"));
            }
            let served = self.served.get(&charge);
            let is_paid = is_charged(got.status);
            let found = self.charges.get(&charge);
            let fits = match is_paid {
                true => self.is_kept(charge) || self.may_be_refunded(request, charge),
                false => found.is_some_and(|found| found.state == RELEASED),
            };
            if !fits || found.is_some_and(|found| found.cents != request.cents) {
                self.violated(format!("I3: {id} was answered with {got:?}, and charge {charge} is {found:?}"));
            }
            if cost != if is_paid { request.cents } else { 0 } {
                self.violated(format!("I3: {id} costs {}, and its receipt says {cost}", request.cents));
            }
            if is_paid && !served.is_some_and(|reply| reply.request == *id && reply.script.is_whole()) {
                self.violated(format!("I3: {id} was answered whole with {got:?}, and the upstream had {served:?}"));
            }
        }
    }

    /// I10: a client that broke its body off and still reads is answered with 400, and with what that cost: the price if the
    /// upstream has seen the request, nothing otherwise.
    fn told_of_its_break(&self, id: &str, request: &Sent, got: Got) {
        let is_forwarded = self.arrived.get(id).is_some_and(|arrived| arrived.charge.is_some());
        let Some((charge, cost)) = got.receipt else {
            if is_forwarded {
                self.violated(format!("I10: {id} broke off, went upstream, and was answered with {got:?}"));
            }
            return;
        };
        let found = self.charges.get(&charge);
        // Kept, or refunded to a retry.
        let is_captured = found.is_some_and(|found| found.state == CAPTURED);
        let fits = match cost {
            // What did not go upstream has a charge because its client got a receipt.
            0 => !is_forwarded && found.is_some_and(|found| found.state == RELEASED && found.status.is_none()),
            // What did not go upstream is a retry that has paid again what was refunded.
            _ => cost == request.cents && is_captured && is_forwarded != self.is_restored(charge),
        };
        if got.status != 400 || !fits {
            self.violated(format!("I10: {id} broke off, was answered with {got:?}, and charge {charge} is {found:?}"));
        }
    }
}

/// What entries gave back, by charge.
fn refunds(connection: &Connection) -> HashMap<i64, Vec<(i64, i64)>> {
    let mut select = connection
        .prepare("SELECT charge_id, account_id, amount_cents FROM keytoll_entries WHERE kind = 'refund'")
        .unwrap();
    let mut rows = select.query([]).unwrap();
    let mut refunds: HashMap<i64, Vec<(i64, i64)>> = HashMap::new();
    while let Some(row) = rows.next().unwrap() {
        refunds.entry(row.get(0).unwrap()).or_default().push((row.get(1).unwrap(), row.get(2).unwrap()));
    }
    refunds
}
