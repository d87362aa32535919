//! walseal's reading of WAL against `pg_waldump`, on real WAL of every supported major.

// Functions that the tests share fail them by panic, too.
#![allow(clippy::expect_used, clippy::panic)]

mod changes;
mod dump;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_common::segment::{SegmentName, SegmentSize};
use walseal_common::timeline::{SystemIdentifier, TimelineHistory, TimelineId};
use walseal_common::wal::{
    Content, EndReason, Event, ExpectedHeader, RecordBody, TransactionOutcome, WalError, WalSummary, WalVersion,
    WalkEnd, WalkOptions, Walker, check_segment_header, valid_end,
};
use walseal_tests::cluster::{Cluster, Stop};

use crate::dump::{Dump, dump, transaction};

/// The contiguous WAL in the segments of one timeline, from the first one that is there.
struct Wal {
    folder: PathBuf,
    size: SegmentSize,
    start: Lsn,
    bytes: Vec<u8>,
}

impl Wal {
    fn read(cluster: &Cluster, timeline: TimelineId, size: SegmentSize) -> Result<Wal> {
        let folder = cluster.data().join("pg_wal");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
            names.extend(entry?.file_name().to_string_lossy().parse::<SegmentName>().ok());
        }
        names.retain(|name| name.timeline == timeline);
        names.sort();
        let number = |name: &SegmentName| name.number(size).context("a name of another segment size");
        let first = number(names.first().context("no segment")?)?;
        let mut bytes = Vec::new();
        for (name, at) in names.iter().zip(first.0..) {
            ensure!(number(name)?.0 == at, "{name} does not follow the segment before");
            bytes.extend(std::fs::read(folder.join(name.to_string()))?);
        }
        Ok(Wal { folder, size, start: first.start(size), bytes })
    }

    fn after(&self, lsn: Lsn) -> &[u8] {
        &self.bytes[lsn.bytes_since(self.start) as usize..]
    }
}

/// A record, as far as it can be compared with a line.
#[derive(Debug, PartialEq, Clone)]
struct Seen {
    start: Lsn,
    end: Lsn,
    prev: Lsn,
    length: u32,
    xid: u32,
    manager: String,
    content: Content,
    /// The block references as `pg_waldump` prints them, and the bytes of their images; none for bodies not read.
    blocks: Option<(Vec<String>, u64)>,
}

fn walk<'a>(start: Lsn, size: SegmentSize, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Seen>, WalSummary, WalkEnd) {
    let options = WalkOptions { body_limit: Some(100_000), ..WalkOptions::default() };
    let mut walker = Walker::new(start, size, options).expect("a segment starts with a page");
    let (mut seen, mut summary) = (Vec::new(), WalSummary::default());
    let mut first = None;
    for piece in pieces {
        let magic = u16::from_le_bytes([piece[0], piece[1]]);
        let version = *first.get_or_insert_with(|| WalVersion::from_magic(magic).expect("the first page's magic"));
        let pushed = walker.push(piece, |event| {
            summary.add(&event);
            if let Event::Record(record) = event {
                seen.push(Seen {
                    start: record.start,
                    end: record.end,
                    prev: record.prev,
                    length: record.length,
                    xid: record.xid.0,
                    manager: record.manager.to_string(),
                    content: record.content,
                    blocks: record.body.map(|body| blocks(version, body)),
                });
            }
        });
        if pushed.is_err() {
            break;
        }
    }
    (seen, summary, walker.end())
}

fn blocks(version: WalVersion, body: &[u8]) -> (Vec<String>, u64) {
    let body = RecordBody::parse(version, body).expect("a record with a right checksum can be taken apart");
    let images = body.blocks.iter().filter_map(|block| block.image).map(|image| u64::from(image.length)).sum();
    let fork = |fork: u8| ["", " fork fsm", " fork vm", " fork init"][usize::from(fork)];
    let text = |block: &walseal_common::wal::BlockReference| {
        format!("blkref #{}: rel {}{} blk {}", block.id, block.relation, fork(block.fork), block.block)
    };
    (body.blocks.iter().map(text).collect(), images)
}

/// Every record, its content where it is interpreted, and the end.
fn compare(wal: &Wal, seen: &[Seen], end: &WalkEnd, oracle: &Dump) -> Result<()> {
    for (record, line) in seen.iter().zip(&oracle.lines) {
        let told = (record.start, record.prev, record.length, record.xid, record.manager.as_str());
        assert_eq!(told, (line.start, line.prev, line.length, line.xid, line.manager.as_str()), "{line:?}");
        if let Some((blocks, images)) = &record.blocks {
            assert_eq!(u64::from(record.length) - images, line.without_images, "{line:?}");
            assert_eq!(line.blocks.matches("blkref #").count(), blocks.len(), "{line:?}");
            for block in blocks {
                assert!(line.blocks.contains(block), "{block} is not in {line:?}");
            }
        }
        match (&record.content, transaction(line)?) {
            (Content::Transaction(end), Some(expected)) => {
                assert_eq!((end.xid.0, end.time, end.subtransactions), expected, "{line:?}");
                let kind = match end.outcome {
                    TransactionOutcome::Commit => "COMMIT",
                    TransactionOutcome::Abort => "ABORT",
                    TransactionOutcome::CommitPrepared => "COMMIT_PREPARED",
                    TransactionOutcome::AbortPrepared => "ABORT_PREPARED",
                };
                assert_eq!(kind, line.kind);
            }
            (Content::RestorePoint(point), None) => {
                assert_eq!(("RESTORE_POINT", point.name.as_str()), (line.kind.as_str(), line.description.as_str()));
            }
            (Content::Checkpoint(checkpoint), None) => {
                let name = if checkpoint.shutdown { "CHECKPOINT_SHUTDOWN" } else { "CHECKPOINT_ONLINE" };
                assert_eq!(line.kind, name);
                let full = checkpoint.next_xid.0;
                let said = format!(
                    "redo {}; tli {}; prev tli {};",
                    checkpoint.redo,
                    checkpoint.timeline.number(),
                    checkpoint.previous_timeline.number()
                );
                assert!(line.description.starts_with(&said), "{said} is not in {line:?}");
                let xid = format!("xid {}:{};", full >> 32, full & 0xFFFF_FFFF);
                assert!(line.description.contains(&xid), "{xid} is not in {line:?}");
            }
            (Content::ParameterChange(change), None) => {
                let said = format!(
                    "max_connections={} max_worker_processes={} max_wal_senders={} max_prepared_xacts={} max_locks_per_xact={}",
                    change.max_connections,
                    change.max_worker_processes,
                    change.max_wal_senders,
                    change.max_prepared_transactions,
                    change.max_locks_per_transaction
                );
                assert_eq!("PARAMETER_CHANGE", line.kind);
                assert!(line.description.starts_with(&said), "{said} is not in {line:?}");
            }
            (Content::EndOfRecovery(_), None) => assert_eq!(line.kind, "END_OF_RECOVERY"),
            (Content::Switch, None) => assert_eq!((line.kind.as_str(), line.manager.as_str()), ("SWITCH", "XLOG")),
            (Content::Overwrite { lost, .. }, None) => {
                assert_eq!(line.kind, "OVERWRITE_CONTRECORD");
                assert!(line.description.contains(&format!("lsn {lost};")), "{lost} is not in {line:?}");
            }
            (Content::Other, None) => {
                let interpreted =
                    ["RESTORE_POINT", "CHECKPOINT_SHUTDOWN", "CHECKPOINT_ONLINE", "PARAMETER_CHANGE", "SWITCH"];
                assert!(!interpreted.contains(&line.kind.as_str()), "{line:?}");
            }
            (content, expected) => panic!("{content:?} instead of {expected:?}: {line:?}"),
        }
    }
    assert_eq!(seen.len(), oracle.lines.len(), "{end}; {}", oracle.stderr);
    ensure!(seen.last().map(|record| record.start) == oracle.lines.last().map(|line| line.start));
    // "error in WAL record at <last record>: <what is wrong> at <where>: …"
    let at = oracle.stderr.lines().find_map(|line| line.split_once("error in WAL record at ")).context("no end")?.1;
    let last: Lsn = at.split(':').next().context("no position")?.parse()?;
    assert_eq!(Some(last), seen.last().map(|record| record.start));
    if let Some((_, after)) = at.split_once("invalid record length at ") {
        let place: Lsn = after.split(':').next().context("no position")?.parse()?;
        assert_eq!(end.at, place);
        assert!(matches!(end.reason, EndReason::TooShort(_)), "{end}");
    }
    ensure!(end.position <= end.at && end.position.bytes_since(wal.start) < wal.bytes.len() as u64);
    Ok(())
}

fn load(cluster: &Cluster) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wal/workload.sql");
    let script = cluster.scratch().file("workload.sql", &std::fs::read_to_string(script)?)?;
    cluster.psql(&cluster.conninfo()).arg("-f").arg(script).run()?.success()?;
    Ok(())
}

fn busy_cluster(major: u16, mebibytes: u64) -> Result<Cluster> {
    let builder = Cluster::builder().major(major).segment_mib(mebibytes);
    builder.setting("max_prepared_transactions", "10").setting("wal_keep_size", "2GB").start()
}

fn every_record_is_as_pg_waldump_reads_it(major: u16, mebibytes: u64) -> Result<()> {
    let size = SegmentSize::new(mebibytes << 20)?;
    let mut cluster = busy_cluster(major, mebibytes)?;
    let system: SystemIdentifier = cluster.system_identifier()?.parse().map_err(anyhow::Error::msg)?;
    load(&cluster)?;
    cluster.stop(Stop::Fast)?;
    cluster.set_override("max_connections", "47");
    cluster.start()?;
    cluster.sql("create table after_restart as select generate_series(1, 1000) a")?;
    cluster.stop(Stop::Immediate)?;

    let wal = Wal::read(&cluster, TimelineId::FIRST, size)?;
    let oracle = dump(&cluster, &wal.folder, TimelineId::FIRST, wal.start)?;
    let (seen, summary, end) = walk(wal.start, size, wal.bytes.chunks(size.bytes() as usize));
    compare(&wal, &seen, &end, &oracle)?;
    let kinds: Vec<&str> = oracle.lines.iter().map(|line| line.kind.as_str()).collect();
    for kind in [
        "COMMIT",
        "ABORT",
        "COMMIT_PREPARED",
        "ABORT_PREPARED",
        "RESTORE_POINT",
        "CHECKPOINT_ONLINE",
        "CHECKPOINT_SHUTDOWN",
        "PARAMETER_CHANGE",
        "SWITCH",
    ] {
        assert!(kinds.contains(&kind), "the load made no {kind}");
    }
    assert!(seen.iter().any(|record| u64::from(record.length) > 2_000_000), "no record spans segments of 1 MiB");
    assert!(seen.iter().any(|r| r.blocks.as_ref().is_some_and(|(_, images)| *images > 0)), "no full-page image");
    assert_eq!(summary.unreadable, 0);
    let ends = oracle.lines.iter().map(transaction).collect::<Result<Vec<_>>>()?.into_iter().flatten();
    let times: Vec<_> = ends.map(|(_, time, _)| time).collect();
    assert_eq!(summary.transactions(), times.len() as u64);
    assert_eq!(
        summary.end_times.map(|t| (Some(t.lowest), Some(t.highest))),
        Some((times.iter().min().copied(), times.iter().max().copied()))
    );

    // However the bytes are cut into pieces, and from every segment's start on.
    for piece in [97, 1_000, 8_192, 131_072] {
        let again = walk(wal.start, size, wal.bytes.chunks(piece));
        assert_eq!(again.0.len(), seen.len(), "in pieces of {piece}: {}", again.2);
        assert!(again.0.iter().zip(&seen).all(|(a, b)| a.start == b.start && a.end == b.end && a.content == b.content));
        assert_eq!((&again.1, &again.2), (&summary, &end), "in pieces of {piece}");
    }
    let mut number = size.number(wal.start).next();
    while number.start(size) < end.position {
        let from = number.start(size);
        let (part, partly, stop) = walk(from, size, wal.after(from).chunks(100_000));
        let first = seen.iter().position(|record| record.start > from).context("no record after")?;
        let whole: Vec<Lsn> = seen[first..].iter().map(|record| record.start).collect();
        assert_eq!(part.iter().map(|record| record.start).collect::<Vec<_>>(), whole);
        let spans = seen[first - 1].end > from;
        assert_eq!((partly.leading_unread, stop.position), (spans, end.position), "from {from}");

        let timeline = TimelineId::FIRST;
        let expected = ExpectedHeader { system, timeline, segment: number, size, begin: Some(Lsn(0)) };
        assert_eq!(check_segment_header(wal.after(from), &expected), Ok(()));
        let stranger = ExpectedHeader { system: SystemIdentifier(system.0 + 1), ..expected };
        assert!(matches!(check_segment_header(wal.after(from), &stranger), Err(WalError::OtherCluster { .. })));
        let misnamed = ExpectedHeader { segment: number.next(), ..expected };
        assert!(matches!(check_segment_header(wal.after(from), &misnamed), Err(WalError::OtherSegment { .. })));
        number = number.next();
    }

    damage(&wal, &seen);
    Ok(())
}

/// Real WAL with damage: what is told before the damage stays, nothing after it is believed, and nothing panics.
fn damage(wal: &Wal, seen: &[Seen]) {
    let mut random = 0x2545_F491_4F6C_DD1Du64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let last = seen.last().expect("there are records").end.bytes_since(wal.start) as usize;
    for _ in 0..200 {
        // One flipped bit in a stretch of real WAL from some segment on.
        let segment = next(last) / wal.size.bytes() as usize * wal.size.bytes() as usize;
        let length = (wal.bytes.len() - segment).min(300_000);
        let at = next(length);
        let mut bytes = wal.bytes[segment..segment + length].to_vec();
        let start = wal.start.advance(segment as u64);
        let (before, _, right) = walk(start, wal.size, std::iter::once(&bytes[..]));
        bytes[at] ^= 1 << next(8);
        let (after, _, wrong) = walk(start, wal.size, std::iter::once(&bytes[..]));
        let place = start.advance(at as u64);
        let untouched = before.iter().take_while(|record| record.end <= place).count();
        assert!(after.len() >= untouched && before[..untouched] == after[..untouched], "flipped at {place}");
        // A flipped bit shows, unless it hit what no checksum covers: padding, or fields of page headers.
        if after.len() == before.len() {
            assert_eq!(wrong.position, right.position);
        }
        for (told, real) in after.iter().zip(&before) {
            assert_eq!(told.content, real.content, "flipped at {place}");
        }
    }
}

#[test]
fn every_record_of_postgres_15_is_as_pg_waldump_reads_it() -> Result<()> {
    every_record_is_as_pg_waldump_reads_it(15, 1)
}

#[test]
fn case_18_every_record_in_segments_of_16_mib_is_as_pg_waldump_reads_it() -> Result<()> {
    every_record_is_as_pg_waldump_reads_it(15, 16)
}

#[test]
fn every_record_of_postgres_14_is_as_pg_waldump_reads_it() -> Result<()> {
    every_record_is_as_pg_waldump_reads_it(14, 1)
}

#[test]
fn every_record_of_postgres_16_is_as_pg_waldump_reads_it() -> Result<()> {
    every_record_is_as_pg_waldump_reads_it(16, 1)
}

#[test]
fn every_record_of_postgres_17_is_as_pg_waldump_reads_it() -> Result<()> {
    every_record_is_as_pg_waldump_reads_it(17, 1)
}

#[test]
fn every_record_of_postgres_18_is_as_pg_waldump_reads_it() -> Result<()> {
    every_record_is_as_pg_waldump_reads_it(18, 1)
}

#[test]
fn case_04_a_segment_over_a_recycled_one_ends_where_pg_waldump_ends() -> Result<()> {
    let size = SegmentSize::new(1 << 20)?;
    let mut cluster = busy_cluster(15, 1)?;
    load(&cluster)?;
    cluster.sql("insert into t (v) select md5(i::text) from generate_series(1, 5000) i")?;
    cluster.stop(Stop::Immediate)?;
    let wal = Wal::read(&cluster, TimelineId::FIRST, size)?;
    let (seen, _, end) = walk(wal.start, size, wal.bytes.chunks(1 << 20));

    // The last segment as it would be in a file that was another segment before.
    let last = size.align_down(end.position);
    let old = size.number(last).0 - 1;
    let old_at = (old * size.bytes() - wal.start.0) as usize;
    let old = &wal.bytes[old_at..old_at + size.bytes() as usize];
    let new = &wal.after(last)[..size.bytes() as usize];
    let used = end.position.bytes_since(last) as usize;
    let ends: Vec<Lsn> = seen.iter().map(|record| record.end).filter(|end| *end > last).collect();
    ensure!(ends.len() > 20, "too little WAL in the last segment");
    let scratch = cluster.scratch().dir("recycled")?;
    let mut compared = 0;
    for step in 1..40 {
        // The server writes whole pages of its buffers; a crash may leave any part of the last one.
        let cut = (used * step / 40).next_multiple_of(512);
        let mut bytes = old.to_vec();
        bytes[..cut].copy_from_slice(&new[..cut]);
        let found = valid_end(&bytes, last, size)?;
        let cut_at = last.advance(cut as u64);
        let expected = ends.iter().rev().find(|end| **end <= cut_at).copied();
        // With no whole record, the rest of one from the segment before may be whole.
        assert!(expected.is_none_or(|expected| found.position == expected), "cut at {cut_at}: {found}");

        let name = SegmentName::new(TimelineId::FIRST, size.number(last), size);
        std::fs::write(scratch.join(name.to_string()), &bytes)?;
        if let Ok(oracle) = dump(&cluster, &scratch, TimelineId::FIRST, last) {
            let line = oracle.lines.last().context("no record")?;
            let told = seen.iter().find(|record| record.end == found.position).map(|record| record.start);
            assert_eq!(told, Some(line.start), "cut at {cut_at}: {found}");
            compared += 1;
        }
    }
    // Where the first page's records are all cut, it finds none and says nothing.
    ensure!(compared > 30, "only {compared} of 39 were compared");
    Ok(())
}

#[test]
fn a_record_that_a_crash_cut_off_is_passed_over_as_pg_waldump_does() -> Result<()> {
    let size = SegmentSize::new(1 << 20)?;
    let mut cluster = busy_cluster(15, 1)?;
    cluster.sql("create table t (v text)")?;
    cluster.sql("select pg_logical_emit_message(false, 'big', repeat('0123456789', 250000))")?;
    cluster.sql("insert into t values ('never durable')")?;
    cluster.stop(Stop::Immediate)?;
    let wal = Wal::read(&cluster, TimelineId::FIRST, size)?;
    let (seen, ..) = walk(wal.start, size, wal.bytes.chunks(1 << 20));
    let big = seen.iter().find(|record| record.length > 2_000_000).context("the big record")?;
    // The segments after the one in which it begins never reached the disk.
    let mut number = size.number(big.start).next();
    while std::fs::remove_file(wal.folder.join(SegmentName::new(TimelineId::FIRST, number, size).to_string())).is_ok() {
        number = number.next();
    }
    let lost = big.start;
    cluster.start()?;
    cluster.sql("insert into t values ('after the crash')")?;
    cluster.stop(Stop::Immediate)?;

    let wal = Wal::read(&cluster, TimelineId::FIRST, size)?;
    let oracle = dump(&cluster, &wal.folder, TimelineId::FIRST, wal.start)?;
    let (seen, summary, end) = walk(wal.start, size, wal.bytes.chunks(10_000));
    compare(&wal, &seen, &end, &oracle)?;
    let overwrites = seen.iter().filter(|r| matches!(r.content, Content::Overwrite { lost: at, .. } if at == lost));
    assert_eq!(overwrites.count(), 1);
    assert_eq!(summary.unreadable, 0);
    Ok(())
}

#[test]
fn case_04_the_segment_in_which_a_timeline_begins_keeps_its_parents_pages() -> Result<()> {
    let size = SegmentSize::new(1 << 20)?;
    let mut cluster = busy_cluster(15, 1)?;
    let system: SystemIdentifier = cluster.system_identifier()?.parse().map_err(anyhow::Error::msg)?;
    cluster.sql("create table t as select md5(i::text) v from generate_series(1, 2000) i")?;
    cluster.stop(Stop::Fast)?;
    cluster.configure("restore_command = 'false'")?;
    let signal = cluster.data().join("standby.signal");
    std::fs::write(&signal, "")?;
    cluster.scratch().account().own(&signal)?;
    cluster.start()?;
    cluster.sql("select pg_promote()")?;
    cluster.sql("insert into t select md5(i::text) from generate_series(1, 20000) i")?;
    cluster.stop(Stop::Immediate)?;

    let second = TimelineId::new(2).context("not zero")?;
    let wal = Wal::read(&cluster, second, size)?;
    let oracle = dump(&cluster, &wal.folder, second, wal.start)?;
    let (seen, _, end) = walk(wal.start, size, wal.bytes.chunks(50_000));
    compare(&wal, &seen, &end, &oracle)?;
    let history = std::fs::read(wal.folder.join("00000002.history"))?;
    let begin = TimelineHistory::parse(second, &history)?.begin();
    let ended = seen.iter().find_map(|record| match record.content {
        Content::EndOfRecovery(end) => Some((record.start, end.timeline, end.previous_timeline)),
        _ => None,
    });
    assert_eq!(ended, Some((begin, second, TimelineId::FIRST)));

    let number = size.number(wal.start);
    let right = ExpectedHeader { system, timeline: second, segment: number, size, begin: Some(begin) };
    ensure!(number.range(size).contains(begin) && begin != wal.start, "the timeline begins within the first segment");
    assert_eq!(check_segment_header(&wal.bytes, &right), Ok(()));
    let elsewhere = ExpectedHeader { begin: Some(number.next().end(size)), ..right };
    let refused = check_segment_header(&wal.bytes, &elsewhere);
    assert!(matches!(refused, Err(WalError::OtherTimeline { .. })), "its first page is the parent's: {refused:?}");
    let next = ExpectedHeader { segment: number.next(), ..right };
    assert_eq!(check_segment_header(wal.after(number.end(size)), &next), Ok(()));
    Ok(())
}
