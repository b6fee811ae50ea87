//! What the demo says: lines to paste, and each request as it comes. A reader that is gone is no fault.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use tokio::sync::mpsc;

use super::scene::{EMAIL, Facts, OPENING_BALANCE, PRICE, REPORT_PRICE};
use crate::model::{Cents, ChargeId, ChargeState, UserId};
use crate::store::Store;
use crate::telemetry::watch::Seen;

/// How often a charge that is not settled yet is looked at again, and for how long.
const LOOK: Duration = Duration::from_millis(10);
const LOOKS: usize = 100;

/// Says what runs where, and what to paste.
pub(super) fn welcome(out: &mut impl Write, facts: &Facts) {
    drop(write!(out, "{}", Welcome(facts)).and_then(|()| out.flush()));
}

struct Welcome<'a>(&'a Facts);

impl fmt::Display for Welcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { gateway, admin, upstream, config, user, key, admin_token } = self.0;
        let (key, token) = (key.expose(), admin_token.expose());
        writeln!(
            f,
            "Keytoll demo: a sample API, the gateway in front of it, and a database that goes when you stop it.\n"
        )?;
        writeln!(f, "  gateway        http://{gateway}/weather")?;
        writeln!(f, "  admin          http://{admin}/v1")?;
        writeln!(f, "  sample API     http://{upstream}, which your clients would no longer reach")?;
        writeln!(f, "  configuration  {}", config.display())?;
        writeln!(f, "  wallet         {EMAIL} has {OPENING_BALANCE}\n")?;
        writeln!(f, "Paste these into another terminal.\n")?;
        let call = |f: &mut fmt::Formatter<'_>, what: fmt::Arguments<'_>, rest: fmt::Arguments<'_>| {
            writeln!(f, "  {what}:\n    curl -i {rest}\n")
        };
        let with_key = format!("-H 'X-API-Key: {key}'");
        let with_token = format!("-H 'Authorization: Bearer {token}'");
        let api = format!("http://{gateway}/weather");
        let wallet = format!("http://{admin}/v1/users/{user}/wallet");
        call(f, format_args!("A call with a good key, for {PRICE}"), format_args!("{api}/forecast {with_key}"))?;
        call(f, format_args!("A dearer one, for {REPORT_PRICE}"), format_args!("-X POST {api}/reports {with_key}"))?;
        call(
            f,
            format_args!("A wrong key is refused, and costs nothing"),
            format_args!("{api}/forecast -H 'X-API-Key: wrong'"),
        )?;
        call(f, format_args!("A public route needs no key, and is free"), format_args!("{api}/status"))?;
        call(f, format_args!("When the API fails, the price is given back"), format_args!("{api}/fail {with_key}"))?;
        call(
            f,
            format_args!("A reply that flows line by line; its end waits for the payment"),
            format_args!("-N {api}/slow {with_key}"),
        )?;
        call(f, format_args!("What is in the wallet"), format_args!("{wallet} {with_token}"))?;
        call(
            f,
            format_args!("Put $10.00 in"),
            format_args!(
                "{wallet}/entries {with_token} -H 'Content-Type: application/json' -d '{{\"kind\":\"credit\",\"amount_cents\":1000}}'"
            ),
        )?;
        writeln!(f, "Requests as they come; Ctrl-C to stop.\n")
    }
}

/// Shows each request until nobody sends any more.
pub(super) async fn requests(mut requests: mpsc::Receiver<Seen>, store: Store, user: UserId) {
    while let Some(seen) = requests.recv().await {
        if let Some(charge) = seen.charge_id {
            until_settled(&store, ChargeId(charge)).await;
        }
        let wallet = store.wallet(seen.user_id.map_or(user, UserId)).await;
        let balance = wallet.ok().flatten().map(|wallet| wallet.balance_cents);
        let mut out = io::stdout().lock();
        drop(writeln!(out, "{}", Line { seen: &seen, balance }).and_then(|()| out.flush()));
    }
}

/// A reply that broke off is told before its hold is given back.
async fn until_settled(store: &Store, charge: ChargeId) {
    for _ in 0..LOOKS {
        match store.charge(charge).await {
            Ok(Some(charge)) if charge.state == ChargeState::Held => tokio::time::sleep(LOOK).await,
            Ok(_) | Err(_) => return,
        }
    }
}

/// One request, what it cost, and what is left.
pub(super) struct Line<'a> {
    pub(super) seen: &'a Seen,
    pub(super) balance: Option<Cents>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { method, path, status, problem, cost_cents, .. } = self.seen;
        write!(f, "{:<28}", format!("{method} {path}"))?;
        write!(f, "  {status}  cost {}", Cents(*cost_cents))?;
        if let Some(balance) = self.balance {
            write!(f, "  balance {balance}")?;
        }
        match problem {
            Some(problem) => write!(f, "  ({problem})"),
            None => Ok(()),
        }
    }
}

/// The last words.
pub(super) fn goodbye(out: &mut impl Write, is_removed: bool) {
    let words = if is_removed { "Goodbye. The demo's database is removed." } else { "Goodbye." };
    drop(writeln!(out, "\n{words}"));
}
