//! What one transaction does: holds, settlements and admin writes, in the order in which they came.
//!
//! Nothing here commits or answers. Each item carries its decision, which becomes an answer only after the commit.

use rusqlite::{CachedStatement, Connection, params};

use crate::model::{Cents, ChargeId, ChargeState, Principal, Retryable};
use crate::store::books::requests::{self, Earlier, RequestLimits, Requests, Sent};
use crate::store::error::{HoldRefused, Unavailable};
use crate::store::file::instance::give_back;
use crate::store::file::view::Generation;
use crate::store::writer::charge_ids::{ChargeIds, NO_SPAN, Spans};
use crate::store::writer::ledger::{Attempt, ChargeFacts, HoldWish, Settled, Wanted};
use crate::store::writer::queue::{HoldCommand, Queue, SettleCommand};
use crate::store::writer::wallets::{Balance, Wallet, Wallets};
use crate::store::writer::write::{WriteJob, WriteTx};

/// A message with what the transaction made of it.
pub(in crate::store) enum Item {
    Hold(HoldCommand, Result<HoldMade, HoldRefused>),
    Settle(SettleCommand, Settled),
    Write(Box<dyn WriteJob>),
}

/// A hold that stands if the transaction does.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct HoldMade {
    pub(in crate::store) facts: ChargeFacts,
    pub(in crate::store) balance: Cents,
    pub(in crate::store) generation: Generation,
}

/// The state that a transaction works on.
pub(in crate::store) struct Batch<'a> {
    connection: &'a Connection,
    queue: &'a Queue,
    wallets: &'a mut Wallets,
    ids: &'a mut ChargeIds,
    spans: &'a mut Spans,
    generation: &'a mut Generation,
    requests: Requests,
    instance: i64,
    now_unix_ms: i64,
    insert: CachedStatement<'a>,
    settle: CachedStatement<'a>,
}

/// What a batch works with; see [`Batch`].
pub(in crate::store) struct Ground<'a> {
    pub(in crate::store) connection: &'a Connection,
    pub(in crate::store) queue: &'a Queue,
    pub(in crate::store) wallets: &'a mut Wallets,
    pub(in crate::store) ids: &'a mut ChargeIds,
    pub(in crate::store) spans: &'a mut Spans,
    pub(in crate::store) generation: &'a mut Generation,
    pub(in crate::store) requests: RequestLimits,
    pub(in crate::store) instance: i64,
    pub(in crate::store) now_unix_ms: i64,
}

impl<'a> Batch<'a> {
    pub(in crate::store) fn new(ground: Ground<'a>) -> rusqlite::Result<Batch<'a>> {
        let Ground { connection, queue, wallets, ids, spans, generation, requests, instance, now_unix_ms } = ground;
        let requests = Requests::new(requests, now_unix_ms);
        let insert = connection.prepare_cached(
            "INSERT INTO keytoll_charges (id, account_id, key_id, route_id, instance_id, cents, state, held_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7)",
        )?;
        let settle = connection.prepare_cached(
            "UPDATE keytoll_charges SET state = ?2, settled_at = ?3, status = ?4 WHERE id = ?1 AND state = ?5",
        )?;
        Ok(Batch {
            connection,
            queue,
            wallets,
            ids,
            spans,
            generation,
            requests,
            instance,
            now_unix_ms,
            insert,
            settle,
        })
    }

    /// Works through the items. An error of SQLite undoes them all.
    pub(in crate::store) fn run(mut self, items: &mut [Item]) -> rusqlite::Result<()> {
        for item in items {
            match item {
                Item::Hold(command, decision) => {
                    *decision = self.hold(&command.wish, command.retryable.as_deref())?;
                }
                Item::Settle(command, settled) => *settled = self.settle(command)?,
                Item::Write(job) => self.write(job.as_mut())?,
            }
        }
        self.wallets.flush(self.connection)
    }

    fn hold(
        &mut self,
        wish: &HoldWish,
        retryable: Option<&Retryable>,
    ) -> rusqlite::Result<Result<HoldMade, HoldRefused>> {
        let principal = &wish.principal;
        if wish.generation != *self.generation && !self.still_true(wish)? {
            return Ok(Err(HoldRefused::KeyChanged));
        }
        let Some(wallet) = self.wallets.get(self.connection, principal.user_id, self.now_unix_ms)? else {
            return Ok(Err(HoldRefused::Insufficient { balance: Cents::ZERO }));
        };
        let sent = retryable.map(|retryable| Sent { account: wallet.account, route: wish.route, retryable });
        let mut instead_of = None;
        if let Some(sent) = &sent {
            match self.requests.meet(self.connection, sent)? {
                Earlier::Free(row) => instead_of = row,
                Earlier::Owed(charge, _) if self.queue.is_delivering(charge) => return Ok(Err(HoldRefused::InFlight)),
                Earlier::Owed(charge, cents) => return self.again(principal, wallet, charge, cents).map(Ok),
                Earlier::Refused(refused) => return Ok(Err(refused)),
            }
        }
        let Balance::Money(balance) = wallet.balance else { return Ok(Err(HoldRefused::NotAnInteger)) };
        let rest = match balance.checked_sub(wish.price) {
            Ok(rest) if rest >= Cents::ZERO && wish.price > Cents::ZERO => rest,
            Ok(_) | Err(_) => return Ok(Err(HoldRefused::Insufficient { balance })),
        };
        // Ids were reserved before the transaction began; without one nothing is held.
        let Some(id) = self.ids.take() else { return Ok(Err(HoldRefused::Unavailable(Unavailable::Refused))) };
        self.insert.execute(params![
            id,
            wallet.account.0,
            principal.key_id.0,
            wish.route.0,
            self.instance,
            wish.price.0,
            self.now_unix_ms
        ])?;
        self.wallets.set(principal.user_id, rest);
        if let Some(sent) = &sent {
            self.requests.record(self.connection, sent, ChargeId(id), instead_of)?;
        }
        let facts = ChargeFacts {
            id: ChargeId(id),
            user_id: principal.user_id,
            account: wallet.account,
            cents: wish.price,
            span: self.spans.held(id),
            attempt: if sent.is_some() { Attempt::First } else { Attempt::Plain },
        };
        Ok(Ok(HoldMade { facts, balance: rest, generation: *self.generation }))
    }

    /// Lets a request be forwarded once more for a charge that is captured.
    fn again(
        &mut self,
        principal: &Principal,
        wallet: Wallet,
        charge: ChargeId,
        cents: Cents,
    ) -> rusqlite::Result<HoldMade> {
        requests::begin_again(self.connection, charge, self.instance)?;
        let facts = ChargeFacts {
            id: charge,
            user_id: principal.user_id,
            account: wallet.account,
            cents,
            span: NO_SPAN,
            attempt: Attempt::Again,
        };
        let balance = match wallet.balance {
            Balance::Money(balance) => balance,
            Balance::NoMoney => Cents::ZERO,
        };
        Ok(HoldMade { facts, balance, generation: *self.generation })
    }

    /// The guarded form: whether the rows still say what the principal says, and the key is still good for the API.
    fn still_true(&self, wish: &HoldWish) -> rusqlite::Result<bool> {
        let HoldWish { principal, route, .. } = wish;
        self.connection
            .prepare_cached(
                "SELECT 1 FROM api_keys k JOIN users u ON u.id = k.user_id
                 WHERE k.id = ?1 AND k.\"key\" = ?2 AND k.user_id = ?3
                 AND k.api_name = (SELECT r.api_name FROM keytoll_routes r WHERE r.id = ?4)
                 AND k.is_active = 1 AND u.is_active = 1",
            )?
            .exists(params![principal.key_id.0, principal.stored_key.expose(), principal.user_id.0, route.0])
    }

    fn settle(&mut self, command: &SettleCommand) -> rusqlite::Result<Settled> {
        let facts = &command.facts;
        if facts.attempt.is_again() {
            let (wanted, instance, now_unix_ms) = (command.wanted, self.instance, self.now_unix_ms);
            return requests::end_again(self.connection, self.wallets, facts, wanted, instance, now_unix_ms);
        }
        let is_known = facts.attempt.is_known();
        if command.wanted == Wanted::Undo && is_known && !requests::may_be_undone(self.connection, facts.id)? {
            // A retry took the charge over and was, or is being, forwarded for it: it is not for nothing any more.
            return Ok(Settled::Captured);
        }
        let (from, to) = match command.wanted {
            Wanted::Capture => (ChargeState::Held, ChargeState::Captured),
            Wanted::Release => (ChargeState::Held, ChargeState::Released),
            Wanted::Undo => (ChargeState::Captured, ChargeState::Released),
        };
        let changed =
            self.settle.execute(params![facts.id.0, to.code(), self.now_unix_ms, command.status, from.code()])?;
        if changed == 0 {
            // Settled by someone who took this process for dead. Whatever it was, it was not this settlement.
            return Ok(Settled::Unknown);
        }
        match command.wanted {
            Wanted::Capture => {
                if facts.attempt == Attempt::Seen {
                    requests::spend(self.connection, facts.id)?;
                }
                Ok(Settled::Captured)
            }
            Wanted::Release | Wanted::Undo => {
                if is_known {
                    requests::forget(self.connection, facts.id)?;
                }
                let (user, account) = (facts.user_id, facts.account);
                let balance = give_back(self.connection, self.wallets, user, account, facts.cents, self.now_unix_ms)?;
                Ok(Settled::Released { balance })
            }
        }
    }

    /// Runs a write in a savepoint of its own, on wallets that are written.
    fn write(&mut self, job: &mut dyn WriteJob) -> rusqlite::Result<()> {
        self.wallets.flush(self.connection)?;
        self.connection.execute_batch("SAVEPOINT write")?;
        let mut tx = WriteTx {
            connection: self.connection,
            wallets: self.wallets,
            keys_changed: false,
            now_unix_ms: self.now_unix_ms,
        };
        let outcome = job.run(&mut tx);
        let keys_changed = tx.keys_changed;
        match outcome {
            Ok(true) => {
                if keys_changed {
                    self.generation.0 += 1;
                }
                self.connection.execute_batch("RELEASE write")
            }
            // One statement that failed leaves the transaction open; where it does not, all is lost.
            Ok(false) => self.connection.execute_batch("ROLLBACK TO write; RELEASE write"),
            Err(error) if self.connection.is_autocommit() => Err(error),
            Err(error) => {
                tracing::error!(%error, "a write failed");
                self.connection.execute_batch("ROLLBACK TO write; RELEASE write")
            }
        }
    }
}
