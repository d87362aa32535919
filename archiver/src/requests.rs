//! How often the daemon asked its store, over the last day: what a provider charges for beside the bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use walseal_common::store::Tally;

/// How far back it is told.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How often is counted.
const EVERY: Duration = Duration::from_secs(15 * 60);

/// Requests of the last day, or since the daemon began where that is shorter; each attempt counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Requests {
    /// The time, in seconds; up to a quarter of an hour more than a day.
    pub seconds: u64,
    /// Of objects that were written.
    pub put: u64,
    /// Of reads.
    pub get: u64,
    /// Of listings.
    pub list: u64,
    /// Of deletes.
    pub delete: u64,
    /// Of reads and changes of what keeps objects from being removed.
    #[serde(default)]
    pub lock: u64,
}

impl Requests {
    fn of(tally: &Tally) -> Requests {
        let mut requests = Requests::default();
        for (operation, count) in tally.calls() {
            match operation {
                "put" => requests.put = count,
                "get" => requests.get = count,
                "list" => requests.list = count,
                "delete" => requests.delete = count,
                "lock" => requests.lock = count,
                _ => {}
            }
        }
        requests
    }

    fn since(self, earlier: Requests, time: Duration) -> Requests {
        Requests {
            seconds: time.as_secs(),
            put: self.put.saturating_sub(earlier.put),
            get: self.get.saturating_sub(earlier.get),
            list: self.list.saturating_sub(earlier.list),
            delete: self.delete.saturating_sub(earlier.delete),
            lock: self.lock.saturating_sub(earlier.lock),
        }
    }

    /// In a clause.
    pub fn words(&self) -> String {
        let Requests { put, get, list, delete, lock, .. } = self;
        let time = match Duration::from_secs(self.seconds) {
            long if long >= DAY => "24 h".to_owned(),
            short => walseal_common::terminal::units::duration(short),
        };
        let all = put + get + list + delete + lock;
        format!(
            "{all} requests in the last {time}: {put} puts, {get} gets, {list} lists, {delete} deletes, {lock} of locks"
        )
    }
}

/// Counts of a store, now and then.
#[derive(Debug)]
pub struct Recent {
    tally: Option<Arc<Tally>>,
    /// Oldest first; none but the first is a day old.
    samples: Mutex<VecDeque<(Instant, Requests)>>,
}

impl Recent {
    /// From now on; nothing is known of a store that does not count.
    pub fn of(tally: Option<Arc<Tally>>) -> Recent {
        let recent = Recent { tally, samples: Mutex::default() };
        recent.sample(Instant::now());
        recent
    }

    fn sample(&self, now: Instant) {
        let Some(tally) = &self.tally else { return };
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back((now, Requests::of(tally)));
        while samples.get(1).is_some_and(|(second, _)| now.duration_since(*second) >= DAY) {
            samples.pop_front();
        }
    }

    /// Those of the last day.
    pub fn last_day(&self) -> Option<Requests> {
        self.day_before(Instant::now())
    }

    fn day_before(&self, now: Instant) -> Option<Requests> {
        let tally = self.tally.as_ref()?;
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, counts) = samples.front()?;
        Some(Requests::of(tally).since(*counts, now.duration_since(*since)))
    }

    /// Counts until it is dropped.
    pub async fn keep(self: Arc<Recent>) {
        loop {
            sleep(EVERY).await;
            self.sample(Instant::now());
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::store::{DirectoryStore, ObjectStore, Retry, RetryPolicy};

    use super::*;

    #[tokio::test]
    async fn what_is_older_than_a_day_is_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Retry::new(Arc::new(DirectoryStore::new(folder.path().to_owned())), RetryPolicy::default());
        let recent = Recent::of(store.tally());
        let began = recent.samples.lock().expect("nobody else has it").front().expect("the first").0;
        let after = |hours: u64| began + Duration::from_secs(hours * 3600);
        store.list("", None, 1).await.expect("listed");
        recent.sample(after(1));
        let requests = recent.day_before(after(1)).expect("it counts");
        assert_eq!((requests.seconds, requests.list, requests.put), (3600, 1, 0));
        assert_eq!(requests.words(), "1 requests in the last 1 h: 0 puts, 0 gets, 1 lists, 0 deletes, 0 of locks");
        store.delete("a").await.expect("nothing is there");
        recent.sample(after(25));
        let requests = recent.day_before(after(25)).expect("it counts");
        assert_eq!((requests.seconds, requests.list, requests.delete), (DAY.as_secs(), 0, 1));
        assert!(requests.words().contains("in the last 24 h: "));
        // Whether anything is locked, and the two that keep an object.
        store.has_locks().await.expect("a folder has none");
        store.lock("a").await.expect("nothing keeps it");
        store.legal_hold("a", true).await.expect_err("a folder has none");
        assert_eq!(recent.day_before(after(25)).expect("it counts").lock, 4);
    }
}
