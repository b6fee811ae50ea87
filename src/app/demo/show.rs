//! What the demo says: lines to paste, and each request as it comes. A reader that is gone is no fault.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use tokio::sync::mpsc;

use super::scene::{EMAIL, Facts, OPENING_BALANCE, PRICE, REPORT_PRICE};
use crate::model::{Cents, ChargeId, UserId};
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
        let Facts { gateway, admin, upstream, config, .. } = self.0;
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
        for (what, arguments) in calls(self.0) {
            writeln!(f, "  {what}:\n    curl -i {arguments}\n")?;
        }
        writeln!(f, "Requests as they come; Ctrl-C to stop.\n")
    }
}

/// What each line shows, and curl's arguments for it.
fn calls(facts: &Facts) -> [(String, String); 8] {
    let Facts { gateway, admin, user, key, admin_token, .. } = facts;
    let key = format!("-H 'X-API-Key: {}'", key.expose());
    let token = format!("-H 'Authorization: Bearer {}'", admin_token.expose());
    let json = "-H 'Content-Type: application/json'";
    let api = format!("http://{gateway}/weather");
    let wallet = format!("http://{admin}/v1/users/{user}/wallet");
    [
        (format!("A call with a good key, for {PRICE}"), format!("{api}/forecast {key}")),
        (format!("A dearer one, for {REPORT_PRICE}"), format!("-X POST {api}/reports {key}")),
        ("A wrong key is refused, and costs nothing".into(), format!("{api}/forecast -H 'X-API-Key: wrong'")),
        ("A public route needs no key, and is free".into(), format!("{api}/status")),
        ("When the API fails, the price is given back".into(), format!("{api}/fail {key}")),
        ("A reply that flows line by line; its end waits for the payment".into(), format!("-N {api}/slow {key}")),
        ("What is in the wallet".into(), format!("{wallet} {token}")),
        (
            "Put $10.00 in".into(),
            format!("{wallet}/entries {token} {json} -d '{{\"kind\":\"credit\",\"amount_cents\":1000}}'"),
        ),
    ]
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

/// A reply that broke off is shown before its hold is released.
async fn until_settled(store: &Store, charge: ChargeId) {
    for _ in 0..LOOKS {
        match store.charge(charge).await {
            Ok(None) => tokio::time::sleep(LOOK).await,
            Ok(Some(_)) | Err(_) => return,
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
