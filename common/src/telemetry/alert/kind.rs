//! What alerts are about.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It works, and will bite.
    Warning,
    /// Something is lost, or will be.
    Critical,
}

impl Severity {
    /// The word for people and machines.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal,)*) => {
        /// What an alert is about. The words are an interface: scripts and monitors match on them.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        pub enum AlertKind {
            $($(#[$doc])* #[serde(rename = $word)] $kind,)*
        }

        impl AlertKind {
            /// Every kind.
            pub const ALL: &[AlertKind] = &[$(AlertKind::$kind),*];

            /// The word for people and machines.
            pub fn word(self) -> &'static str {
                match self { $(AlertKind::$kind => $word),* }
            }
        }
    };
}

kinds! {
    /// WAL is lost, and no base backup lies behind it yet. Subject: branch and where it begins.
    Gap = "gap",
    /// The replication slot is not there, or keeps no WAL any more (case 14). Subject: the slot.
    SlotLost = "slot-lost",
    /// The server is about to remove WAL that is not in the repository. Subject: the slot.
    SlotAtRisk = "slot-at-risk",
    /// The slot was told that more is durable than the repository holds. Subject: the slot.
    ConfirmedMissing = "confirmed-missing",
    /// The store has failed for a while. No subject.
    StoreUnreachable = "store-unreachable",
    /// Another server takes writes, too (case 17). Subject: the other host.
    TwoPrimaries = "two-primaries",
    /// A later timeline in the repository has left the one that the server writes (case 16). Subject: the server's branch.
    TimelineLeft = "timeline-left",
    /// The repository holds other bytes for the same WAL (case 17). Subject: the branch.
    Conflict = "conflict",
    /// The standby that is streamed is not connected to its primary (case 33). No subject.
    StandbyCutOff = "standby-cut-off",
    /// The server has less WAL of its branch than the repository (case 17). Subject: the branch.
    ServerBehind = "server-behind",
    /// Commits wait for the archiver, and nobody asked for that (case 13). No subject.
    SynchronousUnasked = "synchronous-unasked",
    /// The server keeps much WAL for us (case 26). Subject: the slot.
    Backlog = "backlog",
    /// The server's own archiving fails, and WAL piles up in `pg_wal` (case 26). No subject.
    ArchiveCommandFails = "archive-command-fails",
    /// A base backup that nobody waits for failed, and is tried again. No subject.
    BackupFailed = "backup-failed",
    /// The server met page checksum failures in the last base backup (case 31). No subject.
    BackupSuspect = "backup-suspect",
    /// The schedule's base backup is missing. No subject.
    BackupOverdue = "backup-overdue",
    /// A snapshot on schedule failed, and is tried again. Subject: the database; empty where it is about all of them.
    SnapshotFailed = "snapshot-failed",
    /// A table lost rows from one snapshot to the next. Subject: database and table.
    TableShrank = "table-shrank",
    /// Something of the repository is missing, damaged or forged. No subject.
    NotWhole = "not-whole",
    /// The last drill on schedule failed, or is not recorded. Subject: the database, of a snapshot; `repository` where that cannot be read.
    DrillFailed = "drill-failed",
    /// No drill has passed for too long. Subject: `snapshots`, of those; else empty.
    DrillOverdue = "drill-overdue",
    /// More committed work than is allowed would be lost with the server. No subject.
    RpoExceeded = "rpo-exceeded",
    /// What has had its time cannot be removed, or must not be. No subject.
    RetentionRefused = "retention-refused",
    /// One lost identity would be the loss of every backup. No subject.
    OneRecipient = "one-recipient",
    /// Sent by the verb `alerts test`; never raised by a daemon. No subject.
    Test = "test",
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
