//! Retention: what is promised, who removes the rest, and what object lock makes of it.

use std::time::Duration;

use walseal_common::config::Config;
use walseal_common::store::{LockMode, ObjectStore};
use walseal_common::terminal::units;

use super::{Examination, Finding};
use crate::retention::Policy;

const CHECK: &str = "retention";

/// What decides.
#[derive(Clone, Debug)]
struct Facts {
    policy: Policy,
    /// Whether the daemon is asked to prune.
    prunes: bool,
    /// Whether these credentials may delete, as was seen just now.
    may_delete: bool,
    /// The mode of `repository.s3.object_lock`.
    mode: Option<LockMode>,
    /// How long an object is locked then.
    lock_time: Duration,
    /// Whether the store has locks; why nobody knows, else.
    has_locks: Result<bool, String>,
}

/// Judges `[retention]` against what the store allows.
pub(super) async fn examine(
    config: &Config,
    store: &dyn ObjectStore,
    may_delete: bool,
    examination: &mut Examination<'_>,
) {
    let facts = Facts {
        policy: Policy::of(&config.retention),
        prunes: config.retention.prune.value,
        may_delete,
        mode: config.repository.s3.object_lock.as_ref().map(|mode| mode.value),
        lock_time: config.lock_time(),
        has_locks: store.has_locks().await.map_err(|error| error.to_string()),
    };
    examination.add(judge(&facts));
    if let Some(finding) = judge_lock(&facts) {
        examination.add(finding);
    }
}

fn judge(facts: &Facts) -> Finding {
    let Policy { window, daily, weekly, monthly, .. } = facts.policy;
    let promised = format!(
        "any second of {} is promised, and beyond that the last base backup of {daily} days, {weekly} weeks and {monthly} months",
        units::duration(window)
    );
    match (facts.may_delete, facts.prunes) {
        (true, true) => Finding::fine(CHECK, format!("{promised}; the daemon removes the rest after each base backup")),
        (true, false) => {
            Finding::warning(CHECK, format!("{promised}; retention.prune is false: the daemon removes nothing"))
                .fix("by a timer: walseal-archiver prune")
        }
        (false, _) => {
            Finding::warning(CHECK, format!("{promised}; these credentials may not delete: nothing goes from here"))
                .fix("where credentials may delete, by a timer: walseal-archiver prune")
        }
    }
}

fn judge_lock(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "object lock";
    match (&facts.has_locks, facts.mode) {
        (Err(why), _) => Some(Finding::not_checked(CHECK, why)),
        (Ok(false), None) => None,
        (Ok(true), None) => {
            let text = "the bucket has it, and repository.s3.object_lock is not set: what is put is locked only where the bucket has a \
                        retention of its own, which knows nothing of tails";
            Some(
                Finding::warning(CHECK, text)
                    .fix("set repository.s3.object_lock to \"governance\" or \"compliance\", and no default retention in the bucket"),
            )
        }
        (Ok(_), Some(mode)) => {
            let word = match mode {
                LockMode::Governance => "governance",
                LockMode::Compliance => "compliance",
            };
            let (lock, window) = (facts.lock_time, facts.policy.window);
            let longer = lock.saturating_sub(window);
            Some(Finding::fine(
                CHECK,
                format!(
                    "{word}: each object for {} from when it is put, all the time that the window may need it; what is past the window \
                     goes up to {} later than without",
                    units::duration(lock),
                    units::duration(longer)
                ),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn facts() -> Facts {
        let day = Duration::from_secs(86_400);
        let policy = Policy { window: 14 * day, daily: 7, weekly: 4, monthly: 0, min_proven: 1 };
        Facts { policy, prunes: true, may_delete: true, mode: None, lock_time: 23 * day, has_locks: Ok(false) }
    }

    #[test]
    fn who_removes_what_is_past_retention_is_said() {
        let sound = judge(&facts());
        assert!(sound.verdict == Verdict::Fine && sound.text.contains("any second of 14 d"), "{sound:?}");
        for facts in [Facts { prunes: false, ..facts() }, Facts { may_delete: false, ..facts() }] {
            let found = judge(&facts);
            assert!(found.verdict == Verdict::Warning && found.fix[0].contains("walseal-archiver prune"), "{found:?}");
        }
    }

    #[test]
    fn object_lock_is_judged_where_there_is_any() {
        assert_eq!(judge_lock(&facts()), None);
        let unused = judge_lock(&Facts { has_locks: Ok(true), ..facts() }).expect("a finding");
        assert!(unused.verdict == Verdict::Warning && unused.fix.len() == 1, "{unused:?}");
        let used = judge_lock(&Facts { has_locks: Ok(true), mode: Some(LockMode::Compliance), ..facts() });
        let used = used.expect("a finding");
        assert!(
            used.text.contains("compliance: each object for 23 d") && used.text.contains("up to 9 d later"),
            "{used:?}"
        );
        let unknown = judge_lock(&Facts { has_locks: Err("no answer".to_owned()), ..facts() }).expect("a finding");
        assert_eq!(unknown.verdict, Verdict::NotChecked, "nobody may take that for a pass");
    }
}
