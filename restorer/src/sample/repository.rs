//! A repository made by hand, in a temporary folder.

use std::sync::Arc;

use jiff::Timestamp;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{
    BaseId, BranchFrontier, CatalogPage, FrontierRecord, Gap, Label, ObjectName, Repository, RepositoryIdentity,
};
use walseal_common::seal::{
    Draft, Identity, Kind, MAX_PLAINTEXT, TrustedWriter, TrustedWriters, WalSection, WriterKey,
};
use walseal_common::segment::{SegmentName, SegmentNumber, SegmentSize};
use walseal_common::store::{Capabilities, DirectoryStore, ObjectStore};
use walseal_common::timeline::{Branch, HistoryEntry, SystemIdentifier, TimelineHistory, TimelineId};
use walseal_common::wal::{Content, Event, WalkOptions, Walker};

use super::wal::SampleWal;

pub(crate) const SYSTEM: SystemIdentifier = SystemIdentifier(7_437_123_456_789_012_345);

/// A repository under construction: what an archiver would have written.
pub(crate) struct SampleRepository {
    pub(crate) repository: Repository,
    pub(crate) identities: Vec<Identity>,
    pub(crate) cluster: SystemIdentifier,
    pub(crate) writer: WriterKey,
    pub(crate) size: SegmentSize,
    /// What WAL objects that are put from now on say was durable.
    pub(crate) durable: Option<Lsn>,
    pub(crate) folder: tempfile::TempDir,
}

impl SampleRepository {
    /// A repository with an identity and nothing else, for a cluster with segments of 1 MiB.
    pub(crate) async fn new() -> SampleRepository {
        SampleRepository::with_size(1).await
    }

    /// The same with segments of `mib` MiB.
    pub(crate) async fn with_size(mib: u64) -> SampleRepository {
        SampleRepository::of(SYSTEM, mib).await
    }

    /// The same for another cluster.
    pub(crate) async fn of(cluster: SystemIdentifier, mib: u64) -> SampleRepository {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = DirectoryStore::create(folder.path().to_owned()).await.expect("a folder of our own");
        SampleRepository::on(Arc::new(store), folder, cluster, mib).await
    }

    /// The same on another store than the folder.
    pub(crate) async fn on(
        store: Arc<dyn ObjectStore>,
        folder: tempfile::TempDir,
        cluster: SystemIdentifier,
        mib: u64,
    ) -> SampleRepository {
        let identity = Identity::generate().expect("random bytes");
        let writer = WriterKey::generate().expect("random bytes");
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
        let repository = Repository::new(store, cluster, trust);
        let size = SegmentSize::new(mib << 20).expect("a legal size");
        let identities = vec![identity];
        let sample = SampleRepository { repository, identities, cluster, writer, size, durable: None, folder };
        let body = RepositoryIdentity {
            format: 1,
            cluster,
            postgres_major: 15,
            segment_size: size,
            predecessor: None,
            capabilities: Capabilities { conditional_put: true, delete: true },
        };
        let mut sealer = sample.draft(Kind::Identity, &ObjectName::Identity, None);
        sealer.frame(&sample.writer.compare().to_sealed_content()).expect("32 bytes");
        let object = sealer.finish_with(Some(&body)).expect("sealable");
        sample.repository.put(&object).await.expect("a folder of our own");
        sample
    }

    pub(crate) fn branch(&self) -> Branch {
        TimelineHistory::root(TimelineId::FIRST).branch(self.cluster)
    }

    pub(crate) fn segment(&self, branch: Branch, number: SegmentNumber) -> SegmentName {
        SegmentName::new(branch.timeline, number, self.size)
    }

    fn draft(&self, kind: Kind, name: &ObjectName, wal: Option<WalSection>) -> walseal_common::seal::Sealer {
        let draft = Draft { kind, cluster: self.cluster, name: name.to_string(), wal, frame_size: 1 << 20, level: 1 };
        draft.seal(&[self.identities[0].recipient().clone()], &self.writer).expect("sealable")
    }

    /// Stores `range` of the segment whose bytes are `segment`, from its start on, as the object `name`.
    pub(crate) async fn put_piece(
        &self,
        kind: Kind,
        name: ObjectName,
        branch: Branch,
        range: LsnRange,
        segment: &[u8],
    ) {
        let number = self.size.number(range.start);
        let start = number.start(self.size);
        let (from, to) = (range.start.bytes_since(start) as usize, range.end.bytes_since(start) as usize);
        let digest = |until: usize| {
            let mut hasher = self.writer.compare().hasher();
            hasher.update(&segment[..until]);
            hasher.digest()
        };
        let mut section = WalSection {
            branch,
            segment: self.segment(branch, number),
            segment_size: self.size,
            start: range.start,
            end: range.end,
            compare_key: self.writer.compare().id(),
            digest_start: digest(from),
            digest_end: digest(to),
            transactions: Default::default(),
            leading_unread: false,
            durable: self.durable,
        };
        // As an archiver that saw the segment from its start; a record that began before it was not read.
        let mut walker = Walker::new(start, self.size, WalkOptions::default()).expect("a segment's start");
        let walked = walker.push(&segment[..to], |event| match event {
            Event::LeadingSkipped { range: leading } => {
                section.leading_unread |= range.start < leading.end && leading.end <= range.end;
            }
            Event::Record(record) => {
                if let Content::Transaction(end) = &record.content
                    && record.belongs_to(range)
                {
                    section.transactions.add(end.time.to_jiff().expect("a time of our years"));
                }
            }
        });
        drop(walked); // Bytes that are no WAL end the walk; tests of pieces use such bytes.
        let mut sealer = self.draft(kind, &name, Some(section));
        sealer.frames_of(&segment[from..to]).expect("small enough");
        let object = sealer.finish().expect("sealable");
        self.repository.put(&object).await.expect("a folder of our own");
    }

    /// Stores a whole segment of which nobody opens more than the header: one transaction ended in it, at `time`.
    pub(crate) async fn put_header(&self, branch: Branch, number: SegmentNumber, time: Timestamp) {
        let (name, range) = (self.segment(branch, number), number.range(self.size));
        let digest = self.writer.compare().hasher().digest();
        let mut section = WalSection {
            branch,
            segment: name,
            segment_size: self.size,
            start: range.start,
            end: range.end,
            compare_key: self.writer.compare().id(),
            digest_start: digest,
            digest_end: digest,
            transactions: Default::default(),
            leading_unread: false,
            durable: Some(range.end),
        };
        section.transactions.add(time);
        let mut sealer = self.draft(Kind::Wal, &ObjectName::Wal(branch, name, None), Some(section));
        sealer.frame(&[]).expect("small enough");
        self.repository.put(&sealer.finish().expect("sealable")).await.expect("a store of our own");
    }

    /// Stores the catalog pages of all runs of 256 segments from `first` to `last`.
    pub(crate) async fn put_pages(&self, branch: Branch, first: u64, last: u64) -> Vec<CatalogPage> {
        let mut pages: Vec<CatalogPage> = Vec::new();
        for first in (first..=last).step_by(CatalogPage::SEGMENTS as usize).map(SegmentNumber) {
            let made = self.repository.make_catalog_page(branch, first, self.size, pages.last()).await;
            let Some(page) = made.expect("readable headers") else { break };
            self.repository.put_catalog_page(&page, &self.writer).await.expect("a store of our own");
            pages.push(page);
        }
        pages
    }

    /// Stores a whole segment: one object, or parts.
    pub(crate) async fn put_segment(&self, branch: Branch, number: SegmentNumber, segment: &[u8]) {
        let name = self.segment(branch, number);
        if self.size.bytes() <= MAX_PLAINTEXT {
            let name = ObjectName::Wal(branch, name, None);
            return self.put_piece(Kind::Wal, name, branch, number.range(self.size), segment).await;
        }
        for part in 0..self.size.bytes() / MAX_PLAINTEXT {
            self.put_part(branch, number, part as u8, segment).await;
        }
    }

    pub(crate) async fn put_part(&self, branch: Branch, number: SegmentNumber, part: u8, segment: &[u8]) {
        let start = number.start(self.size).advance(u64::from(part) * MAX_PLAINTEXT);
        let range = LsnRange { start, end: start.advance(MAX_PLAINTEXT) };
        let name = ObjectName::Wal(branch, self.segment(branch, number), Some(part));
        self.put_piece(Kind::Wal, name, branch, range, segment).await;
    }

    pub(crate) async fn put_tail(&self, branch: Branch, range: LsnRange, segment: &[u8]) {
        let name = ObjectName::Tail(branch, self.segment(branch, self.size.number(range.start)), range);
        self.put_piece(Kind::Tail, name, branch, range, segment).await;
    }

    pub(crate) async fn put_partial(&self, branch: Branch, range: LsnRange, segment: &[u8]) {
        let name = ObjectName::Partial(branch, self.segment(branch, self.size.number(range.start)));
        self.put_piece(Kind::Partial, name, branch, range, segment).await;
    }

    /// Stores all of `wal` from `from` on: whole segments, and one tail up to its end.
    pub(crate) async fn put_wal(&self, branch: Branch, wal: &SampleWal, from: Lsn) {
        let mut number = self.size.number(from);
        while number.start(self.size) < wal.end() {
            let range = number.range(self.size);
            let held = LsnRange { start: range.start, end: range.end.min(wal.end()) };
            let bytes = wal.slice(held);
            if held == range {
                self.put_segment(branch, number, bytes).await;
            } else {
                self.put_tail(branch, held, bytes).await;
            }
            number = number.next();
        }
    }

    /// Stores the history of a timeline that forked off `parent` at `switch`, and returns its history.
    pub(crate) async fn put_history(&self, parent: &TimelineHistory, timeline: u32, switch: Lsn) -> TimelineHistory {
        let history = child_of(parent, timeline, switch);
        let name = ObjectName::History(history.branch(self.cluster));
        let mut sealer = self.draft(Kind::History, &name, None);
        sealer.frame(&history.render()).expect("small enough");
        self.repository.put(&sealer.finish().expect("sealable")).await.expect("a folder of our own");
        history
    }

    /// Stores a label without any data, for the WAL from `start` to `stop`.
    pub(crate) async fn put_label(
        &self,
        branch: Branch,
        start: Lsn,
        stop: Lsn,
        began: &str,
        highest: Option<&str>,
    ) -> BaseId {
        let label = self.label(branch, start, stop, began, highest);
        self.put_label_as_is(&label).await;
        label.id
    }

    pub(crate) fn label(&self, branch: Branch, start: Lsn, stop: Lsn, began: &str, highest: Option<&str>) -> Label {
        let began: Timestamp = began.parse().expect("a time");
        let (id, wal) = (BaseId::new(began, 7), LsnRange { start, end: stop });
        Label {
            highest_time: highest.map(|time| time.parse().expect("a time")),
            ..Label::sample(id, branch, self.size, wal, began)
        }
    }

    pub(crate) async fn put_label_as_is(&self, label: &Label) {
        let name = ObjectName::Label(label.id.clone());
        let (kind, cluster, name) = (Kind::Label, self.cluster, name.to_string());
        let draft = Draft { kind, cluster, name, wal: None, frame_size: 1 << 20, level: 1 };
        let object = draft.sign(&self.writer, label).expect("sealable");
        self.repository.put(&object).await.expect("a folder of our own");
    }

    /// Writes down up to where WAL was durable, as an archiver does; in the minute before, a transaction ended.
    pub(crate) async fn put_frontier(
        &self,
        branch: Branch,
        frontier: Lsn,
        server_end: Lsn,
        written: Timestamp,
    ) -> ObjectName {
        let highest = written - jiff::SignedDuration::from_mins(1);
        let record = FrontierRecord {
            at: BranchFrontier { branch, frontier },
            server_end,
            highest_time: Some(highest),
            written,
            interval_seconds: 300,
            earlier: Vec::new(),
            ledger: None,
        };
        self.repository.put_frontier(&record, &self.writer).await.expect("a folder of our own")
    }

    /// Records that WAL of `branch` was lost.
    pub(crate) async fn put_gap(&self, branch: Branch, range: LsnRange) -> Gap {
        let gap = Gap {
            branch,
            from: range.start,
            to: range.end,
            next: branch,
            found: "2026-11-21T12:00:00Z".parse().expect("a time"),
            highest_time: Some("2026-11-21T10:04:59Z".parse().expect("a time")),
            why: "the slot was dropped".to_owned(),
            way: Vec::new(),
        };
        self.repository.put_gap(&gap, &self.writer).await.expect("a folder of our own");
        gap
    }

    /// Changes a byte of an object's header: the year in which it was made.
    pub(crate) fn garble(&self, name: &ObjectName) {
        self.change(name, |bytes| {
            let member = b"\"created\":\"";
            let at = bytes.windows(member.len()).position(|window| window == member).expect("a header");
            bytes[at + member.len() + 3] ^= 1;
        });
    }

    /// Changes a byte in the middle of an object's frames.
    pub(crate) fn garble_frames(&self, name: &ObjectName) {
        self.change(name, |bytes| {
            let header = u32::from_le_bytes(bytes[12..16].try_into().expect("4 bytes")) as usize;
            bytes[80 + header + 20] ^= 1;
        });
    }

    fn change(&self, name: &ObjectName, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.folder.path().join(name.key(self.cluster));
        let mut bytes = std::fs::read(&path).expect("an object of our own");
        change(&mut bytes);
        std::fs::write(&path, bytes).expect("a folder of our own");
    }

    pub(crate) async fn remove(&self, name: &ObjectName) {
        self.repository.store().delete(&name.key(self.cluster)).await.expect("a folder of our own");
    }
}

fn child_of(parent: &TimelineHistory, timeline: u32, switch: Lsn) -> TimelineHistory {
    let mut entries = parent.entries.clone();
    let reason = b"no recovery target specified".to_vec();
    entries.push(HistoryEntry { timeline: parent.timeline, switch, reason });
    TimelineHistory { timeline: TimelineId::new(timeline).expect("not zero"), entries }
}
