//! What is recorded: facts that anybody who lists the bucket may know.
//!
//! Names that users gave (restore points, paths, hosts, slots) are not among them; where two entries about the same one must
//! be brought together, its [`obscured`] form stands for it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;
use crate::repository::{BaseId, SnapshotId};
use crate::seal::ObjectDigest;
use crate::timeline::Branch;

/// Something that happened. Serialised as `act` and `facts`; the words are those of the format.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "act", content = "facts", rename_all = "kebab-case")]
pub enum Act {
    /// `init` made the repository.
    Init {
        /// PostgreSQL's major version.
        postgres_major: u32,
        /// Bytes of a segment.
        segment_size: u64,
    },
    /// A daemon began.
    DaemonStarted {},
    /// A daemon ended.
    DaemonStopped {
        /// Bytes of WAL that the server is known to have and the repository has not.
        bytes_left: u64,
        /// Whether it was told to end.
        asked: bool,
    },
    /// A base backup was begun.
    BaseStarted {
        /// Its id.
        id: BaseId,
    },
    /// A base backup is there.
    BaseFinished {
        /// Its id.
        id: BaseId,
        /// The branch it was taken on.
        branch: Branch,
        /// Where it begins.
        start: Lsn,
        /// From here on it is consistent.
        stop: Lsn,
        /// Bytes of the cluster.
        cluster_size: u64,
        /// Bytes that it added.
        stored_size: u64,
        /// Page checksum failures.
        suspect: u64,
        /// Files with such pages, as in the label.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        suspect_files: Vec<String>,
        /// How long it took.
        seconds: f64,
    },
    /// A base backup came to nothing.
    BaseFailed {
        /// Its id, where it got so far.
        id: Option<BaseId>,
        /// What failed.
        class: FailureClass,
    },
    /// The stream went on on another branch.
    TimelineFollowed {
        /// The branch that ended.
        from: Branch,
        /// The branch that goes on.
        to: Branch,
        /// Where they part.
        fork: Lsn,
        /// Bytes that the repository holds of the old branch beyond the fork.
        surplus_bytes: u64,
    },
    /// WAL was found to be lost.
    GapRecorded {
        /// The branch that breaks off.
        branch: Branch,
        /// The first byte that is missing.
        from: Lsn,
        /// Where WAL goes on.
        to: Lsn,
        /// On which branch.
        next: Branch,
    },
    /// WAL that was lost was found.
    GapHealed {
        /// The branch.
        branch: Branch,
        /// The first byte that was missing.
        from: Lsn,
        /// The first byte that was not.
        to: Lsn,
    },
    /// The repository held other bytes than ours.
    Conflict {
        /// The branch, where the stream met it.
        branch: Option<Branch>,
        /// The object, where its name was taken; ours is kept below `conflict/`.
        name: Option<String>,
        /// Who wrote what was there.
        writer: String,
    },
    /// The slot was made.
    SlotCreated {
        /// It keeps WAL from here on, where that is known.
        position: Option<Lsn>,
    },
    /// The slot was dropped, by us.
    SlotDropped {},
    /// The slot was gone, or kept nothing any more.
    SlotLost {},
    /// An operator named the living writer of a branch.
    Adopted {
        /// The writer.
        writer: String,
        /// The branch.
        branch: Branch,
        /// From where on.
        from: Lsn,
    },
    /// An alert was raised.
    AlertRaised {
        /// Its kind.
        kind: &'static str,
        /// Which one, obscured.
        subject: String,
        /// How bad it is.
        severity: &'static str,
    },
    /// An alert is over.
    AlertCleared {
        /// Its kind.
        kind: &'static str,
        /// Which one, obscured.
        subject: String,
    },
    /// A restore began to write.
    RestoreStarted {
        /// Where it leads.
        target: TargetFact,
        /// The base backup.
        base: BaseId,
        /// The branch where it ends.
        branch: Branch,
        /// Where on it, as planned.
        stop: Lsn,
        /// The data directory, obscured.
        directory: String,
    },
    /// A restore ended.
    RestoreFinished {
        /// The data directory, obscured, as when it started.
        directory: String,
        /// Bytes written.
        bytes: u64,
        /// How long it took.
        seconds: f64,
        /// How recovery ended, where it was run: `promoted`, `paused`, `shut-down`.
        recovery: Option<&'static str>,
        /// When the last transaction ended that it replayed, where it replayed one.
        last_time: Option<Timestamp>,
    },
    /// A restore came to nothing.
    RestoreFailed {
        /// The data directory, obscured, as when it started.
        directory: String,
        /// What failed.
        class: FailureClass,
    },
    /// A drill passed: the base backup is proven.
    DrillPassed(Box<DrillFacts>),
    /// A drill did not pass.
    DrillFailed(Box<DrillFacts>),
    /// A snapshot is there.
    SnapshotFinished {
        /// Its id.
        id: SnapshotId,
        /// Whether it is a whole database.
        whole: bool,
        /// Bytes of the archive.
        dump_size: u64,
        /// Bytes that it added.
        stored_size: u64,
        /// Tables whose rows were counted.
        tables: u64,
        /// How long it took.
        seconds: f64,
    },
    /// A snapshot came to nothing.
    SnapshotFailed {
        /// What failed.
        class: FailureClass,
    },
    /// A snapshot was restored to a cluster that is gone again, and checked.
    SnapshotDrilled {
        /// Its id.
        id: SnapshotId,
        /// Whether every check ran and passed: the snapshot is proven.
        passed: bool,
        /// How many checks passed.
        checks: u32,
        /// What failed, or could not run: words of the format, each once.
        failed: Vec<String>,
        /// Tables whose rows were compared.
        tables: u64,
        /// From the beginning to the verdict.
        seconds: f64,
        /// The object with all that was found, and its digest.
        evidence: EvidenceFact,
    },
    /// A snapshot had its time.
    SnapshotRemoved {
        /// Its id.
        id: SnapshotId,
    },
    /// A snapshot went back to a server.
    SnapshotRestored {
        /// Its id.
        id: SnapshotId,
        /// Tables with rows.
        tables: u64,
        /// What `pg_restore` could not do.
        errors: u64,
        /// Tables that are not as they were dumped.
        differing: u64,
        /// How long it took.
        seconds: f64,
    },
    /// Objects begin to be removed that retention does not keep.
    PruneStarted {
        /// Base backups that go.
        bases: Vec<BaseId>,
        /// Objects, all in all.
        objects: u64,
    },
    /// As many as could be are gone.
    PruneFinished {
        /// Objects that were removed.
        objects: u64,
        /// Their bytes.
        bytes: u64,
        /// Objects that the store did not let go.
        refused: u64,
    },
    /// A base backup stays until then, or as long as retention says where it was released.
    Held {
        /// Which.
        base: BaseId,
        /// Until when; `None` where it was released.
        until: Option<Timestamp>,
    },
    /// So many entries of this run were never written.
    EntriesLost {
        /// How many.
        count: u64,
    },
}

/// What a drill found, without a name that a user gave.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DrillFacts {
    /// The base backup; `None` where none was found to begin from.
    pub base: Option<BaseId>,
    /// The kind of the target: `latest`, `immediate`, `time`, `lsn`, `xid`, `name`, `random`.
    pub target: String,
    /// The branch that was restored, where the plan got so far.
    pub branch: Option<Branch>,
    /// Where on it recovery stopped, as planned.
    pub stop: Option<Lsn>,
    /// Bytes of files that were restored.
    pub bytes: u64,
    /// Checks that passed; those that warned are among them.
    pub passed: u32,
    /// Of them, those that have something to say.
    pub warned: u32,
    /// What failed, or could not run: words of the format, each once.
    pub failed: Vec<String>,
    /// From the beginning to the verdict.
    pub seconds: f64,
    /// From the beginning to the answer to the first query, where there was one.
    pub first_query_seconds: Option<f64>,
    /// The object with all that was found, and its digest.
    pub evidence: Option<EvidenceFact>,
    /// The base backup that was made of its instance, where one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<BaseId>,
}

/// Where the evidence of a drill is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EvidenceFact {
    /// The object.
    pub name: String,
    /// Its digest.
    pub digest: ObjectDigest,
}

/// What failed, without its words, which may name what is nobody's business.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureClass {
    /// The server, or the way to it.
    Server,
    /// The store, or what lies in it.
    Repository,
    /// The WAL that belongs to it.
    Wal,
    /// The machine: disk, permissions.
    Machine,
    /// Recovery did not end where it should.
    Recovery,
    /// Nothing: it was asked to stop.
    Stopped,
    /// Anything else.
    Other,
}

/// Where a restore leads.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetFact {
    /// The end of WAL.
    Latest,
    /// The end of the base backup.
    Immediate,
    /// A time.
    Time(Timestamp),
    /// A position.
    Lsn(Lsn),
    /// A transaction.
    Xid(u64),
    /// A named restore point, obscured.
    Name(String),
}

impl Act {
    /// The word and the facts.
    pub(super) fn parts(&self) -> (String, serde_json::Map<String, serde_json::Value>) {
        // Plain data serialises; were it otherwise, the entry would stand there without what it was about.
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(mut parts)) => {
                let word = parts.remove("act").and_then(|word| word.as_str().map(str::to_owned));
                match parts.remove("facts") {
                    Some(serde_json::Value::Object(facts)) => (word.unwrap_or_default(), facts),
                    _ => (word.unwrap_or_default(), serde_json::Map::new()),
                }
            }
            _ => (String::new(), serde_json::Map::new()),
        }
    }

    /// The word.
    pub fn word(&self) -> String {
        self.parts().0
    }
}

/// What stands for a name that a user gave: the same for the same name, and nothing to read for those who do not know it. A
/// name that is easily guessed is easily confirmed. Empty for an empty one.
pub fn obscured(name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    let digest = blake3::derive_key("walseal 2026-11 ledger name", name.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
