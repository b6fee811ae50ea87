//! The rules on a small model of the tables.

use std::collections::HashMap;

use crate::ledger::{Balance, Charge, GrantError, Granted, Hold, Refund, Tables, Turn, Wallet};
use crate::model::{AccountId, Cents, ChargeId, ChargeState, KeyId, RouteId, UserId};

const USER: UserId = UserId(1);
const ACCOUNT: AccountId = AccountId(10);

/// One account's books, as a transaction sees them.
#[derive(Default)]
struct Model {
    wallets: HashMap<UserId, Wallet>,
    leases: HashMap<AccountId, i64>,
    charges: Vec<Charge>,
    refunds: Vec<Refund>,
    unpayable: i64,
}

impl Tables for Model {
    type Error = &'static str;

    fn wallet(&mut self, user: UserId) -> Result<Option<Wallet>, &'static str> {
        Ok(self.wallets.get(&user).copied())
    }

    fn set_balance(&mut self, user: UserId, balance: Cents) -> Result<(), &'static str> {
        self.wallets.get_mut(&user).ok_or("no wallet")?.balance = Balance::Money(balance);
        Ok(())
    }

    fn change_lease(&mut self, account: AccountId, change: Cents) -> Result<(), &'static str> {
        let lease = self.leases.entry(account).or_default();
        *lease += change.0;
        if *lease < 0 { Err("the lease is below zero") } else { Ok(()) }
    }

    fn append_charge(&mut self, charge: &Charge) -> Result<(), &'static str> {
        if self.charges.iter().any(|known| known.hold.charge == charge.hold.charge) {
            return Err("the charge is there already");
        }
        self.charges.push(*charge);
        Ok(())
    }

    fn is_refunded(&mut self, charge: ChargeId) -> Result<bool, &'static str> {
        Ok(self.refunds.iter().any(|refund| refund.charge == charge))
    }

    fn enter_refund(&mut self, refund: &Refund) -> Result<(), &'static str> {
        self.refunds.push(*refund);
        Ok(())
    }

    fn enter_unpayable(&mut self, _: AccountId, cents: Cents) -> Result<(), &'static str> {
        self.unpayable += cents.0;
        Ok(())
    }
}

impl Model {
    fn with(cents: i64) -> Model {
        let mut model = Model::default();
        model.wallets.insert(USER, Wallet { account: ACCOUNT, balance: Balance::Money(Cents(cents)) });
        model
    }

    fn grant(&mut self, price: i64, refund: Option<&Refund>) -> Result<Granted, GrantError> {
        Turn { tables: self }.grant(USER, Cents(price), refund).unwrap()
    }

    fn capture(&mut self, hold: &Hold) {
        Turn { tables: self }.capture(hold, 200).unwrap();
    }

    fn wallet(&self) -> i64 {
        self.wallets.get(&USER).map_or(0, |wallet| wallet.balance.cents().0)
    }

    /// Refunds less captured charges, leases and what could not be paid in, and the wallet: what there was at first.
    fn opening(&self) -> i64 {
        let captured = self.charges.iter().filter(|charge| charge.state == ChargeState::Captured);
        let captured: i64 = captured.map(|charge| charge.hold.cents.0).sum();
        let refunded: i64 = self.refunds.iter().map(|refund| refund.cents.0).sum();
        self.wallet() + self.leases.values().sum::<i64>() + captured - refunded + self.unpayable
    }
}

fn hold(charge: i64, cents: i64) -> Hold {
    Hold {
        charge: ChargeId(charge),
        user: USER,
        account: ACCOUNT,
        key: KeyId(3),
        route: RouteId(4),
        cents: Cents(cents),
        held_at_ms: 0,
        is_recorded: false,
    }
}

fn refund(charge: i64, cents: i64) -> Refund {
    Refund { charge: ChargeId(charge), user: USER, account: ACCOUNT, cents: Cents(cents) }
}

#[test]
fn a_price_moves_from_the_wallet_to_the_lease_and_on_into_a_charge() {
    let mut model = Model::with(500);
    assert_eq!(model.grant(40, None), Ok(Granted { account: ACCOUNT, balance: Cents(460) }));
    assert_eq!((model.wallet(), model.leases[&ACCOUNT], model.opening()), (460, 40, 500));
    model.capture(&hold(1, 40));
    assert_eq!((model.wallet(), model.leases[&ACCOUNT], model.opening()), (460, 0, 500));
    assert_eq!((model.charges[0].state, model.charges[0].status), (ChargeState::Captured, Some(200)));
}

#[test]
fn a_release_gives_the_price_back_and_leaves_a_charge_if_it_is_to() {
    let mut model = Model::with(500);
    for (charge, leaves_charge, status, charges) in [(1, false, None, 0), (2, true, Some(502), 1), (3, true, None, 2)] {
        model.grant(40, None).unwrap();
        let balance = Turn { tables: &mut model }.release(&hold(charge, 40), leaves_charge, status).unwrap();
        assert_eq!((balance, model.wallet(), model.charges.len()), (Some(Cents(500)), 500, charges));
    }
    assert!(model.charges.iter().all(|charge| charge.state == ChargeState::Released));
    assert_eq!(model.opening(), 500);
}

#[test]
fn no_price_is_granted_that_the_wallet_does_not_have() {
    let mut model = Model::with(39);
    assert_eq!(model.grant(40, None), Err(GrantError::Insufficient { balance: Cents(39) }));
    for price in [0, -1, i64::MIN] {
        assert!(model.grant(price, None).is_err(), "{price}");
    }
    model.wallets.get_mut(&USER).unwrap().balance = Balance::NotAnInteger;
    assert_eq!(model.grant(1, None), Err(GrantError::NotAnInteger));
    model.wallets.clear();
    assert_eq!(model.grant(1, None), Err(GrantError::NoWallet));
    assert!(model.leases.is_empty());
}

#[test]
fn a_refund_with_a_grant_is_made_only_when_the_price_can_be_paid_with_it() {
    let mut model = Model::with(40);
    model.grant(40, None).unwrap();
    model.capture(&hold(1, 40));
    assert_eq!(model.grant(41, Some(&refund(1, 40))), Err(GrantError::Insufficient { balance: Cents(0) }));
    assert!(model.refunds.is_empty());
    assert_eq!(model.grant(30, Some(&refund(1, 40))), Ok(Granted { account: ACCOUNT, balance: Cents(10) }));
    assert_eq!((model.refunds.len(), model.wallet(), model.leases[&ACCOUNT], model.opening()), (1, 10, 30, 40));
}

#[test]
fn a_retry_that_is_given_up_takes_its_refund_back() {
    for (price, kept, left) in [(40, 40, 60), (50, 40, 60), (30, 30, 70)] {
        let mut model = Model::with(100);
        model.grant(40, None).unwrap();
        model.capture(&hold(1, 40));
        model.grant(price, Some(&refund(1, 40))).unwrap();
        assert_eq!(Turn { tables: &mut model }.restore(&hold(2, price), Cents(40)), Ok(Cents(kept)));
        assert_eq!((model.wallet(), model.leases[&ACCOUNT], model.opening()), (left, 0, 100));
    }
}

#[test]
fn a_charge_is_refunded_once() {
    let mut model = Model::with(40);
    model.grant(40, None).unwrap();
    model.capture(&hold(1, 40));
    assert_eq!(Turn { tables: &mut model }.refund(&refund(1, 40)), Ok(Some(Some(Cents(40)))));
    assert_eq!(Turn { tables: &mut model }.refund(&refund(1, 40)), Ok(None));
    assert_eq!((model.wallet(), model.refunds.len(), model.opening()), (40, 1, 40));
}

#[test]
fn money_of_an_account_is_not_paid_into_the_wallet_of_another() {
    let mut model = Model::with(100);
    model.grant(40, None).unwrap();
    model.wallets.get_mut(&USER).unwrap().account = AccountId(11);
    assert_eq!(Turn { tables: &mut model }.release(&hold(1, 40), false, None), Ok(None));
    assert_eq!((model.wallet(), model.unpayable, model.opening()), (60, 40, 100));
    model.wallets.get_mut(&USER).unwrap().balance = Balance::NotAnInteger;
    assert_eq!(Turn { tables: &mut model }.pay_in(USER, AccountId(11), Cents(1)), Ok(None));
    model.wallets.clear();
    assert_eq!(Turn { tables: &mut model }.pay_in(USER, AccountId(11), Cents(1)), Ok(None));
}

#[test]
fn more_than_is_leased_cannot_be_captured_and_no_charge_is_made_twice() {
    let mut model = Model::with(100);
    model.grant(40, None).unwrap();
    assert!(Turn { tables: &mut model }.capture(&hold(1, 41), 200).is_err());
    let mut model = Model::with(100);
    model.grant(80, None).unwrap();
    model.capture(&hold(1, 40));
    assert!(Turn { tables: &mut model }.capture(&hold(1, 40), 200).is_err());
}
