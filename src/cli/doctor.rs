//! `keytoll doctor`: proves the books and the file.

use std::fmt;

use serde::Serialize;

use super::args::{Common, Format};
use super::exit::{Exit, Failure};
use super::{output, session};
use crate::config::Environment;
use crate::model::{Cents, UserId};
use crate::store::doctor::{self, Finding, Repaired, Report, Severity, Summary};

const EXAMPLES: &str = "\
Examples:
  keytoll doctor --database auth.db
  keytoll doctor --json | jq '.findings[] | select(.severity == \"wrong\")'
  keytoll doctor --repair

Reads only, whether or not a gateway runs. For every user, entries minus captured charges and leases must be the wallet's
balance. Status 0 when everything holds, 1 when something is wrong; notes do not count.

With --repair, what can be put right is: what is in a wallet and not on the books is accepted with an external entry,
leases of gateways that have ended are returned, missing triggers are put back. No entry and no settled charge is ever
changed. The file is then examined again.";

/// Flags of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Repair what can be repaired, and return leases of gateways that have ended
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    #[serde(skip_serializing_if = "<[Repaired]>::is_empty")]
    repaired: &'a [Repaired],
    #[serde(flatten)]
    report: &'a Report,
}

pub(super) fn run(args: &Args, common: Common, environment: &Environment) -> Result<(), Failure> {
    let settings = session::database_settings(&common.overrides(), environment)?;
    let mut report = doctor::examine(&settings.database)?;
    let mut repaired = Vec::new();
    // What cannot be counted, for damage or missing tables, is not for a repair.
    let may_need_repair = report.summary.as_ref().is_some_and(|summary| !report.holds() || summary.leased > 0);
    if args.repair && may_need_repair {
        repaired = doctor::repair(&settings.database, &report)?;
        report = doctor::examine(&settings.database)?;
    }
    if args.format.json {
        output::json(&Answer { ok: report.holds(), repaired: &repaired, report: &report })?;
    } else {
        let done: String = repaired.iter().map(|done| told("done", done.user_id, done.cents, &done.message)).collect();
        output::print(&format!("{done}{}", Words(&report)))?;
    }
    if report.holds() { Ok(()) } else { Err(Failure::No(Exit::No)) }
}

/// A report for people.
struct Words<'a>(&'a Report);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.0.findings {
            write_finding(f, finding)?;
        }
        if self.0.unlisted > 0 {
            writeln!(f, "{} more findings are not listed", self.0.unlisted)?;
        }
        match &self.0.summary {
            Some(summary) => write_summary(f, summary, self.0.holds()),
            None => writeln!(f, "the books were not examined"),
        }
    }
}

fn write_finding(f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
    let severity = match finding.severity {
        Severity::Wrong => "wrong",
        Severity::Note => "note",
    };
    f.write_str(&told(severity, finding.user_id, finding.cents, &finding.message))?;
    writeln!(f, "       -> {}", output::visible(&finding.remedy))
}

/// One line: how it stands, about whom and how much, and what is so.
fn told(word: &str, user: Option<UserId>, cents: Option<Cents>, message: &str) -> String {
    let user = user.map(|user| format!("user {user}: ")).unwrap_or_default();
    let cents = cents.map(|cents| format!("{cents}: ")).unwrap_or_default();
    format!("{word:<5}  {user}{cents}{}\n", output::visible(message))
}

fn write_summary(f: &mut fmt::Formatter<'_>, summary: &Summary, holds: bool) -> fmt::Result {
    let Summary { users, unbalanced, charges, rolled_up, leased, leased_cents, gateways } = summary;
    match unbalanced {
        0 => write!(f, "books of {} balance", count(*users, "user"))?,
        wrong => write!(f, "books of {wrong} of {} do not balance", count(*users, "user"))?,
    }
    write!(f, "; {}", count(*charges, "charge"))?;
    if *leased > 0 {
        write!(f, ", {leased_cents} leased of {}", count(*leased, "account"))?;
    }
    if *rolled_up > 0 {
        write!(f, "; {rolled_up} older ones kept as usage")?;
    }
    if *gateways > 0 {
        write!(f, "; {} running", count(*gateways, "gateway"))?;
    }
    writeln!(f, "{}", if holds { "" } else { "; see what is wrong above" })
}

fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last line of a report without findings.
    fn said(summary: Summary) -> String {
        let mut report = Report::default();
        report.summary = Some(summary);
        Words(&report).to_string()
    }

    #[test]
    fn a_report_ends_with_its_sum() {
        let summary = Summary { users: 3, charges: 12, ..Summary::default() };
        assert_eq!(said(summary), "books of 3 users balance; 12 charges\n");
        let summary = Summary {
            users: 2,
            unbalanced: 1,
            charges: 1,
            leased: 1,
            leased_cents: Cents(2),
            gateways: 1,
            rolled_up: 7,
        };
        assert_eq!(
            said(summary),
            "books of 1 of 2 users do not balance; 1 charge, $0.02 leased of 1 account; 7 older ones kept as usage; 1 gateway running\n"
        );
    }
}
