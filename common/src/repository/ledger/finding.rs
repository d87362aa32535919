//! What can be wrong with the ledger.

use std::fmt;

use serde::Serialize;

use super::RunId;
use crate::seal::{SealError, WriterPublic};

/// Something that is wrong with the ledger. The words are an interface: scripts and monitors match on them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(tag = "finding", rename_all = "kebab-case")]
pub enum Finding {
    /// What has this name is damaged: not what anybody signed.
    Refused {
        /// The object.
        name: String,
        /// Why, in words.
        why: String,
    },
    /// What has this name was signed with a key that does not count here.
    Forged {
        /// The object.
        name: String,
        /// Whose key, in words.
        why: String,
    },
    /// What has this name was signed under another, where it still is: an old entry, shown once more.
    Replayed {
        /// The object.
        name: String,
        /// The name that was signed.
        signed_as: String,
    },
    /// What has this name was signed under another, where it is no longer: entries changed places.
    Reordered {
        /// The object.
        name: String,
        /// The name that was signed.
        signed_as: String,
    },
    /// Entries before others of the same run are not there.
    Missing {
        /// Whose run.
        writer: WriterPublic,
        /// The run.
        run: RunId,
        /// The first that is missing.
        first: u32,
        /// The last that is missing.
        last: u32,
    },
    /// An entry does not follow from the one before it.
    Broken {
        /// Whose run.
        writer: WriterPublic,
        /// The run.
        run: RunId,
        /// The entry.
        sequence: u32,
        /// Why, in words.
        why: String,
    },
    /// An entry was seen that is not there: the end of this run was cut off, or all of it.
    CutOff {
        /// Whose run.
        writer: WriterPublic,
        /// The run.
        run: RunId,
        /// The number that was seen.
        seen: u32,
        /// The object that tells: another run's first entry, or the writer's frontier.
        by: String,
    },
    /// Another entry was seen under this number: it was replaced.
    Replaced {
        /// Whose run.
        writer: WriterPublic,
        /// The run.
        run: RunId,
        /// The entry.
        sequence: u32,
        /// The object that tells.
        by: String,
    },
}

impl Finding {
    /// What an entry that was refused is, of the name that it has. `own_place` says whether an entry of some name is where it was
    /// signed to be.
    pub(super) fn of_refused(name: String, error: &SealError, own_place: impl Fn(&str) -> bool) -> Finding {
        match error {
            SealError::WrongName { found, .. } => {
                let (still_there, signed_as) = (own_place(found), found.clone());
                if still_there { Finding::Replayed { name, signed_as } } else { Finding::Reordered { name, signed_as } }
            }
            SealError::UntrustedWriter(_) | SealError::OtherWriter(_) | SealError::WrongRole { .. } => {
                Finding::Forged { name, why: error.to_string() }
            }
            _ => Finding::Refused { name, why: error.to_string() },
        }
    }

    /// The object that is not what its name says, where the finding is about one.
    pub fn refused_name(&self) -> Option<&str> {
        match self {
            Finding::Refused { name, .. }
            | Finding::Forged { name, .. }
            | Finding::Replayed { name, .. }
            | Finding::Reordered { name, .. } => Some(name),
            Finding::Missing { .. } | Finding::Broken { .. } | Finding::CutOff { .. } | Finding::Replaced { .. } => {
                None
            }
        }
    }

    /// The object that it is about, or the folder of the run.
    pub fn place(&self) -> String {
        match self {
            Finding::Refused { name, .. }
            | Finding::Forged { name, .. }
            | Finding::Replayed { name, .. }
            | Finding::Reordered { name, .. } => name.clone(),
            Finding::Missing { writer, run, .. }
            | Finding::Broken { writer, run, .. }
            | Finding::CutOff { writer, run, .. }
            | Finding::Replaced { writer, run, .. } => format!("ledger/{writer}/{run}"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Refused { name, why } => write!(f, "refused: {name}: {why}"),
            Finding::Forged { name, why } => write!(f, "forged: {name}: {why}"),
            Finding::Replayed { name, signed_as } => {
                write!(f, "replayed: {name} holds once more what was signed as {signed_as}, which is there as well")
            }
            Finding::Reordered { name, signed_as } => {
                write!(f, "reordered: {name} holds what was signed as {signed_as}, which does not hold it any more")
            }
            Finding::Missing { writer, run, first, last } if first == last => {
                write!(f, "missing: entry {first} of run {run} of {writer}")
            }
            Finding::Missing { writer, run, first, last } => {
                write!(f, "missing: entries {first} to {last} of run {run} of {writer}")
            }
            Finding::Broken { writer, run, sequence, why } => {
                write!(f, "broken: entry {sequence} of run {run} of {writer} {why}")
            }
            Finding::CutOff { writer, run, seen, by } => {
                write!(f, "cut off: {by} has seen entry {seen} of run {run} of {writer}, which is not there")
            }
            Finding::Replaced { writer, run, sequence, by } => {
                write!(f, "replaced: {by} has seen another entry {sequence} of run {run} of {writer}")
            }
        }
    }
}
