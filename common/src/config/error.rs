//! What can be wrong with a configuration.

use std::io;
use std::path::PathBuf;

use super::origin::Origin;
use super::value::Wrong;

/// The configuration cannot be used. The text says what is wrong, where, and what to do; never a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A configuration file that was named is not there.
    #[error("the configuration file {}, named by {named_by}, does not exist; {}", path.display(), self.fix())]
    NoFile {
        /// The file.
        path: PathBuf,
        /// `--config` or `WALSEAL_CONFIG`.
        named_by: &'static str,
    },
    /// A file cannot be read.
    #[error("{} cannot be read: {source}; {}", path.display(), self.fix())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: {reason}; {}", path.display(), self.fix())]
    Syntax {
        /// The configuration file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// A key or a variable that nobody knows.
    #[error("{origin}: {what} {name:?} is not known; {fix}")]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// "key", "table" or "variable".
        what: &'static str,
        /// Its whole name.
        name: String,
        /// The nearest known one, or those there are.
        fix: String,
    },
    /// A variable whose bytes are not UTF-8.
    #[error("the variable {name} is not valid UTF-8; {}", self.fix())]
    NotText {
        /// The variable.
        name: String,
    },
    /// A value that its key does not take.
    #[error("{key} (from {origin}) {}; {}", wrong.problem, wrong.fix)]
    Invalid {
        /// The key.
        key: &'static str,
        /// Who set it.
        origin: Origin,
        /// What is wrong and what to write.
        wrong: Wrong,
    },
    /// A key that a verb needs is not set.
    #[error("{key} is not set: {purpose}; {}", self.fix())]
    Missing {
        /// The key.
        key: &'static str,
        /// What it is needed for.
        purpose: &'static str,
        /// A line that sets it.
        example: &'static str,
        /// The table that the line belongs under.
        table: &'static str,
        /// The configuration file that is read, or would be.
        file: PathBuf,
        /// Whether it is there.
        exists: bool,
        /// The variable that sets it as well.
        variable: String,
    },
    /// A file with a secret can be read by others or changed by the group.
    #[error("{key} (from {origin}): {} {problem}; {}", path.display(), self.fix())]
    Exposed {
        /// The key that names the file.
        key: &'static str,
        /// Who set it.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// Which permission is too much.
        problem: String,
    },
    /// A file that a key names cannot be read, or holds no secret.
    #[error("{key} (from {origin}): {} {problem}; {}", path.display(), self.fix())]
    BadFile {
        /// The key that names the file.
        key: &'static str,
        /// Who set it.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl ConfigError {
    /// Trying again without a change never helps.
    pub fn is_permanent(&self) -> bool {
        true
    }

    /// What went wrong, without what to do about it.
    pub fn problem(&self) -> String {
        let whole = self.to_string();
        whole.strip_suffix(&format!("; {}", self.fix())).unwrap_or(&whole).to_owned()
    }

    /// What to do about it, in one sentence without a full stop.
    pub fn fix(&self) -> String {
        match self {
            ConfigError::NoFile { .. } => "create it, or name another file".to_owned(),
            ConfigError::Unreadable { path, source } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    format!("let this user's group read it: chgrp GROUP {0} && chmod g+r {0}", path.display())
                }
                io::ErrorKind::InvalidData => "save it as UTF-8".to_owned(),
                _ => "name a file that can be read".to_owned(),
            },
            ConfigError::Syntax { reason, .. } if reason.contains("duplicate") => "keep one of the two".to_owned(),
            ConfigError::Syntax { .. } => {
                "mend that line: text stands in double quotes, a list in brackets, a table starts with [name]"
                    .to_owned()
            }
            ConfigError::Unknown { fix, .. } => fix.clone(),
            ConfigError::NotText { name } => format!("set {name} to plain text, or unset it"),
            ConfigError::Invalid { wrong, .. } => wrong.fix.clone(),
            ConfigError::Missing { example, table, file, exists, variable, .. } => {
                let absent = if *exists { "" } else { " (no such file; --config names another)" };
                format!("write {example} under [{table}] in {}{absent}, or set {variable}", file.display())
            }
            ConfigError::Exposed { path, .. } => format!("run: chmod g-w,o-rwx {}", path.display()),
            ConfigError::BadFile { key, .. } => {
                format!("put the secret there, readable by this user alone (mode 600), or correct {key}")
            }
        }
    }
}
