//! Mistakes in a configuration: where each one stands, which key it is about, and what is wrong. All of them are
//! gathered before anything is refused.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::LogConfig;
use super::fault::Fault;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file.
    Line {
        /// The file.
        file: Arc<Path>,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
    },
    /// A file as a whole.
    File(Arc<Path>),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// Nowhere: what is missing altogether.
    Nowhere,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Place::File(file) => write!(f, "{}", file.display()),
            Place::Variable(name) => f.write_str(name),
            Place::Flag(flag) => f.write_str(flag),
            Place::Nowhere => f.write_str("configuration"),
        }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands.
    pub place: Place,
    /// The dotted key that it is about; empty when it is about the whole file.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub fault: Fault,
}

/// One line: `keytoll.toml:12:1: database.durabilty: unknown key; did you mean "durability"?`
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named_by_place = matches!(self.place, Place::Variable(_) | Place::Flag(_));
        if self.key.is_empty() || named_by_place {
            write!(f, "{}: {}", self.place, self.fault)
        } else {
            write!(f, "{}: {}: {}", self.place, self.key, self.fault)
        }
    }
}

/// Every mistake of a configuration; at least one. `Display` has a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// In the order of the file, then those of the environment and of the flags.
    pub mistakes: Vec<Mistake>,
    /// How the log would have looked, as far as it could be read.
    pub log: LogConfig,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub(super) fn add(&mut self, place: Place, key: impl Into<String>, fault: Fault) {
        self.0.push(Mistake { place, key: key.into(), fault });
    }

    /// Whether a file is unreadable or no TOML, or its `api` is no list of sections.
    pub(super) fn hide_apis(&self) -> bool {
        self.0.iter().any(|mistake| mistake.key.is_empty() || mistake.key == "api")
    }

    /// Nothing when there are none that `matters` to the caller.
    pub(super) fn into_result(
        mut self,
        log: &LogConfig,
        matters: impl Fn(&Mistake) -> bool,
    ) -> Result<(), ConfigErrors> {
        self.0.retain(matters);
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort_by(|a, b| a.place.cmp(&b.place));
        Err(ConfigErrors { mistakes: self.0, log: log.clone() })
    }
}
