//! What hook and prefetcher say to each other: one JSON object on a line, a request and then answers.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often a prefetcher that is still at it says so.
pub(super) const PULSE: Duration = Duration::from_secs(1);

/// Longest line that either side takes, in bytes.
pub(super) const LONGEST_LINE: u64 = 64 << 10;

/// What the hook asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// The file: `%f`.
    pub(super) file: String,
    /// What the hook would work with itself; `None` asks whoever is there.
    pub(super) fingerprint: Option<String>,
}

/// What the prefetcher answers: any number of [`Answer::Working`], then one of the others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(super) enum Answer {
    /// Still at it.
    Working,
    /// The file lies there, verified, to be renamed.
    Ready {
        /// Where.
        path: PathBuf,
        /// Its length in bytes.
        size: u64,
    },
    /// It is proven that nothing is known there.
    NotThere {
        /// The reason.
        why: String,
    },
    /// A standby is told "not there" because the store does not answer.
    StandbyWaits {
        /// What it said last.
        why: String,
    },
    /// Anything else.
    Failed {
        /// Why.
        why: String,
    },
    /// It was started with other keys or another configuration than the hook has, and ends.
    Stale,
}
