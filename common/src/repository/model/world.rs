//! A repository to which things happen, and beside it the list of what did.

mod pages;
mod removals;
mod timelines;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::Event;
use super::truth::{Backup, Page, Piece, TRUSTED, Times, Truth, UNITS};
use crate::repository::wal_listing::parts;
use crate::repository::{
    BaseId, BaseType, BranchFrontier, CatalogPage, FrontierRecord, HoldRecord, Label, ObjectName, ObjectReference,
    Repository, RepositoryIdentity, WalPut,
};
use crate::seal::{
    CompareDigest, Draft, Identity, Kind, ObjectDigest, Recipient, SealedObject, Transactions, TrustedWriter,
    TrustedWriters, WalSection, WriterKey,
};
use crate::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::store::{Capabilities, LARGEST_PAGE, ObjectStore, Shelf};
use crate::timeline::{Branch, SystemIdentifier, TimelineHistory, TimelineId};

const CLUSTER: SystemIdentifier = SystemIdentifier(7);

/// WAL begins with this segment.
const FIRST: u64 = 3;

/// The page in which a grown repository is written, and its segments that are there.
const GROWN: std::ops::Range<u64> = CatalogPage::SEGMENTS..2 * CatalogPage::SEGMENTS - 4;

/// A server, as an archiver sees it.
#[derive(Clone, Debug)]
struct Server {
    /// The history of its timeline.
    history: TimelineHistory,
    /// The branch that is written, and up to where, in units.
    branch: Branch,
    position: u64,
}

pub(super) struct World {
    pub(super) repository: Repository,
    pub(super) truth: Truth,
    /// The history of each timeline, by its branch.
    pub(super) histories: BTreeMap<Branch, TimelineHistory>,
    /// The one that is archived.
    server: Server,
    /// Those that were left.
    left: Vec<Server>,
    writer: WriterKey,
    /// Those who write down how far WAL is; the archiver is the first.
    writers: Vec<WriterKey>,
    /// Up to where each of them has ever seen the WAL of a branch.
    reached: Vec<BTreeMap<Branch, u64>>,
    recipient: Recipient,
    /// Makes names that nothing has.
    count: u64,
    /// Whether objects of WAL hold as many bytes as they say.
    filled: bool,
}

impl World {
    /// A repository with an identity and nothing else, for a cluster with segments of `mib` MiB.
    pub(super) async fn new(mib: u64) -> World {
        let size = SegmentSize::new(mib << 20).expect("a legal size");
        let writers: Vec<WriterKey> = (0..=TRUSTED).map(|_| WriterKey::generate().expect("random")).collect();
        let (writer, identity) = (writers[0].clone(), Identity::generate().expect("random"));
        let repository = Repository::new(Arc::new(Shelf::default()), CLUSTER, trust(&writers));
        let history = TimelineHistory::root(TimelineId::FIRST);
        let (branch, recipient) = (history.branch(CLUSTER), identity.recipient().clone());
        let mut truth = Truth::of(size);
        truth.routes.insert(branch, vec![(branch, 0)]);
        let histories = BTreeMap::from([(branch, history.clone())]);
        let server = Server { history, branch, position: FIRST * UNITS };
        let world = World {
            repository,
            truth,
            histories,
            server,
            left: Vec::new(),
            writer,
            reached: vec![BTreeMap::new(); writers.len()],
            writers,
            recipient,
            count: 0,
            filled: false,
        };
        let capabilities = Capabilities { conditional_put: true, delete: true };
        let (cluster, segment_size) = (CLUSTER, size);
        let body = RepositoryIdentity {
            format: 1,
            cluster,
            postgres_major: 18,
            segment_size,
            predecessor: None,
            capabilities,
        };
        world.put_sealed(&ObjectName::Identity, None, Some(&body)).await;
        world
    }

    /// One that lacks the last segments of its second page; the first page is there, and its segments were removed.
    pub(super) async fn grown() -> World {
        let mut world = World::new(1).await;
        let branch = world.server.branch;
        for number in 0..GROWN.start {
            world.truth.times.insert((branch, number), World::times(number));
        }
        let page = Page { fits: true, chain: 0, wrong: None };
        world.put_page(0, page).await;
        for number in GROWN {
            world.whole(number, Some(number * UNITS)).await;
        }
        world.server.position = GROWN.end * UNITS;
        world.filled = true;
        world
    }

    /// Another one to which the same happened.
    pub(super) async fn copy(&self) -> World {
        let (shelf, store) = (Shelf::default(), self.repository.store());
        let page = store.list("", None, LARGEST_PAGE).await.expect("a store of our own");
        for meta in &page.objects {
            let bytes = store.get(&meta.key).await.expect("a store of our own");
            shelf.put_new(&meta.key, bytes).await.expect("a store of our own");
        }
        World {
            repository: Repository::new(Arc::new(shelf), CLUSTER, trust(&self.writers)),
            truth: self.truth.clone(),
            histories: self.histories.clone(),
            server: self.server.clone(),
            left: self.left.clone(),
            writer: self.writer.clone(),
            writers: self.writers.clone(),
            reached: self.reached.clone(),
            recipient: self.recipient.clone(),
            count: self.count,
            filled: self.filled,
        }
    }

    /// Lets `event` happen to both.
    pub(super) async fn happen(&mut self, event: Event) {
        match event {
            Event::Tail(length) => self.tail(length).await,
            Event::Whole => {
                let end = (self.server.position / UNITS + 1) * UNITS;
                self.whole(self.server.position / UNITS, Some(self.server.position)).await;
                self.server.position = end;
            }
            Event::Part => {
                let length = UNITS / parts(self.truth.size);
                let start = self.server.position / length * length;
                self.part(start, Some(self.server.position)).await;
                self.server.position = start + length;
            }
            Event::Ahead(skip, length) => {
                let start = self.server.position + skip;
                self.tail_at(start, length, Some(self.server.position)).await;
            }
            Event::Push(ahead) => self.whole(self.server.position / UNITS + ahead, None).await,
            Event::Partial => self.partial().await,
            Event::Lose(which) => self.lose(which).await,
            Event::LoseData(which) => self.lose_data(which).await,
            Event::Prune(segments, broken) => self.prune(segments, broken).await,
            Event::Fork { back, skip, partial } => self.fork(back, skip, partial).await,
            Event::Return(which) => {
                if let Some(at) = which.checked_rem(self.left.len()) {
                    std::mem::swap(&mut self.server, &mut self.left[at]);
                }
            }
            Event::Adopt { lost, apart } => self.adopt(lost, apart).await,
            Event::Gap(segments) => self.gap(segments).await,
            Event::Blind { before, between, behind, told } => self.blind(before, between, behind, told).await,
            Event::Together(segments) => {
                let number = self.server.position / UNITS;
                for one in number..number + segments {
                    self.whole(one, Some(self.server.position)).await;
                }
                self.server.position = (number + segments) * UNITS;
            }
            Event::LoseNewest(which) => {
                if let Some(name) = self.newest().get(which) {
                    self.remove_wal(self.server.branch, name).await;
                }
            }
            Event::Page => self.page().await,
            Event::Stray { wrong, fits } => {
                let first = self.server.position / UNITS / CatalogPage::SEGMENTS * CatalogPage::SEGMENTS;
                let wrong = wrong.map(|wrong| first + CatalogPage::SEGMENTS - 1 - wrong);
                self.put_page(first, Page { fits, chain: first, wrong }).await;
            }
            Event::LosePage(which) => {
                let all: Vec<(Branch, u64)> = self.truth.pages.keys().copied().collect();
                if let Some((branch, first)) = which.checked_rem(all.len()).and_then(|at| all.get(at)) {
                    let name = CatalogPage::name(*branch, SegmentNumber(*first), self.truth.size);
                    self.repository.remove(&name).await.expect("a store of our own");
                    self.truth.pages.remove(&(*branch, *first));
                }
            }
            Event::Base(referred) => self.base(referred).await,
            Event::Frontier(writer) => self.frontier(writer).await,
            Event::Remember => {
                let there: Vec<Branch> = self.truth.wal.keys().copied().collect();
                for branch in there {
                    let end = self.truth.readable(branch, true).last().map_or(0, |last| last + 1);
                    let seen = self.truth.seen.entry(branch).or_default();
                    *seen = end.max(*seen);
                }
                let newest =
                    self.truth.bases.iter().filter(|(_, base)| base.labelled).map(|(id, _)| id.clone()).next_back();
                self.truth.seen_base = newest.max(self.truth.seen_base.take());
            }
            Event::CutOff { objects, frontiers, label } => self.cut_off(objects, frontiers, label).await,
            Event::Hold(which, holds) => self.hold(which, holds).await,
        }
    }

    fn segment(&self, unit: u64) -> SegmentName {
        SegmentName::new(self.server.branch.timeline, Truth::number(unit), self.truth.size)
    }

    fn now(&mut self) -> Timestamp {
        self.count += 1;
        Timestamp::from_second(1_780_000_000 + self.count as i64 * 60).expect("a time of our years")
    }

    async fn tail(&mut self, length: u64) {
        self.server.position = self.tail_at(self.server.position, length, Some(self.server.position)).await;
    }

    /// Stores a tail that ends with its segment at most; returns where it ends.
    async fn tail_at(&mut self, start: u64, length: u64, durable: Option<u64>) -> u64 {
        let end = (start + length).min((start / UNITS + 1) * UNITS);
        let name = ObjectName::Tail(self.server.branch, self.segment(start), self.truth.range(start, end));
        self.put_wal(name, Piece { start, end, durable }).await;
        end
    }

    async fn whole(&mut self, number: u64, durable: Option<u64>) {
        let length = UNITS / parts(self.truth.size);
        for start in (number * UNITS..(number + 1) * UNITS).step_by(length as usize) {
            self.part(start, durable).await;
        }
    }

    /// Stores the object of a whole segment, or the part of one, that begins at `start`.
    async fn part(&mut self, start: u64, durable: Option<u64>) {
        let parts = parts(self.truth.size);
        let length = UNITS / parts;
        let part = (parts > 1).then(|| u8::try_from(start % UNITS / length).expect("four parts"));
        let name = ObjectName::Wal(self.server.branch, self.segment(start), part);
        self.put_wal(name, Piece { start, end: start + length, durable }).await;
    }

    async fn partial(&mut self) {
        let (length, begin) = (UNITS / parts(self.truth.size), self.server.position / UNITS * UNITS);
        // From the first part that is not there whole.
        let there: BTreeSet<u64> = self
            .truth
            .pieces(self.server.branch)
            .filter(|(name, _)| matches!(name, ObjectName::Wal(..)))
            .map(|(_, piece)| piece.start)
            .collect();
        let start = (begin..self.server.position).step_by(length as usize).find(|start| !there.contains(start));
        if let Some(start) = start {
            let name = ObjectName::Partial(self.server.branch, self.segment(start));
            let (end, durable) = (self.server.position, Some(self.server.position));
            self.put_wal(name, Piece { start, end, durable }).await;
        }
    }

    /// Stores a piece of WAL; equal bytes under its name are success, and other bytes are refused (I3).
    async fn put_wal(&mut self, name: ObjectName, piece: Piece) {
        self.count += 1;
        let truth = &mut self.truth;
        let range = truth.range(piece.start, piece.end);
        let (number, digest) = (piece.start / UNITS, |unit| World::digest(&self.writer, unit));
        let (time, unread) = (World::times(number).0, World::times(number).1 || (self.filled && self.count % 6 == 5));
        let section = WalSection {
            branch: self.server.branch,
            segment: SegmentName::new(self.server.branch.timeline, Truth::number(piece.start), truth.size),
            segment_size: truth.size,
            start: range.start,
            end: range.end,
            compare_key: self.writer.compare().id(),
            digest_start: digest(piece.start),
            digest_end: digest(piece.end),
            transactions: transactions(time),
            leading_unread: unread,
            durable: piece.durable.map(|unit| truth.lsn(unit)),
        };
        let there = truth.wal.entry(self.server.branch).or_default();
        let expected = there.get(&name).copied();
        if expected.is_none() {
            there.insert(name.clone(), piece);
            if matches!(name, ObjectName::Wal(..)) {
                truth.times.insert((self.server.branch, number), (time, unread));
            }
        }
        let object = self.sealed(&name, Some(section.clone()), None::<&()>);
        let done = self.repository.put_wal(&name, &object, &section).await;
        match expected {
            None => assert_eq!(done.expect("the name is free"), WalPut::Stored),
            Some(there) if (there.start, there.end) == (piece.start, piece.end) => {
                assert_eq!(done.expect("the same bytes"), WalPut::AlreadyThere);
            }
            Some(_) => assert!(done.is_err(), "{name} has other bytes"),
        }
    }

    /// What the headers of a segment's objects say.
    fn times(number: u64) -> Times {
        ((!number.is_multiple_of(3)).then_some((number * 37 % 101) as i64), number == GROWN.start - 50)
    }

    fn digest(writer: &WriterKey, unit: u64) -> CompareDigest {
        let mut hasher = writer.compare().hasher();
        hasher.update(&unit.to_le_bytes());
        hasher.digest()
    }

    async fn base(&mut self, referred: usize) {
        let began = self.now();
        let id = BaseId::new(began, self.count as u32);
        let before = self.truth.bases.values().rfind(|base| base.labelled).map(|base| base.needs.clone());
        let mut needs: BTreeSet<ObjectName> = before.into_iter().flatten().take(referred).collect();
        let kind = if needs.is_empty() { BaseType::Full } else { BaseType::Incremental };
        for number in 0..2 {
            let name = ObjectName::Data(id.clone(), number);
            self.repository
                .store()
                .put_new(&name.key(CLUSTER), Bytes::from(name.to_string()))
                .await
                .expect("a name that is free");
            self.truth.data.insert(name.clone());
            needs.insert(name);
        }
        let start = self.server.position;
        self.tail(2).await;
        let stop = self.server.position;
        let reference = |name: &ObjectName| {
            let name = name.to_string();
            ObjectReference { size: name.len() as u64, digest: ObjectDigest::of(name.as_bytes()), name }
        };
        let wal = self.truth.range(start, stop);
        let label = Label {
            kind,
            objects: needs.iter().map(reference).collect(),
            ..Label::sample(id.clone(), self.server.branch, self.truth.size, wal, began)
        };
        let name = ObjectName::Label(id.clone());
        let object = self.repository.signed(Kind::Label, &name, &label, &self.writer).expect("sealable");
        self.repository.put(&object).await.expect("a store of our own");
        self.truth.bases.insert(id, Backup { branch: self.server.branch, start, stop, needs, labelled: true });
    }

    async fn frontier(&mut self, writer: usize) {
        let (branch, position) = (self.server.branch, self.server.position);
        let told = self.reached[writer].entry(branch).or_default();
        *told = position.max(*told);
        let all = self.reached[writer].clone();
        let word = |branch: &Branch, unit: u64| BranchFrontier { branch: *branch, frontier: self.truth.lsn(unit) };
        let earlier = all.iter().filter(|(other, _)| **other != branch);
        let record = FrontierRecord {
            at: word(&branch, all[&branch]),
            server_end: self.truth.lsn(position),
            highest_time: None,
            written: Timestamp::UNIX_EPOCH,
            interval_seconds: 300,
            earlier: earlier.map(|(branch, unit)| word(branch, *unit)).collect(),
            ledger: None,
        };
        let name = self.repository.put_frontier(&record, &self.writers[writer]).await.expect("a store of our own");
        // Nobody's record verifies who is not trusted, so that each of a stranger's is as good as his first.
        let ObjectName::Frontier(_, number) = name else { panic!("{name} is no frontier") };
        self.truth.words.insert((writer, number), all);
    }

    async fn hold(&mut self, which: usize, holds: bool) {
        let all: Vec<BaseId> = self.truth.bases.keys().cloned().collect();
        let Some(base) = which.checked_rem(all.len()).and_then(|at| all.get(at)).cloned() else { return };
        let record =
            HoldRecord { base: base.clone(), until: holds.then_some(Timestamp::MAX), written: Timestamp::UNIX_EPOCH };
        self.repository.put_hold(&record, &self.writer).await.expect("a store of our own");
        self.truth.holds.insert(base, holds);
    }

    fn sealed<B: serde::Serialize>(
        &self,
        name: &ObjectName,
        wal: Option<WalSection>,
        body: Option<&B>,
    ) -> SealedObject {
        let (kind, cluster, text) = (name.kind(), CLUSTER, name.to_string());
        let bytes = wal.as_ref().map(|wal| wal.end.bytes_since(wal.start));
        let draft = Draft { kind, cluster, name: text, wal, frame_size: 1 << 20, level: 1 };
        let mut sealer = draft.seal(std::slice::from_ref(&self.recipient), &self.writer).expect("sealable");
        // What is looked at here are headers and names, but where somebody reads all.
        match bytes.filter(|_| self.filled) {
            Some(bytes) => sealer.frames_of(&vec![0; bytes as usize]).expect("small enough"),
            None => sealer.frame(b"-").map(|_| ()).expect("small enough"),
        }
        sealer.finish_with(body).expect("sealable")
    }

    async fn put_sealed<B: serde::Serialize>(&self, name: &ObjectName, wal: Option<WalSection>, body: Option<&B>) {
        let object = self.sealed(name, wal, body);
        self.repository.put(&object).await.expect("a store of our own");
    }
}

fn trust(writers: &[WriterKey]) -> TrustedWriters {
    TrustedWriters::new(writers.iter().take(TRUSTED).map(|writer| TrustedWriter::archiver(writer.public())).collect())
}

fn seconds(time: i64) -> Timestamp {
    Timestamp::from_second(time).expect("a time of our years")
}

/// One transaction, or none.
fn transactions(time: Option<i64>) -> Transactions {
    let mut all = Transactions::default();
    time.into_iter().for_each(|time| all.add(seconds(time)));
    all
}
