//! A month of history: what the programs would have written, an hour for five minutes, with an outage of the store, one of the
//! archiver's host with a gap, a backlog, a drill and a backup that failed.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use walseal_common::config::Config;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{
    Act, BaseId, BaseType, BranchFrontier, Chain, DrillFacts, FailureClass, FrontierRecord, Gap, LedgerSigner,
    Repository, TargetFact, obscured,
};
use walseal_common::seal::{Role, TrustedWriter, TrustedWriters, WriterKey};

use crate::access::Access;
use crate::report::{Facts, Period};
use crate::sample::{SampleRepository, SampleWal};

const CONFIG: &str = "[drill]\nmax_rpo = \"5m\"\nmax_rto = \"15m\"\nschedule = \"30 4 * * *\"\n";
const GIB: u64 = 1 << 30;

pub(super) fn period() -> Period {
    "2026-11".parse().expect("a month")
}

pub(super) fn at(day: i64, hour: i64, minute: i64) -> Timestamp {
    period().from + SignedDuration::from_mins(((day - 1) * 24 + hour) * 60 + minute)
}

/// A number from 0 to 99 that looks like chance.
fn dice(seed: u64) -> u64 {
    (seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 33) % 100
}

pub(super) struct Month {
    pub(super) sample: SampleRepository,
    pub(super) access: Access,
    restorer: WriterKey,
}

/// A base backup of the month.
struct Backup {
    id: BaseId,
    finished: Timestamp,
    start: Lsn,
    stop: Lsn,
    cluster_size: u64,
    stored_size: u64,
    seconds: f64,
}

impl Month {
    pub(super) async fn new() -> Month {
        let sample = SampleRepository::new().await;
        let restorer = WriterKey::generate().expect("random bytes");
        let trust = vec![
            TrustedWriter::archiver(sample.writer.public()),
            TrustedWriter { key: restorer.public(), roles: vec![Role::Drill] },
        ];
        let store = sample.repository.store().clone();
        let repository = Repository::new(store, sample.cluster, TrustedWriters::new(trust));
        let config = Arc::new(Config::from_toml(CONFIG).expect("a configuration"));
        let access = Access { config, repository, identities: sample.identities.clone() };
        let month = Month { sample, access, restorer };
        let backups = month.archive().await;
        month.record(&backups).await;
        month
    }

    pub(super) async fn facts(&self) -> Facts {
        Facts::gather(&self.access, period(), at(31, 6, 0)).await.expect("readable")
    }

    fn chain(&self, actor: &str) -> Chain {
        let restores = actor.ends_with("restore1");
        let (writer, program) = match restores {
            true => (self.restorer.clone(), "walseal-restorer 0.1.0"),
            false => (self.sample.writer.clone(), "walseal-archiver 0.1.0"),
        };
        let signer = LedgerSigner { writer, actor: actor.to_owned(), program: program.to_owned() };
        Chain::new(self.access.repository.clone(), signer).expect("random bytes")
    }

    /// WAL, frontiers, labels and the gap.
    async fn archive(&self) -> Vec<Backup> {
        let sample = &self.sample;
        let branch = sample.branch();
        let mut wal = SampleWal::from(Lsn(0x30_0000));
        let (mut backups, mut gap) = (Vec::new(), LsnRange { start: wal.start, end: wal.start });
        let mut durable = wal.start;
        for hour in 0..30 * 24u32 {
            let (day, of_day) = (i64::from(hour / 24) + 1, i64::from(hour % 24));
            let time = at(day, of_day, 0);
            if (day, of_day) == (19, 9) {
                wal.fill_segment();
                gap.end = sample.size.align_down(wal.end());
            }
            let busy = if (8..18).contains(&of_day) { 5 } else { 2 } + dice(hour.into()) / 40;
            for _ in 0..busy {
                wal.filler(5000);
            }
            let highest = time - SignedDuration::from_secs(20);
            wal.commit(700 + hour, &highest.to_string());
            let taken = if day == 19 { 9 } else { 2 };
            if of_day == taken {
                let start = wal.checkpoint(u64::from(701 + hour), &time.to_string()).start;
                let stop = wal.filler(16).end;
                let sunday = day % 7 == 1;
                let grown = 41 * GIB + (day as u64 * 310 + dice(day as u64)) * (1 << 20);
                backups.push(Backup {
                    id: BaseId::new(time + SignedDuration::from_mins(1), day as u32),
                    finished: time + SignedDuration::from_mins(if sunday { 9 } else { 3 }),
                    start,
                    stop,
                    cluster_size: grown,
                    stored_size: if sunday { 14 * GIB } else { GIB / 2 + dice(day as u64 + 7) * (6 << 20) },
                    seconds: if sunday { 431.0 } else { 80.0 + dice(day as u64 + 99) as f64 },
                });
            }
            let store_away = day == 8 && (6..13).contains(&of_day);
            let host_away = (day, of_day) > (18, 22) && (day, of_day) < (19, 9);
            let backlog = day == 23 && (11..14).contains(&of_day);
            if store_away || host_away {
                continue;
            }
            if !backlog {
                durable = wal.end();
            }
            if (day, of_day) == (18, 22) {
                gap.start = durable;
            }
            let late = SignedDuration::from_mins(if backlog { 60 * (of_day - 10) } else { 0 });
            let record = FrontierRecord {
                at: BranchFrontier { branch, frontier: durable },
                server_end: wal.end(),
                highest_time: Some(highest - late),
                written: time,
                interval_seconds: 3600,
                earlier: Vec::new(),
                ledger: None,
            };
            sample.repository.put_frontier(&record, &sample.writer).await.expect("stored");
        }
        self.ship(&wal, gap).await;
        for backup in &backups {
            let mut label = sample.label(branch, backup.start, backup.stop, &backup.finished.to_string(), None);
            label.id = backup.id.clone();
            label.kind = if backup.stored_size > 4 * GIB { BaseType::Full } else { BaseType::Incremental };
            sample.put_label_as_is(&label).await;
        }
        backups
    }

    async fn ship(&self, wal: &SampleWal, gap: LsnRange) {
        let (sample, branch) = (&self.sample, self.sample.branch());
        let mut number = sample.size.number(wal.start);
        while number.start(sample.size) < wal.end() {
            let range = number.range(sample.size);
            if range.end <= gap.start || gap.end <= range.start {
                let held = LsnRange { start: range.start, end: range.end.min(wal.end()) };
                if held == range {
                    sample.put_segment(branch, number, wal.slice(held)).await;
                } else {
                    sample.put_tail(branch, held, wal.slice(held)).await;
                }
            } else if range.start < gap.start {
                let held = LsnRange { start: range.start, end: gap.start };
                sample.put_tail(branch, held, wal.slice(held)).await;
            }
            number = number.next();
        }
        let record = Gap {
            branch,
            from: gap.start,
            to: gap.end,
            next: branch,
            found: at(19, 8, 58),
            highest_time: Some(at(18, 22, 0) - SignedDuration::from_secs(20)),
            why: "the slot kept no WAL any more (wal_status = lost)".to_owned(),
            way: Vec::new(),
        };
        sample.repository.put_gap(&record, &sample.writer).await.expect("stored");
    }

    /// The ledger: the daemon on db1, drills each in a run of its own, a restore by a person.
    async fn record(&self, backups: &[Backup]) {
        let mut ada = self.chain("ada@db1");
        let init = Act::Init { postgres_major: 15, segment_size: 1 << 20 };
        write(&mut ada, at(0, 9, 0), init).await;
        let mut daemon = self.chain("postgres@db1");
        write(&mut daemon, at(0, 9, 5), Act::DaemonStarted {}).await;
        for (day, backup) in (1..).zip(backups) {
            if day == 8 {
                self.store_is_away(&mut daemon).await;
            }
            if day == 19 {
                daemon = self.host_is_away().await;
            }
            self.back_up(&mut daemon, day, backup).await;
            if day == 23 {
                let (kind, subject) = ("backlog", obscured("walseal"));
                let raised = Act::AlertRaised { kind, subject: subject.clone(), severity: "warning" };
                write(&mut daemon, at(23, 11, 12), raised).await;
                write(&mut daemon, at(23, 13, 40), Act::AlertCleared { kind, subject }).await;
            }
            if day == 25 {
                self.restore(backup).await;
            }
        }
    }

    async fn back_up(&self, daemon: &mut Chain, day: i64, backup: &Backup) {
        let branch = self.sample.branch();
        let began = backup.finished - SignedDuration::from_secs(backup.seconds as i64);
        if day == 20 {
            let id = BaseId::new(began - SignedDuration::from_mins(20), 99);
            write(daemon, began - SignedDuration::from_mins(20), Act::BaseStarted { id: id.clone() }).await;
            let failed = Act::BaseFailed { id: Some(id), class: FailureClass::Server };
            write(daemon, began - SignedDuration::from_mins(12), failed).await;
        }
        write(daemon, began, Act::BaseStarted { id: backup.id.clone() }).await;
        let finished = Act::BaseFinished {
            id: backup.id.clone(),
            branch,
            start: backup.start,
            stop: backup.stop,
            cluster_size: backup.cluster_size,
            stored_size: backup.stored_size,
            suspect: 0,
            suspect_files: Vec::new(),
            seconds: backup.seconds,
        };
        write(daemon, backup.finished, finished).await;
        // No drill in the night in which the host was away.
        if day != 19 {
            self.drill(day, backup).await;
        }
    }

    async fn drill(&self, day: i64, backup: &Backup) {
        let passed = day != 12;
        let seconds = 410.0 + 3.0 * day as f64 + dice(day as u64 + 31) as f64;
        let facts = Box::new(DrillFacts {
            base: Some(backup.id.clone()),
            target: if day % 3 == 0 { "random".to_owned() } else { "latest".to_owned() },
            branch: Some(self.sample.branch()),
            stop: Some(backup.stop),
            bytes: backup.cluster_size,
            passed: if passed { 14 } else { 13 },
            warned: u32::from(day % 6 == 0),
            failed: if passed { Vec::new() } else { vec!["amcheck".to_owned()] },
            seconds: 2.1 * seconds,
            first_query_seconds: Some(seconds),
            evidence: None,
            made: None,
        });
        let act = if passed { Act::DrillPassed(facts) } else { Act::DrillFailed(facts) };
        write(&mut self.chain("drill@restore1"), at(day, 4, 30 + 14), act).await;
    }

    async fn store_is_away(&self, daemon: &mut Chain) {
        let (kind, subject) = ("store-unreachable", String::new());
        let raised = Act::AlertRaised { kind, subject: subject.clone(), severity: "critical" };
        write(daemon, at(8, 6, 11), raised).await;
        write(daemon, at(8, 12, 44), Act::AlertCleared { kind, subject }).await;
    }

    async fn host_is_away(&self) -> Chain {
        let mut daemon = self.chain("postgres@db1");
        let (branch, subject) = (self.sample.branch(), obscured("gap"));
        write(&mut daemon, at(19, 8, 57), Act::DaemonStarted {}).await;
        write(&mut daemon, at(19, 8, 57), Act::SlotLost {}).await;
        let gap = self.access.repository.gap_records().await.expect("readable").remove(0).content.expect("readable");
        let recorded = Act::GapRecorded { branch, from: gap.from, to: gap.to, next: branch };
        write(&mut daemon, at(19, 8, 58), recorded).await;
        write(&mut daemon, at(19, 8, 58), Act::SlotCreated { position: Some(gap.to) }).await;
        let raised = Act::AlertRaised { kind: "gap", subject: subject.clone(), severity: "critical" };
        write(&mut daemon, at(19, 8, 58), raised).await;
        write(&mut daemon, at(19, 9, 4), Act::AlertCleared { kind: "gap", subject }).await;
        daemon
    }

    async fn restore(&self, backup: &Backup) {
        let mut grace = self.chain("grace@restore1");
        let directory = obscured("/srv/restored");
        let started = Act::RestoreStarted {
            target: TargetFact::Time(at(25, 10, 15)),
            base: backup.id.clone(),
            branch: self.sample.branch(),
            stop: backup.stop,
            directory: directory.clone(),
        };
        write(&mut grace, at(25, 10, 30), started).await;
        let finished = Act::RestoreFinished {
            directory,
            bytes: backup.cluster_size,
            seconds: 512.0,
            recovery: Some("promoted"),
            last_time: Some(at(25, 10, 14)),
        };
        write(&mut grace, at(25, 10, 39), finished).await;
    }
}

async fn write(chain: &mut Chain, time: Timestamp, act: Act) {
    chain.write(time, &act).await.expect("a folder of our own");
}
