//! A repository with some WAL, and a folder to fetch to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walseal_common::lsn::Lsn;
use walseal_common::repository::ObjectName;
use walseal_common::segment::WalFileName;
use walseal_common::timeline::{Branch, HistoryEntry, TimelineHistory, TimelineId};

use crate::fetch::{FetchError, Fetcher, Outcome, Route};
use crate::plan::{PathStep, Plan, Request, Target};
use crate::sample::{SYSTEM, SampleRepository, SampleWal};

pub(super) const MIB: u64 = 1 << 20;

/// The name of a segment of timeline 1.
pub(super) fn segment_name(number: u64) -> String {
    format!("0000000100000000{number:08X}")
}

/// The reason of an answer that must be "not there".
pub(super) fn not_there(answer: Result<Outcome, FetchError>) -> String {
    match answer.expect("proven") {
        Outcome::NotThere(why) => why,
        Outcome::Delivered => panic!("it was delivered"),
    }
}

pub(super) struct Bed {
    pub(super) sample: SampleRepository,
    pub(super) wal: SampleWal,
    desk: Desk,
}

/// One who asks, with a folder of its own.
pub(super) struct Desk {
    pub(super) fetcher: Fetcher,
    folder: tempfile::TempDir,
}

impl Bed {
    /// WAL of timeline 1 in two whole segments from number `first` on, and a tail of at least `tail` bytes.
    pub(super) async fn new(first: u64, tail: usize) -> Bed {
        let sample = SampleRepository::new().await;
        let mut wal = SampleWal::from(Lsn(first * MIB));
        let ends = Lsn((first + 2) * MIB);
        while wal.end() < ends {
            wal.filler(4000);
        }
        if tail == 0 {
            wal.bytes.truncate(2 * MIB as usize);
        }
        while wal.end() < Lsn(ends.0 + tail as u64) {
            wal.filler(4000);
        }
        sample.put_wal(sample.branch(), &wal, Lsn(first * MIB)).await;
        let desk = Desk::new(&sample, Route::ByNumber);
        Bed { sample, wal, desk }
    }

    pub(super) fn root(&self) -> TimelineHistory {
        TimelineHistory::root(TimelineId::FIRST)
    }

    pub(super) fn branch(&self) -> Branch {
        self.sample.branch()
    }

    pub(super) fn child_history(&self, timeline: u32, switch: Lsn) -> TimelineHistory {
        let entry = HistoryEntry { timeline: TimelineId::FIRST, switch, reason: b"x".to_vec() };
        TimelineHistory { timeline: TimelineId::new(timeline).expect("not zero"), entries: vec![entry] }
    }

    pub(super) async fn remove_segment(&self, number: u64) {
        let name = segment_name(number).parse().expect("a name");
        self.sample.remove(&ObjectName::Wal(self.branch(), name, None)).await;
    }

    /// Removes the tail that ends the WAL.
    pub(super) async fn remove_last_tail(&self) {
        let start = self.sample.size.align_down(self.wal.end());
        let name = self.sample.segment(self.branch(), self.sample.size.number(start));
        let range = walseal_common::lsn::LsnRange { start, end: self.wal.end() };
        self.sample.remove(&ObjectName::Tail(self.branch(), name, range)).await;
    }

    /// A desk with a plan along `steps`: history, where the path leaves it, and what was known of it.
    pub(super) fn planned(&self, steps: Vec<(TimelineHistory, Lsn, Lsn)>) -> Desk {
        let mut from = self.wal.start;
        let path: Vec<PathStep> = steps
            .into_iter()
            .map(|(history, to, known_end)| {
                let branch = history.branch(SYSTEM);
                let step = PathStep { branch, timeline: branch.timeline, from, to, known_end };
                from = to;
                step
            })
            .collect();
        Desk::new(&self.sample, Route::Planned(Arc::new(plan(&self.sample, &self.wal, path))))
    }

    pub(super) async fn fetch(&self, file: &str) -> Result<Outcome, FetchError> {
        self.desk.fetch(file).await
    }

    pub(super) fn delivered(&self) -> Vec<u8> {
        self.desk.delivered()
    }

    pub(super) fn target(&self) -> PathBuf {
        self.desk.target()
    }

    pub(super) fn folder(&self) -> &Path {
        self.desk.folder.path()
    }

    pub(super) fn fetcher(&self) -> &Fetcher {
        &self.desk.fetcher
    }
}

impl Desk {
    fn new(sample: &SampleRepository, route: Route) -> Desk {
        let (repository, identities) = (sample.repository.clone(), sample.identities.clone());
        let folder = tempfile::tempdir().expect("a temporary folder");
        Desk { fetcher: Fetcher { repository, identities, route, read_through: None, size: Arc::default() }, folder }
    }

    pub(super) async fn fetch(&self, file: &str) -> Result<Outcome, FetchError> {
        let file: WalFileName = file.parse().expect("a name");
        self.fetcher.fetch(file, &self.target()).await
    }

    /// Where PostgreSQL wants it.
    pub(super) fn target(&self) -> PathBuf {
        self.folder.path().join("RECOVERYXLOG")
    }

    pub(super) fn delivered(&self) -> Vec<u8> {
        fs::read(self.target()).expect("delivered")
    }
}

fn plan(sample: &SampleRepository, wal: &SampleWal, path: Vec<PathStep>) -> Plan {
    let (repository, segment_size) = (sample.repository.describe(), sample.size);
    Plan {
        repository,
        segment_size,
        path,
        ..crate::plan::sample::plan(Request::to(Target::Latest), wal.start, wal.end())
    }
}
