//! A repository to which things happen, and beside it the list of what did.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::Event;
use super::truth::{Backup, Piece, Truth, UNITS};
use crate::repository::wal_listing::parts;
use crate::repository::{
    Adoption, Ancestry, BaseId, BaseType, BranchFrontier, FrontierRecord, Gap, HoldRecord, Label, ObjectName,
    ObjectReference, Pruned, Repository, RepositoryIdentity, RunId, WalPut,
};
use crate::seal::{
    Draft, Identity, Kind, ObjectDigest, Recipient, SealedObject, TrustedWriter, TrustedWriters, WalSection, WriterKey,
};
use crate::segment::{SegmentName, SegmentSize};
use crate::store::{Capabilities, Shelf};
use crate::timeline::{Branch, HistoryEntry, SystemIdentifier, TimelineHistory, TimelineId};

const CLUSTER: SystemIdentifier = SystemIdentifier(7);

/// WAL begins with this segment.
const FIRST: u64 = 3;

pub(super) struct World {
    pub(super) repository: Repository,
    pub(super) truth: Truth,
    /// The history of the timeline that is written.
    pub(super) history: TimelineHistory,
    writer: WriterKey,
    recipient: Recipient,
    /// The branch that is written, and up to where, in units.
    branch: Branch,
    position: u64,
    /// Makes names that nothing has.
    count: u64,
}

impl World {
    /// A repository with an identity and nothing else, for a cluster with segments of `mib` MiB.
    pub(super) async fn new(mib: u64) -> World {
        let size = SegmentSize::new(mib << 20).expect("a legal size");
        let (writer, identity) = (WriterKey::generate().expect("random"), Identity::generate().expect("random"));
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
        let repository = Repository::new(Arc::new(Shelf::default()), CLUSTER, trust);
        let history = TimelineHistory::root(TimelineId::FIRST);
        let (branch, recipient) = (history.branch(CLUSTER), identity.recipient().clone());
        let (truth, position, count) = (Truth::of(size), FIRST * UNITS, 0);
        let world = World { repository, truth, history, writer, recipient, branch, position, count };
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

    /// Lets `event` happen to both.
    pub(super) async fn happen(&mut self, event: Event) {
        match event {
            Event::Tail(length) => self.tail(length).await,
            Event::Whole => {
                let end = (self.position / UNITS + 1) * UNITS;
                self.whole(self.position / UNITS, Some(self.position)).await;
                self.position = end;
            }
            Event::Part => {
                let length = UNITS / parts(self.truth.size);
                let start = self.position / length * length;
                self.part(start, Some(self.position)).await;
                self.position = start + length;
            }
            Event::Ahead(skip, length) => {
                let start = self.position + skip;
                self.tail_at(start, length, Some(self.position)).await;
            }
            Event::Push(ahead) => self.whole(self.position / UNITS + ahead, None).await,
            Event::Partial => self.partial().await,
            Event::Lose(which) => self.lose(which).await,
            Event::LoseData(which) => self.lose_data(which).await,
            Event::Prune(segments, broken) => self.prune(segments, broken).await,
            Event::Fork(back, partial) => self.fork(back, partial).await,
            Event::Adopt => self.adopt().await,
            Event::Gap(segments) => self.gap(segments).await,
            Event::Base(referred) => self.base(referred).await,
            Event::Frontier => self.frontier().await,
            Event::Hold(which, holds) => self.hold(which, holds).await,
        }
    }

    fn segment(&self, unit: u64) -> SegmentName {
        SegmentName::new(self.branch.timeline, Truth::number(unit), self.truth.size)
    }

    fn now(&mut self) -> Timestamp {
        self.count += 1;
        Timestamp::from_second(1_780_000_000 + self.count as i64 * 60).expect("a time of our years")
    }

    async fn tail(&mut self, length: u64) {
        self.position = self.tail_at(self.position, length, Some(self.position)).await;
    }

    /// Stores a tail that ends with its segment at most; returns where it ends.
    async fn tail_at(&mut self, start: u64, length: u64, durable: Option<u64>) -> u64 {
        let end = (start + length).min((start / UNITS + 1) * UNITS);
        let name = ObjectName::Tail(self.branch, self.segment(start), self.truth.range(start, end));
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
        let name = ObjectName::Wal(self.branch, self.segment(start), part);
        self.put_wal(name, Piece { start, end: start + length, durable }).await;
    }

    async fn partial(&mut self) {
        let (length, begin) = (UNITS / parts(self.truth.size), self.position / UNITS * UNITS);
        // From the first part that is not there whole.
        let there: BTreeSet<u64> = self
            .truth
            .pieces(self.branch)
            .filter(|(name, _)| matches!(name, ObjectName::Wal(..)))
            .map(|(_, piece)| piece.start)
            .collect();
        let start = (begin..self.position).step_by(length as usize).find(|start| !there.contains(start));
        if let Some(start) = start {
            let name = ObjectName::Partial(self.branch, self.segment(start));
            let (end, durable) = (self.position, Some(self.position));
            self.put_wal(name, Piece { start, end, durable }).await;
        }
    }

    /// Stores a piece of WAL; equal bytes under its name are success, and other bytes are refused (I3).
    async fn put_wal(&mut self, name: ObjectName, piece: Piece) {
        let truth = &mut self.truth;
        let range = truth.range(piece.start, piece.end);
        let digest = |unit: u64| {
            let mut hasher = self.writer.compare().hasher();
            hasher.update(&unit.to_le_bytes());
            hasher.digest()
        };
        let section = WalSection {
            branch: self.branch,
            segment: SegmentName::new(self.branch.timeline, Truth::number(piece.start), truth.size),
            segment_size: truth.size,
            start: range.start,
            end: range.end,
            compare_key: self.writer.compare().id(),
            digest_start: digest(piece.start),
            digest_end: digest(piece.end),
            transactions: Default::default(),
            leading_unread: false,
            durable: piece.durable.map(|unit| truth.lsn(unit)),
        };
        let there = truth.wal.entry(self.branch).or_default();
        let expected = there.get(&name).copied();
        if expected.is_none() {
            there.insert(name.clone(), piece);
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

    async fn lose(&mut self, which: usize) {
        let all: Vec<(Branch, ObjectName)> = self
            .truth
            .wal
            .iter()
            .flat_map(|(branch, pieces)| pieces.keys().map(|name| (*branch, name.clone())))
            .collect();
        if let Some((branch, name)) = which.checked_rem(all.len()).and_then(|at| all.get(at)) {
            self.remove_wal(*branch, name).await;
        }
    }

    async fn remove_wal(&mut self, branch: Branch, name: &ObjectName) {
        self.repository.remove(name).await.expect("a store of our own");
        self.truth.wal.get_mut(&branch).expect("a branch that is there").remove(name);
    }

    async fn lose_data(&mut self, which: usize) {
        let all: Vec<ObjectName> = self.truth.data.iter().cloned().collect();
        if let Some(name) = which.checked_rem(all.len()).and_then(|at| all.get(at)) {
            self.repository.remove(name).await.expect("a store of our own");
            self.truth.data.remove(name);
        }
    }

    /// As retention does: written down first; labels, then data that no label needs, then WAL, oldest first.
    async fn prune(&mut self, segments: u64, broken: bool) {
        let branch = self.branch;
        let numbers: BTreeSet<u64> = self.truth.pieces(branch).map(|(_, piece)| piece.start / UNITS).collect();
        let numbers: BTreeSet<u64> = numbers.into_iter().take(segments as usize).collect();
        let Some(last) = numbers.last().copied() else { return };
        let mut going = Pruned::default();
        for number in &numbers {
            let range = self.truth.range(number * UNITS, (number + 1) * UNITS);
            going.add_wal(branch, range);
            let units: Vec<u64> = self.truth.units(range).collect();
            self.truth.pruned.entry(branch).or_default().extend(units);
        }
        let needs = |base: &Backup| base.labelled && base.branch == branch && base.start < (last + 1) * UNITS;
        let bases: Vec<BaseId> =
            self.truth.bases.iter().filter(|(_, base)| needs(base)).map(|(id, _)| id.clone()).collect();
        bases.iter().for_each(|id| going.add_base(id.clone()));
        self.truth.pruned_bases.extend(bases.iter().cloned());
        let run = RunId::random().expect("random");
        self.repository.put_pruned(run, going, &Pruned::default(), &self.writer).await.expect("a store of our own");
        for id in &bases {
            self.repository.remove(&ObjectName::Label(id.clone())).await.expect("a store of our own");
            self.truth.bases.get_mut(id).expect("a base backup that is there").labelled = false;
        }
        let labelled = self.truth.bases.values().filter(|base| base.labelled);
        let needed: BTreeSet<ObjectName> = labelled.flat_map(|base| base.needs.iter().cloned()).collect();
        let free: Vec<ObjectName> = self.truth.data.difference(&needed).cloned().collect();
        for name in free {
            self.repository.remove(&name).await.expect("a store of our own");
            self.truth.data.remove(&name);
        }
        let goes = |piece: &Piece| numbers.contains(&(piece.start / UNITS));
        let mut names: Vec<(u64, ObjectName)> = self
            .truth
            .pieces(branch)
            .filter(|(_, piece)| goes(piece))
            .map(|(name, piece)| (piece.start, name.clone()))
            .collect();
        names.sort();
        let done = if broken { names.len() / 2 } else { names.len() };
        for (_, name) in names.into_iter().take(done) {
            self.remove_wal(branch, &name).await;
        }
    }

    async fn fork(&mut self, back: u64, partial: bool) {
        // A timeline begins after its parent.
        let (switch, begin) = (self.position.saturating_sub(back), self.truth.unit(self.history.begin()));
        if switch <= begin.max(FIRST * UNITS) {
            return;
        }
        if partial {
            self.partial().await;
        }
        let mut history = self.history.clone();
        let entry =
            HistoryEntry { timeline: history.timeline, switch: self.truth.lsn(switch), reason: b"lost".to_vec() };
        history.timeline = TimelineId::new(history.timeline.number() + 1).expect("not zero");
        history.entries.push(entry);
        let branch = history.branch(CLUSTER);
        let body = Ancestry::of(&history, CLUSTER);
        self.put_sealed(&ObjectName::History(branch), None, Some(&body)).await;
        (self.history, self.branch, self.position) = (history, branch, switch / UNITS * UNITS);
    }

    async fn adopt(&mut self) {
        let from = self.position / UNITS * UNITS;
        let adoptions = self.repository.adoptions().await.expect("a store of our own");
        let writer = self.writer.public().to_string();
        let (number, to) = adoptions.next_of(&self.history, self.branch, self.truth.lsn(from), &writer);
        let adoption = Adoption {
            branch: self.branch,
            from: self.truth.lsn(from),
            to,
            writer,
            found: self.now(),
            apart: Vec::new(),
        };
        (self.branch, self.position) = (to, from);
        self.tail(1).await;
        self.repository.put_adoption(number, &adoption, &self.writer).await.expect("a number that nothing has");
    }

    async fn gap(&mut self, segments: u64) {
        self.partial().await;
        let to = (self.position / UNITS + segments) * UNITS;
        let range = self.truth.range(self.position, to);
        let gap = Gap {
            branch: self.branch,
            from: range.start,
            to: range.end,
            next: self.branch,
            found: self.now(),
            highest_time: None,
            why: "the slot was dropped".to_owned(),
            way: Vec::new(),
        };
        self.repository.put_gap(&gap, &self.writer).await.expect("a store of our own");
        // One that was recorded before stays as it is.
        if !self.truth.gaps.iter().any(|known| (known.branch, known.from) == (gap.branch, gap.from)) {
            self.truth.gaps.push(gap);
        }
        self.position = to;
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
        let start = self.position;
        self.tail(2).await;
        let stop = self.position;
        let reference = |name: &ObjectName| {
            let name = name.to_string();
            ObjectReference { size: name.len() as u64, digest: ObjectDigest::of(name.as_bytes()), name }
        };
        let wal = self.truth.range(start, stop);
        let label = Label {
            kind,
            objects: needs.iter().map(reference).collect(),
            ..Label::sample(id.clone(), self.branch, self.truth.size, wal, began)
        };
        let name = ObjectName::Label(id.clone());
        let object = self.repository.signed(Kind::Label, &name, &label, &self.writer).expect("sealable");
        self.repository.put(&object).await.expect("a store of our own");
        self.truth.bases.insert(id, Backup { branch: self.branch, start, stop, needs, labelled: true });
    }

    async fn frontier(&mut self) {
        let told = self.truth.frontiers.entry(self.branch).or_default();
        *told = self.position.max(*told);
        let all = self.truth.frontiers.clone();
        let word = |branch: &Branch, unit: u64| BranchFrontier { branch: *branch, frontier: self.truth.lsn(unit) };
        let earlier = all.iter().filter(|(branch, _)| **branch != self.branch);
        let record = FrontierRecord {
            at: word(&self.branch, all[&self.branch]),
            server_end: self.truth.lsn(self.position),
            highest_time: None,
            written: Timestamp::UNIX_EPOCH,
            interval_seconds: 300,
            earlier: earlier.map(|(branch, unit)| word(branch, *unit)).collect(),
            ledger: None,
        };
        self.repository.put_frontier(&record, &self.writer).await.expect("a store of our own");
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
        let draft = Draft { kind, cluster, name: text, wal, frame_size: 64 << 10, level: 1 };
        let mut sealer = draft.seal(std::slice::from_ref(&self.recipient), &self.writer).expect("sealable");
        // What is looked at here are headers and names.
        sealer.frame(b"-").expect("small enough");
        sealer.finish_with(body).expect("sealable")
    }

    async fn put_sealed<B: serde::Serialize>(&self, name: &ObjectName, wal: Option<WalSection>, body: Option<&B>) {
        let object = self.sealed(name, wal, body);
        self.repository.put(&object).await.expect("a store of our own");
    }
}
