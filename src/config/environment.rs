//! What surrounds the configuration file: the command line's overrides, the process's environment, and where files
//! are looked for. [`Environment::of_process`] is the only place of the program that reads the environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use crate::failpoint::{self, FailPoint};

/// For tests, in a build that knows it.
pub(super) const FAIL_POINT: &str = "KEYTOLL_FAILPOINT";

/// What the command line says about the configuration; it beats the environment and the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// `--listen ADDR`.
    pub listen: Option<String>,
    /// `--upstream URL`; several with commas between.
    pub upstream: Option<String>,
    /// `--api NAME`.
    pub api: Option<String>,
    /// `--price CENTS`, as text: it is checked here, like every other number.
    pub price: Option<String>,
    /// `--database FILE`.
    pub database: Option<PathBuf>,
    /// `--create`.
    pub create: Option<bool>,
    /// `--admin-listen ADDR`.
    pub admin_listen: Option<String>,
}

impl Overrides {
    /// The value of a flag of the key table, as text.
    pub(super) fn value(&self, flag: &str) -> Option<&OsStr> {
        match flag {
            "--listen" => self.listen.as_ref().map(AsRef::as_ref),
            "--upstream" => self.upstream.as_ref().map(AsRef::as_ref),
            "--api" => self.api.as_ref().map(AsRef::as_ref),
            "--price" => self.price.as_ref().map(AsRef::as_ref),
            "--database" => self.database.as_ref().map(|path| path.as_os_str()),
            "--create" => self.create.map(|create| OsStr::new(if create { "true" } else { "false" })),
            "--admin-listen" => self.admin_listen.as_ref().map(AsRef::as_ref),
            _ => None,
        }
    }
}

/// What the process was started in. Its variables may hold secrets: `Debug` shows only their names.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
    /// Where a configuration file is looked for when nobody names one, in this order.
    pub(super) default_files: Vec<PathBuf>,
    /// How many processors there are: the default of `server.workers`.
    pub(super) processors: usize,
}

impl Environment {
    /// The environment of this process, `./keytoll.toml` and `/etc/keytoll/keytoll.toml`, and the available parallelism.
    pub fn of_process() -> Environment {
        Environment {
            // A name that is not UTF-8 is none of ours.
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .collect(),
            default_files: vec!["keytoll.toml".into(), "/etc/keytoll/keytoll.toml".into()],
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// An environment of these variables, without default files, on one processor: for tests and for `demo`.
    pub fn of<K: Into<String>, V: Into<OsString>>(variables: impl IntoIterator<Item = (K, V)>) -> Environment {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Environment { variables, default_files: Vec::new(), processors: 1 }
    }

    /// The same, with other files to look for.
    #[must_use]
    pub fn with_files(mut self, files: Vec<PathBuf>) -> Environment {
        self.default_files = files;
        self
    }

    /// The value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str)
    }

    /// Where a test has the process killed. Nothing in a build without fail points.
    ///
    /// # Panics
    /// In a build with them, when there is no such point: a test that kills nothing must not pass.
    pub(super) fn fail_point(&self) -> Option<FailPoint> {
        let text = self.get(FAIL_POINT).filter(|_| failpoint::COMPILED)?;
        let point = text.to_str().and_then(|text| text.parse().ok());
        Some(point.unwrap_or_else(|| panic!("{FAIL_POINT}: there is no fail point {}", text.display())))
    }

    /// The name that the user of this process is logged in with (POSIX.1-2017 §8.3), if it is known.
    pub fn login(&self) -> Option<&str> {
        let names = ["LOGNAME", "USER"].into_iter().filter_map(|name| self.get(name)?.to_str());
        names.map(str::trim).find(|name| !name.is_empty())
    }

    /// The names of the variables that begin with `KEYTOLL_`, in alphabetical order.
    pub(super) fn own_names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str).filter(|name| name.starts_with("KEYTOLL_"))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("names", &self.variables.keys())
            .field("default_files", &self.default_files)
            .field("processors", &self.processors)
            .finish()
    }
}
