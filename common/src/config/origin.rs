//! Where a value came from.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;

/// Where a value came from, for messages: "repository.url (from WALSEAL_REPOSITORY_URL)".
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A flag of the command line, by its name: `--pg-bin`.
    Flag(&'static str),
    /// A variable of the environment, by its name; `WALSEAL_*` or one that a platform injects.
    Variable(String),
    /// A line of the configuration file, counted from 1.
    File {
        /// The configuration file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => f.write_str(name),
            Origin::Variable(name) => f.write_str(name),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Default => f.write_str("the default"),
        }
    }
}

/// A value that remembers where it came from. It can be used as the value itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
}

impl<T> Setting<T> {
    /// `value`, as set by `origin`.
    pub fn new(value: T, origin: Origin) -> Setting<T> {
        Setting { value, origin }
    }

    /// Whether somebody set it, rather than the default.
    pub fn is_set(&self) -> bool {
        self.origin != Origin::Default
    }
}

impl<T> Deref for Setting<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
