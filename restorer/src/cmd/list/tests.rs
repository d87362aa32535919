#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use walseal_common::config::Config;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{BaseId, Label, ObjectName, ObjectReference, Pruned, RunId};
use walseal_common::seal::ObjectDigest;

use super::*;
use crate::plan::Hole;
use crate::sample::{SampleRepository, SampleWal};

/// Two windows with a gap between them, and a second base backup in the later one.
async fn sample() -> SampleRepository {
    let sample = SampleRepository::new().await;
    let branch = sample.branch();
    let mut wal = SampleWal::from(Lsn(0x30_0000));
    let start = wal.checkpoint(699, "2026-11-21T10:00:00Z").start;
    let stop = wal.commit(700, "2026-11-21T10:00:01Z").end;
    wal.fill_segment();
    sample.put_label(branch, start, stop, "2026-11-21T10:00:00Z", Some("2026-11-21T10:00:01Z")).await;
    wal.commit(701, "2026-11-21T10:05:00Z");
    wal.fill_segment();
    let start = wal.checkpoint(702, "2026-11-21T11:00:00Z").start;
    let stop = wal.filler(8).end;
    wal.commit(702, "2026-11-21T11:05:00Z");
    sample.put_label(branch, start, stop, "2026-11-21T11:00:00Z", Some("2026-11-21T10:05:00Z")).await;
    sample.put_wal(branch, &wal, Lsn(0x50_0000)).await;
    let first = LsnRange { start: Lsn(0x30_0000), end: Lsn(0x40_0000) };
    sample.put_segment(branch, sample.size.number(first.start), wal.slice(first)).await;
    sample
}

fn access(sample: &SampleRepository) -> Access {
    let config = Arc::new(Config::from_toml("").expect("an empty configuration"));
    Access { config, repository: sample.repository.clone(), identities: sample.identities.clone() }
}

async fn listing(sample: &SampleRepository) -> Listing {
    let mut listing = survey(false, &access(sample)).await.expect("readable");
    listing.repository = "file:///srv/walseal".to_owned();
    listing
}

fn now() -> jiff::Timestamp {
    "2026-11-21T11:08:00Z".parse().expect("a time")
}

#[tokio::test]
async fn how_fresh_the_repository_is_needs_no_look_at_the_server() {
    let sample = sample().await;
    let at = |time: &str| format!("2026-11-21T{time}Z").parse().expect("a time");
    let end = Lsn(0x50_0AD8);
    for (written, server_end) in [("10:05:00", Lsn(0x50_0AD8)), ("11:06:00", Lsn(0x60_0000))] {
        sample.put_frontier(sample.branch(), end, server_end, at(written)).await;
    }
    let text = listing(&sample).await.render(Look::Plain, now());
    let fresh = "Fresh: 2 min ago, at 2026-11-21 11:06:00+00, WAL was durable up to 0/500AD8 on timeline 1; the last transaction \
                 is of 2026-11-21 11:05:00+00.\n";
    assert!(text.contains(fresh), "{text}");
    let text = listing(&sample).await.render(Look::Plain, at("14:00:00"));
    assert!(text.contains("Fresh: 2 h ago"), "{text}");
    assert!(text.contains("although a word is due every 5 min: the archiver does not run"), "{text}");
    sample.put_frontier(sample.branch(), end, end, at("11:07:30")).await;
    let listing = listing(&sample).await;
    let text = listing.render(Look::Plain, now());
    assert!(
        text.contains("up to 0/500AD8 on timeline 1, all that the server had; the last transaction is of"),
        "{text}"
    );
    let json = serde_json::to_value(&listing).expect("JSON");
    assert_eq!((&json["fresh"]["complete"], &json["fresh"]["frontier"]), (&true.into(), &"0/500AD8".into()));
}

#[tokio::test]
async fn windows_gaps_and_base_backups_are_listed_for_people() {
    let sample = sample().await;
    assert_eq!(
        listing(&sample).await.render(Look::Plain, now()),
        "\
file:///srv/walseal: cluster 7437123456789012345, PostgreSQL 15, WAL segments of 1 MiB

Any second from 2026-11-21 10:00:01+00 to 2026-11-21 11:05:00+00 (3 min ago), 1 gap.

timeline  any second from         to                      WAL from        to  base backups
       1  2026-11-21 10:00:01+00  2026-11-21 10:00:01+00  0/3000C8  0/400000             1
       1  2026-11-21 10:05:00+00  2026-11-21 11:05:00+00  0/500AB0  0/500AD8             1
Hole without a record: 0/400000 to 0/500000 (1 MiB) on timeline 1. No gap was recorded there, so the WAL was in the repository \
         once, or is on its way into it.
Where the server, a standby or another archive still has it: walseal-archiver heal --gap 0/400000

base backup                type  timeline  WAL from  ended                   complete at  took  version   files  stored  referenced  proven
20261121T100000Z-00000007  full         1  0/300028  2026-11-21 10:00:00+00     0/3000C8  0 ms    15.18  40 MiB   8 MiB         0 B  no drill yet
20261121T110000Z-00000007  full         1  0/500A10  2026-11-21 11:00:00+00     0/500AB0  0 ms    15.18  40 MiB   8 MiB         0 B  no drill yet

Named restore points are in the WAL itself. To open all of it (2 MiB) and list them: list --restore-points
"
    );
}

#[tokio::test]
async fn what_retention_removed_is_no_gap() {
    let sample = sample().await;
    let mut going = Pruned::default();
    going.add_wal(sample.branch(), LsnRange { start: Lsn(0x30_0000), end: Lsn(0x48_0000) });
    let run = || RunId::random().expect("random bytes");
    sample.repository.put_pruned(run(), going.clone(), &Pruned::default(), &sample.writer).await.expect("stored");
    // Of half of what is missing nobody said that it would go.
    let listed = listing(&sample).await;
    let holes: Vec<_> = listed.gaps.iter().map(|hole| (hole.range.start, hole.range.end, hole.pruned)).collect();
    let (begin, middle, end) = (Lsn(0x40_0000), Lsn(0x48_0000), Lsn(0x50_0000));
    assert_eq!(holes, [(begin, middle, true), (middle, end, false)]);
    assert!(listed.render(Look::Plain, now()).contains("(3 min ago), 1 gap.\n"));
    going.add_wal(sample.branch(), LsnRange { start: middle, end });
    sample.repository.put_pruned(run(), going, &Pruned::default(), &sample.writer).await.expect("stored");
    let listed = listing(&sample).await;
    let text = listed.render(Look::Plain, now());
    assert!(text.contains("but for 1 stretch that retention removed, no gap.\n"), "{text}");
    assert!(text.contains("\nRemoved by retention: 0/400000 to 0/500000 (1 MiB) on timeline 1.\n"), "{text}");
    assert!(!text.contains("heal") && !text.contains("Hole"), "{text}");
    assert!(listed.windows[0].gap_pruned && listed.gaps.iter().all(|hole| hole.pruned));
}

#[tokio::test]
async fn wal_that_a_backup_needs_which_is_there_was_not_removed_whatever_is_on_record() {
    let sample = sample().await;
    let (branch, begin, needed, end) = (sample.branch(), Lsn(0x40_0000), Lsn(0x50_0000), Lsn(0x50_0AB0));
    let mut going = Pruned::default();
    going.add_base("20261121T110000Z-00000007".parse().expect("an id"));
    going.add_wal(branch, LsnRange { start: begin, end: Lsn(0x60_0000) });
    let run = RunId::random().expect("random bytes");
    sample.repository.put_pruned(run, going, &Pruned::default(), &sample.writer).await.expect("stored");
    let holes = |listed: &Listing| -> Vec<_> {
        listed.gaps.iter().map(|hole| (hole.range.start, hole.range.end, hole.pruned)).collect()
    };
    // What is there counts.
    let listed = listing(&sample).await;
    assert_eq!((listed.windows.len(), holes(&listed)), (2, vec![(begin, needed, true)]));
    let wal = sample.repository.wal_listing(branch, sample.size, None).await.expect("listed");
    for name in wal.objects_of(sample.size.number(needed)) {
        sample.remove(&name).await;
    }
    let listed = listing(&sample).await;
    assert_eq!((listed.windows.len(), holes(&listed)), (1, vec![(begin, needed, true), (needed, end, false)]));
}

#[tokio::test]
async fn a_base_backup_says_how_long_it_took_and_what_it_needs_of_others() {
    let sample = sample().await;
    let others = sample.label(sample.branch(), Lsn(0x50_0028), Lsn(0x50_0AB0), "2026-11-21T11:30:00Z", None);
    let object = |name: String, size| ObjectReference { name, size, digest: ObjectDigest::of(b"") };
    let label = Label {
        stop_time: "2026-11-21T11:33:20Z".parse().expect("a time"),
        parent: Some("20261121T110000Z-00000007".parse().expect("an id")),
        objects: vec![
            object(format!("base/{}/data/00000000", others.id), 100),
            object("base/20261121T110000Z-00000007/data/00000003".to_owned(), 3 << 20),
            object("base/20261121T100000Z-00000007/data/00000001".to_owned(), 1 << 20),
        ],
        ..others
    };
    sample.put_label_as_is(&label).await;
    let listed = listing(&sample).await;
    let text = listed.render(Look::Plain, now());
    let row = text.lines().find(|line| line.starts_with("20261121T113000Z")).expect("a row");
    assert!(row.contains(" 3 min 20 s ") && row.contains(" 8 MiB       4 MiB  no drill yet"), "{row}");
    let json = serde_json::to_value(&listed).expect("JSON");
    let base = &json["bases"][2];
    assert_eq!((&base["type"], &base["parent"]), (&"full".into(), &"20261121T110000Z-00000007".into()));
    assert_eq!((&base["seconds"], &base["referenced_size"]), (&200.0.into(), &(4 << 20).into()));
    assert_eq!(base["proven"], serde_json::Value::Null);
}

#[tokio::test]
async fn i5_a_recorded_gap_says_when_why_and_how_much_and_what_is_beside_it_is_a_hole_without_a_record() {
    let sample = sample().await;
    let lost = LsnRange { start: Lsn(0x40_0000), end: Lsn(0x50_0000) };
    let gap = sample.put_gap(sample.branch(), lost).await;
    let listed = listing(&sample).await;
    assert_eq!(listed.gaps, [Hole { branch: sample.branch(), range: lost, record: Some(gap.clone()), pruned: false }]);
    let text = listed.render(Look::Plain, now());
    let words = "Gap: 0/400000 to 0/500000 (1 MiB) on timeline 1, found 2026-11-21 12:00:00+00: the slot was dropped; the latest \
                 transaction that the archiver saw before it is of 2026-11-21 10:04:59+00.\n";
    assert!(text.contains(words) && !text.contains("without a record"), "{text}");
    let json: serde_json::Value = serde_json::to_value(&listed).expect("serialisable");
    assert_eq!((&json["gaps"][0]["start"], &json["gaps"][0]["record"]["why"]), (&"0/400000".into(), &gap.why.into()));

    // More is missing than was lost.
    let next = sample.segment(sample.branch(), sample.size.number(Lsn(0x50_0000)));
    let tail = LsnRange { start: Lsn(0x50_0000), end: Lsn(0x50_0AD8) };
    sample.remove(&ObjectName::Tail(sample.branch(), next, tail)).await;
    let holes = listing(&sample).await.gaps.into_iter().map(|hole| (hole.range, hole.record.is_some()));
    // Up to where the second base backup was complete.
    let rest = LsnRange { start: lost.end, end: Lsn(0x50_0AB0) };
    assert_eq!(holes.collect::<Vec<_>>(), [(lost, true), (rest, false)]);

    // Filled: the record stays, and is not open any more.
    let branch = sample.branch();
    let mut wal = SampleWal::from(Lsn(0x40_0000));
    wal.fill_segment();
    sample.put_segment(branch, sample.size.number(lost.start), wal.slice(lost)).await;
    assert_eq!(listing(&sample).await.gaps.iter().map(|hole| hole.range).collect::<Vec<_>>(), [rest]);
}

#[tokio::test]
async fn i6_a_record_that_cannot_be_read_is_named_and_what_it_speaks_of_is_no_end() {
    let sample = sample().await;
    let gap = sample.put_gap(sample.branch(), LsnRange { start: Lsn(0x50_0AD8), end: Lsn(0x60_0000) }).await;
    sample.garble(&ObjectName::Gap(gap.branch, gap.from));
    let listed = listing(&sample).await;
    let last = listed.gaps.last().expect("a hole");
    assert_eq!((last.range.start, last.range.end, last.record.is_none()), (gap.from, gap.from.advance(1), true));
    assert!(listed.render(Look::Plain, now()).contains("Not usable: a record of a gap: object gap/"), "it is named");
}

#[tokio::test]
async fn a_damaged_segment_ends_its_window_and_is_named_with_what_to_do() {
    let sample = sample().await;
    let name = sample.segment(sample.branch(), sample.size.number(Lsn(0x50_0000)));
    let tail = LsnRange { start: Lsn(0x50_0000), end: Lsn(0x50_0AD8) };
    sample.garble(&ObjectName::Tail(sample.branch(), name, tail));
    let text =
        listing(&sample).await.render(Look::Plain, now()).replace(&sample.branch().to_string(), "00000001-BRANCH");
    assert_eq!(
        text,
        "\
file:///srv/walseal: cluster 7437123456789012345, PostgreSQL 15, WAL segments of 1 MiB

Any second from 2026-11-21 10:00:01+00 to 2026-11-21 10:00:01+00 (1 h ago), 1 gap.

timeline  any second from         to                      WAL from        to  base backups
       1  2026-11-21 10:00:01+00  2026-11-21 10:00:01+00  0/3000C8  0/400000             1
Hole without a record: 0/400000 to 0/500AD8 (1 MiB) on timeline 1. No gap was recorded there, so the WAL was in the repository \
         once, or is on its way into it. Some of it is there and not usable, see below.
Where the server, a standby or another archive still has it: walseal-archiver heal --gap 0/400000

base backup                type  timeline  WAL from  ended                   complete at  took  version   files  stored  referenced  proven
20261121T100000Z-00000007  full         1  0/300028  2026-11-21 10:00:00+00     0/3000C8  0 ms    15.18  40 MiB   8 MiB         0 B  no drill yet
20261121T110000Z-00000007  full         1  0/500A10  2026-11-21 11:00:00+00     0/500AB0  0 ms    15.18  40 MiB   8 MiB         0 B  no drill yet  in no window

Named restore points are in the WAL itself. To open all of it (1 MiB) and list them: list --restore-points

Not usable: tail/00000001-BRANCH/000000010000000000000005/0000000000500000-0000000000500AD8, with the WAL from 0/500000 to \
         0/500AD8: the header's signature does not verify: these bytes are not what the writer signed

Nothing that needs an object which is not usable can be restored. If the store keeps older versions, or there is another \
         copy of the repository, put back what was written; a window that needs none of them begins with: \
         walseal-archiver backup
"
    );
}

#[tokio::test]
async fn case_18_a_damaged_whole_segment_leaves_both_windows_beside_it() {
    let sample = sample().await;
    let branch = sample.branch();
    // The window before is whole; the later one begins with a segment that cannot be read.
    let mut wal = SampleWal::from(Lsn(0x60_0000));
    let start = wal.checkpoint(710, "2026-11-21T12:00:00Z").start;
    let stop = wal.commit(710, "2026-11-21T12:00:01Z").end;
    wal.commit(711, "2026-11-21T12:01:00Z");
    sample.put_wal(branch, &wal, Lsn(0x60_0000)).await;
    sample.put_label(branch, start, stop, "2026-11-21T12:00:00Z", Some("2026-11-21T12:00:01Z")).await;
    let first = ObjectName::Wal(branch, sample.segment(branch, sample.size.number(Lsn(0x30_0000))), None);
    sample.garble(&first);
    let listing = listing(&sample).await;
    let spans: Vec<(Lsn, Lsn)> = listing.windows.iter().map(|window| (window.from, window.to)).collect();
    assert_eq!(spans, [(Lsn(0x50_0AB0), Lsn(0x50_0AD8)), (stop, wal.end())]);
    assert_eq!(listing.damaged.iter().map(|d| d.name.clone()).collect::<Vec<_>>(), [first.to_string()]);
    let text = listing.render(Look::Plain, now());
    assert!(text.contains(&format!("Not usable: {first}, with the WAL from 0/300000 to 0/400000")), "{text}");
}

#[tokio::test]
async fn a_damaged_label_is_named_and_the_other_base_backups_are_shown() {
    let sample = sample().await;
    let damaged: BaseId = "20261121T110000Z-00000007".parse().expect("an id");
    sample.garble(&ObjectName::Label(damaged.clone()));
    let listing = listing(&sample).await;
    assert_eq!(listing.bases.iter().map(|base| base.id.to_string()).collect::<Vec<_>>(), ["20261121T100000Z-00000007"]);
    assert_eq!(listing.windows.len(), 1);
    let text = listing.render(Look::Plain, now());
    assert!(text.contains(&format!("Not usable: base backup {damaged}: its label (base/{damaged}/label): ")), "{text}");
}

#[tokio::test]
async fn a_writer_that_is_not_trusted_is_no_damage() {
    let mut sample = sample().await;
    let branch = sample.branch();
    let stranger = walseal_common::seal::WriterKey::generate().expect("random bytes");
    sample.writer = stranger;
    let mut wal = SampleWal::from(Lsn(0x50_0000));
    wal.filler(2000);
    wal.commit(702, "2026-11-21T11:06:00Z");
    let tail = LsnRange { start: Lsn(0x50_0AD8), end: Lsn(0x50_0B00) };
    wal.bytes.resize(0xB00, 0);
    sample.put_tail(branch, tail, &wal.bytes).await;
    let Err(error) = survey(false, &access(&sample)).await else { panic!("a stranger's object is no surprise") };
    assert!(error.to_string().contains("not a trusted writer"), "{error}");
}

#[tokio::test]
async fn the_configuration_leads_to_the_repository_or_says_what_is_missing() {
    let sample = sample().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identity = folder.path().join("identity.key");
    std::fs::write(&identity, sample.identities[0].to_file().as_bytes()).expect("a file of our own");
    std::fs::set_permissions(&identity, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("our own");
    let toml = |writers: &str| {
        let text = format!(
            "[repository]\nurl = \"file://{}\"\n[keys]\nidentity_files = [\"{}\"]\n{writers}",
            sample.folder.path().display(),
            identity.display()
        );
        Config::from_toml(&text).expect("a configuration")
    };
    let writers = format!("trusted_writers = [\"{}\"]", sample.writer.public());
    let access = Access::open(toml(&writers), None).await.expect("everything is there");
    assert_eq!(access.repository.cluster(), crate::sample::SYSTEM);

    let nobody = Access::open(toml(""), None).await.expect_err("nobody is trusted").to_string();
    assert!(nobody.contains(&writers), "{nobody}");
    let stranger = Access::open(toml(&writers), "123".parse().ok()).await.expect_err("another cluster").to_string();
    assert!(stranger.contains("holds no cluster 123; it holds: 7437123456789012345"), "{stranger}");
}

#[tokio::test]
async fn restore_points_are_read_from_the_wal_where_they_are_asked_for() {
    let sample = SampleRepository::new().await;
    let branch = sample.branch();
    let mut wal = SampleWal::from(Lsn(0x30_0000));
    let start = wal.checkpoint(699, "2026-11-21T10:00:00Z").start;
    wal.restore_point("before the base backup is complete", "2026-11-21T10:00:00Z");
    let stop = wal.commit(700, "2026-11-21T10:00:01Z").end;
    wal.restore_point("before_migration", "2026-11-21T10:01:00Z");
    wal.fill_segment_but(24);
    // Its record spans two segments.
    let twice = wal.restore_point("it's \x1b[1m bold", "2026-11-21T10:02:00Z");
    wal.fill_segment();
    let lost = wal.restore_point("lost", "2026-11-21T10:03:00Z");
    wal.fill_segment();
    let start_later = wal.checkpoint(702, "2026-11-21T11:00:00Z").start;
    let stop_later = wal.commit(701, "2026-11-21T11:00:01Z").end;
    let again = wal.restore_point("it's \x1b[1m bold", "2026-11-21T11:02:00Z");
    sample.put_wal(branch, &wal, Lsn(0x30_0000)).await;
    sample.put_label(branch, start, stop, "2026-11-21T10:00:00Z", None).await;
    sample.put_label(branch, start_later, stop_later, "2026-11-21T11:00:00Z", None).await;
    let name = |lsn: Lsn| ObjectName::Wal(branch, sample.segment(branch, sample.size.number(lsn)), None);
    let listing = survey(true, &access(&sample)).await.expect("readable");
    let points = listing.restore_points.as_deref().expect("they were asked for");
    assert_eq!(points.iter().map(|point| point.lsn).collect::<Vec<_>>()[1..], [twice.start, lost.start, again.start]);
    assert_eq!(points[0].name, "before_migration");
    // What is damaged hides only what it holds.
    sample.garble(&name(lost.start));
    let listing = survey(true, &access(&sample)).await.expect("readable");
    let names: Vec<&str> = listing.restore_points.iter().flatten().map(|point| point.name.as_str()).collect();
    assert_eq!(names, ["before_migration", "it's \x1b[1m bold", "it's \x1b[1m bold"]);
    assert_eq!(listing.damaged.len(), 1);
    let text = listing.render(Look::Plain, now());
    assert!(text.contains("before_migration"), "{text}");
    assert!(!text.contains('\x1b'), "names cannot command a terminal: {text:?}");
    assert!(text.contains("--to name:before_migration\n"), "{text}");
    assert!(text.contains(&format!("--to lsn:{}\n", twice.start)), "a name that there is twice is none: {text}");
}
