//! A repository made by hand: WAL, two base backups of which one refers to the other, a frontier, a ledger.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::lsn::{Lsn, LsnRange};
use crate::repository::scrub::{Flaw, FlawKind, Heads, Reader, Reading, Survey, Witness};
use crate::repository::{
    Act, BaseId, BaseType, BranchFrontier, Chain, FrontierRecord, Label, LedgerSigner, ObjectName, ObjectReference,
    Pruned, Repository, RepositoryIdentity, RunId,
};
use crate::seal::{Draft, Identity, Kind, SealedObject, TrustedWriter, TrustedWriters, WalSection, WriterKey};
use crate::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::store::{Capabilities, DirectoryStore};
use crate::timeline::{Branch, SystemIdentifier, TimelineHistory, TimelineId};

pub(super) const CLUSTER: SystemIdentifier = SystemIdentifier(7);

pub(super) struct Bed {
    pub(super) folder: tempfile::TempDir,
    pub(super) repository: Repository,
    pub(super) writer: WriterKey,
    pub(super) recipient: Identity,
    pub(super) size: SegmentSize,
    pub(super) branch: Branch,
}

/// What was found, without the words.
pub(super) fn kinds(flaws: &[Flaw]) -> Vec<(FlawKind, &str)> {
    flaws.iter().map(|flaw| (flaw.kind, flaw.object.as_str())).collect()
}

impl Bed {
    /// A repository with an identity and nothing else, for a cluster with segments of 1 MiB.
    pub(super) async fn empty() -> Bed {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let writer = WriterKey::generate().expect("random bytes");
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
        let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
        let repository = Repository::new(store, CLUSTER, trust);
        let size = SegmentSize::new(1 << 20).expect("a legal size");
        let branch = TimelineHistory::root(TimelineId::FIRST).branch(CLUSTER);
        let recipient = Identity::generate().expect("random bytes");
        let bed = Bed { folder, repository, writer, recipient, size, branch };
        let body = RepositoryIdentity {
            format: 1,
            cluster: CLUSTER,
            postgres_major: 15,
            segment_size: size,
            predecessor: None,
            capabilities: Capabilities { conditional_put: true, delete: true },
        };
        let mut sealer = bed.sealer(&bed.writer, Kind::Identity, &ObjectName::Identity, None);
        sealer.frame(&[7; 32]).expect("small enough");
        bed.put(&sealer.finish_with(Some(&body)).expect("sealable")).await;
        bed
    }

    /// Segments 2 to 7, a tail of segment 8, base backups in segments 2 and 4, the second of which refers to the first, and what an
    /// archiver writes down.
    pub(super) async fn full() -> Bed {
        let bed = Bed::empty().await;
        for number in 2..8 {
            bed.put_segment(bed.branch, number).await;
        }
        bed.put_tail(bed.branch, 8, 0, 5000).await;
        let mut chain = bed.chain();
        let (first, second) = (bed.base_id(1), bed.base_id(2));
        let own = [bed.data(&first, 0).await, bed.data(&first, 1).await];
        bed.put_base(&mut chain, &first, 2, BaseType::Full, own.to_vec()).await;
        let objects = vec![own[1].clone(), bed.data(&second, 0).await];
        bed.put_base(&mut chain, &second, 4, BaseType::Incremental, objects).await;
        bed.put_frontier(bed.branch, bed.at(8, 5000)).await;
        bed
    }

    pub(super) fn at(&self, number: u64, offset: u64) -> Lsn {
        SegmentNumber(number).start(self.size).advance(offset)
    }

    pub(super) fn base_id(&self, number: u32) -> BaseId {
        BaseId::new("2026-11-21T02:30:00Z".parse().expect("a time"), number)
    }

    pub(super) fn segment(&self, branch: Branch, number: u64) -> SegmentName {
        SegmentName::new(branch.timeline, SegmentNumber(number), self.size)
    }

    pub(super) fn wal(&self, number: u64) -> ObjectName {
        ObjectName::Wal(self.branch, self.segment(self.branch, number), None)
    }

    pub(super) fn path(&self, name: &ObjectName) -> PathBuf {
        self.folder.path().join(name.key(CLUSTER))
    }

    pub(super) fn chain(&self) -> Chain {
        let signer =
            LedgerSigner { writer: self.writer.clone(), actor: "ada".to_owned(), program: "test 1".to_owned() };
        Chain::new(self.repository.clone(), signer).expect("random bytes")
    }

    pub(super) async fn put(&self, object: &SealedObject) {
        self.repository.put(object).await.expect("a folder of our own");
    }

    pub(super) fn sealer(
        &self,
        writer: &WriterKey,
        kind: Kind,
        name: &ObjectName,
        wal: Option<WalSection>,
    ) -> crate::seal::Sealer {
        let draft = Draft { kind, cluster: CLUSTER, name: name.to_string(), wal, frame_size: 64 << 10, level: 1 };
        draft.seal(&[self.recipient.recipient().clone()], writer).expect("sealable")
    }

    /// `name` with `range` of a segment full of `fill`, signed by `writer`, which knew all before it to be durable.
    pub(super) fn wal_object(&self, writer: &WriterKey, name: &ObjectName, range: LsnRange, fill: u8) -> SealedObject {
        self.wal_object_after(writer, name, range, fill, range.start)
    }

    /// The same of a writer that knew WAL to be durable up to `durable`.
    pub(super) fn wal_object_after(
        &self,
        writer: &WriterKey,
        name: &ObjectName,
        range: LsnRange,
        fill: u8,
        durable: Lsn,
    ) -> SealedObject {
        let (kind, branch) = match name {
            ObjectName::Wal(branch, ..) => (Kind::Wal, *branch),
            ObjectName::Tail(branch, ..) => (Kind::Tail, *branch),
            ObjectName::Partial(branch, _) => (Kind::Partial, *branch),
            other => panic!("{other} is no WAL"),
        };
        let number = self.size.number(range.start);
        let bytes = vec![fill; self.size.bytes() as usize];
        let at = |lsn: Lsn| lsn.bytes_since(number.start(self.size)) as usize;
        let digest = |until: usize| {
            let mut hasher = self.writer.compare().hasher();
            hasher.update(&bytes[..until]);
            hasher.digest()
        };
        let section = WalSection {
            branch,
            segment: SegmentName::new(branch.timeline, number, self.size),
            segment_size: self.size,
            start: range.start,
            end: range.end,
            compare_key: self.writer.compare().id(),
            digest_start: digest(at(range.start)),
            digest_end: digest(at(range.end)),
            transactions: Default::default(),
            leading_unread: false,
            durable: Some(durable),
        };
        let mut sealer = self.sealer(writer, kind, name, Some(section));
        sealer.frames_of(&bytes[at(range.start)..at(range.end)]).expect("small enough");
        sealer.finish().expect("sealable")
    }

    pub(super) async fn put_segment(&self, branch: Branch, number: u64) {
        let name = ObjectName::Wal(branch, self.segment(branch, number), None);
        let range = SegmentNumber(number).range(self.size);
        self.put(&self.wal_object(&self.writer, &name, range, number as u8)).await;
    }

    pub(super) async fn put_tail(&self, branch: Branch, number: u64, from: u64, to: u64) -> ObjectName {
        let range = LsnRange { start: self.at(number, from), end: self.at(number, to) };
        let name = ObjectName::Tail(branch, self.segment(branch, number), range);
        self.put(&self.wal_object(&self.writer, &name, range, number as u8)).await;
        name
    }

    pub(super) fn data_object(&self, id: &BaseId, number: u32, fill: u8) -> SealedObject {
        let mut sealer = self.sealer(&self.writer, Kind::Data, &ObjectName::Data(id.clone(), number), None);
        sealer.frames_of(&vec![fill; 200_000]).expect("small enough");
        sealer.finish().expect("sealable")
    }

    async fn data(&self, id: &BaseId, number: u32) -> ObjectReference {
        let object = self.data_object(id, number, 1);
        self.put(&object).await;
        ObjectReference::from(&object)
    }

    async fn put_base(
        &self,
        chain: &mut Chain,
        id: &BaseId,
        segment: u64,
        kind: BaseType,
        objects: Vec<ObjectReference>,
    ) {
        let mut sealer = self.sealer(&self.writer, Kind::Manifest, &ObjectName::Manifest(id.clone(), 0), None);
        sealer.frame(b"").expect("small enough");
        let manifest = sealer.finish().expect("sealable");
        self.put(&manifest).await;
        let (start, stop) = (self.at(segment, 40), self.at(segment, 400));
        let time: Timestamp = "2026-11-21T02:30:00Z".parse().expect("a time");
        let wal = LsnRange { start, end: stop };
        let label = Label {
            kind,
            manifest: vec![ObjectReference::from(&manifest)],
            objects,
            ..Label::sample(id.clone(), self.branch, self.size, wal, time)
        };
        let name = ObjectName::Label(id.clone());
        self.put(&self.repository.signed(Kind::Label, &name, &label, &self.writer).expect("signed")).await;
        let (cluster_size, stored_size, suspect, seconds) = (label.cluster_size, label.stored_size, 0, 1.0);
        let (id, branch) = (id.clone(), self.branch);
        let act = Act::BaseFinished {
            id,
            branch,
            start,
            stop,
            cluster_size,
            stored_size,
            suspect,
            suspect_files: Vec::new(),
            seconds,
        };
        chain.write(time, &act).await.expect("written");
    }

    pub(super) async fn put_frontier(&self, branch: Branch, frontier: Lsn) -> ObjectName {
        let record = FrontierRecord {
            at: BranchFrontier { branch, frontier },
            server_end: frontier,
            highest_time: None,
            written: Timestamp::now(),
            interval_seconds: 300,
            earlier: Vec::new(),
            ledger: None,
        };
        self.repository.put_frontier(&record, &self.writer).await.expect("a folder of our own")
    }

    /// As an archiver that is about to remove these base backups and segments.
    pub(super) async fn prune(&self, bases: &[BaseId], segments: &[u64]) {
        let mut going = Pruned::default();
        bases.iter().for_each(|id| going.add_base(id.clone()));
        segments.iter().for_each(|number| going.add_wal(self.branch, SegmentNumber(*number).range(self.size)));
        let run = RunId::random().expect("random bytes");
        self.repository.put_pruned(run, going, &Pruned::default(), &self.writer).await.expect("a folder of our own");
    }

    pub(super) async fn remove(&self, name: &ObjectName) {
        self.repository.store().delete(&name.key(CLUSTER)).await.expect("a folder of our own");
    }

    /// Puts other bytes under a name, as whoever controls the store can.
    pub(super) fn overwrite(&self, name: &ObjectName, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::remove_file(&path).expect("an object of our own");
        std::fs::write(&path, bytes).expect("a folder of our own");
    }

    pub(super) async fn survey(&self, witnesses: &[Witness]) -> Survey {
        Survey::take(&self.repository, witnesses).await.expect("the store answers")
    }

    /// Everything that is found: by names first, then in what is read.
    pub(super) async fn scrub(&self) -> (Survey, Reading) {
        let survey = self.survey(&[]).await;
        let mut reading = Reading::default();
        let mut reader = Reader::new(&self.repository, &survey, None);
        while !reading.ended {
            reader.next(&mut reading).await.expect("the store answers");
        }
        (survey, reading)
    }

    /// The same, as one list of what is wrong with which object.
    pub(super) async fn found(&self) -> Vec<(FlawKind, String)> {
        let (survey, reading) = self.scrub().await;
        let all = survey.flaws.iter().chain(&reading.flaws);
        let found: BTreeSet<(FlawKind, String)> = all.map(|flaw| (flaw.kind, flaw.object.clone())).collect();
        found.into_iter().collect()
    }

    /// Somebody outside who remembers all of it.
    pub(super) fn witness(heads: Heads) -> Vec<Witness> {
        vec![Witness { heads, who: "this host remembers".to_owned() }]
    }
}
