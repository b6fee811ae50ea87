//! The audit: while nothing moves, the file is compared with what clients got, what the upstream served and what the
//! application moved.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use crate::file::File;
use crate::records::{Sent, Served, Treatment, is_charged};

/// A row of `keytoll_charges`.
#[derive(Clone, Copy, Debug)]
struct Charge {
    user: i64,
    cents: i64,
    state: i64,
    status: Option<u16>,
}

const CAPTURED: i64 = 1;
const RELEASED: i64 = 2;

/// Compares everything. Needs a gateway that has started since the last one died, and no traffic.
pub(crate) fn audit(file: &File) {
    let connection = file.database.open();
    let charges = charges(&connection);
    let (sent, served) = (file.records.sent.lock().unwrap(), file.records.served.lock().unwrap());
    let violated = |what: String| file.records.violated(what);
    books(&connection, &violated);
    balances(file, &connection, &charges, &violated);
    settled(file, &charges, &sent, &served, &violated);
    delivered(&charges, &sent, &served, &violated);
    drop((sent, served));
    doctor(file);
}

fn charges(connection: &Connection) -> HashMap<i64, Charge> {
    let mut select = connection
        .prepare(
            "SELECT c.id, a.user_id, c.cents, c.state, c.status
             FROM keytoll_charges c JOIN keytoll_accounts a ON a.id = c.account_id",
        )
        .unwrap();
    let rows = select.query_map([], |row| {
        Ok((row.get(0)?, Charge { user: row.get(1)?, cents: row.get(2)?, state: row.get(3)?, status: row.get(4)? }))
    });
    rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

/// I1 and I2: for every account entries less charges are what the wallet holds, and that is not below zero.
fn books(connection: &Connection, violated: &dyn Fn(String)) {
    let mut select = connection
        .prepare(
            "SELECT a.id, a.user_id,
                 coalesce((SELECT sum(amount_cents) FROM keytoll_entries WHERE account_id = a.id), 0)
                 - coalesce((SELECT sum(cents) FROM keytoll_charges WHERE account_id = a.id AND state <> 2), 0),
                 CASE WHEN a.closed_at IS NULL
                     THEN coalesce((SELECT balance FROM wallets w WHERE w.user_id = a.user_id AND typeof(balance) = 'integer'), 0)
                     ELSE 0 END
             FROM keytoll_accounts a",
        )
        .unwrap();
    let mut rows = select.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let number = |column: usize| row.get::<_, i64>(column).unwrap();
        let (account, user, books, balance) = (number(0), number(1), number(2), number(3));
        if books != balance {
            violated(format!("I1: account {account} of user {user}: the books say {books}, the wallet {balance}"));
        }
        if balance < 0 {
            violated(format!("I2: user {user} has {balance}"));
        }
    }
    let strays = "SELECT count(*) FROM wallets WHERE user_id NOT IN (SELECT user_id FROM keytoll_accounts WHERE closed_at IS NULL)";
    let strays: i64 = connection.query_row(strays, [], |row| row.get(0)).unwrap();
    if strays != 0 {
        violated(format!("I1: {strays} wallets are not on the books"));
    }
}

/// What the application put in, less what was captured, is there: told without the books' own entries.
fn balances(file: &File, connection: &Connection, charges: &HashMap<i64, Charge>, violated: &dyn Fn(String)) {
    for user in file.all_users() {
        if user.treatment == Treatment::Anything {
            continue;
        }
        let opened = "SELECT count(*) FROM keytoll_entries e JOIN keytoll_accounts a ON a.id = e.account_id
             WHERE a.user_id = ?1 AND e.kind = 'opening'";
        let opened: i64 = connection.query_row(opened, [user.id], |row| row.get(0)).unwrap();
        if user.was_adopted && opened != 1 {
            violated(format!("user {} has {opened} opening entries", user.id));
        }
        let captured = charges.values().filter(|charge| charge.user == user.id && charge.state == CAPTURED);
        let captured: i64 = captured.map(|charge| charge.cents).sum();
        let put_in = user.put_in.load(Ordering::SeqCst);
        let select = "SELECT balance FROM wallets WHERE user_id = ?1";
        let balance: i64 = connection.query_row(select, [user.id], |row| row.get(0)).unwrap();
        if balance != put_in - captured {
            let treatment = user.treatment;
            violated(format!(
                "user {} ({treatment:?}): {put_in} put in, {captured} captured, {balance} there",
                user.id
            ));
        }
    }
}

/// I4 and I5: every charge is settled, and a captured one has a reply that is charged, and was delivered, unless its
/// client left or its gateway was killed.
fn settled(
    file: &File,
    charges: &HashMap<i64, Charge>,
    sent: &HashMap<String, Sent>,
    served: &HashMap<i64, Served>,
    violated: &dyn Fn(String),
) {
    let (killed, drained) = (file.records.killed.lock().unwrap(), file.records.drained.lock().unwrap());
    for (id, charge) in charges {
        match charge.state {
            CAPTURED => {}
            RELEASED => continue,
            state => violated(format!("I5: charge {id} is in state {state} after a start")),
        }
        let Some(reply) = served.get(id) else {
            violated(format!("I4: charge {id} is captured, and the upstream never saw it"));
            continue;
        };
        let request = &sent[&reply.request];
        if !is_charged(reply.script.status) || !(reply.script.is_whole() || request.left) {
            violated(format!("I4: charge {id} is captured for {reply:?}"));
        }
        if charge.status != Some(reply.script.status) || (charge.user, charge.cents) != (request.user, request.cents) {
            violated(format!("I4: charge {id} is {charge:?}, for {reply:?}"));
        }
        let is_delivered = request.got.is_some_and(|got| got.whole);
        if !is_delivered && !request.left && !killed.contains(&request.start) {
            violated(format!("I4: charge {id} is captured, and its reply was lost: {reply:?}"));
        }
    }
    for (id, reply) in served {
        let Some(charge) = charges.get(id) else {
            violated(format!("charge {id} went upstream and is not in the file: {reply:?}"));
            continue;
        };
        // Whether or not its client left: a gateway that ended in order has waited for the reply.
        let is_due = is_charged(reply.script.status) && reply.script.is_whole();
        if is_due && drained.contains(&sent[&reply.request].start) && charge.state != CAPTURED {
            violated(format!("charge {id} was not captured before the gateway ended: {reply:?}"));
        }
    }
}

/// I3: every reply that was delivered whole has its own charge: captured with its price where its status is charged, and
/// given back otherwise.
fn delivered(
    charges: &HashMap<i64, Charge>,
    sent: &HashMap<String, Sent>,
    served: &HashMap<i64, Served>,
    violated: &dyn Fn(String),
) {
    let mut seen = HashSet::new();
    for (id, request) in sent {
        let Some(got) = request.got.filter(|got| got.whole) else { continue };
        let Some((charge, cost)) = got.receipt else { continue };
        if !seen.insert(charge) {
            violated(format!("I3: charge {charge} paid for more than one reply"));
        }
        let is_paid = is_charged(got.status);
        let expected = (if is_paid { CAPTURED } else { RELEASED }, request.cents);
        match charges.get(&charge) {
            Some(found) if (found.state, found.cents) == expected => {}
            found => violated(format!("I3: {id} was answered with {got:?}, and charge {charge} is {found:?}")),
        }
        if cost != if is_paid { request.cents } else { 0 } {
            violated(format!("I3: {id} costs {}, and its receipt says {cost}", request.cents));
        }
        let reply = served.get(&charge);
        if is_paid && !reply.is_some_and(|reply| reply.request == *id && reply.script.is_whole()) {
            violated(format!("I3: {id} was answered whole with {got:?}, and the upstream had {reply:?}"));
        }
    }
}

fn doctor(file: &File) {
    let found = file.database.doctor();
    if let Err(said) = found {
        file.records.violated(format!("doctor: {said}"));
    }
}
