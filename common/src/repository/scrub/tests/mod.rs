//! A repository that is whole has no flaws; whatever somebody who controls the store does to it has one.
#![allow(clippy::expect_used, clippy::panic)]

mod bed;
mod snapshots;

use bed::{Bed, CLUSTER, kinds};

use super::{FlawKind, Leftover, LeftoverWal, LostWindow, Reader, Reading};
use crate::lsn::LsnRange;
use crate::repository::{CatalogPage, ObjectName};
use crate::seal::{Kind, WriterKey};
use crate::segment::SegmentNumber;
use crate::timeline::{TimelineHistory, TimelineId};

#[tokio::test]
async fn a_repository_that_is_whole_has_no_flaws() {
    let bed = Bed::full().await;
    let (survey, reading) = bed.scrub().await;
    assert_eq!((survey.flaws, reading.flaws), (vec![], vec![]));
    // Identity, 7 of WAL, 2 labels, 2 lists of files, 3 data objects, a frontier, 2 entries of the ledger.
    assert_eq!((reading.objects, reading.foreign), (18, 0));
    assert_eq!(survey.heads.end_of(bed.branch), Some(bed.at(8, 5000)));
    assert_eq!(survey.heads.base, Some(bed.base_id(2)));
}

#[tokio::test]
async fn whatever_object_is_deleted_is_missed() {
    let names: Vec<String> = {
        let bed = Bed::full().await;
        let page = bed.repository.first_objects("", 1000).await.expect("readable");
        page.into_iter().map(|meta| meta.key).collect()
    };
    for key in names.iter().filter(|key| !key.starts_with("identity")) {
        let bed = Bed::full().await;
        let name: ObjectName = key.parse().expect("a name");
        // Each bed has keys and runs of its own.
        let prefix: String = key.split('/').take(1).collect();
        let own = bed.repository.first_objects(&format!("{prefix}/"), 1000).await.expect("readable");
        let at = names.iter().filter(|other| other.starts_with(&format!("{prefix}/"))).position(|other| other == key);
        let victim: ObjectName = own[at.expect("one of them")].key.parse().expect("a name");
        bed.remove(&victim).await;
        let survey = bed.survey(&[]).await;
        // The newest word on the frontier, and the newest entry of a ledger that nobody else has seen: only a witness misses those.
        let newest = matches!(name, ObjectName::Frontier(..)) || matches!(name, ObjectName::Ledger(_, _, 1));
        assert_eq!(survey.flaws.is_empty(), newest, "{victim} is gone, and: {:?}", kinds(&survey.flaws));
    }
}

#[tokio::test]
async fn a_deleted_segment_is_a_hole_that_says_what_is_lost() {
    let bed = Bed::full().await;
    bed.remove(&bed.wal(3)).await;
    let flaws = bed.survey(&[]).await.flaws;
    let wal = format!("wal/{}", bed.branch);
    assert_eq!(kinds(&flaws), [(FlawKind::Hole, wal.as_str())]);
    let to = Some(bed.at(4, 400));
    assert_eq!(flaws[0].lost, [LostWindow { branch: bed.branch, from: bed.at(3, 0), to }]);
    assert_eq!(flaws[0].bases, []);
    assert!(flaws[0].cure[0].contains("heal --gap 0/300000"), "{:?}", flaws[0].cure);
    // The segment in which a base backup begins and stops: that backup is lost as well.
    bed.remove(&bed.wal(4)).await;
    let flaws = bed.survey(&[]).await.flaws;
    assert_eq!(flaws[0].bases, [bed.base_id(2)]);
    assert_eq!(flaws[0].lost, [LostWindow { branch: bed.branch, from: bed.at(3, 0), to: None }]);
}

#[tokio::test]
async fn a_data_object_that_is_gone_costs_every_backup_that_refers_to_it() {
    let bed = Bed::full().await;
    let shared = ObjectName::Data(bed.base_id(1), 1);
    bed.remove(&shared).await;
    let flaws = bed.survey(&[]).await.flaws;
    assert_eq!(kinds(&flaws), [(FlawKind::Missing, shared.to_string().as_str())]);
    assert_eq!(flaws[0].bases, [bed.base_id(1), bed.base_id(2)]);
    assert_eq!(flaws[0].lost, [LostWindow { branch: bed.branch, from: bed.at(2, 400), to: None }]);
    // The newer backup's own: from the older one one comes as far.
    let bed = Bed::full().await;
    bed.remove(&ObjectName::Data(bed.base_id(2), 0)).await;
    let flaws = bed.survey(&[]).await.flaws;
    assert_eq!((flaws[0].bases.clone(), flaws[0].lost.clone()), (vec![bed.base_id(2)], vec![]));
}

#[tokio::test]
async fn every_flipped_bit_is_found_where_it_is() {
    let bed = Bed::full().await;
    let data = ObjectName::Data(bed.base_id(1), 0);
    for name in [bed.wal(5), data, ObjectName::Label(bed.base_id(1)), ObjectName::Identity] {
        let bytes = std::fs::read(bed.path(&name)).expect("an object of our own");
        let header = u32::from_le_bytes(bytes[12..16].try_into().expect("4 bytes")) as usize;
        // In the header, behind it (frames or trailer), and in the last bytes.
        for at in [40, 80 + header + 20, bytes.len() - 40] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            bed.overwrite(&name, &damaged);
            let found = bed.found().await;
            assert!(found.iter().all(|(_, object)| *object == name.to_string()), "{name} at {at}: {found:?}");
            assert!(!found.is_empty(), "{name} at {at}");
        }
        bed.overwrite(&name, &bytes[..bytes.len() - 1]);
        assert!(!bed.found().await.is_empty(), "{name} is cut off");
        bed.overwrite(&name, &bytes);
        assert_eq!(bed.found().await, []);
    }
}

#[tokio::test]
async fn an_object_that_was_replaced_by_another_one_of_the_same_writer_is_found() {
    let bed = Bed::full().await;
    // As whoever keeps an older version of an object could: signed, under this very name.
    let data = ObjectName::Data(bed.base_id(1), 1);
    bed.overwrite(&data, &bed.data_object(&bed.base_id(1), 1, 2).bytes);
    assert_eq!(bed.found().await, [(FlawKind::Replaced, data.to_string())]);
    bed.overwrite(&data, &bed.data_object(&bed.base_id(1), 1, 1).bytes);
    assert_eq!(bed.found().await, [(FlawKind::Replaced, data.to_string())], "sealed anew, it is another object");

    // WAL of which another object speaks.
    let bed = Bed::full().await;
    let tail = bed.put_tail(bed.branch, 8, 5000, 9000).await;
    let ObjectName::Tail(_, _, range) = &tail else { panic!("{tail}") };
    bed.overwrite(&tail, &bed.wal_object(&bed.writer, &tail, *range, 99).bytes);
    assert_eq!(bed.found().await, [(FlawKind::Replaced, tail.to_string())]);
}

#[tokio::test]
async fn a_segment_that_is_not_the_one_of_the_catalog_page_is_found() {
    let bed = Bed::empty().await;
    for number in 256..512 {
        bed.put_segment(bed.branch, number).await;
    }
    let page = bed.repository.make_catalog_page(bed.branch, SegmentNumber(256), bed.size, None).await;
    let page = page.expect("readable").expect("all are there");
    bed.repository.put_catalog_page(&page, &bed.writer).await.expect("stored");
    assert_eq!(bed.found().await, []);
    let name = bed.wal(300);
    let other = bed.wal_object(&bed.writer, &name, SegmentNumber(300).range(bed.size), 1);
    bed.overwrite(&name, &other.bytes);
    assert_eq!(bed.found().await, [(FlawKind::Replaced, name.to_string())]);
    // What the page says is missed when the end of the branch is cut off.
    bed.remove(&bed.wal(511)).await;
    let flaws = bed.survey(&[]).await.flaws;
    assert_eq!(flaws.iter().map(|flaw| flaw.kind).collect::<Vec<_>>(), [FlawKind::Hole]);
    assert!(flaws[0].what.contains("catalog/"), "{}", flaws[0].what);
}

#[tokio::test]
async fn i5_a_segment_that_only_a_catalog_page_tells_to_have_been_durable_is_missed() {
    let bed = Bed::empty().await;
    for number in 256..511 {
        bed.put_segment(bed.branch, number).await;
    }
    // It was on its way together with the one before it, of which it knows nothing.
    let (last, before) = (SegmentNumber(511).range(bed.size), bed.at(510, 0));
    bed.put(&bed.wal_object_after(&bed.writer, &bed.wal(511), last, 1, before)).await;
    let page = bed.repository.make_catalog_page(bed.branch, SegmentNumber(256), bed.size, None).await;
    let page = page.expect("readable").expect("all are there");
    bed.repository.put_catalog_page(&page, &bed.writer).await.expect("stored");
    bed.remove(&bed.wal(510)).await;
    let flaws = bed.survey(&[]).await.flaws;
    assert_eq!(flaws.iter().map(|flaw| flaw.kind).collect::<Vec<_>>(), [FlawKind::Hole]);
    assert!(flaws[0].what.contains("from 0/1FE00000 to 0/1FF00000 is not there; catalog/"), "{}", flaws[0].what);
    // A later page, of which nobody can tell what it says, does not hide it.
    let misfit = CatalogPage { first: bed.segment(bed.branch, 512), ..page };
    let misfit = CatalogPage { segments: Vec::new(), ..misfit };
    bed.repository.put_catalog_page(&misfit, &bed.writer).await.expect("stored");
    assert_eq!(bed.survey(&[]).await.flaws.len(), 1);
}

#[tokio::test]
async fn swapped_objects_are_found_both() {
    let bed = Bed::full().await;
    for (one, other) in [
        (bed.wal(3), bed.wal(5)),
        (ObjectName::Data(bed.base_id(1), 0), ObjectName::Data(bed.base_id(1), 1)),
        (ObjectName::Label(bed.base_id(1)), ObjectName::Label(bed.base_id(2))),
    ] {
        let bytes = [&one, &other].map(|name| std::fs::read(bed.path(name)).expect("an object of our own"));
        bed.overwrite(&one, &bytes[1]);
        bed.overwrite(&other, &bytes[0]);
        let found = bed.found().await;
        for name in [&one, &other] {
            assert!(found.contains(&(FlawKind::Misplaced, name.to_string())), "{name}: {found:?}");
        }
        bed.overwrite(&one, &bytes[0]);
        bed.overwrite(&other, &bytes[1]);
    }
    assert_eq!(bed.found().await, []);
}

#[tokio::test]
async fn whoever_has_public_keys_only_forges_nothing() {
    let bed = Bed::full().await;
    let stranger = WriterKey::generate().expect("random bytes");
    // WAL that goes on where the real one ends; a whole segment in place of a real one.
    let next = bed.wal(9);
    bed.put(&bed.wal_object(&stranger, &next, SegmentNumber(9).range(bed.size), 9)).await;
    let real = bed.wal(6);
    bed.overwrite(&real, &bed.wal_object(&stranger, &real, SegmentNumber(6).range(bed.size), 6).bytes);
    let untrusted = |name: &ObjectName| (FlawKind::Untrusted, name.to_string());
    let found = bed.found().await;
    assert!(found.contains(&untrusted(&next)) && found.contains(&untrusted(&real)), "{found:?}");
    // An object of another kind, by a writer that may write that kind.
    let bed = Bed::full().await;
    let name = bed.wal(9);
    let object = bed.repository.signed(Kind::Ledger, &name, &"WAL", &bed.writer).expect("signed");
    bed.put(&object).await;
    assert!(bed.found().await.contains(&(FlawKind::Misplaced, name.to_string())));
}

#[tokio::test]
async fn a_newest_end_that_was_cut_off_shows_against_a_witness_and_not_without() {
    let bed = Bed::full().await;
    let heads = bed.survey(&[]).await.heads;
    // All that is newest: WAL from segment 6 on, the word on the frontier, the newer base backup, the last entry of the ledger.
    let tail = bed.repository.first_objects("tail/", 10).await.expect("readable");
    let newest = ["frontier/", &format!("base/{}", bed.base_id(2))].map(str::to_owned);
    let mut gone: Vec<String> = tail.into_iter().map(|meta| meta.key).collect();
    for prefix in newest {
        let page = bed.repository.first_objects(&prefix, 100).await.expect("readable");
        gone.extend(page.into_iter().map(|meta| meta.key));
    }
    let ledger = bed.repository.first_objects("ledger/", 100).await.expect("readable");
    gone.extend(ledger.into_iter().last().map(|meta| meta.key));
    for name in gone.iter().map(|key| key.parse().expect("a name")).chain([bed.wal(6), bed.wal(7)]) {
        bed.remove(&name).await;
    }
    assert_eq!(bed.found().await, [], "what is left looks whole");

    let flaws = bed.survey(&Bed::witness(heads.clone())).await.flaws;
    let found: Vec<(FlawKind, &str)> =
        flaws.iter().map(|flaw| (flaw.kind, flaw.object.split('/').next().unwrap_or_default())).collect();
    let expected = [(FlawKind::CutOff, "base"), (FlawKind::CutOff, "ledger"), (FlawKind::CutOff, "wal")];
    assert_eq!(found, expected);
    assert!(flaws[2].what.contains("from 0/600000 to 0/801388 is not there"), "{}", flaws[2].what);
    assert_eq!(flaws[2].lost, [LostWindow { branch: bed.branch, from: bed.at(6, 0), to: None }]);
    // A branch of which nothing is left at all.
    for number in 2..6 {
        bed.remove(&bed.wal(number)).await;
    }
    assert!(!bed.survey(&Bed::witness(heads)).await.flaws.is_empty());
}

#[tokio::test]
async fn what_is_missing_before_all_that_is_left_is_missed_by_who_remembers_the_end_as_well() {
    let bed = Bed::empty().await;
    bed.put_segment(bed.branch, 3).await;
    bed.put_frontier(bed.branch, bed.at(4, 0)).await;
    bed.prune(&[], &[3]).await;
    bed.remove(&bed.wal(3)).await;
    bed.put_segment(bed.branch, 5).await;
    let survey = bed.survey(&[]).await;
    assert_eq!(survey.heads.end_of(bed.branch), Some(bed.at(6, 0)));
    for flaws in [survey.flaws, bed.survey(&Bed::witness(survey.heads)).await.flaws] {
        assert!(flaws.len() == 1 && flaws[0].what.contains("from 0/400000 to 0/500000"), "{flaws:?}");
    }
}

#[tokio::test]
async fn what_is_missing_before_a_partial_segment_was_not_cut_off_at_the_end() {
    let bed = Bed::empty().await;
    bed.put_segment(bed.branch, 2).await;
    bed.put_frontier(bed.branch, bed.at(3, 0)).await;
    let partial = ObjectName::Partial(bed.branch, bed.segment(bed.branch, 5));
    let range = LsnRange { start: bed.at(5, 0), end: bed.at(5, 400) };
    bed.put(&bed.wal_object(&bed.writer, &partial, range, 5)).await;
    let survey = bed.survey(&[]).await;
    let wal = format!("wal/{}", bed.branch);
    assert_eq!(kinds(&survey.flaws), [(FlawKind::Hole, wal.as_str())]);
    let again = bed.survey(&Bed::witness(survey.heads)).await;
    assert_eq!(kinds(&again.flaws), [(FlawKind::Hole, wal.as_str())]);
}

#[tokio::test]
async fn wal_that_is_recorded_as_lost_is_no_flaw() {
    let bed = Bed::full().await;
    bed.remove(&bed.wal(5)).await;
    assert_eq!(bed.survey(&[]).await.flaws.len(), 1);
    let gap = crate::repository::Gap {
        branch: bed.branch,
        from: bed.at(5, 0),
        to: bed.at(6, 0),
        next: bed.branch,
        found: jiff::Timestamp::now(),
        highest_time: None,
        why: "the slot was dropped".to_owned(),
        way: Vec::new(),
    };
    bed.repository.put_gap(&gap, &bed.writer).await.expect("stored");
    assert_eq!(bed.survey(&[]).await.flaws, []);
    // More than that is.
    bed.remove(&bed.wal(6)).await;
    let flaws = bed.survey(&[]).await.flaws;
    assert!(flaws[0].what.contains("from 0/600000 to 0/700000"), "{flaws:?}");
}

#[tokio::test]
async fn what_is_recorded_as_lost_is_no_flaw_where_more_is_missing_behind_it_and_the_record_does_not_tell_the_way() {
    let bed = Bed::empty().await;
    for number in [2, 3, 4, 8] {
        bed.put_segment(bed.branch, number).await;
    }
    let later = TimelineId::new(2).expect("not zero");
    let gap = crate::repository::Gap {
        branch: bed.branch,
        from: bed.at(5, 0),
        to: bed.at(6, 0),
        next: TimelineHistory::root(later).branch(CLUSTER),
        found: jiff::Timestamp::now(),
        highest_time: None,
        why: "the slot was dropped".to_owned(),
        way: Vec::new(),
    };
    bed.repository.put_gap(&gap, &bed.writer).await.expect("stored");
    let flaws = bed.survey(&[]).await.flaws;
    let holes: Vec<&str> =
        flaws.iter().filter(|flaw| flaw.kind == FlawKind::Hole).map(|flaw| flaw.what.as_str()).collect();
    assert!(holes.len() == 1 && holes[0].contains("from 0/600000 to 0/800000"), "{holes:?}");
}

#[tokio::test]
async fn a_reader_goes_on_where_another_one_stopped() {
    let bed = Bed::full().await;
    let mut damaged = std::fs::read(bed.path(&bed.wal(7))).expect("an object of our own");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    bed.overwrite(&bed.wal(7), &damaged);
    std::fs::write(bed.folder.path().join("7/notes.txt"), b"a stranger's").expect("a folder of our own");
    let (survey, whole) = bed.scrub().await;
    // One that was told to begin behind the labels, as after a restart.
    let text = serde_json::to_string(&Reading { after: Some("ledger/".to_owned()), ..Reading::default() });
    let mut rest: Reading = serde_json::from_str(&text.expect("serialises")).expect("parses");
    let mut reader = Reader::new(&bed.repository, &survey, None);
    while !rest.ended {
        reader.next(&mut rest).await.expect("the store answers");
    }
    assert_eq!(rest.flaws, whole.flaws);
    assert_eq!(kinds(&rest.flaws), [(FlawKind::Damaged, bed.wal(7).to_string().as_str())]);
    assert_eq!(rest.flaws[0].lost, [LostWindow { branch: bed.branch, from: bed.at(7, 0), to: None }]);
    assert_eq!((whole.objects, rest.objects), (18, 9), "two entries of the ledger, and WAL");
    assert_eq!((rest.foreign, rest.foreign_names), (1, vec!["notes.txt".to_owned()]));
}

#[tokio::test]
async fn what_retention_removed_is_not_missed_and_what_it_promises_is() {
    let bed = Bed::full().await;
    // The older backup and the WAL before the newer one.
    let label = ObjectName::Label(bed.base_id(1));
    for name in [label.clone(), bed.wal(2), bed.wal(3)] {
        bed.remove(&name).await;
    }
    assert_eq!(bed.survey(&[]).await.flaws.len(), 1, "nobody says that this was removed");
    bed.prune(&[bed.base_id(1)], &[2, 3]).await;
    assert_eq!(bed.survey(&[]).await.flaws, []);
    // WAL between two backups that both stay.
    let bed = Bed::full().await;
    bed.prune(&[], &[3]).await;
    assert_eq!(bed.survey(&[]).await.flaws, [], "what is still there is no flaw");
    bed.remove(&bed.wal(3)).await;
    assert_eq!(bed.survey(&[]).await.flaws, []);
    // What the newer one needs, and what lies behind it, is missed, to the segment.
    bed.remove(&bed.wal(4)).await;
    let flaws = bed.survey(&[]).await.flaws;
    assert!(flaws.len() == 1 && flaws[0].what.contains("from 0/400000 to 0/500000"), "{flaws:?}");
    bed.remove(&bed.wal(6)).await;
    assert_eq!(bed.survey(&[]).await.flaws.len(), 2);
}

#[tokio::test]
async fn what_is_on_record_as_removed_and_is_there_is_told_and_what_a_label_needs_is_missed() {
    let bed = Bed::full().await;
    assert_eq!(bed.survey(&[]).await.leftover, Leftover::default());
    // A prune broke off before the first delete.
    let older = bed.base_id(1);
    bed.prune(std::slice::from_ref(&older), &[2, 3]).await;
    let survey = bed.survey(&[]).await;
    let wal = |from, to| LeftoverWal { branch: bed.branch, from: bed.at(from, 0), to: bed.at(to, 0) };
    assert_eq!(
        (survey.flaws, survey.leftover),
        (vec![], Leftover { bases: vec![older.clone()], wal: vec![wal(2, 4)] })
    );
    // Labels go first: as long as it is there, nobody was to remove the WAL that it needs.
    bed.remove(&bed.wal(2)).await;
    let survey = bed.survey(&[]).await;
    assert_eq!(survey.leftover.wal, [wal(3, 4)]);
    assert_eq!(survey.flaws.len(), 1, "{:?}", survey.flaws);
    assert_eq!((survey.flaws[0].kind, &survey.flaws[0].bases[..]), (FlawKind::Hole, &[older.clone()][..]));
    assert!(survey.flaws[0].what.contains("from 0/200000 to 0/300000"), "{:?}", survey.flaws);
    // The next one goes on.
    bed.remove(&ObjectName::Label(older)).await;
    let survey = bed.survey(&[]).await;
    assert_eq!((survey.flaws, survey.leftover), (vec![], Leftover { bases: vec![], wal: vec![wal(3, 4)] }));
    bed.remove(&bed.wal(3)).await;
    assert_eq!(bed.survey(&[]).await.leftover, Leftover::default());
}

#[tokio::test]
async fn what_another_host_records_in_a_folder_of_its_own_is_left_alone() {
    let bed = Bed::full().await;
    let stranger = WriterKey::generate().expect("random bytes");
    let run = crate::repository::RunId::random().expect("random bytes");
    let own = ObjectName::Ledger(Box::new(stranger.public()), run, 0);
    bed.put(&bed.repository.signed(Kind::Ledger, &own, &"a restore", &stranger).expect("signed")).await;
    let (survey, reading) = bed.scrub().await;
    assert_eq!((survey.flaws, reading.flaws), (vec![], vec![]));
    assert_eq!((reading.foreign, reading.foreign_names), (1, vec![own.to_string()]));
    // In the folder of a writer that is trusted it is a forgery.
    let forged = ObjectName::Ledger(Box::new(bed.writer.public()), run, 0);
    bed.put(&bed.repository.signed(Kind::Ledger, &forged, &"a restore", &stranger).expect("signed")).await;
    let forged = forged.to_string();
    assert_eq!(bed.found().await, [(FlawKind::Untrusted, forged.clone()), (FlawKind::Ledger, forged)]);
}
