//! What is planned is done in two phases, in an order that a crash cannot spoil, and not against the will of others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{
    BaseId, FlawKind, HoldRecord, Label, LeaseRecord, Ledger, LedgerSigner, Leftover, LeftoverWal, ObjectName,
    ObjectReference, Repository, RepositoryIdentity, RunId, Survey,
};
use walseal_common::seal::{Kind, ObjectDigest, TrustedWriter, TrustedWriters, WriterKey};
use walseal_common::segment::{SegmentName, SegmentNumber, SegmentSize};
use walseal_common::store::fault::{Call, Effect, Faulty};
use walseal_common::store::{Capabilities, DirectoryStore, ObjectStore, StoreErrorKind};
use walseal_common::telemetry::{AlertKind, Alerts};
use walseal_common::timeline::{Branch, SystemIdentifier, TimelineHistory, TimelineId};

use super::held::Holding;
use crate::retention::veto::WindowCommand;
use crate::retention::{Holdings, Keeper, Policy, Pruner};
use crate::stream::ProgressSender;

const SIZE: SegmentSize = SegmentSize::SMALLEST;
const SYSTEM: SystemIdentifier = SystemIdentifier(7);

/// A repository with a full backup for each of six days and the WAL between; of the WAL the names only.
struct Bed {
    folder: tempfile::TempDir,
    store: Arc<Faulty>,
    pruner: Pruner,
    ids: Vec<BaseId>,
}

fn branch() -> Branch {
    TimelineHistory::root(TimelineId::FIRST).branch(SYSTEM)
}

fn segment(number: u64) -> ObjectName {
    ObjectName::Wal(branch(), SegmentName::new(TimelineId::FIRST, SegmentNumber(number), SIZE), None)
}

/// Of a backup that may refer to any other.
fn lease_on_all() -> LeaseRecord {
    LeaseRecord {
        base: "20270101T000000Z-0000002a".parse().expect("an id"),
        parent: None,
        objects: vec!["base/".to_owned()],
        written: Timestamp::now(),
        interval_seconds: 300,
        released: false,
    }
}

impl Bed {
    async fn new(grace: Duration) -> Bed {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Faulty::new(Arc::new(Holding::new(DirectoryStore::new(folder.path().to_owned())))));
        let writer = WriterKey::generate().expect("random bytes");
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
        let repository = Repository::new(store.clone(), SYSTEM, trust);
        let signer = LedgerSigner { writer: writer.clone(), actor: "test".to_owned(), program: "test".to_owned() };
        let identity = RepositoryIdentity {
            format: 1,
            cluster: SYSTEM,
            postgres_major: 15,
            segment_size: SIZE,
            predecessor: None,
            capabilities: Capabilities { conditional_put: true, delete: true },
        };
        let policy = Policy { window: Duration::from_secs(86_400), daily: 0, weekly: 0, monthly: 0, min_proven: 0 };
        let ledger = Ledger::start(&repository, signer);
        let pruner = Pruner { repository, identity, writer, policy, grace, command: None, ledger };
        let mut bed = Bed { folder, store, pruner, ids: Vec::new() };
        for day in 0..6 {
            bed.put_day(day).await;
        }
        // The cluster lives.
        bed.put(&segment(34)).await;
        bed
    }

    async fn put(&self, name: &ObjectName) {
        let key = name.key(SYSTEM);
        self.store.put_new(&key, Bytes::from_static(b"only names count here")).await.expect("stored");
    }

    /// The sixth backup is an hour old, each other one a day older than the next; a backup refers to an object of the one before.
    async fn put_day(&mut self, day: u32) {
        let stop_time = Timestamp::now() - SignedDuration::from_hours(1 + 24 * (5 - i64::from(day)));
        let id = BaseId::new(stop_time, day);
        let first = 10 + 4 * u64::from(day);
        for number in first..first + 4 {
            self.put(&segment(number)).await;
        }
        let mut names = vec![ObjectName::Data(id.clone(), 0), ObjectName::Data(id.clone(), 1)];
        for name in &names {
            self.put(name).await;
        }
        names.extend(self.ids.last().map(|parent| ObjectName::Data(parent.clone(), 1)));
        let reference =
            |name: &ObjectName| ObjectReference { name: name.to_string(), size: 21, digest: ObjectDigest::of(b"x") };
        let start = SegmentNumber(first).start(SIZE);
        let wal = LsnRange { start: start.advance(100), end: start.advance(5000) };
        let label = Label {
            objects: names.iter().map(reference).collect(),
            ..Label::sample(id.clone(), branch(), SIZE, wal, stop_time)
        };
        let repository = &self.pruner.repository;
        let name = ObjectName::Label(id.clone());
        let object = repository.signed(Kind::Label, &name, &label, &self.pruner.writer).expect("signable");
        repository.put(&object).await.expect("stored");
        names.truncate(2);
        names.extend([name]);
        names.extend((first..first + 4).map(segment));
        for name in &names {
            self.date(name, stop_time);
        }
        self.ids.push(id);
    }

    /// Makes the store believe that the object was put at `time`.
    fn date(&self, name: &ObjectName, time: Timestamp) {
        let path = self.folder.path().join(name.key(SYSTEM));
        let file = std::fs::File::options().write(true).open(path).expect("our own");
        file.set_modified(time.into()).expect("our own");
    }

    async fn names(&self) -> Vec<String> {
        let page = self.pruner.repository.first_objects("", 1000).await.expect("listed");
        let mut names: Vec<String> = page.into_iter().map(|meta| meta.key).collect();
        names.retain(|name| !name.starts_with("ledger/") && !name.starts_with("pruned/"));
        names
    }

    /// What has to be there when all is gone that goes: two backups, an object of the one before, and WAL from the first on.
    fn expected(&self) -> Vec<String> {
        let mut names = vec![ObjectName::Data(self.ids[3].clone(), 1)];
        for id in &self.ids[4..] {
            names.extend([
                ObjectName::Data(id.clone(), 0),
                ObjectName::Data(id.clone(), 1),
                ObjectName::Label(id.clone()),
            ]);
        }
        names.extend((26..35).map(segment));
        names.iter().map(ToString::to_string).collect()
    }

    /// Everything that has a label is whole.
    async fn is_whole(&self) -> bool {
        let holdings = Holdings::survey(&self.pruner.repository, &self.pruner.identity).await.expect("readable");
        holdings.bases.iter().all(|base| holdings.is_whole(base))
    }
}

#[tokio::test]
async fn case_40_nothing_goes_before_it_was_announced_for_the_grace() {
    let mut bed = Bed::new(Duration::from_secs(48 * 3600)).await;
    let before = bed.names().await;
    let first = bed.pruner.prune().await.expect("announced");
    assert_eq!((first.announced.objects, first.removed.objects), (27, 0), "{:?}", first.plan.sums);
    assert!(first.next.is_some() && first.waiting == first.announced);
    let again = bed.pruner.prune().await.expect("looked");
    assert_eq!((again.announced.objects, again.removed.objects), (0, 0));
    // Nor because a clock that was ahead has dated something.
    bed.date(&segment(34), Timestamp::now() + SignedDuration::from_hours(24 * 30));
    let again = bed.pruner.prune().await.expect("looked");
    assert_eq!((again.announced.objects, again.removed.objects), (0, 0));
    // Nor does one that dated what was announced keep it from coming of age: it is announced anew.
    let pages: Vec<ObjectName> =
        bed.pruner.repository.intents().await.expect("readable").into_iter().map(|one| one.name).collect();
    pages.iter().for_each(|page| bed.date(page, Timestamp::now() + SignedDuration::from_hours(24 * 30)));
    let again = bed.pruner.prune().await.expect("looked");
    assert_eq!((again.announced.objects, again.removed.objects), (27, 0));
    let with_intent = bed.names().await;
    assert_eq!(with_intent.iter().filter(|name| !name.starts_with("intent/")).count(), before.len());
    // Both ends of the grace are the store's own time, to the second.
    bed.pruner.grace = Duration::ZERO;
    let last = bed.pruner.prune().await.expect("removed");
    assert_eq!((last.removed.objects, last.waiting.objects), (27, 0));
    assert_eq!(bed.names().await, bed.expected(), "the intents are done with");
}

#[tokio::test]
async fn i10_a_prune_that_broke_off_at_any_delete_goes_on_and_nothing_with_a_label_ever_lacks_an_object() {
    for broken in 1..=27 {
        let bed = Bed::new(Duration::ZERO).await;
        bed.store.plan(Call::Delete, broken..=u64::MAX, Effect::FailBefore(StoreErrorKind::Unreachable));
        bed.pruner.prune().await.expect_err("the store is gone");
        assert!(bed.is_whole().await, "after {broken}");
        bed.store.heal();
        bed.pruner.prune().await.expect("it goes on");
        assert_eq!(bed.names().await, bed.expected(), "after {broken}");
    }
}

#[tokio::test]
async fn what_goes_is_on_record_before_the_first_of_it_does() {
    let bed = Bed::new(Duration::ZERO).await;
    let repository = &bed.pruner.repository;
    bed.pruner.plan().await.expect("planned");
    assert!(repository.pruned().await.expect("readable").is_empty(), "a plan removes nothing");
    bed.store.plan(Call::Delete, 1..=u64::MAX, Effect::FailBefore(StoreErrorKind::Unreachable));
    bed.pruner.prune().await.expect_err("the store is gone");
    let pruned = repository.pruned().await.expect("readable");
    let bases: Vec<bool> = bed.ids.iter().map(|id| pruned.has_base(id)).collect();
    assert_eq!(bases, [true, true, true, true, false, false]);
    let range = |number| SegmentNumber(number).range(SIZE);
    let gone = LsnRange { start: range(10).start, end: range(25).end };
    assert_eq!(pruned.on(branch()), [gone], "and not a segment that stays");
}

#[tokio::test]
async fn what_is_on_record_and_stays_after_all_is_missed_again() {
    let mut bed = Bed::new(Duration::ZERO).await;
    let repository = bed.pruner.repository.clone();
    let identity = repository.signed(Kind::Identity, &ObjectName::Identity, &bed.pruner.identity, &bed.pruner.writer);
    repository.put(&identity.expect("signable")).await.expect("stored");
    let range =
        |from: u64, to: u64| LsnRange { start: SegmentNumber(from).start(SIZE), end: SegmentNumber(to).start(SIZE) };
    // A crash between the record and the first delete.
    bed.store.plan(Call::Delete, 1..=u64::MAX, Effect::FailBefore(StoreErrorKind::Unreachable));
    bed.pruner.prune().await.expect_err("the store is gone");
    bed.store.heal();
    let survey = async || Survey::take(&repository, &[]).await.expect("the store answers");
    let recorded = repository.pruned().await.expect("readable");
    assert_eq!(recorded.on(branch()), [range(10, 26)]);
    let leftover = survey().await.leftover;
    let told = LeftoverWal { branch: branch(), from: range(10, 26).start, to: range(10, 26).end };
    assert_eq!((&leftover.bases[..], &leftover.wal[..]), (&bed.ids[..4], &[told][..]));
    assert!(survey().await.flaws.iter().all(|flaw| flaw.kind != FlawKind::Hole), "it is there");

    // Three days more are promised meanwhile: only the oldest backup still goes.
    bed.pruner.policy.window = Duration::from_secs(4 * 86_400);
    // The command that may say no finds another record by then.
    let records = bed.store.list(&format!("{SYSTEM}/pruned/"), None, 10).await.expect("listed").objects;
    let command = format!("test ! -e {}", bed.folder.path().join(&records[0].key).display());
    bed.pruner.command = Some(WindowCommand { command, limit: Duration::from_secs(60) });
    let pruned = bed.pruner.prune().await.expect("it goes on");
    assert_eq!((pruned.vetoed, pruned.plan.go), (None, bed.ids[..1].to_vec()));
    let recorded = repository.pruned().await.expect("readable");
    let bases: Vec<&BaseId> = recorded.bases().iter().collect();
    assert_eq!((bases, recorded.on(branch())), (vec![&bed.ids[0]], &[range(10, 14)][..]));
    assert_eq!(survey().await.leftover, Leftover::default());
    let page = bed.store.list(&format!("{SYSTEM}/pruned/"), None, 10).await.expect("listed");
    assert_eq!(page.objects.len(), 1, "one record says all");
    // WAL between two backups that both stay, which was on record for a while.
    bed.store.delete(&segment(19).key(SYSTEM)).await.expect("our own");
    let holes: Vec<_> = survey().await.flaws.into_iter().filter(|flaw| flaw.kind == FlawKind::Hole).collect();
    assert!(holes.len() == 1 && holes[0].what.contains(&range(19, 20).start.to_string()), "{holes:?}");
}

#[tokio::test]
async fn case_41_what_is_not_let_go_is_on_record_no_longer() {
    let bed = Bed::new(Duration::ZERO).await;
    let label = ObjectName::Label(bed.ids[1].clone());
    bed.store.plan_below(&label.key(SYSTEM), Call::Delete, 1..=u64::MAX, Effect::FailBefore(StoreErrorKind::Denied));
    bed.pruner.prune().await.expect("the others go");
    let recorded = bed.pruner.repository.pruned().await.expect("readable");
    let mut gone = bed.ids[..4].to_vec();
    gone.remove(1);
    assert_eq!(recorded.bases().iter().cloned().collect::<Vec<_>>(), gone);
    let stays = SegmentNumber(14).range(SIZE);
    assert!(!recorded.has(branch(), stays) && recorded.has(branch(), SegmentNumber(13).range(SIZE)), "{recorded:?}");
}

#[tokio::test]
async fn what_was_announced_before_is_surveyed_once() {
    let mut bed = Bed::new(Duration::from_secs(48 * 3600)).await;
    let label = ObjectName::Label(bed.ids[0].clone()).key(SYSTEM);
    let reads = |bed: &Bed| bed.store.history().into_iter().filter(|one| *one == (Call::Get, label.clone())).count();
    bed.pruner.prune().await.expect("announced");
    assert_eq!(reads(&bed), 1);
    bed.pruner.grace = Duration::ZERO;
    assert_eq!(bed.pruner.prune().await.expect("removed").removed.objects, 27);
    assert_eq!(reads(&bed), 2);
    // What is announced and goes at once is looked for again in between: a backup may have begun meanwhile.
    let bed = Bed::new(Duration::ZERO).await;
    let label = ObjectName::Label(bed.ids[0].clone()).key(SYSTEM);
    bed.pruner.prune().await.expect("removed");
    let calls = |call: (Call, String)| bed.store.history().into_iter().filter(|one| *one == call).count();
    assert_eq!(calls((Call::Get, label)), 2);
    assert_eq!(calls((Call::List, format!("{SYSTEM}/pruned/"))), 1, "what goes is written down in one go");
}

#[tokio::test]
async fn labels_go_first_and_wal_goes_oldest_first() {
    let bed = Bed::new(Duration::ZERO).await;
    let plan = bed.pruner.plan().await.expect("planned");
    let names: Vec<String> = plan.removals.iter().map(|one| one.name.to_string()).collect();
    let labels: Vec<String> = bed.ids[..4].iter().map(|id| format!("base/{id}/label")).collect();
    let wal: Vec<String> = (10..26).map(|number| segment(number).to_string()).collect();
    assert_eq!((&names[..4], &names[4..20]), (&labels[..], &wal[..]));
}

#[tokio::test]
async fn case_40_a_backup_that_holds_a_lease_loses_nothing_that_it_may_refer_to() {
    let bed = Bed::new(Duration::ZERO).await;
    let record = lease_on_all();
    let run = RunId::random().expect("random bytes");
    let repository = &bed.pruner.repository;
    repository.put_lease(run, 0, &record, &bed.pruner.writer).await.expect("stored");
    let bases = |names: Vec<String>| names.into_iter().filter(|name| name.starts_with("base/")).collect::<Vec<_>>();
    let before = bases(bed.names().await);
    // Nor does a dry run say so, where a clock that was ahead has dated something.
    bed.date(&segment(34), Timestamp::now() + SignedDuration::from_hours(24 * 30));
    let plan = bed.pruner.plan().await.expect("planned");
    assert_eq!(bases(plan.removals.iter().map(|one| one.name.to_string()).collect()), Vec::<String>::new());
    bed.pruner.prune().await.expect("what it does not need goes");
    assert_eq!(bases(bed.names().await), before);
    let released = LeaseRecord { released: true, ..record };
    repository.put_lease(run, 1, &released, &bed.pruner.writer).await.expect("stored");
    bed.pruner.prune().await.expect("the rest goes");
    assert_eq!(bed.names().await, bed.expected());
}

#[tokio::test]
async fn case_40_what_was_announced_stays_announced_while_a_lease_keeps_it() {
    let mut bed = Bed::new(Duration::from_secs(48 * 3600)).await;
    bed.pruner.prune().await.expect("announced");
    let record = lease_on_all();
    let run = RunId::random().expect("random bytes");
    let repository = &bed.pruner.repository;
    repository.put_lease(run, 0, &record, &bed.pruner.writer).await.expect("stored");
    let announced = repository.announced().await.expect("readable");
    let during = bed.pruner.prune().await.expect("looked");
    assert!(during.plan.leased && during.removed.objects == 0);
    let repository = &bed.pruner.repository;
    assert_eq!(repository.announced().await.expect("readable"), announced, "its grace goes on");
    let released = LeaseRecord { released: true, ..record };
    repository.put_lease(run, 1, &released, &bed.pruner.writer).await.expect("stored");
    bed.pruner.grace = Duration::ZERO;
    bed.pruner.prune().await.expect("it goes");
    assert_eq!(bed.names().await, bed.expected(), "and is announced no longer");
}

#[tokio::test]
async fn without_permission_to_delete_everything_stays_and_it_is_said() {
    let bed = Bed::new(Duration::ZERO).await;
    let before = bed.names().await;
    bed.store.plan(Call::Delete, 1..=u64::MAX, Effect::FailBefore(StoreErrorKind::Denied));
    let pruned = bed.pruner.prune().await.expect("an answer");
    assert!(pruned.is_forbidden() && pruned.waiting.objects == 27, "{:?}", pruned.waiting);
    let left: Vec<String> = bed.names().await.into_iter().filter(|name| !name.starts_with("intent/")).collect();
    assert_eq!(left, before);
}

#[tokio::test]
async fn case_41_what_the_store_does_not_let_go_keeps_what_it_needs() {
    let bed = Bed::new(Duration::ZERO).await;
    let label = ObjectName::Label(bed.ids[1].clone());
    bed.store.plan_below(&label.key(SYSTEM), Call::Delete, 1..=u64::MAX, Effect::FailBefore(StoreErrorKind::Denied));
    let pruned = bed.pruner.prune().await.expect("the others go");
    assert_eq!(pruned.refused.iter().map(|one| one.name.clone()).collect::<Vec<_>>(), [label.to_string()]);
    let names = bed.names().await;
    assert!(!names.contains(&format!("base/{}/label", bed.ids[0])) && names.contains(&label.to_string()));
    assert!(names.contains(&format!("base/{}/data/00000001", bed.ids[0])), "it refers to it");
    assert!(bed.is_whole().await);
    assert!(names.contains(&segment(14).to_string()) && !names.contains(&segment(13).to_string()));
}

#[tokio::test]
async fn case_41_a_prune_that_broke_off_at_any_delete_leaves_what_is_held_with_all_that_it_needs() {
    for broken in 1..=20 {
        let bed = Bed::new(Duration::ZERO).await;
        let (label, wal) = (ObjectName::Label(bed.ids[1].clone()), segment(11));
        for name in [&label, &wal] {
            bed.store.legal_hold(&name.key(SYSTEM), true).await.expect("it has holds");
        }
        // Its label, its own objects and that of its parent, its WAL up to its stop point and the segment behind that, which recovery
        // reads ahead; and a segment for itself.
        let mut stays = [label.clone(), wal.clone(), segment(14), segment(15)].map(|name| name.to_string()).to_vec();
        let data = [(0, 1), (1, 0), (1, 1)];
        stays.extend(data.map(|(base, number)| ObjectName::Data(bed.ids[base].clone(), number).to_string()));
        let holds = async || {
            let names = bed.names().await;
            stays.iter().all(|name| names.contains(name)) && bed.is_whole().await
        };
        bed.store.plan(Call::Delete, broken..=u64::MAX, Effect::FailBefore(StoreErrorKind::Unreachable));
        let broke_off = bed.pruner.prune().await.is_err();
        assert!(broke_off && holds().await, "after {broken}");
        bed.store.heal();
        let done = bed.pruner.prune().await.expect("it goes on");
        assert_eq!(done.plan.locked.held, 2, "after {broken}");
        assert!(holds().await && done.refused.is_empty(), "after {broken}");
        let names = bed.names().await;
        let gone = [ObjectName::Label(bed.ids[0].clone()), segment(10), segment(12), segment(16)];
        let left: Vec<&ObjectName> = gone.iter().filter(|name| names.contains(&name.to_string())).collect();
        assert!(left.is_empty(), "after {broken}: {left:?}");
        // What was lifted goes.
        for name in [&label, &wal] {
            bed.store.legal_hold(&name.key(SYSTEM), false).await.expect("it has holds");
        }
        bed.pruner.prune().await.expect("the rest goes");
        // Of a backup whose label went before, what is left goes as that of an interrupted attempt does: once it is old.
        let mut rest = bed.expected();
        rest.insert(0, ObjectName::Data(bed.ids[0].clone(), 1).to_string());
        assert_eq!(bed.names().await, rest, "after {broken}");
    }
}

#[tokio::test]
async fn a_command_that_says_no_keeps_what_can_be_restored() {
    let mut bed = Bed::new(Duration::ZERO).await;
    let before = bed.names().await;
    let limit = Duration::from_secs(60);
    let command =
        "grep -q walseal.window/1 && echo \"blobs of $WALSEAL_WINDOW_BEFORE are needed\" >&2; exit 3".to_owned();
    bed.pruner.command = Some(WindowCommand { command, limit });
    let pruned = bed.pruner.prune().await.expect("an answer");
    let why = pruned.vetoed.expect("it said no");
    assert!(why.contains("exit status: 3: blobs of 20") && pruned.removed.objects == 0, "{why}");
    let left: Vec<String> = bed.names().await.into_iter().filter(|name| !name.starts_with("intent/")).collect();
    assert_eq!(left, before);
    // One that says much while it works lives to its end.
    let command = "head -c 200000 /dev/zero >&2 && cat > /dev/null".to_owned();
    bed.pruner.command = Some(WindowCommand { command, limit });
    assert_eq!(bed.pruner.prune().await.expect("it goes").removed.objects, 27);
    assert_eq!(bed.names().await, bed.expected());
}

#[tokio::test]
async fn a_backup_that_is_held_while_a_prune_is_about_to_remove_it_stays() {
    let mut bed = Bed::new(Duration::ZERO).await;
    let repository = &bed.pruner.repository;
    let until = Timestamp::now() + SignedDuration::from_hours(1);
    let record = HoldRecord { base: bed.ids[0].clone(), until: Some(until), written: Timestamp::now() };
    let hold = repository.put_hold(&record, &bed.pruner.writer).await.expect("stored");
    // It comes after holds were read, and before anything goes: where the command of the configuration runs.
    let (there, aside) = (bed.folder.path().join(hold.name.key(SYSTEM)), bed.folder.path().join("aside"));
    std::fs::rename(&there, &aside).expect("our own");
    let command = format!("cat > /dev/null; test ! -e {1} || mv {1} {0}", there.display(), aside.display());
    bed.pruner.command = Some(WindowCommand { command, limit: Duration::from_secs(60) });
    let pruned = bed.pruner.prune().await.expect("pruned");
    assert!(pruned.removed.objects > 0 && pruned.vetoed.is_none(), "the others go");
    assert!(!bed.pruner.repository.pruned().await.expect("readable").has_base(&bed.ids[0]), "it is missed again");
    bed.pruner.prune().await.expect("pruned");
    let labels = Holdings::survey(&bed.pruner.repository, &bed.pruner.identity).await.expect("readable").bases;
    assert!(bed.is_whole().await && labels.iter().any(|base| base.id == bed.ids[0]), "and goes on to be there");
}

#[tokio::test]
async fn names_of_strangers_stay_and_are_told() {
    let bed = Bed::new(Duration::ZERO).await;
    let key = format!("{SYSTEM}/base/notes.txt");
    bed.store.put_new(&key, Bytes::from_static(b"mine")).await.expect("stored");
    let pruned = bed.pruner.prune().await.expect("pruned");
    assert_eq!(pruned.plan.unknown_names, ["base/notes.txt"]);
    assert!(bed.names().await.contains(&"base/notes.txt".to_owned()));
    assert_eq!(pruned.plan.after[0].from, Lsn(SegmentNumber(26).start(SIZE).0 + 5000));
}

#[tokio::test]
async fn what_the_daemon_cannot_prune_is_an_alert_unless_it_may_pass_and_until_it_can() {
    let bed = Bed::new(Duration::ZERO).await;
    let (store, expected, alerts) = (bed.store.clone(), bed.expected(), Alerts::to_log());
    let keeper = Keeper {
        pruner: bed.pruner.clone(),
        enabled: true,
        taken: watch::channel(0).1,
        progress: ProgressSender::default().watch(),
        told: watch::channel(None).0,
        alerts: alerts.clone(),
    };
    let standing = || alerts.standing().into_iter().map(|alert| (alert.kind, alert.text)).collect::<Vec<_>>();
    let fails = |call, kind| {
        store.heal();
        store.plan(call, 1..=u64::MAX, Effect::FailBefore(kind));
    };
    fails(Call::List, StoreErrorKind::Unreachable);
    keeper.turn(true).await;
    assert_eq!((standing(), keeper.told.borrow().is_none()), (vec![], true));
    for call in [Call::List, Call::Delete] {
        fails(call, StoreErrorKind::Denied);
        keeper.turn(true).await;
        let found = standing();
        assert!(matches!(&found[..], [(AlertKind::RetentionRefused, _)]), "{call:?}: {found:?}");
        assert!(found[0].1.contains("prune --dry-run"), "{found:?}");
    }
    // What may pass says nothing about what stands.
    fails(Call::List, StoreErrorKind::Throttled);
    keeper.turn(true).await;
    assert_eq!(standing().len(), 1);
    store.heal();
    keeper.turn(true).await;
    assert_eq!((standing(), bed.names().await), (vec![], expected));
}
