//! What one transaction does: holds, settlements and admin writes, in the order in which they came.
//!
//! Nothing here commits or replies. Each item carries its result, which is sent only after the commit.

use rusqlite::{Connection, params};

use crate::ledger::idempotency::Decision;
use crate::ledger::{GrantError, Hold, Refund, Tables, Turn};
use crate::model::{Cents, ChargeId};
use crate::store::books::ledger_tables::LedgerTables;
use crate::store::books::requests::{self, Met, Request, RequestLimits};
use crate::store::error::{HoldRefused, Unavailable};
use crate::store::file::view::Generation;
use crate::store::writer::charge_ids::ChargeIds;
use crate::store::writer::hold::{HoldRequest, Settled};
use crate::store::writer::queue::{HoldCommand, Queue, SettleAction, SettleCommand};
use crate::store::writer::write::{WriteJob, WriteTx};

/// A message with what the transaction made of it.
pub(super) enum Item {
    Hold(HoldCommand, Result<HoldMade, HoldRefused>),
    Settle(SettleCommand, Settled),
    Write(Box<dyn WriteJob>),
}

/// A hold that is made if the transaction commits.
#[derive(Clone, Copy, Debug)]
pub(super) struct HoldMade {
    pub(super) hold: Hold,
    pub(super) balance: Cents,
    pub(super) generation: Generation,
    /// The charge of an earlier request with the same `Idempotency-Key`, which is refunded.
    pub(super) refund: Option<Refund>,
}

/// An earlier request that a new one replaces.
struct Replaced {
    charge: ChargeId,
    /// Its charge, if that is owed.
    refund: Option<Refund>,
}

/// The items of one transaction, as they are worked through.
pub(super) struct Batch<'a> {
    pub(super) tables: LedgerTables<'a>,
    pub(super) queue: &'a Queue,
    pub(super) ids: &'a mut ChargeIds,
    pub(super) generation: &'a mut Generation,
    pub(super) requests: RequestLimits,
    pub(super) instance: i64,
}

impl Batch<'_> {
    /// Works through the items. An error of SQLite undoes them all.
    pub(super) fn run(mut self, items: &mut [Item]) -> rusqlite::Result<()> {
        for item in items {
            match item {
                Item::Hold(command, result) => *result = self.hold(command)?,
                Item::Settle(command, settled) => *settled = self.settle(command)?,
                Item::Write(job) => self.write(job.as_mut())?,
            }
        }
        self.tables.flush()
    }

    fn hold(&mut self, command: &HoldCommand) -> rusqlite::Result<Result<HoldMade, HoldRefused>> {
        let wanted = &command.request;
        let principal = &wanted.principal;
        if wanted.generation != *self.generation && !self.is_still_true(wanted)? {
            return Ok(Err(HoldRefused::KeyChanged));
        }
        let mut request = None;
        let (mut replaced, mut refund) = (None, None);
        if let Some(idempotent) = &command.idempotent_request
            && let Some(wallet) = self.tables.wallet(principal.user_id)?
        {
            let new = Request { user: principal.user_id, account: wallet.account, route: wanted.route, idempotent };
            match self.meet(&new)? {
                Ok(None) => {}
                Ok(Some(earlier)) => (replaced, refund) = (Some(earlier.charge), earlier.refund),
                Err(refused) => return Ok(Err(refused)),
            }
            request = Some(new);
        }
        // Ids were reserved before the transaction began; without one nothing is held.
        let Some(id) = self.ids.peek() else { return Ok(Err(HoldRefused::Unavailable(Unavailable::Refused))) };
        let granted = Turn { tables: &mut self.tables }.grant(principal.user_id, wanted.price, refund.as_ref())?;
        let granted = match granted {
            Ok(granted) => granted,
            Err(GrantError::Insufficient { balance }) => return Ok(Err(HoldRefused::Insufficient { balance })),
            Err(GrantError::NoWallet) => return Ok(Err(HoldRefused::Insufficient { balance: Cents::ZERO })),
            Err(GrantError::NotAnInteger) => return Ok(Err(HoldRefused::NotAnInteger)),
        };
        self.ids.take();
        let hold = Hold {
            charge: ChargeId(id),
            user: principal.user_id,
            account: granted.account,
            key: principal.key_id,
            route: wanted.route,
            cents: wanted.price,
            held_at_ms: self.tables.now_unix_ms,
            is_recorded: request.is_some(),
        };
        if let Some(request) = &request {
            let (connection, is_retry) = (self.tables.connection, refund.is_some());
            requests::record(connection, request, &hold, self.instance, replaced, is_retry)?;
        }
        Ok(Ok(HoldMade { hold, balance: granted.balance, generation: *self.generation, refund }))
    }

    /// What a request with an `Idempotency-Key` meets: nothing, or an earlier one that it replaces.
    fn meet(&mut self, request: &Request<'_>) -> rusqlite::Result<Result<Option<Replaced>, HoldRefused>> {
        let is_delivering = |charge| self.queue.is_delivering(charge);
        let (connection, now_unix_ms) = (self.tables.connection, self.tables.now_unix_ms);
        Ok(match requests::meet(connection, &self.requests, request, now_unix_ms, is_delivering)? {
            Met::Nothing => Ok(None),
            Met::Full => Err(HoldRefused::IdempotencyFull),
            Met::Earlier { charge, decision, refund } => match decision {
                Decision::Replace => Ok(Some(Replaced { charge, refund: None })),
                Decision::Refund => Ok(Some(Replaced { charge, refund: Some(refund) })),
                Decision::InFlight => Err(HoldRefused::InFlight),
                Decision::AlreadyCharged => Err(HoldRefused::AlreadyCharged { charge }),
                Decision::KeyReused => Err(HoldRefused::IdempotencyKeyReused),
            },
        })
    }

    /// Whether the rows still say what the principal says, and the key is still good for the API.
    fn is_still_true(&self, wanted: &HoldRequest) -> rusqlite::Result<bool> {
        let HoldRequest { principal, route, .. } = wanted;
        self.tables
            .connection
            .prepare_cached(
                "SELECT 1 FROM api_keys k JOIN users u ON u.id = k.user_id
                 WHERE k.id = ?1 AND k.\"key\" = ?2 AND k.user_id = ?3
                 AND k.api_name = (SELECT r.api_name FROM keytoll_routes r WHERE r.id = ?4)
                 AND k.is_active = 1 AND u.is_active = 1",
            )?
            .exists(params![principal.key_id.0, principal.stored_key.expose(), principal.user_id.0, route.0])
    }

    fn settle(&mut self, command: &SettleCommand) -> rusqlite::Result<Settled> {
        let hold = &command.hold;
        // Otherwise every batch with it would fail, and with it those of all others.
        if command.action != SettleAction::Refund
            && !self.tables.leases.covers(self.tables.connection, hold.account, hold.cents)?
        {
            let charge_id = hold.charge.0;
            tracing::error!(
                charge_id,
                "a charge is not settled: another program removed its lease; run `keytoll doctor`"
            );
            return Ok(Settled::Unknown);
        }
        let mut turn = Turn { tables: &mut self.tables };
        match command.action {
            SettleAction::Capture { status, is_answered } => {
                turn.capture(hold, status)?;
                if hold.is_recorded {
                    requests::captured(self.tables.connection, hold.charge, is_answered)?;
                }
                Ok(Settled::Captured)
            }
            SettleAction::Release { status, leaves_charge } => {
                let balance = turn.release(hold, leaves_charge, status)?;
                if hold.is_recorded {
                    requests::forget(self.tables.connection, hold.charge)?;
                }
                Ok(Settled::Released { balance })
            }
            SettleAction::Restore { refunded } => {
                let kept = turn.restore(hold, refunded)?;
                requests::restored(self.tables.connection, hold.charge, kept)?;
                Ok(Settled::Captured)
            }
            SettleAction::Refund => {
                let (charge, user, account, cents) = (hold.charge, hold.user, hold.account, hold.cents);
                let refunded = turn.refund(&Refund { charge, user, account, cents })?;
                if hold.is_recorded {
                    requests::forget(self.tables.connection, hold.charge)?;
                }
                // Not if a retry has had it refunded before.
                Ok(refunded.map_or(Settled::Unknown, |balance| Settled::Released { balance }))
            }
        }
    }

    /// Runs a write in a savepoint of its own, on wallets that are written.
    fn write(&mut self, job: &mut dyn WriteJob) -> rusqlite::Result<()> {
        self.tables.flush()?;
        let LedgerTables { connection, wallets, now_unix_ms, .. } = &mut self.tables;
        let connection: &Connection = connection;
        connection.execute_batch("SAVEPOINT write")?;
        let mut tx = WriteTx { connection, wallets, keys_changed: false, now_unix_ms: *now_unix_ms };
        let outcome = job.run(&mut tx);
        let keys_changed = tx.keys_changed;
        match outcome {
            Ok(true) => {
                if keys_changed {
                    self.generation.0 += 1;
                }
                connection.execute_batch("RELEASE write")
            }
            // One statement that failed leaves the transaction open; otherwise the whole transaction is lost.
            Ok(false) => connection.execute_batch("ROLLBACK TO write; RELEASE write"),
            Err(error) if connection.is_autocommit() => Err(error),
            Err(error) => {
                tracing::error!(%error, "a write failed");
                connection.execute_batch("ROLLBACK TO write; RELEASE write")
            }
        }
    }
}
