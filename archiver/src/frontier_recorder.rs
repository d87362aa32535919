//! Writes the frontier down, signed, every `wal.frontier_interval`: the only puts of an idle cluster. Whoever sees the repository
//! alone can tell from it how fresh it is, and what was there once.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;
use walseal_common::lsn::Lsn;
use walseal_common::repository::{BranchFrontier, FrontierRecord, Head, Ledger, Repository, RepositoryError};

use crate::keys::ArchiveKeys;
use crate::stream::{Progress, ProgressWatch};

/// Longest pause after a record that could not be written.
const PAUSE: Duration = Duration::from_secs(30);

/// A record that lies in the repository.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object's name.
    pub name: String,
    /// What it says.
    pub record: FrontierRecord,
}

/// Writes records while a stream runs, with the last entry of `ledger`, and tells each to `written`. Returns when the stream's owner
/// is gone.
pub async fn run(
    repository: Repository,
    keys: Arc<ArchiveKeys>,
    ledger: Ledger,
    interval: Duration,
    mut progress: ProgressWatch,
    written: watch::Sender<Option<Written>>,
) {
    let mut recorder = Recorder { repository, keys, ledger, interval, last: None, written };
    let mut ailing = false;
    // Without a stream nobody knows whether the frontier is still the end of anything.
    while progress.connected().await.is_ok() {
        let pause = match recorder.once(&progress.now(), Timestamp::now()).await {
            Ok(pause) => {
                ailing = false;
                pause
            }
            Err(error) => {
                if std::mem::replace(&mut ailing, true) {
                    tracing::debug!(%error, "the frontier still cannot be written down");
                } else {
                    tracing::warn!(%error, "the frontier could not be written down; trying again until it works");
                }
                interval.min(PAUSE)
            }
        };
        sleep(pause).await;
    }
}

struct Recorder {
    repository: Repository,
    keys: Arc<ArchiveKeys>,
    ledger: Ledger,
    interval: Duration,
    /// The last record of this writer, once it was looked for.
    last: Option<Option<FrontierRecord>>,
    written: watch::Sender<Option<Written>>,
}

impl Recorder {
    /// Writes a record if one is due, and says how long there is nothing to do then.
    async fn once(&mut self, progress: &Progress, now: Timestamp) -> Result<Duration, RepositoryError> {
        let last = match &self.last {
            Some(last) => last.clone(),
            None => {
                let found = self.repository.frontier_of(self.keys.writer.public()).await?;
                self.last.insert(found.map(|found| found.record)).clone()
            }
        };
        let since = last.as_ref().map(|last| now.duration_since(last.written));
        // A record from the future is another clock's word.
        let since = since.and_then(|since| Duration::try_from(since).ok());
        if let Some(left) = since.and_then(|since| self.interval.checked_sub(since)).filter(|left| !left.is_zero()) {
            return Ok(left);
        }
        if let Some(record) = record(progress, self.ledger.head(), last, now, self.interval) {
            let name = self.repository.put_frontier(&record, &self.keys.writer).await?;
            tracing::debug!(%name, frontier = %record.at.frontier, "frontier written down");
            self.written.send_replace(Some(Written { name: name.to_string(), record: record.clone() }));
            self.last = Some(Some(record));
        }
        Ok(self.interval)
    }
}

/// What is to be written down after `last`; `None` before the first stream has found its frontier.
fn record(
    progress: &Progress,
    head: Option<Head>,
    last: Option<FrontierRecord>,
    now: Timestamp,
    interval: Duration,
) -> Option<FrontierRecord> {
    let branch = progress.branch.filter(|_| !progress.frontier.is_invalid())?;
    let highest_before = last.as_ref().and_then(|last| last.highest_time);
    let mut earlier: Vec<BranchFrontier> = last.iter().flat_map(FrontierRecord::branches).collect();
    let before = earlier.iter().position(|one| one.branch == branch).map(|at| earlier.remove(at).frontier);
    earlier.truncate(FrontierRecord::MOST_EARLIER);
    // Before this process has stored an entry, that of the one before it counts.
    let ledger = head.or_else(|| last.and_then(|last| last.ledger));
    // What was durable once stays said: where it is not there any more, it has to be missed.
    let frontier = progress.frontier.max(before.unwrap_or(Lsn::INVALID));
    Some(FrontierRecord {
        at: BranchFrontier { branch, frontier },
        server_end: progress.server_end.max(frontier),
        highest_time: progress.highest_time.max(highest_before),
        written: now,
        interval_seconds: interval.as_secs(),
        earlier,
        ledger,
    })
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::seal::{Identity, WriterKey};
    use walseal_common::store::DirectoryStore;
    use walseal_common::timeline::{Branch, SystemIdentifier, TimelineHistory, TimelineId};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_228_200 + seconds).expect("a time")
    }

    fn branch(number: u32) -> Branch {
        TimelineHistory::root(TimelineId::new(number).expect("not zero")).branch(SystemIdentifier(7))
    }

    fn progress(number: u32, frontier: u64) -> Progress {
        serde_json::from_value(serde_json::json!({
            "connected": true, "branch": branch(number), "server_end": Lsn(frontier), "received": Lsn(frontier),
            "frontier": Lsn(frontier), "frontier_moved": null, "behind_since": null, "highest_time": null,
            "trouble": null, "shipped_bytes": 0,
        }))
        .expect("a progress")
    }

    fn recorder(folder: &std::path::Path) -> Recorder {
        let recipients = vec![Identity::generate().expect("random bytes").recipient().clone()];
        let keys = Arc::new(ArchiveKeys { recipients, writer: WriterKey::generate().expect("random bytes") });
        let store = Arc::new(DirectoryStore::new(folder.to_owned()));
        let repository = Repository::new(store, SystemIdentifier(7), keys.trust(Vec::new()));
        let (ledger, interval) = (Ledger::none(), Duration::from_secs(300));
        Recorder { repository, keys, ledger, interval, last: None, written: watch::Sender::new(None) }
    }

    #[tokio::test]
    async fn one_record_is_written_each_interval_also_across_restarts() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut first = recorder(folder.path());
        let unknown = Progress::default();
        first.once(&unknown, at(-5)).await.expect("nothing is known, and nothing written");
        assert_eq!(first.repository.frontiers().await.expect("readable"), vec![]);
        let now = progress(1, 0x500);
        assert_eq!(first.once(&now, at(0)).await.expect("stored"), Duration::from_secs(300));
        assert_eq!(first.once(&now, at(100)).await.expect("not due"), Duration::from_secs(200));
        let mut second =
            Recorder { last: None, repository: first.repository.clone(), keys: first.keys.clone(), ..first };
        assert_eq!(second.once(&now, at(200)).await.expect("not due"), Duration::from_secs(100));
        second.once(&now, at(300)).await.expect("stored");
        let found = second.repository.frontiers().await.expect("readable");
        assert_eq!(found.iter().map(|one| one.record.written).collect::<Vec<_>>(), [at(300)]);
    }

    #[tokio::test]
    async fn what_was_durable_once_stays_said_on_every_branch() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut recorder = recorder(folder.path());
        // The bucket lost its newest end; a failover follows, and the old primary comes back for a while.
        let seen = [(1, 0x500), (1, 0x300), (2, 0x400), (1, 0x510), (2, 0x600)];
        for (step, (number, frontier)) in (0..).zip(seen) {
            recorder.once(&progress(number, frontier), at(step * 1000)).await.expect("stored");
        }
        for (number, frontier) in [(1, 0x510), (2, 0x600)] {
            let told = recorder.repository.recorded_frontier(branch(number)).await.expect("readable");
            assert_eq!(told.map(|(lsn, _)| lsn), Some(Lsn(frontier)));
        }
        let found = recorder.repository.frontiers().await.expect("readable");
        assert_eq!(found[0].record.earlier.len(), 1, "each branch once");
    }
}
