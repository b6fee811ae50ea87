//! The ledger against a plain model: whatever is done to it, by its own operations and by another program, in whatever
//! order, balances, refusals and books are what arithmetic says.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use rusqlite::Connection;

use crate::model::{ApiKey, Cents, KeyId, UserId};
use crate::store::sample::Sample;
use crate::store::{
    Found, HeldCharge, HoldRefused, HoldRequest, Ledger, Recovered, Role, Settled, UserChange, WalletRefused,
    WriteError,
};

/// Unless `PROPTEST_CASES` says otherwise.
const USUAL_CASES: u32 = 60;
const USERS: usize = 3;

/// What another program does, to a user's wallet if it is not said otherwise.
#[derive(Clone, Copy, Debug)]
enum Outside {
    Add(i64),
    Set(i64),
    /// Text, NULL, a real: no money.
    Spoil(usize),
    Replace(i64),
    ReplaceWithItsId(i64),
    ReplaceRecursively(i64),
    Delete,
    InsertOrIgnore(i64),
    DeleteAndInsert(i64),
    ChangeId,
    /// To another user, whose own wallet is replaced.
    MoveTo(usize),
    /// A transaction that is rolled back.
    ChangeItsMind(i64),
    /// All wallets are copied to another table, with so much more in this one; no trigger sees it.
    Rebuild(i64),
    /// The triggers are dropped first.
    AddUnseen(i64),
    /// Wallet, key and user.
    RemoveUser,
    /// Another person gets the id, and the key.
    AnotherUser(i64),
    SwitchKey(bool),
    SwitchUser(bool),
}

/// What the store is asked for, or what happens to it.
#[derive(Clone, Debug)]
enum Step {
    Hold(i64),
    /// Of the charges that are held, the one at this place.
    Capture(usize),
    Release(usize),
    Drop(usize),
    Credit(i64),
    Debit(i64),
    SwitchKey(bool),
    SwitchUser(bool),
    Outside(Outside),
    /// Closed and opened again; what is held then is held by a process that is gone. Others write meanwhile.
    Reopen(Vec<(usize, Outside)>),
}

const SPOILS: [&str; 5] = ["'abc'", "NULL", "7.5", "''", "x'31'"];

fn outside() -> impl Strategy<Value = Outside> {
    use Outside::*;
    prop_oneof![
        (-20..60_i64).prop_map(Add),
        (-5..100_i64).prop_map(Set),
        (0..SPOILS.len()).prop_map(Spoil),
        (0..100_i64).prop_map(Replace),
        (0..100_i64).prop_map(ReplaceWithItsId),
        (0..100_i64).prop_map(ReplaceRecursively),
        Just(Delete),
        (0..100_i64).prop_map(InsertOrIgnore),
        (0..100_i64).prop_map(DeleteAndInsert),
        Just(ChangeId),
        (0..USERS).prop_map(MoveTo),
        (0..100_i64).prop_map(ChangeItsMind),
        (0..20_i64).prop_map(Rebuild),
        (0..20_i64).prop_map(AddUnseen),
        Just(RemoveUser),
        (0..100_i64).prop_map(AnotherUser),
        any::<bool>().prop_map(SwitchKey),
        any::<bool>().prop_map(SwitchUser),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..40_i64).prop_map(Step::Hold),
        3 => any::<prop::sample::Index>().prop_map(|place| Step::Capture(place.index(100))),
        3 => any::<prop::sample::Index>().prop_map(|place| Step::Release(place.index(100))),
        1 => any::<prop::sample::Index>().prop_map(|place| Step::Drop(place.index(100))),
        2 => (-1..60_i64).prop_map(Step::Credit),
        2 => (-1..60_i64).prop_map(Step::Debit),
        1 => any::<bool>().prop_map(Step::SwitchKey),
        1 => any::<bool>().prop_map(Step::SwitchUser),
        10 => outside().prop_map(Step::Outside),
        1 => prop::collection::vec((0..USERS, outside()), 0..3).prop_map(Step::Reopen),
    ]
}

/// A user as arithmetic has it.
#[derive(Clone, Debug, Default)]
struct Person {
    exists: bool,
    is_active: bool,
    key_is_active: bool,
    /// How many persons had this id before.
    life: u32,
    /// `Some(None)`: a wallet with no money in it.
    wallet: Option<Option<i64>>,
}

impl Person {
    fn is_good(&self) -> bool {
        self.exists && self.is_active && self.key_is_active
    }

    /// Gives the price of a charge back, if it was this person's and there is a wallet for it. What is in it then.
    fn give_back(&mut self, charge: Charge) -> Option<Cents> {
        match &mut self.wallet {
            Some(Some(balance)) if self.life == charge.life => {
                *balance += charge.cents;
                Some(Cents(*balance))
            }
            Some(_) | None => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Charge {
    user: usize,
    life: u32,
    cents: i64,
}

/// The store, and the model of it.
struct Scene {
    sample: Sample,
    ledger: Ledger,
    ids: Vec<UserId>,
    key_ids: Vec<KeyId>,
    keys: Vec<ApiKey>,
    wishes: Vec<Option<HoldRequest>>,
    persons: Vec<Person>,
    held: Vec<(HeldCharge, Charge)>,
    captured: i64,
    released: i64,
    emails: u32,
}

impl Scene {
    async fn new() -> Scene {
        let sample = Sample::open(Role::Gateway);
        let (mut ids, mut key_ids, mut keys, mut persons) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for user in 0..USERS {
            let id = sample.user(&format!("first{user}@example.com")).await;
            let issued = sample.issue(id, "weather").await;
            ids.push(id);
            key_ids.push(issued.record.id);
            keys.push(issued.key);
            let wallet = Some(Some(500));
            persons.push(Person { exists: true, is_active: true, key_is_active: true, life: 0, wallet });
        }
        let ledger = sample.ledger();
        let wishes = vec![None; USERS];
        let (held, emails) = (Vec::new(), 0);
        Scene { sample, ledger, ids, key_ids, keys, wishes, persons, held, captured: 0, released: 0, emails }
    }

    async fn step(&mut self, user: usize, step: &Step) {
        match step {
            Step::Hold(cents) => self.hold(user, *cents).await,
            Step::Capture(place) => {
                let Some((charge, _)) = self.take(*place) else { return };
                assert_eq!(charge.capture(200).await, Settled::Captured);
                self.captured += 1;
            }
            Step::Release(place) => {
                let Some((charge, of)) = self.take(*place) else { return };
                let balance = self.persons[of.user].give_back(of);
                assert_eq!(charge.release(None).await, Settled::Released { balance });
                self.released += 1;
            }
            Step::Drop(place) => {
                let Some((charge, of)) = self.take(*place) else { return };
                self.persons[of.user].give_back(of);
                // It was not forwarded: nothing is left of it.
                drop(charge);
                self.look().await;
            }
            Step::Credit(cents) => self.credit(user, *cents).await,
            Step::Debit(cents) => self.debit(user, *cents).await,
            Step::SwitchKey(on) => {
                let done = self.sample.store.set_key_active(self.key_ids[user], *on).await;
                assert_eq!(done.is_ok(), self.persons[user].exists);
                self.persons[user].key_is_active = *on;
            }
            Step::SwitchUser(on) => {
                let change = UserChange { is_active: Some(*on), ..UserChange::default() };
                let done = self.sample.store.update_user(self.ids[user], change).await;
                assert_eq!(done.is_ok(), self.persons[user].exists);
                self.persons[user].is_active = *on;
            }
            Step::Outside(outside) => {
                let application = self.application();
                self.outside(&application, user, *outside);
            }
            Step::Reopen(meanwhile) => self.reopen(meanwhile).await,
        }
    }

    fn take(&mut self, place: usize) -> Option<(HeldCharge, Charge)> {
        let place = place.checked_rem(self.held.len())?;
        Some(self.held.swap_remove(place))
    }

    /// With what was loaded when the user was last good, so that the hold itself has to see what changed.
    async fn hold(&mut self, user: usize, cents: i64) {
        if self.wishes[user].is_none() {
            let found = self.sample.store.find_key(self.keys[user].clone()).await.unwrap();
            assert_eq!(matches!(found, Found::Active { .. }), self.persons[user].is_good(), "{found:?}");
            if self.persons[user].is_good() {
                self.wishes[user] = Some(self.sample.wish(&self.keys[user], 1).await);
            }
        }
        let Some(wish) = &self.wishes[user] else { return };
        let answer = self.ledger.hold(HoldRequest { price: Cents(cents), ..wish.clone() }, None).await;
        let person = &mut self.persons[user];
        let expected = match person.wallet {
            _ if !person.is_good() => Err(HoldRefused::KeyChanged),
            None => Err(HoldRefused::Insufficient { balance: Cents(0) }),
            Some(None) => Err(HoldRefused::NotAnInteger),
            Some(Some(balance)) if balance < cents => Err(HoldRefused::Insufficient { balance: Cents(balance) }),
            Some(Some(balance)) => Ok(Cents(balance - cents)),
        };
        assert_eq!(answer.as_ref().map(|held| held.balance), expected.as_ref().copied());
        if let Ok(held) = answer {
            person.wallet = Some(Some(held.balance.0));
            self.held.push((held.charge, Charge { user, life: person.life, cents }));
        }
    }

    async fn credit(&mut self, user: usize, cents: i64) {
        let answer = self.sample.store.credit(self.ids[user], Cents(cents), None).await;
        let person = &mut self.persons[user];
        let expected = match person.wallet {
            _ if cents <= 0 => Err(WalletRefused::NotPositive),
            _ if !person.exists => Err(WalletRefused::NoUser),
            Some(None) => Err(WalletRefused::NotMoney),
            Some(Some(balance)) => Ok(balance + cents),
            None => Ok(cents),
        };
        person.book(expected, answer.map(|booked| booked.balance));
    }

    async fn debit(&mut self, user: usize, cents: i64) {
        let answer = self.sample.store.debit(self.ids[user], Cents(cents), None).await;
        let person = &mut self.persons[user];
        let expected = match person.wallet {
            _ if cents <= 0 => Err(WalletRefused::NotPositive),
            _ if !person.exists => Err(WalletRefused::NoUser),
            Some(None) => Err(WalletRefused::NotMoney),
            None => Err(WalletRefused::Overdrawn { balance: Cents(0) }),
            Some(Some(balance)) if balance < cents => Err(WalletRefused::Overdrawn { balance: Cents(balance) }),
            Some(Some(balance)) => Ok(balance - cents),
        };
        person.book(expected, answer.map(|booked| booked.balance));
    }

    async fn reopen(&mut self, meanwhile: &[(usize, Outside)]) {
        // The other program keeps its connection, so that the file is as a process that was killed leaves it.
        let application = self.application();
        self.sample.store.close();
        let dead: Vec<Charge> = self.held.drain(..).map(|(_, charge)| charge).collect();
        for (user, outside) in meanwhile {
            self.outside(&application, *user, *outside);
        }
        let opening = self.sample.reopen(Role::Gateway);
        let accounts = dead.iter().map(|charge| (charge.user, charge.life)).collect::<HashSet<_>>().len() as u64;
        let cents = dead.iter().map(|charge| charge.cents).sum();
        assert_eq!(opening.recovered, Recovered { instances: u64::from(accounts > 0), accounts, cents });
        for charge in dead {
            self.persons[charge.user].give_back(charge);
        }
        self.ledger = self.sample.ledger();
        self.wishes = vec![None; USERS];
        self.check();
    }

    fn application(&self) -> Connection {
        let application = self.sample.application();
        // As other programs have it unless they say otherwise; rusqlite does.
        application.pragma_update(None, "foreign_keys", false).unwrap();
        application
    }

    fn outside(&mut self, application: &Connection, user: usize, outside: Outside) {
        let id = self.ids[user];
        let run = |statements: &str| application.execute_batch(statements).unwrap();
        let other = match outside {
            Outside::MoveTo(other) => other,
            _ => user,
        };
        if !self.persons[user].exists || !self.persons[other].exists {
            if let Outside::AnotherUser(cents) = outside
                && !self.persons[user].exists
            {
                self.emails += 1;
                run(&self.insert_user(user, cents));
                self.persons[user].begin(cents);
            }
            return;
        }
        let person = &mut self.persons[user];
        match outside {
            Outside::Add(cents) => {
                run(&format!(
                    "UPDATE wallets SET balance = balance + {cents} WHERE user_id = {id} AND typeof(balance) = 'integer'"
                ));
                person.add(cents);
            }
            Outside::Set(cents) => {
                run(&format!("UPDATE wallets SET balance = {cents} WHERE user_id = {id}"));
                person.wallet = person.wallet.map(|_| Some(cents));
            }
            Outside::Spoil(which) => {
                run(&format!("UPDATE wallets SET balance = {} WHERE user_id = {id}", SPOILS[which]));
                person.wallet = person.wallet.map(|_| None);
            }
            Outside::Replace(cents) => {
                run(&format!("REPLACE INTO wallets (user_id, balance) VALUES ({id}, {cents})"));
                person.wallet = Some(Some(cents));
            }
            Outside::ReplaceWithItsId(cents) => {
                run(&format!(
                    "REPLACE INTO wallets (id, user_id, balance) SELECT id, user_id, {cents} FROM wallets WHERE user_id = {id}"
                ));
                person.wallet = person.wallet.map(|_| Some(cents));
            }
            Outside::ReplaceRecursively(cents) => {
                run("PRAGMA recursive_triggers = ON");
                run(&format!("REPLACE INTO wallets (user_id, balance) VALUES ({id}, {cents})"));
                run("PRAGMA recursive_triggers = OFF");
                person.wallet = Some(Some(cents));
            }
            Outside::Delete => {
                run(&format!("DELETE FROM wallets WHERE user_id = {id}"));
                person.wallet = None;
            }
            Outside::InsertOrIgnore(cents) => {
                run(&format!("INSERT OR IGNORE INTO wallets (user_id, balance) VALUES ({id}, {cents})"));
                person.wallet = person.wallet.or(Some(Some(cents)));
            }
            Outside::DeleteAndInsert(cents) => {
                run(&format!(
                    "BEGIN; DELETE FROM wallets WHERE user_id = {id}; INSERT INTO wallets (user_id, balance) VALUES ({id}, {cents}); COMMIT"
                ));
                person.wallet = Some(Some(cents));
            }
            Outside::ChangeId => {
                run(&format!("UPDATE wallets SET id = (SELECT max(id) + 1 FROM wallets) WHERE user_id = {id}"));
            }
            Outside::MoveTo(_) => {
                let to = self.ids[other];
                run(&format!("UPDATE OR REPLACE wallets SET user_id = {to} WHERE user_id = {id}"));
                if user != other && person.wallet.is_some() {
                    let moved = person.wallet.take();
                    self.persons[other].wallet = moved;
                }
            }
            Outside::ChangeItsMind(cents) => run(&format!(
                "BEGIN; UPDATE wallets SET balance = {cents}; DELETE FROM wallets WHERE user_id = {id}; ROLLBACK"
            )),
            Outside::Rebuild(cents) => {
                run(&format!(
                    "BEGIN;
                     CREATE TABLE other (id INTEGER NOT NULL PRIMARY KEY, user_id INTEGER NOT NULL UNIQUE, balance INTEGER);
                     INSERT INTO other SELECT id, user_id,
                         CASE WHEN user_id = {id} AND typeof(balance) = 'integer' THEN balance + {cents} ELSE balance END FROM wallets;
                     DROP TABLE wallets;
                     ALTER TABLE other RENAME TO wallets;
                     COMMIT"
                ));
                person.add(cents);
            }
            Outside::AddUnseen(cents) => {
                run(&format!(
                    "DROP TRIGGER IF EXISTS keytoll_wallets_after_update; UPDATE wallets SET balance = balance + {cents} WHERE user_id = {id} AND typeof(balance) = 'integer'"
                ));
                person.add(cents);
            }
            Outside::RemoveUser => {
                run(&self.remove_user(user));
                self.persons[user] = Person { life: self.persons[user].life, ..Person::default() };
            }
            Outside::AnotherUser(cents) => {
                self.emails += 1;
                run(&format!("BEGIN; {}; {}; COMMIT", self.remove_user(user), self.insert_user(user, cents)));
                self.persons[user].begin(cents);
            }
            Outside::SwitchKey(on) => {
                run(&format!("UPDATE api_keys SET is_active = {on} WHERE user_id = {id}"));
                person.key_is_active = on;
            }
            Outside::SwitchUser(on) => {
                run(&format!("UPDATE users SET is_active = {on} WHERE id = {id}"));
                person.is_active = on;
            }
        }
    }

    fn remove_user(&self, user: usize) -> String {
        let id = self.ids[user];
        format!(
            "DELETE FROM wallets WHERE user_id = {id}; DELETE FROM api_keys WHERE user_id = {id}; DELETE FROM users WHERE id = {id}"
        )
    }

    /// Another person under the same id, with the same key.
    fn insert_user(&self, user: usize, cents: i64) -> String {
        let (id, key_id, email) = (self.ids[user], self.key_ids[user], self.emails);
        let stored = self.keys[user].digest().to_stored();
        format!(
            "INSERT INTO users (id, email, name, is_active) VALUES ({id}, 'other{email}@example.com', 'Other', 1);
             INSERT INTO api_keys (id, \"key\", user_id, api_name, is_active) VALUES ({key_id}, '{}', {id}, 'weather', 1);
             INSERT INTO wallets (user_id, balance) VALUES ({id}, {cents})",
            stored.expose()
        )
    }

    /// Compares, when nothing is on its way.
    async fn look(&self) {
        // What was dropped goes to the writer when the ledger's task has its turn; a write goes behind it, and after what
        // others committed.
        tokio::task::yield_now().await;
        self.sample.store.route_id("books", "/").await.unwrap();
        self.check();
    }

    fn check(&self) {
        let application = self.sample.application();
        let mut select = application
            .prepare("SELECT user_id, CASE WHEN typeof(balance) = 'integer' THEN balance END FROM wallets")
            .unwrap();
        let found = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let found: BTreeMap<i64, Option<i64>> = found.collect::<rusqlite::Result<_>>().unwrap();
        let persons = self.ids.iter().zip(&self.persons);
        let expected = persons.clone().filter_map(|(id, person)| Some((id.0, person.wallet?)));
        assert_eq!(found, expected.collect(), "wallets");
        for (id, person) in persons {
            assert_eq!(self.sample.books(*id), person.wallet.flatten().unwrap_or(0), "the books of {id}: {person:?}");
        }
        let closed = "SELECT count(*) FROM (SELECT a.id, coalesce((SELECT sum(amount_cents) FROM keytoll_entries WHERE account_id = a.id), 0)
            - coalesce((SELECT sum(cents) FROM keytoll_charges WHERE account_id = a.id AND state = 1), 0)
            - coalesce((SELECT sum(cents) FROM keytoll_leases WHERE account_id = a.id), 0) AS rest
            FROM keytoll_accounts a WHERE closed_at IS NOT NULL) WHERE rest <> 0";
        assert_eq!(self.sample.number(closed), 0, "accounts that have ended and do not come to nothing");
        let count = |state| self.sample.number(&format!("SELECT count(*) FROM keytoll_charges WHERE state = {state}"));
        assert_eq!((count(1), count(2)), (self.captured, self.released), "captured, released");
        let held: i64 = self.held.iter().map(|(_, charge)| charge.cents).sum();
        assert_eq!(self.sample.number("SELECT coalesce(sum(cents), 0) FROM keytoll_leases"), held, "leases");
    }
}

impl Person {
    fn begin(&mut self, cents: i64) {
        let life = self.life + 1;
        *self = Person { exists: true, is_active: true, key_is_active: true, life, wallet: Some(Some(cents)) };
    }

    fn add(&mut self, cents: i64) {
        if let Some(Some(balance)) = &mut self.wallet {
            *balance += cents;
        }
    }

    #[track_caller]
    fn book(&mut self, expected: Result<i64, WalletRefused>, answer: Result<Cents, WriteError<WalletRefused>>) {
        let answer = answer.map(|balance| balance.0).map_err(|error| match error {
            WriteError::Refused(refused) => refused,
            WriteError::Constraint(error) => panic!("{error}"),
            WriteError::Unavailable(reason) => panic!("{reason}"),
        });
        assert_eq!(answer, expected);
        if let Ok(balance) = expected {
            self.wallet = Some(Some(balance));
        }
    }
}

fn config() -> ProptestConfig {
    let usual = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match std::env::var("PROPTEST_CASES") {
        Ok(_) => usual,
        Err(_) => ProptestConfig { cases: USUAL_CASES, ..usual },
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_ledger_is_what_arithmetic_says(steps in prop::collection::vec((0..USERS, step()), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut scene = Scene::new().await;
            for (user, step) in &steps {
                scene.step(*user, step).await;
            }
            scene.look().await;
        });
    }
}
