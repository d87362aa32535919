//! What of a plan retention has announced to remove, and so may remove before a restore has read it (case 40).

use jiff::Timestamp;
use walseal_common::lsn::Lsn;
use walseal_common::repository::{ObjectName, Repository, RepositoryError};
use walseal_common::segment::SegmentName;
use walseal_common::timeline::Branch;

use super::Plan;

/// A warning where the base backup of `plan`, or WAL that it replays, is about to go, as of `now`; also where nobody can tell. A plan that
/// the repository allows is good all the same.
pub async fn leaving(repository: &Repository, plan: &Plan, now: Timestamp) -> Option<String> {
    let what = match announced(repository, plan, now).await {
        Ok(what) => what,
        Err(error) => {
            return Some(format!("Nobody can tell whether retention is about to remove what this needs: {error}."));
        }
    };
    let base = &plan.base.id;
    let what = match (what.base, what.wal) {
        (false, None) => return None,
        (true, None) => format!("base backup {base}"),
        (false, Some(first)) => format!("WAL that this replays, from segment {first} on"),
        (true, Some(first)) => format!("base backup {base} and WAL that this replays, from segment {first} on"),
    };
    Some(format!(
        "Retention is about to remove {what}: restore before it does, or let retention.window of the archiver reach back to before \
         the base backup until then. walseal-archiver hold {base} --until 7d keeps the base backup and the WAL that makes it \
         consistent, and no more."
    ))
}

#[derive(Default)]
struct Announced {
    base: bool,
    /// The first segment of it.
    wal: Option<SegmentName>,
}

async fn announced(repository: &Repository, plan: &Plan, now: Timestamp) -> Result<Announced, RepositoryError> {
    let mut found = Announced::default();
    let mut first: Option<Lsn> = None;
    let label = ObjectName::Label(plan.base.id.clone()).to_string();
    repository
        .each_intent(|page| {
            for name in page.record.names {
                found.base |= name == label;
                if !name.starts_with("wal/") {
                    continue;
                }
                let Ok(ObjectName::Wal(branch, segment, _)) = name.parse() else { continue };
                if let Some(start) = replayed_from(plan, branch, segment)
                    && first.is_none_or(|first| start < first)
                {
                    first = Some(start);
                    found.wal = Some(segment);
                }
            }
        })
        .await?;
    if found.base {
        let holds = repository.holds().await?;
        found.base = !holds.iter().any(|hold| hold.record.base == plan.base.id && hold.holds(now));
    }
    Ok(found)
}

/// Where the segment starts, where the plan replays something of it.
fn replayed_from(plan: &Plan, branch: Branch, segment: SegmentName) -> Option<Lsn> {
    let range = segment.number(plan.segment_size)?.range(plan.segment_size);
    let replayed =
        |step: &super::PathStep| step.branch == branch && range.start < step.to.min(plan.stop) && step.from < range.end;
    plan.path.iter().any(replayed).then_some(range.start)
}
