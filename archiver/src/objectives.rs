//! How far what was promised was kept in the last 30 days, for `status` and monitors; the restorer's report says the same of a month.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;
use walseal_common::clock;
use walseal_common::objective::{Loss, Objectives, Observed, Promises, Success};
use walseal_common::repository::{
    FrontierRecord, KnownEntries, Ledger, LedgerEntry, ObjectName, Repository, RepositoryError,
};
use walseal_common::terminal::units;

/// What is looked back on.
const WINDOW: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How often the repository is read for what others may have put there.
const REREAD: Duration = Duration::from_secs(3600);

/// How soon after it could not be read.
const AGAIN: Duration = Duration::from_secs(60);

/// Frontiers of a writer that are looked at, at most (I11): the last ones.
const MOST_FRONTIERS: u32 = 20_000;

/// What was promised, and how far that was kept.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// From when on.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Seconds of work that may be lost.
    pub rpo_seconds: f64,
    /// Whether `drill.max_rpo` says so; else it is an assumption.
    pub rpo_configured: bool,
    /// How far that was kept.
    #[serde(flatten)]
    pub objectives: Objectives,
}

/// Looks again and again.
#[derive(Debug)]
pub struct Keeper {
    repository: Repository,
    promises: Promises,
    /// `wal.frontier_interval`.
    interval: Duration,
    told: watch::Sender<Option<Kept>>,
    known: KnownEntries,
    entries: Vec<LedgerEntry>,
    frontiers: BTreeMap<ObjectName, FrontierRecord>,
}

impl Keeper {
    /// Nothing is read yet. What is found is told to `told`.
    pub fn new(
        repository: Repository,
        promises: Promises,
        interval: Duration,
        told: watch::Sender<Option<Kept>>,
    ) -> Keeper {
        let (known, entries, frontiers) = (KnownEntries::default(), Vec::new(), BTreeMap::new());
        Keeper { repository, promises, interval, told, known, entries, frontiers }
    }

    /// Looks at the start, after each entry of this process, and now and then; soon again after it could not look. Ends with `ledger`.
    pub async fn keep(mut self, ledger: Ledger) {
        let Some(mut stored) = ledger.watch_head() else { return };
        loop {
            let pause = match self.look(Timestamp::now()).await {
                Ok(kept) => {
                    self.told.send_replace(Some(kept));
                    REREAD
                }
                Err(error) => {
                    tracing::debug!(%error, "how far the objectives were kept cannot be seen");
                    AGAIN
                }
            };
            tokio::select! {
                changed = stored.changed() => if changed.is_err() { return },
                () = sleep(pause) => {}
            }
        }
    }

    async fn look(&mut self, now: Timestamp) -> Result<Kept, RepositoryError> {
        let from = now.saturating_sub(WINDOW).unwrap_or(Timestamp::MIN);
        // Frontiers first: what is written meanwhile is seen the next time.
        let room = SignedDuration::try_from(self.interval.saturating_mul(MOST_FRONTIERS)).unwrap_or(WINDOW);
        // Another writer's clock may be behind: what it wrote meanwhile may lie before the newest that is known.
        let newest = self.frontiers.values().map(|record| record.written).max();
        let begin = newest.and_then(|newest| newest.saturating_sub(clock::APART).ok()).unwrap_or(from);
        let begin = begin.max(now.saturating_sub(room.min(WINDOW)).unwrap_or(from));
        for written in self.repository.frontier_history(begin).await? {
            // Where other branches ended is of no use here.
            let record = FrontierRecord { earlier: Vec::new(), ..written.record };
            self.frontiers.insert(written.name, record);
        }
        for mut entry in self.repository.entries_beyond(&mut self.known).await? {
            entry.body.heads = None;
            self.entries.push(entry);
        }
        self.forget(from);
        let mut frontiers: Vec<FrontierRecord> = self.frontiers.values().cloned().collect();
        frontiers.sort_by_key(|record| record.written);
        let observed = Observed { from, until: now, entries: &self.entries, frontiers: &frontiers };
        let loss = Loss::of(&self.promises, &observed);
        let Promises { rpo_seconds, rpo_configured, .. } = self.promises;
        let objectives = Objectives::of(&self.promises, &observed, &loss);
        Ok(Kept { from, until: now, rpo_seconds, rpo_configured, objectives })
    }

    /// What lies before `from` tells no more, but for the last word before it, and what had begun a day before.
    fn forget(&mut self, from: Timestamp) {
        let last = self.frontiers.values().map(|record| record.written).filter(|written| *written < from).max();
        self.frontiers.retain(|_, record| Some(record.written) >= last);
        let day_before = from.saturating_sub(SignedDuration::from_hours(24)).unwrap_or(from);
        self.entries.retain(|entry| entry.body.time >= day_before);
    }
}

impl Kept {
    /// In a line, after "last 30 days".
    pub fn words(&self) -> String {
        let Objectives { within_rpo, drills, backups, outages, undetected, mean_seconds_to_detect, .. } =
            &self.objectives;
        let limit = units::duration(Duration::from_secs_f64(self.rpo_seconds.max(0.0)));
        let within = within_rpo.map_or_else(
            || format!("time within {limit} of loss not measured"),
            |share| format!("{} of the time within {limit} of loss", percent(share)),
        );
        let of = |what: &str, success: &Success| match success.all {
            0 => format!("no {what}"),
            all => format!("{} of {all} {what}", success.good),
        };
        let detected = match (mean_seconds_to_detect, outages) {
            (_, 0) => String::new(),
            (Some(seconds), _) => {
                let mean = units::duration(Duration::from_secs_f64(seconds.max(0.0)));
                format!("; told of after {mean} on average ({outages} times, {undetected} never)")
            }
            (None, many) => format!("; nothing told of it ({many} times)"),
        };
        format!("{within}{detected}; {}, {}", of("base backups", backups), of("drills", drills))
    }
}

/// Never rounded up to all of it.
fn percent(share: f64) -> String {
    let hundredths = (share * 1e4).floor() / 1e2;
    format!("{hundredths:.2} %")
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::sync::Arc;

    use walseal_common::lsn::Lsn;
    use walseal_common::repository::{Act, BranchFrontier, Chain, FailureClass, LedgerSigner};
    use walseal_common::seal::{TrustedWriter, TrustedWriters, WriterKey};
    use walseal_common::store::DirectoryStore;
    use walseal_common::timeline::SystemIdentifier;

    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_795_228_200 + hours * 3600).expect("a time")
    }

    #[tokio::test]
    async fn what_was_kept_follows_from_frontiers_and_ledger_and_what_comes_later_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let writer = WriterKey::generate().expect("random bytes");
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
        let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
        let repository = Repository::new(store, SystemIdentifier(7), trust);
        let signer = LedgerSigner { writer: writer.clone(), actor: "ada".to_owned(), program: "test 1".to_owned() };
        let mut chain = Chain::new(repository.clone(), signer).expect("random bytes");
        let frontier = |hour: i64| FrontierRecord {
            at: BranchFrontier { branch: "00000001-a2dd04c7".parse().expect("a branch"), frontier: Lsn(0x500) },
            server_end: Lsn(0x500),
            highest_time: None,
            written: at(hour),
            interval_seconds: 3600,
            earlier: Vec::new(),
            ledger: None,
        };
        // Silent from the second hour to the eighth; an alert tells of it after two.
        for hour in [0, 1, 2, 8, 9, 10] {
            repository.put_frontier(&frontier(hour), &writer).await.expect("stored");
        }
        let failed = |class| Act::BaseFailed { id: None, class };
        let raised = Act::AlertRaised { kind: "store-unreachable", subject: String::new(), severity: "critical" };
        for (hour, act) in [(1, failed(FailureClass::Server)), (1, failed(FailureClass::Stopped)), (4, raised)] {
            chain.write(at(hour), &act).await.expect("stored");
        }
        let promises = Promises { rpo_seconds: 60.0, rpo_configured: false, rto_seconds: None, drill_schedule: None };
        let told = watch::Sender::new(None);
        let mut keeper = Keeper::new(repository.clone(), promises, Duration::from_secs(3600), told);
        let seen = keeper.look(at(10)).await.expect("readable").objectives;
        assert_eq!((seen.within_rpo, seen.measured_seconds), (Some(0.4), 36_000.0));
        assert_eq!((seen.backups.good, seen.backups.all, seen.drills.share), (0, 1, None));
        assert_eq!((seen.outages, seen.undetected, seen.mean_seconds_to_detect), (1, 0, Some(7200.0)));

        repository.put_frontier(&frontier(11), &writer).await.expect("stored");
        chain.write(at(11), &failed(FailureClass::Repository)).await.expect("stored");
        let later = keeper.look(at(12)).await.expect("readable");
        assert_eq!((later.objectives.measured_seconds, later.objectives.backups.all), (12.0 * 3600.0, 2));
        assert_eq!(
            later.words(),
            "50.00 % of the time within 1 min of loss; told of after 2 h on average (1 times, 0 never); \
             0 of 2 base backups, no drills"
        );
        // A month later nothing of it is left but the last word, since when nobody was heard.
        let month = keeper.look(at(12 + 31 * 24)).await.expect("readable").objectives;
        assert_eq!((month.within_rpo, month.backups.all, month.undetected), (Some(0.0), 0, 1));
        assert_eq!((keeper.entries.len(), keeper.frontiers.len()), (0, 1));
    }

    /// A monitor compares `status` with the metrics: what goes through the socket is not another number afterwards.
    #[test]
    fn a_sum_of_seconds_arrives_as_it_was_told() {
        let mut sum = 0.0;
        for step in 1..=10_000_u32 {
            sum += f64::from(step) / 1e3 + 1e-9;
            let told = serde_json::to_string(&sum).expect("a number");
            let arrived: f64 = serde_json::from_str(&told).expect("a number");
            assert_eq!(arrived.to_bits(), sum.to_bits(), "{told}");
        }
    }
}
