//! What counts as a proof, and what does not.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::repository::{Act, Chain, EvidenceFact, LedgerSigner, SnapshotId};
use crate::seal::{Role, TrustedWriter, TrustedWriters};
use crate::store::DirectoryStore;
use crate::timeline::SystemIdentifier;

const CLUSTER: SystemIdentifier = SystemIdentifier(7);

struct Bed {
    folder: tempfile::TempDir,
    drill_host: WriterKey,
    stranger: WriterKey,
    identity: Identity,
    repository: Repository,
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_228_200 + second).expect("a time")
}

fn base(number: u32) -> BaseId {
    BaseId::new(time(0), number)
}

impl Bed {
    fn new() -> Bed {
        let folder = tempfile::tempdir().expect("a folder");
        let [drill_host, stranger] = [(); 2].map(|()| WriterKey::generate().expect("random bytes"));
        let trust = TrustedWriters::new(vec![TrustedWriter { key: drill_host.public(), roles: vec![Role::Drill] }]);
        let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
        let repository = Repository::new(store, CLUSTER, trust);
        let identity = Identity::generate().expect("random bytes");
        Bed { folder, drill_host, stranger, identity, repository }
    }

    /// A drill of `base` as `writer` records it; its evidence says `found`.
    async fn drill(&self, writer: &WriterKey, base: BaseId, at: i64, passed: bool, found: &str) -> ObjectName {
        let signer =
            LedgerSigner { writer: writer.clone(), actor: "ada@drill1".to_owned(), program: "test 1".to_owned() };
        let mut chain = Chain::new(self.repository.clone(), signer).expect("random bytes");
        let recipients = [self.identity.recipient().clone()];
        let put = self.repository.put_evidence(chain.run(), 0, found.as_bytes(), &recipients, writer).await;
        let (name, digest) = put.expect("stored");
        let facts = Box::new(DrillFacts {
            base: Some(base),
            target: "latest".to_owned(),
            branch: None,
            stop: None,
            bytes: 1,
            passed: 7,
            warned: 0,
            failed: if passed { Vec::new() } else { vec!["counts".to_owned()] },
            seconds: 1.5,
            first_query_seconds: Some(1.0),
            evidence: Some(EvidenceFact { name: name.to_string(), digest }),
            made: None,
        });
        let act = if passed { Act::DrillPassed(facts) } else { Act::DrillFailed(facts) };
        chain.write(time(at), &act).await.expect("written");
        name
    }

    async fn proof(&self) -> Proof {
        Proof::of(&self.repository.drills().await.expect("the store answers"), time(3600))
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.folder.path().join(name.key(CLUSTER))
    }
}

#[tokio::test]
async fn a_backup_is_proven_by_a_drill_that_passed_and_by_nothing_else() {
    let bed = Bed::new();
    assert_eq!(bed.proof().await, Proof::default());
    bed.drill(&bed.drill_host, base(1), 10, true, "first").await;
    bed.drill(&bed.drill_host, base(1), 20, true, "second").await;
    bed.drill(&bed.drill_host, base(2), 30, false, "third").await;
    // Nobody trusts this one, whatever it says.
    bed.drill(&bed.stranger, base(3), 40, true, "forged").await;
    let proof = bed.proof().await;
    assert_eq!(proof.proven, BTreeMap::from([(base(1), time(20))]));
    assert_eq!(proof.last, Some((time(30), false)));
    assert_eq!(proof.last_passed(), Some(time(20)));
    assert_eq!([1, 2, 3].map(|number| proof.of_base(&base(number))), [Some(true), Some(false), None]);
    // What a clock that was ahead has recorded does not seem to have passed just now until its time comes, and hides nothing.
    bed.drill(&bed.drill_host, base(1), 8000, true, "ahead").await;
    bed.drill(&bed.drill_host, base(4), 8000, true, "ahead too").await;
    assert_eq!((&bed.proof().await.proven, bed.proof().await.last), (&proof.proven, proof.last));
    let found: Vec<_> = bed.repository.drills().await.expect("readable").iter().map(|one| one.time).collect();
    assert_eq!(found, [time(10), time(20), time(30), time(8000), time(8000)]);
}

#[tokio::test]
async fn an_entry_that_was_changed_proves_nothing() {
    let bed = Bed::new();
    let evidence = bed.drill(&bed.drill_host, base(1), 10, true, "found").await;
    let ObjectName::Evidence(writer, run, _) = evidence else { panic!("another name") };
    let entry = bed.path(&ObjectName::Ledger(writer, run, 0));
    let mut bytes = std::fs::read(&entry).expect("ours");
    bytes[60] ^= 1;
    std::fs::write(&entry, bytes).expect("a folder of our own");
    assert_eq!(bed.proof().await, Proof::default());
}

#[tokio::test]
async fn evidence_is_opened_only_when_it_is_the_one_that_the_ledger_names() {
    let bed = Bed::new();
    let first = bed.drill(&bed.drill_host, base(1), 10, true, "rows of the payroll: 3").await;
    let second = bed.drill(&bed.drill_host, base(1), 20, true, "rows of the payroll: 4").await;
    let drills = bed.repository.drills().await.expect("readable");
    let identities = [bed.identity.clone()];
    let read = bed.repository.evidence(&drills[1], &identities).await.expect("readable").expect("there is some");
    assert_eq!(read, b"rows of the payroll: 4");
    let stored = std::fs::read(bed.path(&first)).expect("ours");
    assert!(!stored.windows(7).any(|window| window == b"payroll"), "it is sealed");
    // An older one in the place of the newer, as whoever holds the bucket can put it.
    std::fs::copy(bed.path(&first), bed.path(&second)).expect("a folder of our own");
    let error = bed.repository.evidence(&drills[1], &identities).await.expect_err("another object");
    assert!(error.to_string().contains("not the object that the ledger names"), "{error}");
    let stranger = [Identity::generate().expect("random bytes")];
    assert!(bed.repository.evidence(&drills[0], &stranger).await.is_err());
}

#[tokio::test]
async fn a_snapshot_is_proven_by_a_drill_of_it_that_passed_and_no_base_backup_is() {
    let bed = Bed::new();
    let ids: Vec<SnapshotId> = (0..3).map(|_| SnapshotId::generate().expect("random bytes")).collect();
    let drilled = async |writer: &WriterKey, id: &SnapshotId, at: i64, passed: bool| {
        let signer =
            LedgerSigner { writer: writer.clone(), actor: "ada@drill1".to_owned(), program: "test 1".to_owned() };
        let mut chain = Chain::new(bed.repository.clone(), signer).expect("random bytes");
        let recipients = [bed.identity.recipient().clone()];
        let put = bed.repository.put_evidence(chain.run(), 0, b"found", &recipients, writer).await;
        let (name, digest) = put.expect("stored");
        let act = Act::SnapshotDrilled {
            id: id.clone(),
            passed,
            checks: 3,
            failed: Vec::new(),
            tables: 1,
            seconds: 1.5,
            evidence: EvidenceFact { name: name.to_string(), digest },
        };
        chain.write(time(at), &act).await.expect("written");
    };
    drilled(&bed.drill_host, &ids[0], 10, true).await;
    drilled(&bed.drill_host, &ids[0], 20, false).await;
    drilled(&bed.drill_host, &ids[1], 15, false).await;
    drilled(&bed.stranger, &ids[2], 30, true).await;
    let drills = bed.repository.snapshot_drills().await.expect("the store answers");
    assert_eq!(drills.iter().map(|one| one.time).collect::<Vec<_>>(), [time(10), time(15), time(20)]);
    let ahead = SnapshotDrill { time: time(8000), passed: true, ..drills[2].clone() };
    let drills_and_one_ahead = [&drills[..], &[ahead]].concat();
    let proof = SnapshotProof::of(&drills_and_one_ahead, time(3600));
    let verdicts: Vec<_> = ids.iter().map(|id| (proof.of_snapshot(id), proof.proven_at(id))).collect();
    assert_eq!(verdicts, [(Some(true), Some(time(10))), (Some(false), None), (None, None)]);
    assert_eq!((proof.last_passed(), proof.last), (Some(time(10)), Some((time(20), false))));
    assert_eq!(bed.proof().await, Proof::default());
    bed.drill(&bed.drill_host, base(1), 5, true, "of a base backup").await;
    let (of_bases, of_snapshots) = bed.repository.drills_of_both_kinds().await.expect("the store answers");
    assert_eq!(of_bases.iter().map(|one| one.time).collect::<Vec<_>>(), [time(5)]);
    assert_eq!(of_snapshots, drills);
}
