//! The daemon's Unix socket: the other verbs and the hook talk to it. One JSON object on a line, both ways.
//!
//! The daemon greets first, so that a client knows in [`GREETING_LIMIT`] whether somebody is there: a socket that stays
//! silent for longer counts as none.

mod client;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use walseal_common::lsn::Lsn;

use crate::base::BackupMode;

pub use client::{Client, ClientError};
pub use server::{Answers, Reporter, SocketError, serve};

/// How long a client waits for the daemon's greeting.
pub const GREETING_LIMIT: Duration = Duration::from_secs(2);

/// Longest line that either side takes, in bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// The socket of the daemon whose state lies in `state_dir`.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("walseal.sock")
}

/// What the daemon says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Always "walseal".
    pub walseal: String,
    /// The daemon's process id.
    pub pid: u32,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Request {
    /// How is the stream?
    Status,
    /// Take a base backup now, and report on it.
    Backup {
        /// Whether it is to be full or incremental.
        #[serde(default)]
        mode: BackupMode,
    },
    /// Answer when everything that the server has written by now is durable.
    Drain,
    /// Answer when the contiguous durable WAL reaches this position.
    AwaitDurable {
        /// The position.
        lsn: Lsn,
        /// After so many milliseconds the answer is a failure.
        limit_ms: u64,
    },
    /// Ship this file of `pg_wal`; answer when it is durable.
    Push {
        /// The file, absolute.
        path: PathBuf,
    },
}

/// What a client says while its request is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Aside {
    /// Stop it. A client that just goes away has not said so, and what it asked for goes on.
    Stop,
}

/// What the daemon answers: any number of reports, then one of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Still at it.
    Report {
        /// What is going on, for a person.
        text: String,
        /// Bytes done, where bytes are counted.
        done: Option<u64>,
        /// Bytes expected.
        total: Option<u64>,
    },
    /// Done.
    Done {
        /// The result, by verb.
        result: serde_json::Value,
    },
    /// It failed.
    Failed {
        /// Why, and what to do.
        why: String,
    },
}
