//! What object lock does not let go yet. A plain delete of a locked object works in a bucket with versions: it hides the object behind a
//! marker, so that whoever looks for it finds it missing, and frees nothing. So the store is asked before anything goes (case 41).

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use walseal_common::repository::{ObjectName, Repository};
use walseal_common::store::{Lock, StoreError};
use walseal_common::terminal::units;
use walseal_common::time::PgTimestamp;

use super::holdings::Sum;
use super::plan::Removal;

/// Objects that are asked for at the same time.
const AT_ONCE: usize = 16;

/// What would go, were it not for object lock: what is locked itself, and what a backup needs of which the label is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Locked {
    /// How much it is.
    #[serde(flatten)]
    pub sum: Sum,
    /// How many objects are under a legal hold, which ends when somebody lifts it.
    pub held: u64,
    /// When the first retention of them ends; `None` where only legal holds keep them.
    pub next: Option<Timestamp>,
    /// When the last one does.
    pub until: Option<Timestamp>,
}

impl Locked {
    /// Takes in an object that its own lock keeps.
    pub fn note(&mut self, lock: Lock) {
        self.held += u64::from(lock.held);
        let until = lock.until.and_then(|until| Timestamp::from_second(until).ok());
        self.next = self.next.into_iter().chain(until).min();
        self.until = self.until.max(until);
    }

    /// In a clause; `None` where nothing is locked.
    pub fn words(&self) -> Option<String> {
        let Sum { objects, bytes } = self.sum;
        let what = format!("{objects} object{}, {} locked", if objects == 1 { "" } else { "s" }, units::size(bytes));
        let time = |time| units::time_argument(PgTimestamp::from_jiff(time));
        let when = match (self.next, self.until) {
            (Some(next), Some(until)) if next < until => {
                format!(" until {}, the first until {}", time(until), time(next))
            }
            (_, until) => until.map_or_else(String::new, |until| format!(" until {}", time(until))),
        };
        let held = match self.held {
            0 => String::new(),
            held => format!(", {held} under a legal hold until somebody lifts it"),
        };
        (objects > 0).then(|| format!("{what}{when}{held}"))
    }
}

/// Which of these objects the store does not let go at `store_now`, in seconds since 1970 by its clock; every one that has a retention
/// where that is not known. Nothing is asked where the store has no locks.
///
/// Cost: two small reads for each object.
///
/// Errors: the store's; also where the credentials may not know.
pub async fn ask(
    repository: &Repository,
    removals: &[Removal],
    store_now: Option<i64>,
) -> Result<BTreeMap<ObjectName, Lock>, StoreError> {
    if removals.is_empty() || !repository.has_locks().await? {
        return Ok(BTreeMap::new());
    }
    let now = store_now.unwrap_or(i64::MIN);
    let calls: Vec<(Repository, ObjectName)> =
        removals.iter().map(|one| (repository.clone(), one.name.clone())).collect();
    let answers = stream::iter(calls).map(|(repository, name)| async move { (repository.lock(&name).await, name) });
    let mut answers = std::pin::pin!(answers.buffer_unordered(AT_ONCE));
    let mut locked = BTreeMap::new();
    while let Some((lock, name)) = answers.next().await {
        let lock = lock?;
        if lock.keeps(now) {
            locked.insert(name, lock);
        }
    }
    Ok(locked)
}
