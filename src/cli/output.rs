//! Standard output for answers, standard error for everything else.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use serde::Serialize;

use super::exit::Failure;
use crate::app::AppError;

/// Writes an answer as it is.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Writes an answer and ends the line.
pub(super) fn line(text: impl fmt::Display) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// Writes an answer as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).expect("records have string keys and plain values");
    line(text)
}

/// Reports on standard error why a command failed, one line for each mistake.
pub(super) fn failure(failure: &Failure) {
    match failure {
        Failure::No(_) => {}
        // A reader that has seen enough, such as `head`, closes its end: that is not a failure to report.
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        // Standard error is the log's: a line that is not JSON would be lost among its lines.
        Failure::App(AppError::Logged(_)) => {}
        failure => complain(failure),
    }
}

/// Says on standard error what went wrong, with the program's name before each line.
pub(super) fn complain(what: impl fmt::Display) {
    tell("", &what.to_string());
}

/// Says on standard error what should be known.
pub(super) fn warn(what: impl fmt::Display) {
    tell("warning: ", &what.to_string());
}

/// Says on standard error what is good to know.
pub(super) fn note(what: impl fmt::Display) {
    tell("note: ", &what.to_string());
}

fn tell(kind: &str, text: &str) {
    let mut err = io::stderr().lock();
    for line in text.lines() {
        // Where standard error is closed there is nobody to tell.
        drop(writeln!(err, "keytoll: {kind}{line}"));
    }
}

/// A small table with a heading; columns are as wide as what is in them.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    right: &'static [usize],
}

impl Table {
    /// `right`: the columns that are aligned to the right, such as amounts.
    pub(super) fn new(heading: &[&str], right: &'static [usize]) -> Table {
        Table { rows: vec![heading.iter().map(ToString::to_string).collect()], right }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| visible(&cell)).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let mut text = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = if column > 0 { "  " } else { "" };
                if self.right.contains(&column) {
                    write!(text, "{gap}{cell:>width$}")?;
                } else {
                    write!(text, "{gap}{cell:<width$}")?;
                }
            }
            let end = if number > 0 { "\n" } else { "" };
            write!(f, "{end}{}", text.trim_end())?;
        }
        Ok(())
    }
}

/// Names come from others: what would move a terminal's cursor is shown, not sent.
pub(super) fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// `yes` or `no`.
pub(super) fn yes_no(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}
