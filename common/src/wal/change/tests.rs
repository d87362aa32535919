#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::lsn::Lsn;
use crate::wal::sample::Sample;
use crate::wal::{RecordBody, RelationFile, ResourceManager, WalVersion, WalkOptions, Walker, Xid};

const TABLE: RelationFile = RelationFile { tablespace: 1663, database: 5, number: 16_390 };

/// A body with one block of `file`, its data, and main data.
fn body(file: RelationFile, data: &[u8], main: &[u8]) -> Vec<u8> {
    let mut body = vec![0, if data.is_empty() { 0 } else { 0x20 }];
    body.extend((data.len() as u16).to_le_bytes());
    for number in [file.tablespace, file.database, file.number, 7] {
        body.extend(number.to_le_bytes());
    }
    body.push(254);
    body.extend((main.len() as u32).to_le_bytes());
    body.extend(data);
    body.extend(main);
    body
}

fn insert(wal: &mut Sample, xid: u32, file: RelationFile) -> Lsn {
    wal.record(ResourceManager::HEAP, 0x00, xid, &body(file, &[0; 30], &[1, 0, 0]))
}

fn delete(wal: &mut Sample, xid: u32, flags: u8) -> Lsn {
    wal.record(ResourceManager::HEAP, 0x10, xid, &body(TABLE, &[], &[0, 0, 0, 0, 1, 0, 0, flags]))
}

/// A commit or abort (by `info`) that lists subtransactions, removed files and dropped relations.
fn end(
    wal: &mut Sample,
    info: u8,
    xid: u32,
    children: &[u32],
    removed: &[RelationFile],
    two_phase: Option<u32>,
) -> Lsn {
    let mut main = 1_000i64.to_le_bytes().to_vec();
    let flags: u32 = 0b110 | if two_phase.is_some() { 0b1_0000 } else { 0 };
    main.extend(flags.to_le_bytes());
    main.extend((children.len() as u32).to_le_bytes());
    children.iter().for_each(|child| main.extend(child.to_le_bytes()));
    main.extend((removed.len() as u32).to_le_bytes());
    for file in removed {
        for number in [file.tablespace, file.database, file.number] {
            main.extend(number.to_le_bytes());
        }
    }
    main.extend(two_phase.map(u32::to_le_bytes).unwrap_or_default().iter().take(if two_phase.is_some() {
        4
    } else {
        0
    }));
    wal.main(ResourceManager::TRANSACTION, 0x80 | info, xid, &main)
}

fn works(wal: &Sample) -> Vec<Work> {
    works_of(wal, ChangeWalk::default())
}

fn works_of(wal: &Sample, mut walk: ChangeWalk) -> Vec<Work> {
    let options = WalkOptions { body_limit: Some(BODY_LIMIT), ..WalkOptions::default() };
    let mut walker = Walker::new(wal.start, wal.size, options).expect("a page");
    let mut found = Vec::new();
    let version = wal.version;
    // What follows the last record is no WAL.
    let _ = walker.push(&wal.bytes, |event| found.extend(walk.add(version, &event)));
    found
}

fn rows(work: &Work) -> (u64, u64, u64) {
    let rows = work.relations.get(&TABLE).map(|work| work.rows).unwrap_or_default();
    (rows.inserted, rows.updated, rows.deleted)
}

#[test]
fn subtransactions_count_for_the_top_one_unless_they_were_rolled_back() {
    for version in WalVersion::ALL {
        let mut wal = Sample::new(version);
        let first = insert(&mut wal, 800, TABLE);
        insert(&mut wal, 801, TABLE);
        insert(&mut wal, 802, TABLE);
        end(&mut wal, 0x20, 802, &[], &[], None);
        delete(&mut wal, 803, 0);
        let commit = end(&mut wal, 0x00, 800, &[801, 803], &[TABLE], None);
        let found = works(&wal);
        assert_eq!(found.len(), 1, "{version:?}");
        assert_eq!(rows(&found[0]), (2, 0, 1));
        assert_eq!((found[0].first, found[0].commit, found[0].end.xid), (first, commit, Xid(800)));
        assert_eq!(found[0].removed, [TABLE]);
    }
}

#[test]
fn a_prepared_transaction_counts_where_it_commits_whoever_says_so() {
    let mut wal = Sample::new(WalVersion::V17);
    insert(&mut wal, 900, TABLE);
    insert(&mut wal, 901, TABLE);
    wal.main(ResourceManager::TRANSACTION, 0x10, 900, &[0; 40]);
    wal.commit(902, 5);
    let commit = end(&mut wal, 0x30, 0, &[901], &[], Some(900));
    let found = works(&wal);
    assert_eq!(found.iter().map(|work| work.end.xid.0).collect::<Vec<_>>(), [902, 900]);
    assert_eq!((rows(&found[1]), found[1].commit), ((2, 0, 0), commit));
}

#[test]
fn a_row_that_moves_is_updated_and_one_that_was_tried_never_was() {
    let mut wal = Sample::new(WalVersion::V15);
    insert(&mut wal, 900, TABLE);
    delete(&mut wal, 900, 1 << 3);
    delete(&mut wal, 900, 1 << 4);
    delete(&mut wal, 900, 0);
    wal.record(ResourceManager::HEAP2, 0x50, 900, &body(TABLE, &[0; 8], &[0, 0, 200, 1, 1, 0]));
    // Pruning, a lock, visibility.
    wal.record(ResourceManager::HEAP2, 0x10, 900, &body(TABLE, &[], &[0; 8]));
    wal.record(ResourceManager::HEAP, 0x60, 900, &body(TABLE, &[], &[0; 8]));
    wal.commit(900, 5);
    assert_eq!(rows(&works(&wal)[0]), (456, 1, 1));
}

#[test]
fn a_transaction_that_found_no_room_is_told_as_not_complete() {
    let mut wal = Sample::new(WalVersion::V17);
    insert(&mut wal, 800, TABLE);
    delete(&mut wal, 801, 0);
    end(&mut wal, 0x00, 801, &[], &[], None);
    delete(&mut wal, 802, 0);
    end(&mut wal, 0x00, 800, &[802], &[], None);
    insert(&mut wal, 803, TABLE);
    end(&mut wal, 0x00, 803, &[], &[], None);
    let told = |most| -> Vec<(u32, u64)> {
        works_of(&wal, ChangeWalk::keeping(most)).iter().map(|work| (work.end.xid.0, work.left_out)).collect()
    };
    assert_eq!(told(1), [(801, 1), (800, 1), (803, 0)]);
    assert_eq!(told(100), [(801, 0), (800, 0), (803, 0)]);
}

#[test]
fn i11_what_is_listed_one_by_one_is_bounded_by_what_it_touched() {
    let mut wal = Sample::new(WalVersion::V17);
    delete(&mut wal, 800, 0);
    end(&mut wal, 0x00, 800, &[], &[], None);
    let small = works(&wal).remove(0);
    let done = *small.relations.values().next().expect("a file");
    let of = |files: u32| {
        let mut work = small.clone();
        work.relations = (0..files).map(|number| (RelationFile { number: 20_000 + number, ..TABLE }, done)).collect();
        work
    };
    for structural in [false, true] {
        let (mut summary, mut listed) = (RunSummary::default(), run::Listed::default());
        for files in [60_000, 30_000, 10, 30_000, 10, 30_000, 10] {
            let mut work = of(files);
            work.created.extend(structural.then_some(TABLE));
            summary.add(work, &mut listed);
            let kept: usize = summary.transactions.iter().chain(&listed.rows).map(|work| work.relations.len()).sum();
            assert!(kept <= 150_000, "{kept} files are kept in mind");
        }
        assert!(summary.unlisted.transactions >= 2, "{structural}: {}", summary.unlisted.transactions);
        assert_eq!(summary.unlisted.structural, if structural { summary.unlisted.transactions } else { 0 });
    }
}

#[test]
fn what_a_crash_left_open_is_forgotten() {
    let mut wal = Sample::new(WalVersion::V18);
    insert(&mut wal, 900, TABLE);
    let mut running = vec![0; 12];
    running.extend(950u32.to_le_bytes());
    running.extend(940u32.to_le_bytes());
    running.extend(949u32.to_le_bytes());
    wal.main(ResourceManager::STANDBY, 0x10, 0, &running);
    wal.commit(900, 5);
    insert(&mut wal, 951, TABLE);
    wal.commit(951, 6);
    let found = works(&wal);
    assert_eq!(rows(&found[0]), (0, 0, 0));
    assert_eq!((found[0].may_have_begun_before, found[1].may_have_begun_before), (true, false));
}

#[test]
fn the_row_of_a_relation_that_is_made_is_read_from_the_record() {
    for version in WalVersion::ALL {
        let mut row = vec![0; 140];
        row[0..4].copy_from_slice(&16_400u32.to_le_bytes());
        row[4..11].copy_from_slice(b"orders\0");
        row[68..72].copy_from_slice(&2200u32.to_le_bytes());
        row[88..92].copy_from_slice(&16_401u32.to_le_bytes());
        let kind = if version == WalVersion::V18 { 119 } else { 115 };
        (row[kind - 1], row[kind]) = (b'p', b'r');
        // xl_heap_header with hoff 32: 9 bytes of bitmap and padding before the columns.
        let mut data = vec![0, 0, 0, 0, 32];
        data.extend([0xFF; 9]);
        data.extend(&row);
        let mut wal = Sample::new(version);
        let class = RelationFile { number: 1259, ..TABLE };
        wal.record(ResourceManager::HEAP, 0x00, 900, &body(class, &data, &[1, 0, 0]));
        wal.commit(900, 5);
        let expected = NewRelation {
            database: 5,
            oid: 16_400,
            filenode: 16_401,
            schema: 2200,
            name: "orders".to_owned(),
            kind: 'r',
            temporary: false,
        };
        assert_eq!(works(&wal)[0].new_relations, [expected], "{version:?}");
    }
}

#[test]
fn a_commit_that_claims_more_than_its_record_is_refused() {
    let mut main = vec![0; 8];
    main.extend(0b10u32.to_le_bytes());
    main.extend(u32::MAX.to_le_bytes());
    for version in WalVersion::ALL {
        assert!(Ending::parse(version, 0x80, &main).is_err());
        assert!(Ending::parse(version, 0x80, &main[..9]).is_err());
        assert_eq!(Ending::parse(version, 0x00, &main), Ok(Ending::default()));
    }
}

proptest! {
    #[test]
    fn nothing_in_a_record_panics(
        records in proptest::collection::vec((0u8..23, any::<u8>(), 700u32..704, any::<Vec<u8>>(), any::<bool>()), 0..40),
        version in 0usize..5,
        number in prop::sample::select(vec![1259u32, 2615, 16_390]),
    ) {
        let mut wal = Sample::new(WalVersion::ALL[version]);
        for (manager, info, xid, bytes, with_block) in &records {
            let manager = ResourceManager(*manager);
            if (manager, info & 0xF0) == (ResourceManager::XLOG, 0x40) {
                continue;
            }
            let file = RelationFile { number, ..TABLE };
            let (data, main) = bytes.split_at(bytes.len() / 2);
            if *with_block && manager != ResourceManager::TRANSACTION {
                wal.record(manager, *info, *xid, &body(file, data, main));
            } else {
                wal.main(manager, *info, *xid, bytes);
            }
        }
        works(&wal);
    }

    #[test]
    fn any_bytes_as_the_parts_of_a_record_are_refused_or_read(bytes: Vec<u8>, version in 0usize..5, info: u8, manager in 0u8..22) {
        let version = WalVersion::ALL[version];
        let _ = Ending::parse(version, info, &bytes);
        if let Ok(parsed) = RecordBody::parse(version, &bytes) {
            let _ = row_change(ResourceManager(manager), info, &parsed);
            for index in 0..=parsed.blocks.len() {
                prop_assert_eq!(parsed.block_bytes(&bytes, index).is_some(), index < parsed.blocks.len());
            }
            let _ = super::tuple::inserted(&parsed, &bytes);
        }
    }

    #[test]
    fn every_row_of_interleaved_transactions_is_counted_once(choices in proptest::collection::vec((0u32..4, 0u8..3), 1..60)) {
        let mut wal = Sample::new(WalVersion::V16);
        let mut expected = [(0u64, 0u64, 0u64); 4];
        for (which, what) in choices {
            let counts = &mut expected[which as usize];
            match what {
                0 => { insert(&mut wal, 900 + which, TABLE); counts.0 += 1; }
                1 => { wal.record(ResourceManager::HEAP, 0x40, 900 + which, &body(TABLE, &[0; 9], &[0; 14])); counts.1 += 1; }
                _ => { delete(&mut wal, 900 + which, 0); counts.2 += 1; }
            }
        }
        for which in 0..4 {
            wal.commit(900 + which, 5);
        }
        let found: Vec<_> = works(&wal).iter().map(rows).collect();
        prop_assert_eq!(found, expected.to_vec());
    }
}

/// The summaries of some WAL, cut into pieces of `piece` bytes as a stream would be; `start` is where it is read from.
fn summaries(wal: &Sample, start: Lsn, piece: usize) -> Vec<(u64, RunSummary)> {
    let options = WalkOptions { body_limit: Some(RunWalk::BODY_LIMIT), ..WalkOptions::default() };
    let mut walker = Walker::new(start, wal.size, options).expect("a page");
    let (mut runs, mut done) = (RunWalk::new(start, wal.size), Vec::new());
    let from = start.bytes_since(wal.start) as usize;
    for segment in wal.bytes[from..].chunks(wal.size.bytes() as usize) {
        for piece in segment.chunks(piece) {
            walker.push(piece, |event| runs.add(wal.version, &event)).expect("valid WAL");
        }
        done.extend(runs.reached(walker.next_byte()).map(|(first, summary)| (first.0, summary)));
    }
    done
}

#[test]
fn a_run_is_told_of_only_when_all_of_it_was_seen_and_open_work_goes_on_after_it() {
    let size = crate::segment::SegmentSize::SMALLEST;
    let mut wal = Sample::of(WalVersion::V18, size, Lsn(15 << 20));
    insert(&mut wal, 900, TABLE);
    while wal.at() < Lsn(49 << 20) {
        if size.offset(wal.at()) < 10_000 {
            delete(&mut wal, 901, 0);
        }
        wal.filler(7_000);
    }
    delete(&mut wal, 900, 0);
    wal.commit(900, 7);
    wal.fill_segment_but(0);
    let done = summaries(&wal, wal.start, 4_000);
    assert_eq!(done.iter().map(|(first, _)| *first).collect::<Vec<_>>(), [16, 32]);
    let (_, second) = &done[1];
    assert_eq!((second.commits, second.after.open.len()), (0, 3), "900, 901, and what fills");
    // From the run's end on, with what it says was open.
    let text = serde_json::to_string(&second.after).expect("JSON");
    let mut walk = ChangeWalk::resuming(serde_json::from_str(&text).expect("what was written"));
    let options = WalkOptions { body_limit: Some(BODY_LIMIT), ..WalkOptions::default() };
    let from = Lsn(48 << 20);
    let mut walker = Walker::new(from, size, options).expect("a page");
    let mut found = Vec::new();
    let rest = &wal.bytes[from.bytes_since(wal.start) as usize..];
    walker.push(rest, |event| found.extend(walk.add(wal.version, &event))).expect("valid WAL");
    assert_eq!(found.iter().map(rows).collect::<Vec<_>>(), [(1, 0, 1)]);
    // Whatever the pieces, the same; and nothing of a run whose beginning was not seen.
    assert_eq!(summaries(&wal, wal.start, 1 << 20), done);
    assert_eq!(summaries(&wal, Lsn(17 << 20), 4_000).len(), 1);
}

#[test]
fn what_is_too_much_to_list_is_counted() {
    let size = crate::segment::SegmentSize::SMALLEST;
    let mut wal = Sample::of(WalVersion::V15, size, Lsn(16 << 20));
    for xid in 1_000..2_000 {
        for _ in 0..=(xid % 10) {
            delete(&mut wal, xid, 0);
        }
        wal.commit(xid, i64::from(xid));
    }
    while wal.at() < Lsn(32 << 20) {
        wal.fill_segment_but(0);
    }
    let [(16, summary)] = &summaries(&wal, wal.start, 100_000)[..] else { panic!("one run") };
    assert_eq!((summary.commits, summary.transactions.len(), summary.unlisted.transactions), (1_000, 200, 800));
    assert_eq!((summary.unlisted.largest, summary.unlisted.structural), (8, 0));
    assert_eq!(summary.unlisted.relations[&TABLE].rows.deleted, (1..=8).sum::<u64>() * 100);
    assert!(summary.transactions.iter().all(|work| work.lost_rows() >= 9));
    assert!(summary.transactions.is_sorted_by_key(|work| work.commit));
    let text = serde_json::to_vec(summary).expect("JSON");
    assert_eq!(serde_json::from_slice::<RunSummary>(&text).expect("what was written"), *summary);
}
