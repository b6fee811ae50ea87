//! Requests with an `Idempotency-Key`: which charge stands for each, and what a client may have that sends one again.
//!
//! A row is written with the hold, in its transaction, and names its charge. Whether that is held, captured or released
//! stands in the charge's own row only, so that whoever settles it, also the next start, has nothing else to do here:
//!
//! ```text
//! held                         a retry is refused: in flight
//! released                     the row is gone, and a retry holds anew; so it does where the row of an older file is not
//! captured, and not spent      the reply's head never reached the client: a retry is forwarded once more, unless this
//!                              process is just about to send it ([`crate::store::writer::reply_head`])
//! captured, and spent          a retry is refused: charged already
//! again_by an instance         forwarded once more just now, and spent twice (2): in flight; that stays when it is had, and
//!                              a capture that came too late is not undone any more
//! given back                   that failed, and an entry gave the price back: as released
//! ```
//!
//! Each step is one transaction. The forward of a process that dies is given back by whoever releases its holds. A row
//! whose charge is gone from the books is captured and spent. Rows of requests that are not in flight count as absent
//! after their time, and are deleted some at a time.

mod room;

pub(in crate::store) use crate::store::books::requests::room::forget;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::config::Limits;
use crate::failpoint;
use crate::model::{AccountId, Cents, ChargeId, ChargeState, EntryKind, Retryable, RouteId};
use crate::store::books::accounts::{self, NewEntry};
use crate::store::error::HoldRefused;
use crate::store::file::instance::{LeftOver, give_back};
use crate::store::writer::ledger::{Attempt, ChargeFacts, Settled, Wanted};
use crate::store::writer::wallets::Wallets;

/// Rows deleted in one of the writer's chores: some milliseconds under the lock.
const SWEPT: i64 = 1_000;
/// Who gives the price of a failed forward back.
const ACTOR: &str = "keytoll";

/// What an instance was forwarding once more.
pub(in crate::store) const FORWARDED_BY: &str =
    "SELECT r.charge_id, r.account_id, c.cents, a.user_id FROM keytoll_requests r
     JOIN keytoll_charges c ON c.id = r.charge_id JOIN keytoll_accounts a ON a.id = r.account_id
     WHERE r.again_by = ?1";

/// How long requests are remembered, how many in all, and how many of one account.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct RequestLimits {
    ttl_ms: i64,
    most: i64,
    most_of_one: i64,
}

impl From<&Limits> for RequestLimits {
    fn from(limits: &Limits) -> RequestLimits {
        RequestLimits {
            ttl_ms: i64::try_from(limits.idempotency_ttl.as_millis()).unwrap_or(i64::MAX),
            most: i64::try_from(limits.idempotency_keys).unwrap_or(i64::MAX),
            most_of_one: i64::try_from(limits.idempotency_keys_per_user).unwrap_or(i64::MAX),
        }
    }
}

/// Who sends a request, to which API, and what it is.
pub(in crate::store) struct Sent<'a> {
    pub(in crate::store) account: AccountId,
    /// The same under all routes of an API.
    pub(in crate::store) route: RouteId,
    pub(in crate::store) retryable: &'a Retryable,
}

/// What stands under a key when a request comes.
pub(in crate::store) enum Earlier {
    /// Nothing that counts: a hold may be made. The row to take over, if there is one.
    Free(Option<ChargeId>),
    /// The reply to it never reached the client, and it is paid.
    Owed(ChargeId, Cents),
    Refused(HoldRefused),
}

/// The requests of one transaction; costs nothing as long as none comes.
pub(in crate::store) struct Requests {
    limits: RequestLimits,
    now_unix_ms: i64,
}

impl Requests {
    pub(in crate::store) fn new(limits: RequestLimits, now_unix_ms: i64) -> Requests {
        Requests { limits, now_unix_ms }
    }

    /// What a request meets.
    pub(in crate::store) fn meet(&self, connection: &Connection, sent: &Sent<'_>) -> rusqlite::Result<Earlier> {
        let Some(found) = Found::read(connection, sent)? else {
            return Ok(match room::is_left(connection, &self.limits, sent.account, self.now_unix_ms)? {
                true => Earlier::Free(None),
                false => Earlier::Refused(HoldRefused::IdempotencyFull),
            });
        };
        let is_over = found.is_given_back || found.state == Some(ChargeState::Released);
        let age_ms = self.now_unix_ms.saturating_sub(found.created_at);
        Ok(if !found.is_in_flight() && age_ms >= self.limits.ttl_ms {
            Earlier::Free(Some(found.charge))
        } else if !found.is_same {
            Earlier::Refused(HoldRefused::IdempotencyKeyReused)
        } else if found.is_in_flight() {
            Earlier::Refused(HoldRefused::InFlight)
        } else if is_over {
            Earlier::Free(Some(found.charge))
        } else if found.is_spent {
            Earlier::Refused(HoldRefused::AlreadyCharged { charge: found.charge })
        } else {
            Earlier::Owed(found.charge, found.cents)
        })
    }

    /// Notes the charge that stands for a request from now on, in the place of the one that did.
    pub(in crate::store) fn record(
        &self,
        connection: &Connection,
        sent: &Sent<'_>,
        charge: ChargeId,
        instead_of: Option<ChargeId>,
    ) -> rusqlite::Result<()> {
        if let Some(old) = instead_of {
            connection.prepare_cached("DELETE FROM keytoll_requests WHERE charge_id = ?1")?.execute([old.0])?;
        } else {
            room::take(connection, sent.account)?;
        }
        connection
            .prepare_cached(
                "INSERT INTO keytoll_requests (charge_id, account_id, api_name, key_digest, request_digest, created_at)
                 VALUES (?1, ?2, (SELECT api_name FROM keytoll_routes WHERE id = ?3), ?4, ?5, ?6)",
            )?
            .execute(params![
                charge.0,
                sent.account.0,
                sent.route.0,
                sent.retryable.key.digest(),
                sent.retryable.request.digest(),
                self.now_unix_ms
            ])?;
        Ok(())
    }

    /// Deletes rows whose time is over, no more than some; for the writer's chores.
    pub(in crate::store) fn sweep(&self, connection: &Connection) -> rusqlite::Result<()> {
        room::delete_old(connection, &self.limits, self.now_unix_ms, SWEPT)
    }
}

/// A row, and the charge that it names.
struct Found {
    charge: ChargeId,
    is_same: bool,
    created_at: i64,
    is_spent: bool,
    is_forwarded_again: bool,
    is_given_back: bool,
    /// `None`: the charge is gone from the books, as settled ones go in time.
    state: Option<ChargeState>,
    cents: Cents,
}

impl Found {
    fn read(connection: &Connection, sent: &Sent<'_>) -> rusqlite::Result<Option<Found>> {
        connection
            .prepare_cached(
                "SELECT r.charge_id, r.request_digest = ?4, r.created_at, r.is_spent, r.again_by IS NOT NULL, r.is_given_back,
                     c.state, coalesce(c.cents, 0)
                 FROM keytoll_requests r LEFT JOIN keytoll_charges c ON c.id = r.charge_id
                 WHERE r.account_id = ?1 AND r.api_name = (SELECT api_name FROM keytoll_routes WHERE id = ?2)
                 AND r.key_digest = ?3",
            )?
            .query_row(
                params![sent.account.0, sent.route.0, sent.retryable.key.digest(), sent.retryable.request.digest()],
                Found::of,
            )
            .optional()
    }

    fn of(row: &Row<'_>) -> rusqlite::Result<Found> {
        let state: Option<i64> = row.get(6)?;
        Ok(Found {
            charge: ChargeId(row.get(0)?),
            is_same: row.get(1)?,
            created_at: row.get(2)?,
            is_spent: row.get::<_, bool>(3)? || state.is_none(),
            is_forwarded_again: row.get(4)?,
            is_given_back: row.get(5)?,
            state: state.and_then(ChargeState::from_code),
            cents: Cents(row.get(7)?),
        })
    }

    fn is_in_flight(&self) -> bool {
        self.is_forwarded_again || self.state == Some(ChargeState::Held)
    }
}

/// Notes that the head of a charge's reply reached the client: nothing more is owed for it.
pub(in crate::store) fn spend(connection: &Connection, charge: ChargeId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE keytoll_requests SET is_spent = max(is_spent, 1) WHERE charge_id = ?1")?
        .execute([charge.0])?;
    Ok(())
}

/// Notes, before it goes upstream, that the request of this charge is forwarded once more. It is spent with that.
pub(in crate::store) fn begin_again(connection: &Connection, charge: ChargeId, instance: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE keytoll_requests SET is_spent = 2, again_by = ?2 WHERE charge_id = ?1")?
        .execute([charge.0, instance])?;
    Ok(())
}

/// Whether a capture that came too late may still be undone: its request still stands for this charge, and nobody has begun
/// to forward it once more. Where the row went over to another charge, this one was given back before.
pub(in crate::store) fn may_be_undone(connection: &Connection, charge: ChargeId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM keytoll_requests
             WHERE charge_id = ?1 AND again_by IS NULL AND is_spent < 2 AND is_given_back = 0",
        )?
        .exists([charge.0])
}

/// Whether the request of this charge is being forwarded once more.
pub(in crate::store) fn is_begun_again(connection: &Connection, charge: ChargeId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM keytoll_requests WHERE charge_id = ?1 AND again_by IS NOT NULL")?
        .exists([charge.0])
}

/// Whether that has ended, and was given back if the end was so.
pub(in crate::store) fn is_ended_again(
    connection: &Connection,
    charge: ChargeId,
    was_given_back: bool,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM keytoll_requests WHERE charge_id = ?1 AND again_by IS NULL AND is_given_back = ?2",
        )?
        .exists(params![charge.0, was_given_back])
}

/// Ends a forward once more: it was had (capture), it failed (release), or its client kept it from coming about.
/// [`Settled::Unknown`]: someone took this process for dead, and gave the price back.
pub(in crate::store) fn end_again(
    connection: &Connection,
    wallets: &mut Wallets,
    facts: &ChargeFacts,
    wanted: Wanted,
    instance: i64,
    now_unix_ms: i64,
) -> rusqlite::Result<Settled> {
    let end = match (facts.attempt, wanted) {
        (Attempt::Withdrawn, Wanted::Capture | Wanted::Release | Wanted::Undo) => {
            "UPDATE keytoll_requests SET again_by = NULL, is_spent = 0
             WHERE charge_id = ?1 AND again_by = ?2"
        }
        (Attempt::Plain | Attempt::First | Attempt::Seen | Attempt::Again, Wanted::Capture) => {
            "UPDATE keytoll_requests SET again_by = NULL WHERE charge_id = ?1 AND again_by = ?2"
        }
        (Attempt::Plain | Attempt::First | Attempt::Seen | Attempt::Again, Wanted::Release | Wanted::Undo) => {
            // Undone: its end is committed already.
            let by = (wanted == Wanted::Release).then_some(instance);
            let failed = LeftOver { charge: facts.id, account: facts.account, cents: facts.cents, user: facts.user_id };
            return refund(connection, wallets, &failed, by, now_unix_ms);
        }
    };
    let changed = connection.prepare_cached(end)?.execute([facts.id.0, instance])?;
    failpoint::reach("again-ended");
    Ok(if changed == 0 { Settled::Unknown } else { Settled::Captured })
}

/// Gives back what a dead process was forwarding once more; how many there were, and their cents.
pub(in crate::store) fn give_back_dead(
    connection: &Connection,
    wallets: &mut Wallets,
    instance: i64,
    now_unix_ms: i64,
) -> rusqlite::Result<(u64, i64)> {
    let failed = {
        let mut select = connection.prepare_cached(FORWARDED_BY)?;
        let rows = select.query_map([instance], LeftOver::of)?;
        rows.collect::<rusqlite::Result<Vec<_>>>()?
    };
    let (mut count, mut cents) = (0, 0_i64);
    for failed in failed {
        if refund(connection, wallets, &failed, Some(instance), now_unix_ms)? != Settled::Unknown {
            count += 1;
            cents = cents.saturating_add(failed.cents.0);
        }
    }
    Ok((count, cents))
}

/// Gives the price of a forward that came to nothing back, once: the charge stays captured, and an entry takes it out of the
/// books again. `by`: whose forward it is, if it is not over. [`Settled::Unknown`]: that was done before.
fn refund(
    connection: &Connection,
    wallets: &mut Wallets,
    failed: &LeftOver,
    by: Option<i64>,
    now_unix_ms: i64,
) -> rusqlite::Result<Settled> {
    let LeftOver { charge, account, cents, user } = *failed;
    let given = connection
        .prepare_cached(
            "UPDATE keytoll_requests SET again_by = NULL, is_given_back = 1
             WHERE charge_id = ?1 AND is_given_back = 0 AND again_by IS ?2
             AND NOT EXISTS (SELECT 1 FROM keytoll_charges WHERE id = ?1 AND state = 2)",
        )?
        .execute(params![charge.0, by])?;
    if given == 0 {
        return Ok(Settled::Unknown);
    }
    let note = format!("charge {charge} given back: it was forwarded again for a retry, and that failed");
    let entry = NewEntry { kind: EntryKind::Credit, amount: cents, note: Some(&note), actor: Some(ACTOR), key: None };
    accounts::write_entry(connection, account, &entry, now_unix_ms)?;
    let balance = give_back(connection, wallets, user, account, cents, now_unix_ms)?;
    failpoint::reach("again-given-back");
    Ok(Settled::Released { balance })
}
