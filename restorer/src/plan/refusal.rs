//! Why there is no plan, and what to do instead.

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::BaseId;
use walseal_common::terminal::units;
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::Branch;

use super::gap::Gap;
use super::inventory::InventoryError;
use super::reader::ReadError;
use super::{PassedOver, Request, Target, TargetError, TransactionPoint};

/// There is no plan. Every variant is a refusal before a byte moved.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlanError {
    /// The target and the flags do not fit each other.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// What the repository holds could not be read.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// WAL could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no base backup.
    #[error("{store} holds no base backup that can be used{}; make one with: walseal-archiver backup", reasons(.unusable))]
    NoBase {
        /// The repository's URL.
        store: String,
        /// Those that cannot be used, and why.
        unusable: Vec<PassedOver>,
    },
    /// The base backup that was named is not there.
    #[error("there is no base backup {wanted} that can be used; there are: {}", words(.known))]
    NoSuchBase {
        /// The id that was given.
        wanted: BaseId,
        /// The ids that are there.
        known: Vec<BaseId>,
    },
    /// Objects of the base backup are not there as its label says.
    #[error(
        "base backup {id} cannot be restored: of its {of} data objects {count} {} as its label says: {}. Find out what removes or \
         changes objects of the bucket; what else is wrong says: walseal-restorer verify{}",
        if *.count == 1 { "is not" } else { "are not" }, not_whole(.named, *.count), older(.instead.as_ref())
    )]
    BaseNotWhole {
        /// Which.
        id: BaseId,
        /// The first few, in words.
        named: Vec<String>,
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
        /// The newest one before it that is whole.
        instead: Option<BaseId>,
    },
    /// The base backup that was named cannot lead to the target.
    #[error("base backup {id} cannot lead to {target}: {why}; leave out --base, and the newest one that fits is taken")]
    BaseUnfit {
        /// Which.
        id: BaseId,
        /// What was asked.
        target: Target,
        /// Why not.
        why: String,
    },
    /// No base backup precedes the target (case 7).
    #[error("{target} cannot be reached: no base backup on timeline {} is complete before it{}\n{earliest}", .branch.timeline.number(), reasons(.passed_over))]
    NoBaseFits {
        /// What was asked.
        target: Target,
        /// The branch.
        branch: Branch,
        /// Why each was not taken.
        passed_over: Vec<PassedOver>,
        /// The earliest reachable point, as a sentence with a command.
        earliest: String,
    },
    /// No such timeline.
    #[error("there is no timeline {asked} here; there are: {}", branches(.known))]
    NoSuchTimeline {
        /// What was asked.
        asked: String,
        /// What there is.
        known: Vec<Branch>,
    },
    /// Two branches have the same number.
    #[error("timeline {asked} exists more than once here; say which one:{}", timeline_commands(.branches))]
    AmbiguousTimeline {
        /// What was asked.
        asked: String,
        /// Which there are.
        branches: Vec<Branch>,
    },
    /// The history of a branch on the way is not there (case 2).
    #[error(
        "the history of branch {branch} (history/{branch}) cannot be read: {why}. Without it nobody can tell how \
         timeline {} came about; the server that wrote it has it in pg_wal/{}.history{}",
        .branch.timeline.number(), .branch.timeline, elsewhere(.others)
    )]
    HistoryMissing {
        /// The branch.
        branch: Branch,
        /// Why.
        why: String,
        /// Other branches that can be chosen.
        others: Vec<Branch>,
    },
    /// The time lies on two branches with two outcomes.
    #[error("{target} lies on more than one branch; say which one:{}", landings(.outcomes))]
    TwoBranches {
        /// What was asked.
        target: Target,
        /// Each branch, with the last transaction that a restore there would have.
        outcomes: Vec<(Branch, String)>,
    },
    /// WAL on the way is missing.
    #[error("{0}")]
    Gap(Box<Gap>),
    /// The target time lies after the last transaction (cases 8 and 9).
    #[error("{}", after_end(.request, .last.as_ref(), *.end))]
    TimeAfterEnd {
        /// What was asked.
        request: Box<Request>,
        /// The last transaction from the base on, if any.
        last: Option<TransactionPoint>,
        /// Where WAL ends.
        end: Lsn,
    },
    /// No record starts at or after the position.
    #[error(
        "{} cannot be reached: recovery stops at the first record that starts there or later, and WAL on timeline {} \
         ends at {end}, {}.\nTo get everything up to that end: --to latest{}",
        .request.target, .branch.timeline.number(), lsn_distance(&.request.target, *.end), .request.timeline_flag()
    )]
    LsnAfterEnd {
        /// What was asked.
        request: Box<Request>,
        /// The branch.
        branch: Branch,
        /// Where WAL ends.
        end: Lsn,
    },
    /// The transaction's end was not found.
    #[error(
        "no end of transaction {xid} is in the WAL of timeline {} {}. It may not have ended by then, may have \
         written nothing, be a part (savepoint) of another transaction, or lie on another timeline{}",
        .branch.timeline.number(), stretches(.searched), elsewhere(.others)
    )]
    NoSuchTransaction {
        /// What was asked.
        xid: u64,
        /// The branch that was searched.
        branch: Branch,
        /// What was searched, newest first; between them WAL cannot be had.
        searched: Vec<LsnRange>,
        /// Other branches that can be chosen.
        others: Vec<Branch>,
    },
    /// The restore point was not found.
    #[error(
        "no restore point \"{name}\" is in the WAL of timeline {} {}; names are compared letter by letter{}",
        .branch.timeline.number(), stretches(.searched), elsewhere(.others)
    )]
    NoSuchName {
        /// What was asked.
        name: String,
        /// The branch that was searched.
        branch: Branch,
        /// What was searched, newest first; between them WAL cannot be had.
        searched: Vec<LsnRange>,
        /// Other branches that can be chosen.
        others: Vec<Branch>,
    },
    /// Several restore points have the name.
    #[error(
        "there are {} restore points \"{name}\"; say which one by its position:{}",
        .found.len(), named(.found, .request)
    )]
    AmbiguousName {
        /// What was asked.
        request: Box<Request>,
        /// The name.
        name: String,
        /// Where and when each was made.
        found: Vec<(Lsn, PgTimestamp)>,
    },
}

impl PlanError {
    /// Whether the same request could succeed later without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        match self {
            PlanError::Inventory(error) => error.is_permanent(),
            PlanError::Read(error) => error.is_permanent(),
            _ => true,
        }
    }

    /// Whether the command line itself is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, PlanError::Target(_))
    }
}

fn words<T: ToString>(things: &[T]) -> String {
    if things.is_empty() {
        return "none".to_owned();
    }
    things.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn reasons(passed_over: &[PassedOver]) -> String {
    passed_over.iter().map(|base| format!("\n  {}: {}", base.id, base.why)).collect()
}

fn not_whole(named: &[String], count: usize) -> String {
    match count.saturating_sub(named.len()) {
        0 => named.join(", "),
        more => format!("{}, and {more} more", named.join(", ")),
    }
}

fn older(instead: Option<&BaseId>) -> String {
    instead.map_or_else(String::new, |id| {
        format!("\nAn older one is there as a whole; whether it leads to the target says: plan … --base {id}")
    })
}

fn branches(known: &[Branch]) -> String {
    words(&known.iter().map(|branch| format!("{} ({branch})", branch.timeline.number())).collect::<Vec<_>>())
}

fn timeline_commands(branches: &[Branch]) -> String {
    branches.iter().map(|branch| format!("\n  --timeline {branch}")).collect()
}

fn elsewhere(others: &[Branch]) -> String {
    match others {
        [] => String::new(),
        some => format!(". Another timeline can be chosen with:{}", timeline_commands(some)),
    }
}

fn stretches(ranges: &[LsnRange]) -> String {
    let words: Vec<String> =
        ranges.iter().rev().map(|range| format!("from {} to {}", range.start, range.end)).collect();
    match words.as_slice() {
        [] => "that a base backup leads into".to_owned(),
        [one] => one.clone(),
        several => format!("{} (what lies between cannot be had)", several.join(", ")),
    }
}

fn landings(outcomes: &[(Branch, String)]) -> String {
    outcomes.iter().map(|(branch, landing)| format!("\n  --timeline {branch}   {landing}")).collect()
}

fn named(found: &[(Lsn, PgTimestamp)], request: &Request) -> String {
    let timeline = request.timeline_flag();
    found.iter().map(|(lsn, time)| format!("\n  --to lsn:{lsn}{timeline}   (made {time})")).collect()
}

fn after_end(request: &Request, last: Option<&TransactionPoint>, end: Lsn) -> String {
    let target = &request.target;
    let edge = if request.exclusive { "at or after" } else { "after" };
    let why = match last {
        Some(last) => {
            format!("the last one in the repository is transaction {} of {} (WAL ends at {end})", last.xid, last.time)
        }
        None => format!("there is none since the base backup (WAL ends at {end})"),
    };
    format!(
        "{target} cannot be reached: PostgreSQL stops before the first transaction that ended {edge} it, and {why}; \
         recovery would run to the end and fail.\nEverything that is known: --to latest{}",
        request.timeline_flag()
    )
}

fn lsn_distance(target: &Target, end: Lsn) -> String {
    match target {
        Target::Lsn(lsn) if *lsn > end => format!("{} before it", units::size(lsn.bytes_since(end))),
        _ => "with no record from there on".to_owned(),
    }
}
