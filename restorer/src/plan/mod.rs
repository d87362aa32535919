//! From a target and a repository to an explained plan. No side effects: a plan is read, never done, here.

mod assembly;
mod branches;
mod decision;
mod estimate;
mod explain;
mod facts;
mod gap;
mod holding;
mod hole;
pub mod inventory;
mod leaving;
mod pages;
mod path;
mod planner;
pub mod points;
mod presence;
pub mod reader;
mod recovery;
mod refusal;
#[cfg(test)]
pub(crate) mod sample;
mod scope;
mod search;
pub mod surplus;
mod target;
#[cfg(test)]
mod tests;
pub mod windows;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use walseal_common::lsn::Lsn;
use walseal_common::repository::{BaseId, BaseType};
use walseal_common::segment::SegmentSize;
use walseal_common::terminal::Schema;
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::{Branch, SystemIdentifier, TimelineId};
use walseal_common::wal::{TransactionOutcome, Xid};

pub use branches::{End, Ends, ends, known};
pub use estimate::Estimate;
pub use facts::BranchFacts;
pub use gap::{Gap, Nearest};
pub use holding::Holding;
pub use hole::Hole;
pub use inventory::{Inventory, InventoryError};
pub use leaving::leaving;
pub use path::{Path, Step};
pub use planner::{Planner, plan};
pub use presence::check as check_presence;
pub use recovery::{RecoverySetting, recovery_settings};
pub use refusal::PlanError;
pub use search::NamedPoint;
pub use target::{Action, Reading, Target, TargetError, TimelineChoice};

use crate::shell::quoted;

/// Name and version of [`Plan`] as JSON. A reader refuses another one.
pub const PLAN_SCHEMA: Schema = Schema { name: "plan", version: 1 };

/// What is to be planned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Where to.
    pub target: Target,
    /// Stop just before the target (`--exclusive`).
    pub exclusive: bool,
    /// The timeline to end on; by default the one with the newest frontier.
    pub timeline: Option<TimelineChoice>,
    /// The base backup to begin from; by default the newest that fits.
    pub base: Option<BaseId>,
    /// What recovery does at the target.
    pub action: Action,
}

impl Request {
    /// To `target`, everything else by default.
    pub fn to(target: Target) -> Request {
        Request { target, exclusive: false, timeline: None, base: None, action: Action::default() }
    }

    /// ` --timeline TIMELINE` where one was asked for: what an offered `--to` has to be followed by, or it would lead
    /// to another one.
    pub fn timeline_flag(&self) -> String {
        self.timeline.map(|choice| format!(" --timeline {choice}")).unwrap_or_default()
    }

    /// The flags that ask for it, quoted for a shell.
    pub fn flags(&self) -> String {
        let exclusive = if self.exclusive { " --exclusive" } else { "" };
        let base = self.base.as_ref().map(|id| format!(" --base {id}")).unwrap_or_default();
        let action =
            if self.action == Action::default() { String::new() } else { format!(" --action {}", self.action) };
        let target = quoted(&self.target.to_string());
        format!("--to {target}{exclusive}{}{base}{action}", self.timeline_flag())
    }
}

/// Everything that a restore needs to know, decided before a byte moves. Serialisable: a restore writes it beside the
/// data directory, where `fetch` reads it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this value, that of [`PLAN_SCHEMA`].
    pub version: u32,
    /// The cluster.
    pub cluster: SystemIdentifier,
    /// The repository's URL, without secrets.
    pub repository: String,
    /// Size of the cluster's WAL segments.
    pub segment_size: SegmentSize,
    /// What was asked.
    pub request: Request,
    /// The base backup to rebuild from.
    pub base: PlannedBase,
    /// Why newer base backups were not taken, newest first.
    pub passed_over: Vec<PassedOver>,
    /// The branches of the way, oldest ancestor first; the last one is the timeline that recovery ends on. All of
    /// [`Plan::timeline`]'s ancestry is here, also what lies before the base. Where two servers wrote one timeline, two branches of it
    /// may follow each other.
    pub path: Vec<PathStep>,
    /// The branches of the way whose history file is in the repository, verified and opened; timeline 1 has none. That of the last
    /// timeline is among them, or there is no plan; an ancestor's that is not follows from its child's (case 2).
    #[serde(default)]
    pub histories: Vec<Branch>,
    /// Where recovery stops: end of the last record that is replayed. For `latest`, the end of the last whole record
    /// known when the plan was made; more may have come since.
    pub stop: Lsn,
    /// Lines of `postgresql.auto.conf` by which PostgreSQL itself decides where to stop. Without
    /// `restore_command`, which depends on where the restore is made.
    pub recovery: Vec<RecoverySetting>,
    /// The last transaction that ends before `stop`, where the WAL from the base on has one.
    pub last_before: Option<TransactionPoint>,
    /// The first transaction that ends after `stop`, where there is one.
    pub first_after: Option<TransactionPoint>,
    /// WAL that is missing elsewhere on the path, in order; none of it is needed.
    #[serde(default)]
    pub gaps: Vec<Hole>,
    /// What it costs.
    pub cost: Cost,
    /// What a person should know before going on, a sentence each.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The timeline that recovery ends on, before it makes its own.
    pub fn timeline(&self) -> TimelineId {
        self.path.last().map_or(self.base.branch.timeline, |step| step.timeline)
    }

    /// Up to where recovery must read WAL before it stops by itself, on the plan's last timeline; `None` where only the end of
    /// the WAL stops it. A time, and whatever is exclusive, is recognised by the first record that is not replayed any more
    /// (`recoveryStopsBefore` in `xlogrecovery.c`), everything else by the last one that is.
    pub fn read_through(&self) -> Option<Lsn> {
        match self.request.target {
            Target::Latest => None,
            Target::Time(_) => self.first_after.map(|first| first.end.max(self.stop)),
            _ if self.request.exclusive => self.first_after.map(|first| first.end.max(self.stop)),
            _ => Some(self.stop),
        }
    }
}

/// The base backup of a plan: what its label says, without the list of objects.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlannedBase {
    /// Its id; the label has the rest.
    pub id: BaseId,
    /// Whether it refers to others; nothing but the label is needed to restore either.
    #[serde(rename = "type", default)]
    pub kind: BaseType,
    /// What it was compared with.
    #[serde(default)]
    pub parent: Option<BaseId>,
    /// Bytes of its own data objects.
    #[serde(default)]
    pub stored_size: u64,
    /// Bytes of earlier backups' that it needs as well.
    #[serde(default)]
    pub referenced_size: u64,
    /// The branch it was made on.
    pub branch: Branch,
    /// Where replay begins.
    pub start: Lsn,
    /// From here on it is consistent.
    pub stop: Lsn,
    /// When it began, by the archiver's clock.
    pub start_time: Timestamp,
    /// When it ended, by the archiver's clock.
    pub stop_time: Timestamp,
    /// The server's version number, for example 150018.
    pub postgres_version: u32,
    /// Tablespaces beside the default one.
    pub tablespaces: u32,
    /// Page checksum failures that the server reported (case 31).
    pub suspect: u64,
}

/// A base backup that was not taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PassedOver {
    /// Which.
    pub id: BaseId,
    /// Why, as the end of "it was not taken because".
    pub why: String,
}

/// One branch of a plan's path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PathStep {
    /// The branch.
    pub branch: Branch,
    /// Its timeline's number.
    pub timeline: TimelineId,
    /// The first WAL that recovery takes from it: where replay begins, or where the timeline began. Equal to `to` for
    /// ancestors that ended before the base began.
    pub from: Lsn,
    /// Where the path leaves it: the switch point to the next step. For the last step, the end of WAL without a gap as far as the plan
    /// needs it: through the first transaction after the target, where there is one.
    pub to: Lsn,
    /// The highest position on this branch that anything in the repository spoke of when the plan was made: objects by
    /// name, and stop points of base backups. Below it, WAL that is not there is a hole and never the end (case 1).
    pub known_end: Lsn,
}

/// The end of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransactionPoint {
    /// The transaction.
    pub xid: Xid,
    /// When, by the server's clock.
    pub time: PgTimestamp,
    /// Start of the record; what `recovery_target_lsn` compares with.
    pub lsn: Lsn,
    /// End of the record.
    pub end: Lsn,
    /// How it ended.
    pub outcome: TransactionOutcome,
}

/// What a restore costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Objects of the base backup to fetch.
    pub base_objects: u64,
    /// Their bytes in the store.
    pub base_bytes: u64,
    /// Requests to the store: one for each of those objects, and one for each segment of WAL that is whole.
    #[serde(default)]
    pub requests: u64,
    /// WAL segments to replay, the last one counted whole.
    pub wal_segments: u64,
    /// Bytes of WAL to replay, before compression.
    pub wal_bytes: u64,
    /// Bytes of disk that the data directory needs: all files of the base backup, and the WAL.
    pub disk_bytes: u64,
}
