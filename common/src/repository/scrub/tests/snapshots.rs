//! Snapshots: what is missing, replaced or cut off of them, and what went by right.

use jiff::Timestamp;

use super::bed::{Bed, CLUSTER, kinds};
use crate::repository::scrub::references::References;
use crate::repository::scrub::snapshots::Snapshots;
use crate::repository::scrub::{Flaw, FlawKind, Survey};
use crate::repository::{Act, Chain, LedgerSigner, ObjectName, ObjectReference, Repository, SnapshotId, SnapshotLabel};
use crate::seal::{Kind, Role, SealedObject, TrustedWriter, WriterKey};

/// A repository with snapshots, and the archiver's run of the ledger.
struct Dumps {
    bed: Bed,
    chain: Chain,
    older: SnapshotId,
    newer: SnapshotId,
}

impl Dumps {
    /// Two whole ones.
    async fn two() -> Dumps {
        let bed = Bed::full().await;
        let chain = bed.chain();
        let (older, newer) = (sample(1).id, sample(2).id);
        let mut dumps = Dumps { bed, chain, older, newer };
        for number in [1, 2] {
            dumps.take(number).await;
        }
        dumps
    }

    fn object(&self, id: &SnapshotId, number: u32, size: usize) -> SealedObject {
        let mut sealer = self.bed.sealer(&self.bed.writer, Kind::Dump, &ObjectName::Dump(id.clone(), number), None);
        sealer.frames_of(&vec![number as u8; size]).expect("small enough");
        sealer.finish().expect("sealable")
    }

    /// Two objects of the archive, roles, facts, the label, and the entry.
    async fn take(&mut self, number: u32) {
        let mut label = sample(number);
        let mut references = Vec::new();
        for object in [0, 1, 2, 3].map(|place| self.object(&label.id, place, 100_000)) {
            self.bed.put(&object).await;
            references.push(ObjectReference::from(&object));
        }
        label.facts = references.split_off(3);
        label.globals = references.split_off(2);
        label.dump = references;
        self.put_label(&label).await;
        let (id, whole, dump_size, stored_size) = (label.id, label.whole, label.dump_size, label.stored_size);
        self.write(&Act::SnapshotFinished { id, whole, dump_size, stored_size, tables: 1, seconds: 1.0 }).await;
    }

    async fn put_label(&self, label: &SnapshotLabel) {
        self.bed.put(&self.bed.repository.signed_snapshot(label, &self.bed.writer).expect("short")).await;
    }

    async fn write(&mut self, act: &Act) {
        self.chain.write(Timestamp::now(), act).await.expect("written");
    }

    /// As retention does.
    async fn remove(&mut self, id: &SnapshotId) {
        self.bed.remove(&ObjectName::Snapshot(id.clone())).await;
        for name in self.bed.repository.snapshot_objects(id).await.expect("listed") {
            self.bed.remove(&name).await;
        }
    }

    /// Looks as a survey does, and does something after labels were read and before the rest is.
    async fn look(&mut self, meanwhile: impl AsyncFnOnce(&mut Dumps)) -> Vec<Flaw> {
        let (mut references, mut flaws) = (References::default(), Vec::new());
        let repository = self.bed.repository.clone();
        let reading = repository.ledger().await.expect("the store answers");
        let read = Snapshots::read(&repository, &reading, &mut references, &mut flaws).await;
        let snapshots = read.expect("the store answers");
        meanwhile(self).await;
        snapshots.list(&repository, &mut references, &mut flaws).await.expect("the store answers");
        snapshots.miss(&repository, &[], &mut flaws).await.expect("the store answers");
        flaws
    }
}

fn sample(number: u32) -> SnapshotLabel {
    let begun = format!("2026-11-2{number}T02:30:00Z").parse().expect("a time");
    SnapshotLabel::sample(begun, number, "shop").expect("an id")
}

#[tokio::test]
async fn snapshots_that_are_whole_have_no_flaws() {
    let dumps = Dumps::two().await;
    let (survey, reading) = dumps.bed.scrub().await;
    assert_eq!((survey.flaws, reading.flaws), (vec![], vec![]));
    assert_eq!((survey.snapshots, survey.heads.snapshot), (2, Some(dumps.newer)));
}

#[tokio::test]
async fn every_object_of_a_snapshot_is_missed_and_says_whose_it_is() {
    let dumps = Dumps::two().await;
    for number in 0..4 {
        let dumps = Dumps::two().await;
        let name = ObjectName::Dump(dumps.older.clone(), number);
        dumps.bed.remove(&name).await;
        let flaws = dumps.bed.survey(&[]).await.flaws;
        assert_eq!(kinds(&flaws), [(FlawKind::Missing, name.to_string().as_str())]);
        assert_eq!((&flaws[0].snapshots[..], flaws[0].bases.len()), (&[dumps.older.clone()][..], 0));
        assert!(flaws[0].cure.iter().any(|cure| cure.contains("walseal-archiver snapshot")), "{:?}", flaws[0].cure);
    }
    // Of a lost label the ledger tells.
    for id in [&dumps.older, &dumps.newer] {
        let dumps = Dumps::two().await;
        let name = ObjectName::Snapshot(id.clone());
        dumps.bed.remove(&name).await;
        let flaws = dumps.bed.survey(&[]).await.flaws;
        assert_eq!(kinds(&flaws), [(FlawKind::Missing, name.to_string().as_str())]);
        assert_eq!(flaws[0].snapshots, std::slice::from_ref(id));
    }
}

#[tokio::test]
async fn an_object_of_a_snapshot_that_is_replaced_is_found_by_its_digest_and_one_of_another_size_by_name() {
    let dumps = Dumps::two().await;
    let name = ObjectName::Dump(dumps.older.clone(), 1);
    // As whoever has the writer's key, or kept an object of an earlier attempt under this name: sealed anew it is another one.
    // Nine times of ten as long as well: the moment in its header has a digit less otherwise.
    let size = std::fs::metadata(dumps.bed.path(&name)).expect("an object of our own").len();
    let mut others = (0..100).map(|_| dumps.object(&dumps.older, 1, 100_000).bytes);
    dumps.bed.overwrite(&name, &others.find(|bytes| bytes.len() as u64 == size).expect("one of a hundred is as long"));
    let (survey, reading) = dumps.bed.scrub().await;
    assert_eq!(survey.flaws, [], "it has the size that it should have");
    assert_eq!(kinds(&reading.flaws), [(FlawKind::Replaced, name.to_string().as_str())]);
    assert_eq!(reading.flaws[0].snapshots, std::slice::from_ref(&dumps.older));
    assert!(reading.flaws[0].cure.iter().any(|cure| cure.contains("walseal-archiver snapshot")));

    dumps.bed.overwrite(&name, &dumps.object(&dumps.older, 1, 300_000).bytes);
    let flaws = dumps.bed.survey(&[]).await.flaws;
    assert_eq!(kinds(&flaws), [(FlawKind::Replaced, name.to_string().as_str())]);
    assert!(flaws[0].what.contains("bytes, and a label says"), "{}", flaws[0].what);
}

#[tokio::test]
async fn a_label_that_is_damaged_or_refers_to_what_is_not_its_own_is_a_flaw_of_its_snapshot() {
    let dumps = Dumps::two().await;
    let name = ObjectName::Snapshot(dumps.older.clone());
    let mut bytes = std::fs::read(dumps.bed.path(&name)).expect("an object of our own");
    let last = bytes.len() - 40;
    bytes[last] ^= 4;
    dumps.bed.overwrite(&name, &bytes);
    let (survey, reading) = dumps.bed.scrub().await;
    for flaws in [survey.flaws, reading.flaws] {
        assert_eq!(kinds(&flaws), [(FlawKind::Damaged, name.to_string().as_str())]);
        assert_eq!(flaws[0].snapshots, std::slice::from_ref(&dumps.older));
    }
    let dumps = Dumps::two().await;
    let mut label = sample(3);
    let other = dumps.bed.repository.snapshot(&dumps.older).await.expect("readable");
    label.dump.clone_from(&other.dump);
    dumps.put_label(&label).await;
    let flaws = dumps.bed.survey(&[]).await.flaws;
    let names: Vec<&str> = other.dump.iter().map(|reference| reference.name.as_str()).collect();
    assert_eq!(kinds(&flaws), names.iter().map(|name| (FlawKind::Replaced, *name)).collect::<Vec<_>>());
    assert!(flaws.iter().all(|flaw| flaw.snapshots == [label.id.clone()]), "{flaws:?}");
}

#[tokio::test]
async fn a_snapshot_that_is_on_record_as_removed_is_not_missed_where_somebody_says_so_who_may_remove_it() {
    let mut dumps = Dumps::two().await;
    let older = dumps.older.clone();
    dumps.remove(&older).await;
    assert_eq!(dumps.bed.survey(&[]).await.flaws.len(), 1);
    // A drill's host is trusted with what it records, and not with what goes.
    let drill = WriterKey::generate().expect("random bytes");
    let mut trust = dumps.bed.repository.trust().clone();
    trust.add(TrustedWriter { key: drill.public(), roles: vec![Role::Drill] });
    let repository = Repository::new(dumps.bed.repository.store().clone(), CLUSTER, trust);
    let signer = LedgerSigner { writer: drill, actor: "eve".to_owned(), program: "test 1".to_owned() };
    let removed = Act::SnapshotRemoved { id: older.clone() };
    let mut chain = Chain::new(repository.clone(), signer).expect("random bytes");
    chain.write(Timestamp::now(), &removed).await.expect("written");
    let flaws = Survey::take(&repository, &[]).await.expect("the store answers").flaws;
    assert_eq!(kinds(&flaws), [(FlawKind::Missing, ObjectName::Snapshot(older).to_string().as_str())]);

    dumps.write(&removed).await;
    let survey = Survey::take(&repository, &[]).await.expect("the store answers");
    assert_eq!((survey.flaws, survey.snapshots), (vec![], 1));
}

#[tokio::test]
async fn i6_a_snapshot_that_is_removed_while_somebody_looks_is_not_missed() {
    // It went after its label was read, and nobody has written that down yet.
    let mut dumps = Dumps::two().await;
    let older = dumps.older.clone();
    let flaws = dumps.look(async |dumps| dumps.remove(&older).await).await;
    assert_eq!(flaws, []);
    // It had gone before labels were read, and the record came after the ledger was.
    let mut dumps = Dumps::two().await;
    dumps.remove(&older).await;
    let removed = Act::SnapshotRemoved { id: older };
    assert_eq!(dumps.look(async |dumps| dumps.write(&removed).await).await, []);
    // One that is finished meanwhile has no label yet in what was listed.
    assert_eq!(dumps.look(async |dumps| dumps.take(3).await).await, []);
    assert_eq!(dumps.bed.found().await, []);
}

#[tokio::test]
async fn case_36_what_an_interrupted_dump_left_is_no_flaw() {
    let dumps = Dumps::two().await;
    let id = sample(3).id;
    dumps.bed.put(&dumps.object(&id, 0, 100_000)).await;
    let (survey, reading) = dumps.bed.scrub().await;
    assert_eq!((survey.flaws, reading.flaws), (vec![], vec![]));
    assert_eq!(survey.snapshots, 2);
}

#[tokio::test]
async fn a_newest_snapshot_that_was_cut_off_with_its_entry_shows_against_a_witness() {
    let mut dumps = Dumps::two().await;
    let (newer, heads) = (dumps.newer.clone(), dumps.bed.survey(&[]).await.heads);
    let entry = dumps.chain.head().expect("entries");
    dumps.remove(&newer).await;
    dumps.bed.remove(&ObjectName::Ledger(Box::new(entry.writer), entry.run, entry.sequence)).await;
    assert_eq!(dumps.bed.survey(&[]).await.flaws, [], "what is left looks whole");
    let flaws = dumps.bed.survey(&Bed::witness(heads.clone())).await.flaws;
    let label = ObjectName::Snapshot(newer.clone()).to_string();
    assert!(kinds(&flaws).contains(&(FlawKind::CutOff, label.as_str())), "{flaws:?}");
    // One that is newer is there: whether this one is missing the ledger alone tells.
    dumps.take(3).await;
    let flaws = dumps.bed.survey(&Bed::witness(heads)).await.flaws;
    assert!(flaws.iter().all(|flaw| flaw.snapshots.is_empty()), "{flaws:?}");
}
