//! A ledger that is right has no findings; every way to make it wrong has one.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::repository::{BranchFrontier, FrontierRecord, ObjectName, Repository};
use crate::seal::{Draft, Kind, Role, TrustedWriter, TrustedWriters, WriterKey};
use crate::store::fault::{Call, Effect, Faulty};
use crate::store::{DirectoryStore, StoreErrorKind};
use crate::timeline::SystemIdentifier;

const CLUSTER: SystemIdentifier = SystemIdentifier(7);

struct Bed {
    folder: tempfile::TempDir,
    store: Arc<Faulty>,
    writers: Vec<WriterKey>,
    repository: Repository,
    runtime: tokio::runtime::Runtime,
}

fn signer(writer: &WriterKey) -> LedgerSigner {
    LedgerSigner { writer: writer.clone(), actor: "ada@db1".to_owned(), program: "test 1".to_owned() }
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_228_200 + second).expect("a time")
}

impl Bed {
    /// An archiver, a drill host, and somebody whom nobody trusts.
    fn new() -> Bed {
        let folder = tempfile::tempdir().expect("a folder");
        let writers: Vec<WriterKey> = (0..3).map(|_| WriterKey::generate().expect("random bytes")).collect();
        let drill = TrustedWriter { key: writers[1].public(), roles: vec![Role::Drill] };
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writers[0].public()), drill]);
        let store = Arc::new(Faulty::new(Arc::new(DirectoryStore::new(folder.path().to_owned()))));
        let repository = Repository::new(store.clone(), CLUSTER, trust);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Bed { folder, store, writers, repository, runtime }
    }

    fn read(&self) -> LedgerReading {
        self.runtime.block_on(self.repository.ledger()).expect("the store answers")
    }

    /// A run of `writer` with so many entries.
    fn run(&self, writer: usize, entries: u32, at: i64) -> RunId {
        let mut chain = Chain::new(self.repository.clone(), signer(&self.writers[writer])).expect("random bytes");
        for entry in 0..entries {
            let act = Act::DaemonStopped { bytes_left: entry.into(), asked: true };
            self.runtime.block_on(chain.write(time(at + i64::from(entry)), &act)).expect("written");
        }
        chain.run()
    }

    fn name(&self, writer: usize, run: RunId, sequence: u32) -> ObjectName {
        ObjectName::Ledger(Box::new(self.writers[writer].public()), run, sequence)
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.folder.path().join(name.key(CLUSTER))
    }

    /// Signs and stores a body under a name, as somebody with a key may.
    fn forge(&self, writer: usize, name: &ObjectName, body: &Body) {
        let name = name.to_string();
        let draft = Draft { kind: Kind::Ledger, cluster: CLUSTER, name, wal: None, frame_size: 64 << 10, level: 1 };
        let object = draft.sign(&self.writers[writer], body).expect("signed");
        self.runtime.block_on(self.repository.put(&object)).expect("the store takes it");
    }
}

/// Three runs that have seen each other: of the archiver, of the drill host, of the archiver again.
fn three_runs() -> (Bed, Vec<(usize, RunId, u32)>) {
    let bed = Bed::new();
    let mut names = Vec::new();
    for (writer, entries, at) in [(0, 4, 0), (1, 3, 100), (0, 3, 50)] {
        let run = bed.run(writer, entries, at);
        names.extend((0..entries).map(|sequence| (writer, run, sequence)));
    }
    (bed, names)
}

#[test]
fn a_ledger_that_is_right_has_no_findings_and_is_told_by_time() {
    let (bed, names) = three_runs();
    let reading = bed.read();
    assert_eq!(reading.findings, []);
    assert_eq!(reading.entries.len(), names.len());
    let times: Vec<_> = reading.entries.iter().map(|entry| entry.body.time).collect();
    assert!(times.is_sorted(), "{times:?}");
    let first: Vec<_> = reading.entries.iter().filter(|entry| entry.body.sequence == 0).collect();
    let heads: Vec<_> = first.iter().map(|entry| entry.body.heads.as_ref().map(Vec::len)).collect();
    // By time: the first run, the last one, the one between.
    assert_eq!(heads, [Some(0), Some(2), Some(1)]);
    assert_eq!((first[0].body.actor.as_str(), first[0].body.act.as_str()), ("ada@db1", "daemon-stopped"));
    assert_eq!(first[0].body.facts["bytes_left"], 0);
    assert_eq!(Bed::new().read(), LedgerReading::default(), "none is no fault");
}

#[test]
fn case_44_runs_whose_clocks_jump_are_told_each_in_its_own_order() {
    let bed = Bed::new();
    for (writer, step) in [(0, 700), (1, 300), (0, -900), (1, 1100)] {
        let mut chain = Chain::new(bed.repository.clone(), signer(&bed.writers[writer])).expect("random bytes");
        for entry in 0..12 {
            // Ahead, back, and right again.
            let at = [0, step, -step][entry % 3] + entry as i64 * 10;
            let act = Act::DaemonStopped { bytes_left: 0, asked: true };
            bed.runtime.block_on(chain.write(time(at), &act)).expect("written");
        }
    }
    let reading = bed.read();
    assert_eq!((reading.findings.as_slice(), reading.entries.len()), (&[][..], 48));
    let mut last: BTreeMap<RunId, u32> = BTreeMap::new();
    for entry in &reading.entries {
        let next = last.insert(entry.body.run, entry.body.sequence).map_or(0, |last| last + 1);
        assert_eq!(entry.body.sequence, next, "of {}", entry.body.run);
    }
}

#[test]
fn whoever_has_another_key_or_none_cannot_add_to_a_run() {
    let (bed, names) = three_runs();
    let (_, run, _) = names[0];
    let last = bed.read().entries.into_iter().find(|entry| (entry.body.run, entry.body.sequence) == (run, 3));
    let last = last.expect("the last entry of the first run");
    let body = Body { sequence: 4, previous: Some(last.digest), heads: None, ..last.body };
    // The drill host, which is trusted for its own folder, and a stranger: both in the archiver's.
    for (writer, why) in [(1, "under the name of another writer"), (2, "not a trusted writer")] {
        let name = bed.name(0, run, 4);
        bed.forge(writer, &name, &body);
        let reading = bed.read();
        assert_eq!(reading.entries.len(), names.len());
        let [Finding::Forged { name: found, why: found_why }] = reading.findings.as_slice() else {
            panic!("{:?}", reading.findings)
        };
        assert!(*found == name.to_string() && found_why.contains(why), "{found}: {found_why}");
        std::fs::remove_file(bed.path(&name)).expect("removed");
    }
    // A stranger's own folder is nobody's.
    bed.forge(2, &bed.name(2, run, 0), &Body { sequence: 0, previous: None, heads: Some(vec![]), ..body });
    assert!(matches!(bed.read().findings.as_slice(), [Finding::Forged { .. }]));
}

#[test]
fn a_writer_that_rewrites_what_others_have_seen_is_found_out() {
    let (bed, names) = three_runs();
    let (writer, run, _) = names[0];
    let (name, key) = (bed.name(writer, run, 3), bed.writers[writer].public());
    let last = bed.read().entries.into_iter().find(|entry| (entry.body.run, entry.body.sequence) == (run, 3));
    std::fs::remove_file(bed.path(&name)).expect("removed");
    let by = bed.name(1, names[4].1, 0).to_string();
    let cut = Finding::CutOff { writer: key, run, seen: 3, by: by.clone() };
    assert!(bed.read().findings.contains(&cut), "{:?}", bed.read().findings);
    let body = Body { time: time(1000), ..last.expect("the last entry").body };
    bed.forge(writer, &name, &body);
    assert!(bed.read().findings.contains(&Finding::Replaced { writer: key, run, sequence: 3, by }));
    // Of a run that is gone as a whole somebody has seen the end.
    for sequence in 0..4 {
        std::fs::remove_file(bed.path(&bed.name(writer, run, sequence))).expect("removed");
    }
    assert!(bed.read().findings.contains(&cut), "{:?}", bed.read().findings);
}

#[test]
fn what_is_missing_within_a_run_is_named() {
    let (bed, names) = three_runs();
    let (writer, run, _) = names[0];
    for sequence in [1, 2] {
        std::fs::remove_file(bed.path(&bed.name(writer, run, sequence))).expect("removed");
    }
    let writer = bed.writers[writer].public();
    assert_eq!(bed.read().findings, [Finding::Missing { writer, run, first: 1, last: 2 }]);
    let words = bed.read().findings[0].to_string();
    assert_eq!(words, format!("missing: entries 1 to 2 of run {run} of {writer}"));
}

#[test]
fn an_old_entry_under_a_new_name_is_replayed_and_entries_that_changed_places_are_reordered() {
    let (bed, names) = three_runs();
    let name = |at: usize| bed.name(names[at].0, names[at].1, names[at].2);
    let text = |at: usize| name(at).to_string();
    let bytes = |at: usize| std::fs::read(bed.path(&name(at))).expect("an entry");
    let write = |at: usize, bytes: &[u8]| std::fs::write(bed.path(&name(at)), bytes).expect("written");
    let (one, two, three) = (bytes(1), bytes(2), bytes(3));
    // Over another one, and behind the run's end, where an attacker would have something happen again.
    write(2, &one);
    assert_eq!(bed.read().findings, [Finding::Replayed { name: text(2), signed_as: text(1) }]);
    write(2, &two);
    let (writer, run, _) = names[0];
    let next = bed.name(writer, run, 4);
    std::fs::write(bed.path(&next), &one).expect("written");
    assert_eq!(bed.read().findings, [Finding::Replayed { name: next.to_string(), signed_as: text(1) }]);
    std::fs::remove_file(bed.path(&next)).expect("removed");
    // In a circle of three.
    for (at, bytes) in [(1, &two), (2, &three), (3, &one)] {
        write(at, bytes);
    }
    let reordered = |at, as_at| Finding::Reordered { name: text(at), signed_as: text(as_at) };
    assert_eq!(bed.read().findings, [reordered(1, 2), reordered(2, 3), reordered(3, 1)]);
    // Damage is neither.
    for (at, bytes) in [(1, &one[..one.len() - 1]), (2, &two), (3, &three)] {
        write(at, bytes);
    }
    assert!(matches!(bed.read().findings.as_slice(), [Finding::Refused { .. }]), "{:?}", bed.read().findings);
}

#[test]
fn an_end_that_only_the_writers_frontier_has_seen_is_missed_when_it_is_cut_off() {
    let (bed, names) = three_runs();
    let (writer, run, _) = names[9];
    let last = bed.read().entries.into_iter().find(|entry| (entry.body.run, entry.body.sequence) == (run, 2));
    let (key, digest) = (&bed.writers[writer], last.expect("the last entry").digest);
    let branch = "00000001-a2dd04c7".parse().expect("a branch");
    let mut record = FrontierRecord {
        at: BranchFrontier { branch, frontier: crate::lsn::Lsn(0x500) },
        server_end: crate::lsn::Lsn(0x500),
        highest_time: None,
        written: time(60),
        interval_seconds: 300,
        earlier: Vec::new(),
        ledger: None,
    };
    let cut = |sequences: std::ops::Range<u32>| {
        for sequence in sequences {
            std::fs::remove_file(bed.path(&bed.name(writer, run, sequence))).expect("removed");
        }
        bed.read().findings
    };
    let put = |record: &FrontierRecord| {
        bed.runtime.block_on(bed.repository.put_frontier(record, key)).expect("stored").to_string()
    };
    put(&record);
    record.ledger = Some(Head { writer: key.public(), run, sequence: 2, digest });
    let by = put(&record);
    assert_eq!(bed.read().findings, [], "it is as the frontier says");
    let seen = Finding::CutOff { writer: key.public(), run, seen: 2, by };
    assert_eq!(cut(2..3), std::slice::from_ref(&seen));
    assert_eq!(cut(0..2), std::slice::from_ref(&seen), "nor does the whole run go unnoticed");
}

#[derive(Clone, Debug)]
enum Tampering {
    Delete,
    Flip(usize),
    Truncate(usize),
    CopyOver(usize),
    Swap(usize),
}

fn tampering() -> impl Strategy<Value = Tampering> {
    prop_oneof![
        Just(Tampering::Delete),
        any::<usize>().prop_map(Tampering::Flip),
        any::<usize>().prop_map(Tampering::Truncate),
        any::<usize>().prop_map(Tampering::CopyOver),
        any::<usize>().prop_map(Tampering::Swap),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_tampering_is_found_but_the_loss_of_an_end_that_nobody_has_seen(at: usize, tampering in tampering()) {
        let (bed, names) = three_runs();
        let path = |at: usize| {
            let (writer, run, sequence) = names[at % names.len()];
            bed.path(&bed.name(writer, run, sequence))
        };
        let (one, read) = (path(at), |path: &PathBuf| std::fs::read(path).expect("an entry"));
        let before = read(&one);
        let other = |number: &usize| path(*number);
        match &tampering {
            Tampering::Delete => std::fs::remove_file(&one).expect("removed"),
            Tampering::Flip(bit) => {
                let mut bytes = before.clone();
                let bit = bit % (8 * bytes.len());
                bytes[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(&one, bytes).expect("written");
            }
            Tampering::Truncate(length) => std::fs::write(&one, &before[..length % before.len()]).expect("written"),
            Tampering::CopyOver(number) => std::fs::write(&one, read(&other(number))).expect("written"),
            Tampering::Swap(number) => {
                let second = read(&other(number));
                std::fs::write(other(number), &before).expect("written");
                std::fs::write(&one, second).expect("written");
            }
        }
        let unchanged = one.exists() && read(&one) == before;
        // The last run's end is the one that no other run has seen.
        let unseen = matches!(tampering, Tampering::Delete) && at % names.len() == names.len() - 1;
        let reading = bed.read();
        prop_assert_eq!(reading.findings.is_empty(), unchanged || unseen, "{:?}", reading.findings);
    }
}

#[test]
fn an_entry_is_written_once_however_its_answers_were_lost() {
    let bed = Bed::new();
    let mut chain = Chain::new(bed.repository.clone(), signer(&bed.writers[0])).expect("random bytes");
    bed.store.plan_below("7/ledger/", Call::Put, 1..=1, Effect::FailAfter(StoreErrorKind::Unreachable));
    bed.store.plan_below("7/ledger/", Call::Put, 4..=4, Effect::FailBefore(StoreErrorKind::Unreachable));
    for second in 0..4 {
        let act = Act::DaemonStarted {};
        while let Err(error) = bed.runtime.block_on(chain.write(time(second), &act)) {
            assert!(!error.is_permanent(), "{error}");
        }
    }
    let reading = bed.read();
    assert_eq!((reading.entries.len(), reading.findings.len()), (4, 0), "{:?}", reading.findings);
    let times: Vec<_> = reading.entries.iter().map(|entry| entry.body.time).collect();
    assert_eq!(times, [time(0), time(1), time(2), time(3)]);
}

#[test]
fn what_is_recorded_while_the_store_is_away_is_written_in_order_when_it_is_back() {
    let bed = Bed::new();
    bed.store.set_down(Some(StoreErrorKind::Unreachable));
    bed.runtime.block_on(async {
        let ledger = Ledger::start(&bed.repository, signer(&bed.writers[1]));
        for left in 0..5 {
            ledger.record(Act::DaemonStopped { bytes_left: left, asked: true });
        }
        // Until it was tried: nothing that a caller waits for.
        while bed.store.calls(Call::List) == 0 {
            tokio::task::yield_now().await;
        }
        bed.store.heal();
        ledger.finish(Duration::from_secs(60)).await;
    });
    let reading = bed.read();
    assert_eq!(reading.findings, []);
    let left: Vec<_> = reading.entries.iter().map(|entry| entry.body.facts["bytes_left"].clone()).collect();
    assert_eq!(left, [0, 1, 2, 3, 4]);
}

#[test]
fn whoever_waits_for_the_record_does_not_go_on_before_it_is_stored() {
    let bed = Bed::new();
    bed.store.set_down(Some(StoreErrorKind::Unreachable));
    bed.runtime.block_on(async {
        let ledger = Ledger::start(&bed.repository, signer(&bed.writers[0]));
        assert!(!ledger.record_first(Act::DaemonStarted {}, Duration::from_millis(50)).await, "the store is away");
        bed.store.heal();
        let stopped = Act::DaemonStopped { bytes_left: 0, asked: true };
        assert!(ledger.record_first(stopped, Duration::from_secs(60)).await);
        assert_eq!(bed.repository.ledger().await.expect("the store answers").entries.len(), 2);
    });
}

#[test]
fn i11_what_does_not_fit_the_queue_is_counted_in_the_ledger_itself() {
    let bed = Bed::new();
    bed.runtime.block_on(async {
        let ledger = Ledger::start(&bed.repository, signer(&bed.writers[0]));
        // On one thread nothing is written before this waits for something.
        for left in 0..300 {
            ledger.record(Act::DaemonStopped { bytes_left: left, asked: true });
        }
        ledger.finish(Duration::from_secs(60)).await;
    });
    let reading = bed.read();
    let lost: Vec<_> = reading.entries.iter().filter(|entry| entry.body.act == "entries-lost").collect();
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].body.facts["count"], 300 - (reading.entries.len() as u64 - 1));
}

#[test]
fn a_store_that_stays_away_holds_nobody_up_at_the_end() {
    let bed = Bed::new();
    bed.store.set_down(Some(StoreErrorKind::Denied));
    bed.runtime.block_on(async {
        let ledger = Ledger::start(&bed.repository, signer(&bed.writers[0]));
        ledger.record(Act::DaemonStarted {});
        // What is not permitted is not waited for.
        ledger.finish(Duration::from_secs(3600)).await;
        let away = Ledger::start(&bed.repository, signer(&bed.writers[0]));
        bed.store.set_down(Some(StoreErrorKind::Unreachable));
        away.record(Act::DaemonStarted {});
        away.finish(Duration::from_millis(50)).await;
        // Nobody writes any more, and nobody is surprised.
        ledger.record(Act::DaemonStarted {});
        Ledger::none().record(Act::DaemonStarted {});
        Ledger::none().finish(Duration::from_secs(60)).await;
    });
    bed.store.heal();
    assert_eq!(bed.read(), LedgerReading::default());
}

/// One of each.
fn acts() -> Vec<Act> {
    let branch: crate::timeline::Branch = "00000001-a2dd04c7".parse().expect("a branch");
    let id: crate::repository::BaseId = "20261121T023000Z-9f3a01bc".parse().expect("an id");
    let lsn = crate::lsn::Lsn(0x300_0060);
    let writer = "walsealw1…".to_owned();
    let directory = obscured("/var/lib/postgresql/15/restored");
    vec![
        Act::Init { postgres_major: 15, segment_size: 16 << 20 },
        Act::DaemonStarted {},
        Act::DaemonStopped { bytes_left: 0, asked: true },
        Act::BaseStarted { id: id.clone() },
        Act::BaseFinished {
            id: id.clone(),
            branch,
            start: lsn,
            stop: lsn,
            cluster_size: 1,
            stored_size: 1,
            suspect: 0,
            suspect_files: Vec::new(),
            seconds: 1.5,
        },
        Act::BaseFailed { id: None, class: FailureClass::Server },
        Act::TimelineFollowed { from: branch, to: branch, fork: lsn, surplus_bytes: 0 },
        Act::GapRecorded { branch, from: lsn, to: lsn, next: branch },
        Act::GapHealed { branch, from: lsn, to: lsn },
        Act::Conflict { branch: Some(branch), name: None, writer: writer.clone() },
        Act::SlotCreated { position: Some(lsn) },
        Act::SlotDropped {},
        Act::SlotLost {},
        Act::Adopted { writer, branch, from: lsn },
        Act::AlertRaised { kind: "gap", subject: String::new(), severity: "critical" },
        Act::AlertCleared { kind: "gap", subject: String::new() },
        Act::RestoreStarted { target: TargetFact::Latest, base: id, branch, stop: lsn, directory: directory.clone() },
        Act::RestoreFinished {
            directory: directory.clone(),
            bytes: 1,
            seconds: 1.0,
            recovery: Some("promoted"),
            last_time: None,
        },
        Act::RestoreFailed { directory, class: FailureClass::Machine },
        Act::EntriesLost { count: 1 },
    ]
}

#[test]
fn every_act_has_its_row_in_the_format() {
    let format = include_str!("../../../../docs/FORMAT.md");
    let section = format.split("## 9. Ledger").nth(1).expect("a section on the ledger");
    let rows: BTreeMap<&str, &str> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | ")).collect();
    for act in acts() {
        let (word, facts) = act.parts();
        let row = rows.get(word.as_str()).unwrap_or_else(|| panic!("{word} has no row"));
        for fact in facts.keys() {
            assert!(row.contains(&format!("`{fact}`")), "{fact} of {word} is not in its row: {row}");
        }
    }
}

#[test]
fn what_stands_for_a_name_shows_it_to_nobody() {
    assert_eq!(obscured(""), "");
    assert_eq!(obscured("before_migration"), obscured("before_migration"));
    assert_ne!(obscured("before_migration"), obscured("before_migration2"));
    assert_eq!(obscured("before_migration").len(), 16);
}

#[test]
fn bodies_of_later_versions_are_read() {
    let text = r#"{"run":"00112233aabbccdd","sequence":0,"previous":null,"heads":[],"time":"2026-11-21T02:30:00Z",
        "actor":"a","program":"walseal-archiver 9.0","act":"moon-landing","facts":{"crew":3},"more":1}"#;
    let body: Body = serde_json::from_str(text).expect("read");
    assert_eq!((body.act.as_str(), &body.facts["crew"]), ("moon-landing", &3.into()));
    for bad in ["00112233AABBCCDD", "00112233aabbccd", "+0112233aabbccdd", ""] {
        assert!(bad.parse::<RunId>().is_err(), "{bad}");
    }
}
