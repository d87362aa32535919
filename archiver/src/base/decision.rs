//! Whether a backup is full or incremental, and why: a plain value, made before anything is read.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use walseal_common::repository::{BaseId, BaseType, Label, Step};
use walseal_common::seal::MAX_PLAINTEXT;
use walseal_common::terminal::units;

/// A backup that refers to more than so many times the objects of a full one is followed by a full one.
const OBJECTS_BOUND: u64 = 4;

/// So many objects are fine in any case: a small cluster's full backup has but a few.
const OBJECTS_FINE: u64 = 256;

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupMode {
    /// Incremental where that is possible and no full one is due.
    #[default]
    Auto,
    /// Full.
    Full,
    /// Incremental, also where a full one is due; full where there is nothing to compare with, or the chain has become too long.
    Incremental,
}

/// When a full one is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The last full one is older.
    pub full_every: Duration,
    /// So many incremental ones have followed it.
    pub max_depth: u32,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { full_every: Duration::from_secs(7 * 24 * 3600), max_depth: 30 }
    }
}

/// A backup that is there, the newest of its kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its label.
    pub label: Label,
    /// Who wrote it.
    pub writer: String,
}

/// What the decision has to know.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// This writer.
    pub writer: &'a str,
    /// The branches on which the server's WAL lies, each with where it leaves it.
    pub ancestry: &'a [Step],
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// All is stored.
    Full {
        /// Why.
        why: String,
    },
    /// What has not changed since is referred to.
    Incremental {
        /// What is compared with.
        parent: Box<Label>,
    },
}

impl Facts<'_> {
    /// Whether a backup can be compared with; else why not, as a clause.
    pub fn usable(&self, candidate: &Candidate) -> Result<(), String> {
        let Candidate { label, writer } = candidate;
        let id = &label.id;
        if label.suspect > 0 {
            Err(format!("{id} is suspect"))
        } else if writer != self.writer {
            Err(format!("{id} was written with another writer key, and only that opens its list of frames"))
        } else if label.resume.is_none() {
            Err(format!("{id} has no list of frames: an older version made it"))
        } else {
            // Of a branch that the server left, what came later is another server's (case 17), or of another timeline.
            match self.ancestry.iter().find(|step| step.branch == label.branch) {
                None => Err(format!("{id} lies on branch {}, which the server does not come from", label.branch)),
                Some(Step { switch: Some(switch), .. }) if label.stop > *switch => {
                    Err(format!("{id} was complete after the server had left branch {} at {switch}", label.branch))
                }
                Some(_) => Ok(()),
            }
        }
    }
}

/// Decides. `parent` is the newest backup that [`Facts::usable`] accepts, or why the newest of all is not; `full` is the newest
/// sound full one of this writer.
pub fn decide(
    mode: BackupMode,
    policy: Policy,
    parent: Result<Label, String>,
    full: Option<&Label>,
    now: Timestamp,
) -> Decision {
    let because = |why: String| Decision::Full { why };
    if mode == BackupMode::Full {
        return because("it was asked for".to_owned());
    }
    let parent = match parent {
        Ok(parent) => parent,
        Err(why) => return because(why),
    };
    let id = parent.id.clone();
    if parent.depth >= policy.max_depth {
        return because(format!("{id} is the last of {} incremental ones (base.max_depth)", parent.depth));
    }
    let (has, bound) = (objects(&parent), bound(&parent, full));
    if has > bound {
        return because(format!("{id} needs {has} data objects, and {bound} is the bound"));
    }
    let Some(full) = full else { return because("there is no full one".to_owned()) };
    let age = Duration::try_from(now.duration_since(full.start_time)).unwrap_or_default();
    if mode == BackupMode::Auto && age >= policy.full_every {
        let (age, every) = (units::duration(age), units::duration(policy.full_every));
        return because(format!("the last full one is {age} old, and one is due every {every} (base.full_every)"));
    }
    Decision::Incremental { parent: Box::new(parent) }
}

fn objects(label: &Label) -> u64 {
    label.objects.len() as u64
}

/// How many objects a backup may need before a full one is due.
fn bound(parent: &Label, full: Option<&Label>) -> u64 {
    // The cluster may have grown since the last full one.
    let needed = parent.cluster_size.div_ceil(MAX_PLAINTEXT).max(full.map_or(0, objects));
    needed.saturating_mul(OBJECTS_BOUND).max(OBJECTS_FINE)
}

/// What is found when the labels are read from the newest on.
#[derive(Debug, Default)]
pub struct Found {
    /// The first one that is usable.
    pub parent: Option<Label>,
    /// Why the newest one is not.
    pub why_not: Option<String>,
    /// The newest sound full one of this writer.
    pub full: Option<Label>,
    /// The newest of all.
    pub newest: Option<BaseId>,
}

impl Found {
    /// Takes the next older one; `true` when nothing older matters any more.
    pub fn take(&mut self, facts: &Facts<'_>, candidate: Candidate) -> bool {
        self.newest.get_or_insert_with(|| candidate.label.id.clone());
        if self.parent.is_none() {
            match facts.usable(&candidate) {
                Ok(()) => self.parent = Some(candidate.label.clone()),
                Err(why) => drop(self.why_not.get_or_insert(why)),
            }
        }
        let own = candidate.writer == facts.writer && candidate.label.suspect == 0;
        if own && self.full.is_none() && candidate.label.kind == BaseType::Full {
            self.full = Some(candidate.label);
        }
        self.parent.is_some() && self.full.is_some()
    }

    /// Decides.
    pub fn decide(&self, mode: BackupMode, policy: Policy, now: Timestamp) -> Decision {
        let none = || self.why_not.clone().unwrap_or_else(|| "there is none before it".to_owned());
        decide(mode, policy, self.parent.clone().ok_or_else(none), self.full.as_ref(), now)
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::lsn::{Lsn, LsnRange};
    use walseal_common::repository::{ObjectReference, ResumePages};
    use walseal_common::seal::ObjectDigest;
    use walseal_common::segment::SegmentSize;
    use walseal_common::timeline::{Branch, SystemIdentifier, TimelineHistory, TimelineId};

    use super::*;

    fn at(days: i64) -> Timestamp {
        Timestamp::from_second(1_795_228_200 + days * 86_400).expect("a time")
    }

    fn branch(timeline: u32) -> Branch {
        TimelineHistory::root(TimelineId::new(timeline).expect("not zero")).branch(SystemIdentifier(7))
    }

    fn label(day: i64, depth: u32) -> Label {
        let size = SegmentSize::new(16 << 20).expect("a size");
        let wal = LsnRange { start: Lsn(1), end: Lsn(2) };
        Label {
            kind: if depth == 0 { BaseType::Full } else { BaseType::Incremental },
            cluster_size: 1 << 20,
            stored_size: 1,
            depth,
            resume: Some(ResumePages::default()),
            ..Label::sample(BaseId::new(at(day), depth), branch(1), size, wal, at(day))
        }
    }

    fn by(writer: &str, label: Label) -> Candidate {
        Candidate { label, writer: writer.to_owned() }
    }

    /// Where the server left timeline 1.
    const LEFT: Lsn = Lsn(1 << 40);

    fn found(candidates: impl IntoIterator<Item = Candidate>) -> Found {
        let mut found = Found::default();
        let step = |number, begin, switch| Step { branch: branch(number), begin, switch };
        let ancestry = [step(1, Lsn::INVALID, Some(LEFT)), step(2, LEFT, None)];
        let facts = Facts { writer: "own", ancestry: &ancestry };
        for candidate in candidates {
            if found.take(&facts, candidate) {
                break;
            }
        }
        found
    }

    fn why(decision: Decision) -> String {
        match decision {
            Decision::Full { why } => why,
            Decision::Incremental { parent } => format!("incremental to {}", parent.id),
        }
    }

    #[test]
    fn case_17_a_backup_of_the_server_that_was_left_behind_is_never_compared_with() {
        let of_timeline_1 = |stop| by("own", Label { branch: branch(1), stop, ..label(6, 0) });
        let kept = found([of_timeline_1(LEFT)]);
        assert_eq!(kept.parent.map(|label| label.stop), Some(LEFT));
        let left = found([of_timeline_1(LEFT.advance(1))]);
        assert!(left.parent.is_none() && left.why_not.is_some_and(|why| why.contains("after the server had left")));
    }

    #[test]
    fn the_newest_that_can_be_compared_with_is_and_a_full_one_comes_in_time() {
        let chain = || found([by("own", label(6, 1)), by("own", label(5, 0))]);
        let decide = |found: Found, mode, now| why(found.decide(mode, Policy::default(), at(now)));
        let to_six = format!("incremental to {}", label(6, 1).id);
        assert_eq!(decide(chain(), BackupMode::Auto, 7), to_six);
        assert_eq!(decide(chain(), BackupMode::Full, 7), "it was asked for");
        let due = decide(chain(), BackupMode::Auto, 12);
        assert!(due.starts_with("the last full one is 7 d") && due.contains("base.full_every"), "{due}");
        assert_eq!(decide(chain(), BackupMode::Incremental, 12), to_six);
        assert_eq!(decide(found([]), BackupMode::Incremental, 0), "there is none before it");
        let alone = found([by("own", label(6, 1))]);
        assert_eq!(decide(alone, BackupMode::Incremental, 7), "there is no full one");
        // The clock was put back: the last full one is not old.
        assert_eq!(decide(chain(), BackupMode::Auto, 0), to_six);
    }

    #[test]
    fn what_cannot_be_compared_with_is_passed_over_and_the_newest_of_it_is_named() {
        type Change = fn(&mut Candidate);
        let cases: [(Change, &str); 4] = [
            (|one| one.label.suspect = 2, "is suspect"),
            (|one| "other".clone_into(&mut one.writer), "another writer key"),
            (|one| one.label.resume = None, "no list of frames"),
            (|one| one.label.branch = branch(3), "does not come from"),
        ];
        for (change, said) in cases {
            let newest = || {
                let mut newest = by("own", label(6, 1));
                change(&mut newest);
                newest
            };
            let id = newest().label.id.to_string();
            let alone = why(found([newest()]).decide(BackupMode::Auto, Policy::default(), at(7)));
            assert!(alone.contains(said) && alone.contains(&id), "{alone}");
            let older = found([newest(), by("own", label(5, 0))]);
            assert_eq!(older.newest, Some(newest().label.id));
            let decided = why(older.decide(BackupMode::Auto, Policy::default(), at(7)));
            assert_eq!(decided, format!("incremental to {}", label(5, 0).id), "{said}");
        }
        // On an ancestor's branch is fine: the digests decide.
        let mut later = by("own", label(5, 0));
        later.label.branch = branch(2);
        assert!(found([later]).parent.is_some());
        // Another writer's full one does not renew this chain.
        let full = found([by("own", label(6, 1)), by("other", label(5, 0)), by("own", label(1, 0))]).full;
        assert_eq!(full.map(|label| label.id), Some(label(1, 0).id));
    }

    #[test]
    fn a_chain_is_never_long_and_never_scattered_over_many_objects() {
        let decide = |newest: Label, policy, mode| {
            why(found([by("own", newest), by("own", label(5, 0))]).decide(mode, policy, at(7)))
        };
        let policy = Policy { max_depth: 3, ..Policy::default() };
        for mode in [BackupMode::Auto, BackupMode::Incremental] {
            assert!(decide(label(6, 2), policy, mode).starts_with("incremental"));
            assert!(decide(label(6, 3), policy, mode).contains("base.max_depth"));
        }
        let never = Policy { max_depth: 0, ..Policy::default() };
        assert!(why(found([by("own", label(5, 0))]).decide(BackupMode::Auto, never, at(6))).contains("base.max_depth"));
        let object = |n: u32| ObjectReference { name: n.to_string(), size: 1, digest: ObjectDigest::of(b"") };
        let with = |objects: u32, cluster_size| Label {
            objects: (0..objects).map(object).collect(),
            cluster_size,
            ..label(6, 1)
        };
        let policy = Policy::default();
        assert!(decide(with(256, 1 << 20), policy, BackupMode::Auto).starts_with("incremental"));
        let scattered = decide(with(257, 1 << 20), policy, BackupMode::Auto);
        assert!(scattered.contains("257 data objects") && scattered.contains("256 is the bound"), "{scattered}");
        // 1 GiB is 64 full objects.
        assert!(decide(with(257, (1 << 30) + 1), policy, BackupMode::Auto).starts_with("incremental"));
        assert!(decide(with(261, (1 << 30) + 1), policy, BackupMode::Auto).contains("260 is the bound"));
    }
}
