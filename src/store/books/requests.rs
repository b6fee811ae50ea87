//! Requests with an `Idempotency-Key`, as `keytoll_requests` records them: one row each, written in the transaction that
//! holds the price. What a retry gets is decided by [`ledger::idempotency`](crate::ledger::idempotency).
//!
//! The row of a request that was released or refunded is removed, and so is one that was in flight when its process died.
//! Rows of requests that are not in flight count as absent after their time, and are deleted some at a time.

mod room;

use rusqlite::{Connection, OptionalExtension, params};

use crate::config::Limits;
use crate::ledger::idempotency::{Decision, Earlier, Progress, decide};
use crate::ledger::{Hold, Refund};
use crate::model::{AccountId, Cents, ChargeId, IdempotentRequest, RouteId, UserId};

/// Rows deleted in one run of the writer's maintenance: some milliseconds under the lock.
const SWEPT: i64 = 1_000;

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

/// A request with an `Idempotency-Key`.
pub(in crate::store) struct Request<'a> {
    pub(in crate::store) user: UserId,
    pub(in crate::store) account: AccountId,
    /// The scope of an `Idempotency-Key` is one API; the API is read from the route.
    pub(in crate::store) route: RouteId,
    pub(in crate::store) idempotent: &'a IdempotentRequest,
}

/// What a request meets under its key.
pub(in crate::store) enum Met {
    /// Nothing: it may be recorded.
    Nothing,
    /// As many requests are recorded as may be.
    Full,
    /// An earlier request.
    Earlier {
        charge: ChargeId,
        decision: Decision,
        /// The charge that is given back if the decision is [`Decision::Refund`].
        refund: Refund,
    },
}

/// What a request meets; deletes a few expired rows where room is needed. `is_delivering`: whether this process is about to
/// send the head of the reply that a charge paid for.
pub(in crate::store) fn meet(
    connection: &Connection,
    limits: &RequestLimits,
    request: &Request<'_>,
    now_unix_ms: i64,
    is_delivering: impl FnOnce(ChargeId) -> bool,
) -> rusqlite::Result<Met> {
    let mut select = connection.prepare_cached(
        "SELECT charge_id, state, request_digest = ?4, created_at, cents FROM keytoll_requests
         WHERE account_id = ?1 AND api_name = (SELECT api_name FROM keytoll_routes WHERE id = ?2) AND key_digest = ?3",
    )?;
    let Request { user, account, route, idempotent } = request;
    let values = params![account.0, route.0, idempotent.key.digest(), idempotent.request.digest()];
    let found = select.query_row(values, |row| {
        let earlier = Earlier {
            charge: ChargeId(row.get(0)?),
            // A number that Keytoll does not write is taken for the state that costs the client nothing more.
            progress: Progress::from_code(row.get(1)?).unwrap_or(Progress::Answered),
            is_same_request: row.get(2)?,
            age_ms: now_unix_ms.saturating_sub(row.get(3)?),
        };
        Ok((earlier, Cents(row.get(4)?)))
    });
    let Some((earlier, cents)) = found.optional()? else {
        let has_room = room::is_left(connection, limits, *account, now_unix_ms)?;
        return Ok(if has_room { Met::Nothing } else { Met::Full });
    };
    let decision = decide(&earlier, limits.ttl_ms, is_delivering(earlier.charge));
    let refund = Refund { charge: earlier.charge, user: *user, account: *account, cents };
    Ok(Met::Earlier { charge: earlier.charge, decision, refund })
}

/// Records a request with its hold, in the place of an earlier one if there is one. `is_retry`: the charge of that one was
/// refunded. Once the retry is captured it counts as answered: otherwise a client that always leaves could have an upstream
/// work any number of times for one price.
pub(in crate::store) fn record(
    connection: &Connection,
    request: &Request<'_>,
    hold: &Hold,
    instance: i64,
    replaced: Option<ChargeId>,
    is_retry: bool,
) -> rusqlite::Result<()> {
    if let Some(earlier) = replaced {
        connection.prepare_cached("DELETE FROM keytoll_requests WHERE charge_id = ?1")?.execute([earlier.0])?;
    } else {
        room::take(connection, request.account)?;
    }
    connection
        .prepare_cached(
            "INSERT INTO keytoll_requests
                 (charge_id, account_id, api_name, key_digest, request_digest, created_at, instance_id, cents, state, ends_answered)
             VALUES (?1, ?2, (SELECT api_name FROM keytoll_routes WHERE id = ?3), ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            hold.charge.0,
            request.account.0,
            request.route.0,
            request.idempotent.key.digest(),
            request.idempotent.request.digest(),
            hold.held_at_ms,
            instance,
            hold.cents.0,
            Progress::InFlight.code(),
            is_retry
        ])?;
    Ok(())
}

/// Notes that the request of a charge was captured, and whether the head of its reply was sent.
pub(in crate::store) fn captured(connection: &Connection, charge: ChargeId, is_answered: bool) -> rusqlite::Result<()> {
    let progress = if is_answered { Progress::Answered } else { Progress::Unanswered };
    connection
        .prepare_cached(
            "UPDATE keytoll_requests SET state = CASE WHEN ends_answered THEN ?3 ELSE ?2 END WHERE charge_id = ?1",
        )?
        .execute([charge.0, progress.code(), Progress::Answered.code()])?;
    Ok(())
}

/// Notes that a retry was given up before it was forwarded, and that its charge, over `cents`, stands for the earlier one
/// again: the next retry has it refunded.
pub(in crate::store) fn restored(connection: &Connection, charge: ChargeId, cents: Cents) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE keytoll_requests SET state = ?2, ends_answered = 0, cents = ?3 WHERE charge_id = ?1")?
        .execute([charge.0, Progress::Unanswered.code(), cents.0])?;
    Ok(())
}

/// Notes that the head of a reply was sent. Its capture may still be on its way to the writer: then the request counts as
/// answered once it is captured, like a retry.
pub(in crate::store) fn answered(connection: &Connection, charge: ChargeId) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE keytoll_requests SET state = CASE state WHEN ?3 THEN ?2 ELSE state END, ends_answered = 1
             WHERE charge_id = ?1 AND state <> ?2",
        )?
        .execute([charge.0, Progress::Answered.code(), Progress::Unanswered.code()])?;
    Ok(())
}

/// Removes the record of a request that cost nothing.
pub(in crate::store) fn forget(connection: &Connection, charge: ChargeId) -> rusqlite::Result<()> {
    let delete = "DELETE FROM keytoll_requests WHERE charge_id = ?1 RETURNING account_id";
    room::delete_counted(connection, delete, [charge.0]).map(drop)
}

/// Removes the records of requests that were in flight when their process died: they cost nothing.
pub(in crate::store) fn forget_in_flight(connection: &Connection, instance: i64) -> rusqlite::Result<()> {
    let delete = "DELETE FROM keytoll_requests WHERE instance_id = ?1 AND state = 0 RETURNING account_id";
    room::delete_counted(connection, delete, [instance]).map(drop)
}

/// Deletes up to `SWEPT` expired rows. Part of the writer's maintenance.
pub(in crate::store) fn sweep(
    connection: &Connection,
    limits: &RequestLimits,
    now_unix_ms: i64,
) -> rusqlite::Result<()> {
    room::delete_old(connection, limits, now_unix_ms, SWEPT)
}

#[cfg(test)]
mod tests {
    use crate::store::books::requests::*;
    use crate::store::file::schema;

    #[test]
    fn a_head_that_is_noted_before_its_capture_is_an_answer_once_that_is_committed() {
        let connection = Connection::open_in_memory().unwrap();
        schema::ensure_shared(&connection).unwrap();
        schema::migrate(&connection, 0).unwrap();
        let row = "INSERT INTO keytoll_requests
                (charge_id, account_id, api_name, key_digest, request_digest, created_at, instance_id, cents, state)
            VALUES (?1, 1, 'weather', ?1, 'request', 0, 1, 10, 0)";
        let state = |charge: i64| {
            let select = "SELECT state FROM keytoll_requests WHERE charge_id = ?1";
            connection.query_row(select, [charge], |row| row.get::<_, i64>(0)).unwrap()
        };
        for charge in [1, 2] {
            connection.execute(row, [charge]).unwrap();
        }
        answered(&connection, ChargeId(1)).unwrap();
        assert_eq!(state(1), Progress::InFlight.code());
        for charge in [1, 2].map(ChargeId) {
            captured(&connection, charge, false).unwrap();
        }
        assert_eq!((state(1), state(2)), (Progress::Answered.code(), Progress::Unanswered.code()));
        answered(&connection, ChargeId(2)).unwrap();
        assert_eq!(state(2), Progress::Answered.code());
    }
}
