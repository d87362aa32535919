//! Where recovery stops, and from which base backup.

use jiff::ToSpan as _;
use proptest::prelude::*;
use walseal_common::lsn::LsnRange;
use walseal_common::repository::{HoldRecord, IntentRecord, ObjectName, RunId};
use walseal_common::segment::SegmentName;

use super::*;

#[tokio::test]
async fn latest_ends_with_the_last_whole_record() {
    let day = Day::new().await;
    let plan = day.plan("latest").await.expect("a plan");
    assert_eq!(plan.stop, day.wal.end());
    assert_eq!(beside(&plan), (Some(706), None));
    assert_eq!(plan.base.id, day.base);
    assert_eq!(plan.path.len(), 1);
    assert_eq!((plan.path[0].to, plan.path[0].known_end), (day.wal.end(), day.wal.end()));
    assert_eq!(plan.recovery.iter().map(RecoverySetting::line).collect::<Vec<_>>(), ["recovery_target_timeline = '1'"]);
}

#[tokio::test]
async fn immediate_is_where_the_base_backup_is_complete() {
    let day = Day::new().await;
    let plan = day.plan("immediate").await.expect("a plan");
    assert_eq!(plan.stop, day.base_stop);
    assert_eq!(beside(&plan), (Some(701), Some(702)));
}

#[tokio::test]
async fn case_54_a_time_stops_before_the_first_transaction_in_lsn_order_with_a_later_time() {
    let day = Day::new().await;
    for (time, stop, neighbours) in [
        ("10:00:30", day.commit_702.start, (Some(701), Some(702))),
        ("10:01:00", day.abort_703.start, (Some(702), Some(703))),
        // An abort counts as well as a commit.
        ("10:01:59.999999", day.abort_703.start, (Some(702), Some(703))),
        ("10:02:00", day.commit_704.start, (Some(703), Some(704))),
        // 705 ended at 10:02:30, but after 704 of 10:03:00: it is not part of 10:02:45.
        ("10:02:45", day.commit_704.start, (Some(703), Some(704))),
        ("10:03:00", day.commit_706.start, (Some(705), Some(706))),
        ("10:04:59", day.commit_706.start, (Some(705), Some(706))),
    ] {
        let plan = day.plan(&at(time)).await.expect(time);
        assert_eq!((plan.stop, beside(&plan)), (stop, neighbours), "{time}");
    }
    let plan = day.exclusive(&at("10:01:00")).await.expect("a plan");
    assert_eq!((plan.stop, beside(&plan)), (day.commit_702.start, (Some(701), Some(702))));
}

#[tokio::test]
async fn an_lsn_stops_after_the_record_that_starts_there_or_later() {
    let day = Day::new().await;
    let plan = day.plan(&format!("lsn:{}", day.commit_702.start)).await.expect("a plan");
    assert_eq!((plan.stop, beside(&plan)), (day.commit_702.end, (Some(702), Some(703))));
    let plan = day.plan(&format!("lsn:{}", day.commit_702.start.advance(1))).await.expect("a plan");
    assert_eq!((plan.stop, beside(&plan)), (day.abort_703.end, (Some(703), Some(704))));
    let plan = day.exclusive(&format!("lsn:{}", day.commit_702.start)).await.expect("a plan");
    assert_eq!((plan.stop, beside(&plan)), (day.commit_702.start, (Some(701), Some(702))));
}

#[tokio::test]
async fn case_54_a_transaction_is_found_where_its_record_ends() {
    let day = Day::new().await;
    for (xid, spot) in [(702, day.commit_702), (704, day.commit_704), (705, day.commit_705), (706, day.commit_706)] {
        let plan = day.plan(&format!("xid:{xid}")).await.expect("a plan");
        assert_eq!((plan.stop, plan.last_before.map(|last| last.xid.0)), (spot.end, Some(xid)));
        let plan = day.exclusive(&format!("xid:{xid}")).await.expect("a plan");
        assert_eq!((plan.stop, plan.first_after.map(|first| first.xid.0)), (spot.start, Some(xid)));
    }
}

#[tokio::test]
async fn a_restore_point_is_found_by_its_name() {
    let day = Day::new().await;
    let plan = day.plan("name:before_migration").await.expect("a plan");
    assert_eq!((plan.stop, beside(&plan)), (day.point.end, (Some(705), Some(706))));
    let error = day.plan("name:before").await.expect_err("another name");
    assert!(matches!(error, PlanError::NoSuchName { .. }), "{error}");
}

#[tokio::test]
async fn case_10_xids_of_64_bits_agree_with_the_epoch_and_prepared_transactions_end_at_commit_prepared() {
    let sample = SampleRepository::new().await;
    let mut wal = SampleWal::from(Lsn(0x30_0000));
    let start = wal.checkpoint((2 << 32) | 699, &at("10:00:00")).start;
    let stop = wal.filler(16).end;
    let prepared = wal.commit_prepared(702, &at("10:01:00"));
    wal.filler(100);
    sample.put_wal(sample.branch(), &wal, Lsn(0x30_0000)).await;
    sample.put_label(sample.branch(), start, stop, &at("10:00:00"), None).await;
    let ask = async |xid: u64| planned(&sample, &Request::to(Target::Xid(xid))).await;
    assert_eq!(ask(702).await.expect("32 bits").stop, prepared.end);
    assert_eq!(ask((2 << 32) | 702).await.expect("the right epoch").stop, prepared.end);
    let error = ask((1 << 32) | 702).await.expect_err("another epoch");
    assert!(matches!(error, PlanError::NoSuchTransaction { .. }), "{error}");
}

#[tokio::test]
async fn case_07_a_target_before_the_stop_point_names_the_earliest_that_can_be_reached() {
    let day = Day::new().await;
    for target in [at("10:00:00"), "lsn:0/300100".to_owned(), "xid:701".to_owned()] {
        let error = day.plan(&target).await.expect_err("too early");
        assert!(matches!(error, PlanError::NoBaseFits { .. }), "{target}: {error}");
        let text = error.to_string();
        assert!(text.contains(&format!("--to immediate --base {}", day.base)), "{text}");
    }
}

#[tokio::test]
async fn case_07_a_base_backup_of_an_idle_cluster_is_no_way_to_before_what_it_holds() {
    let mut day = Day::new().await;
    // A second backup, in which nothing ends; what committed before it did so at 10:05:00.
    let mut wal = day.wal.clone();
    let start = wal.checkpoint(707, &at("11:00:00")).start;
    let stop = wal.filler(16).end;
    let late = wal.commit(707, &at("12:00:00"));
    let more = LsnRange { start: day.wal.end(), end: wal.end() };
    let segment = LsnRange { start: day.sample.size.align_down(more.start), end: wal.end() };
    day.sample.put_tail(day.sample.branch(), more, wal.slice(segment)).await;
    for seen in [None, Some(at("10:05:00"))] {
        let idle = day.sample.put_label(day.sample.branch(), start, stop, &at("11:00:00"), seen.as_deref()).await;
        for (time, stop) in [("10:02:00", day.commit_704.start), ("10:04:59", day.commit_706.start)] {
            let plan = day.plan(&at(time)).await.expect("from the first one");
            assert_eq!((&plan.base.id, plan.stop), (&day.base, stop), "{time}");
            assert_eq!(plan.passed_over[0].id, idle);
            assert!(plan.passed_over[0].why.contains("of 2026-11-21 10:05:00+00, later"), "{:?}", plan.passed_over);
        }
        for time in ["10:05:00", "11:30:00"] {
            let plan = day.plan(&at(time)).await.expect("from the second one");
            assert_eq!((&plan.base.id, plan.stop), (&idle, late.start), "{time}");
        }
        let plan = day.exclusive(&at("10:05:00")).await.expect("from the first one");
        assert_eq!((&plan.base.id, plan.stop), (&day.base, day.commit_706.start));
        day.sample.remove(&ObjectName::Label(idle)).await;
    }
    day.sample.remove(&ObjectName::Label(day.base.clone())).await;
    day.base = day.sample.put_label(day.sample.branch(), start, stop, &at("11:00:00"), None).await;
    let text = day.plan(&at("10:04:59")).await.expect_err("nothing leads there").to_string();
    assert!(text.contains(&format!("earliest point that can be reached is {stop} (the last")), "{text}");
    assert!(text.contains(&format!("--to immediate --base {}", day.base)), "{text}");
}

#[tokio::test]
async fn case_07_wal_from_shortly_before_the_oldest_base_backup_tells_what_it_holds() {
    let sample = SampleRepository::new().await;
    let mut wal = SampleWal::from(Lsn(0x30_0000));
    wal.commit(698, &at("09:30:00"));
    wal.fill_segment();
    // As a server does it: a backup begins with a segment.
    wal.fill_segment_but(0);
    let start = wal.checkpoint(699, &at("10:00:00")).start;
    let stop = wal.filler(16).end;
    let commit = wal.commit(700, &at("11:00:00"));
    sample.put_wal(sample.branch(), &wal, Lsn(0x30_0000)).await;
    sample.put_label(sample.branch(), start, stop, &at("10:00:00"), None).await;
    let ask = async |time: &str| planned(&sample, &Request::to(at(time).parse().expect("a target"))).await;
    // Whenever the checkpoint was.
    assert_eq!(ask("09:30:00").await.expect("nothing ended later").stop, commit.start);
    let text = ask("09:29:59").await.expect_err("698 is in it").to_string();
    assert!(text.contains("the last transaction there is of 2026-11-21 09:30:00+00"), "{text}");
}

#[tokio::test]
async fn case_07_where_nothing_tells_when_the_last_transaction_ended_the_backups_checkpoint_does() {
    let sample = SampleRepository::new().await;
    let mut wal = SampleWal::from(Lsn(0x30_0000));
    let start = wal.checkpoint(699, &at("10:00:00")).start;
    let stop = wal.filler(16).end;
    let commit = wal.commit(700, &at("11:00:00"));
    sample.put_wal(sample.branch(), &wal, Lsn(0x30_0000)).await;
    sample.put_label(sample.branch(), start, stop, &at("10:00:00"), None).await;
    let ask = async |time: &str| planned(&sample, &Request::to(at(time).parse().expect("a target"))).await;
    assert_eq!(ask("10:00:01.1").await.expect("all had ended by then").stop, commit.start);
    for time in ["10:00:01.099999", "09:00:00"] {
        let text = ask(time).await.expect_err("a later one may be in it").to_string();
        assert!(text.contains("may hold later transactions") && text.contains("all there ended by"), "{text}");
    }
    let mut inventory = Inventory::read(&sample.repository, &sample.identities).await.expect("readable");
    let found = windows::windows(&sample.repository, &sample.identities, &mut inventory).await.expect("readable");
    let from = found[0].from_time.map(|time| time.to_string());
    assert_eq!(from.as_deref(), Some("2026-11-21 10:00:01.1+00"));
}

#[tokio::test]
async fn case_08_a_time_after_the_last_transaction_offers_latest() {
    let day = Day::new().await;
    for (target, exclusive) in [("10:05:00", false), ("10:06:00", false), ("10:05:01", true)] {
        let request = Request { exclusive, ..Request::to(at(target).parse().expect("a target")) };
        let error = day.request(&request).await.expect_err("too late");
        let text = error.to_string();
        assert!(text.contains("transaction 706 of 2026-11-21 10:05:00+00") && text.contains("--to latest"), "{text}");
    }
    assert!(day.exclusive(&at("10:05:00")).await.is_ok(), "just before the last one can be reached");
}

#[tokio::test]
async fn case_09_a_time_on_an_idle_cluster_offers_latest() {
    let sample = SampleRepository::new().await;
    let mut wal = SampleWal::from(Lsn(0x30_0000));
    let start = wal.checkpoint(699, &at("10:00:00")).start;
    let stop = wal.filler(16).end;
    wal.filler(100);
    sample.put_wal(sample.branch(), &wal, Lsn(0x30_0000)).await;
    sample.put_label(sample.branch(), start, stop, &at("10:00:00"), None).await;
    let request = Request::to(at("10:30:00").parse().expect("a target"));
    let error = planned(&sample, &request).await.expect_err("no transaction");
    let text = error.to_string();
    assert!(text.contains("there is none since the base backup") && text.contains("--to latest"), "{text}");
}

#[tokio::test]
async fn a_position_without_a_record_after_it_offers_latest() {
    let day = Day::new().await;
    for lsn in [day.wal.end(), day.wal.end().advance(100)] {
        let error = day.plan(&format!("lsn:{lsn}")).await.expect_err("nothing starts there");
        assert!(matches!(error, PlanError::LsnAfterEnd { .. }), "{error}");
        assert!(error.to_string().contains("--to latest"), "{error}");
    }
}

#[tokio::test]
async fn a_missing_segment_is_named_and_what_lies_before_it_can_be_reached() {
    let day = Day::new().await;
    let size = day.sample.size;
    let hole = size.number(day.commit_705.start);
    let name = day.sample.segment(day.sample.branch(), hole);
    day.sample.remove(&ObjectName::Wal(day.sample.branch(), name, None)).await;
    for target in ["latest".to_owned(), at("10:04:00"), format!("lsn:{}", day.commit_706.start), "xid:706".to_owned()] {
        let error = day.plan(&target).await.expect_err("a hole lies on the way");
        let PlanError::Gap(gap) = &error else { panic!("{target}: {error}") };
        assert_eq!(gap.missing, hole.range(size), "{target}");
        assert!(error.to_string().contains(&name.to_string()), "{error}");
        let Some(Nearest::Record(before)) = &gap.before else { panic!("there is WAL before the hole: {error}") };
        let plan = day.plan(&format!("lsn:{}", before.start)).await.expect("the point that the refusal offers");
        assert_eq!(plan.stop, before.end);
    }
    assert!(day.plan(&at("10:01:00")).await.is_ok(), "what lies before the hole can be reached");
}

#[tokio::test]
async fn a_segment_that_is_stored_while_the_plan_is_made_is_no_gap() {
    let mut day = Day::new().await;
    let name = day.sample.segment(day.sample.branch(), day.sample.size.number(day.commit_705.start));
    let key = ObjectName::Wal(day.sample.branch(), name, None).key(crate::sample::SYSTEM);
    let late = crate::sample::LateStore::new(day.sample.repository.store().clone(), key, 1);
    let trust = day.sample.repository.trust().clone();
    day.sample.repository =
        walseal_common::repository::Repository::new(std::sync::Arc::new(late), crate::sample::SYSTEM, trust);
    assert_eq!(day.plan("latest").await.expect("a second look finds it").stop, day.wal.end());
}

#[tokio::test]
async fn case_18_a_large_segment_that_is_being_filled_is_part_of_the_way() {
    let sample = SampleRepository::with_size(32).await;
    let mut wal = SampleWal::with_size(Lsn(0x600_0000), sample.size);
    let start = wal.checkpoint(699, &at("10:00:00")).start;
    let stop = wal.filler(16).end;
    wal.filler(17 << 20);
    let commit = wal.commit(702, &at("10:01:00"));
    let number = sample.size.number(start);
    let part = number.start(sample.size).advance(16 << 20);
    sample.put_part(sample.branch(), number, 0, &wal.bytes).await;
    sample.put_tail(sample.branch(), LsnRange { start: part, end: wal.end() }, &wal.bytes).await;
    sample.put_label(sample.branch(), start, stop, &at("10:00:00"), None).await;
    for target in ["latest", "xid:702"] {
        let plan = planned(&sample, &Request::to(target.parse().expect("a target"))).await.expect(target);
        assert_eq!((plan.stop, beside(&plan)), (commit.end, (Some(702), None)));
    }
}

#[tokio::test]
async fn a_missing_segment_below_the_base_backups_own_stop_point_is_named() {
    let sample = SampleRepository::new().await;
    let mut wal = SampleWal::from(Lsn(0x30_0000));
    let start = wal.checkpoint(699, &at("10:00:00")).start;
    wal.fill_segment();
    let stop = wal.filler(16).end;
    wal.commit(702, &at("10:01:00"));
    sample.put_wal(sample.branch(), &wal, Lsn(0x40_0000)).await;
    sample.put_label(sample.branch(), start, stop, &at("10:00:00"), None).await;
    for target in ["latest", "immediate", "xid:702"] {
        let request = Request::to(target.parse().expect("a target"));
        let error = planned(&sample, &request).await.expect_err("no WAL at its start");
        assert!(matches!(error, PlanError::Gap(_)), "{target}: {error}");
    }
}

#[tokio::test]
async fn several_restore_points_of_one_name_are_listed_and_a_named_base_backup_decides() {
    let day = Day::new().await;
    let mut wal = day.wal.clone();
    let again = wal.restore_point("before_migration", &at("10:07:00"));
    let tail = day.sample.size.align_down(again.start);
    let bytes = wal.slice(LsnRange { start: tail, end: wal.end() });
    day.sample.put_tail(day.sample.branch(), LsnRange { start: day.wal.end(), end: wal.end() }, bytes).await;
    let error = day.plan("name:before_migration").await.expect_err("two of them");
    let text = error.to_string();
    assert!(text.contains(&format!("--to lsn:{}   (made 2026-11-21 10:04:00+00)", day.point.start)), "{text}");
    assert!(text.contains(&format!("--to lsn:{}   (made 2026-11-21 10:07:00+00)", again.start)), "{text}");
    let plan = day.plan(&format!("lsn:{}", again.start)).await.expect("the command that the refusal offers");
    assert_eq!(plan.stop, again.end);
    let request = Request { base: Some(day.base.clone()), ..Request::to(Target::Name("before_migration".to_owned())) };
    assert_eq!(day.request(&request).await.expect("PostgreSQL stops at the first").stop, day.point.end);
}

#[tokio::test]
async fn exclusive_is_refused_where_it_means_nothing() {
    let day = Day::new().await;
    for target in ["latest", "immediate", "name:before_migration"] {
        let error = day.exclusive(target).await.expect_err("nothing lies just before it");
        assert!(error.is_usage(), "{error}");
    }
}

#[tokio::test]
async fn case_40_what_retention_is_about_to_remove_of_a_plan_is_said_unless_it_is_held() {
    let day = Day::new().await;
    let now: jiff::Timestamp = at("12:00:00").parse().expect("a time");
    let announce = async |name: ObjectName| {
        let record = IntentRecord { names: vec![name.to_string()], written: jiff::Timestamp::UNIX_EPOCH };
        let run = RunId::random().expect("random bytes");
        day.sample.repository.put_intent(run, 0, &record, &day.sample.writer).await.expect("stored");
    };
    let plan = day.plan(&at("10:01:30")).await.expect("a plan");
    let said = async || leaving(&day.sample.repository, &plan, now).await;
    let segment = |lsn| SegmentName::new(day.sample.branch().timeline, day.wal.size.number(lsn), day.wal.size);
    let (replayed, beyond) = (segment(plan.path[0].from), segment(day.commit_706.start));
    assert_ne!((replayed, beyond), (beyond, replayed));
    announce(ObjectName::Label("20261120T020000Z-9f3a01bc".parse().expect("an id"))).await;
    announce(ObjectName::Wal(day.sample.branch(), beyond, None)).await;
    assert_eq!(said().await, None, "another backup, and WAL after the target");
    announce(ObjectName::Label(day.base.clone())).await;
    let warning = said().await.expect("the base backup goes");
    assert!(warning.contains(&format!("remove base backup {}:", day.base)), "{warning}");
    announce(ObjectName::Wal(day.sample.branch(), replayed, None)).await;
    let warning = said().await.expect("both go");
    assert!(
        warning.contains(&format!("{} and WAL that this replays, from segment {replayed} on", day.base)),
        "{warning}"
    );
    let hold = HoldRecord { base: day.base.clone(), until: Some(now + 1.hour()), written: now };
    day.sample.repository.put_hold(&hold, &day.sample.writer).await.expect("stored");
    let warning = said().await.expect("the WAL goes, and a hold does not keep it");
    assert!(warning.contains(&format!("remove WAL that this replays, from segment {replayed} on")), "{warning}");
}

#[tokio::test]
async fn a_label_that_does_not_verify_is_reported_and_not_used() {
    let mut day = Day::new().await;
    let stranger = walseal_common::seal::WriterKey::generate().expect("random bytes");
    let ours = std::mem::replace(&mut day.sample.writer, stranger);
    let (start, stop) = (day.commit_705.start, day.commit_705.end);
    let foreign = day.sample.put_label(day.sample.branch(), start, stop, &at("10:03:30"), None).await;
    day.sample.writer = ours;
    let plan = day.plan("latest").await.expect("the other one");
    assert_eq!(plan.base.id, day.base);
    assert_eq!(plan.passed_over[0].id, foreign);
    assert!(plan.passed_over[0].why.contains("not a trusted writer"), "{:?}", plan.passed_over);
    assert!(plan.warnings[0].contains(&foreign.to_string()), "{:?}", plan.warnings);
}

#[tokio::test]
async fn without_a_trusted_writer_those_found_are_printed_with_the_line_to_add() {
    let mut day = Day::new().await;
    let store = day.sample.repository.store().clone();
    let trust = walseal_common::seal::TrustedWriters::default();
    day.sample.repository = walseal_common::repository::Repository::new(store, crate::sample::SYSTEM, trust);
    let text = day.plan("latest").await.expect_err("nobody is trusted").to_string();
    let line = format!("trusted_writers = [\"{}\"]", day.sample.writer.public());
    assert!(text.contains(&line), "{text}");
}

#[tokio::test]
async fn a_plan_survives_json() {
    let day = Day::new().await;
    let plan = day.plan(&at("10:02:45")).await.expect("a plan");
    let text = serde_json::to_string(&plan).expect("serialisable");
    assert_eq!(serde_json::from_str::<Plan>(&text).expect("its own text"), plan);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// For any base backups and any times, the plan agrees with a reading of PostgreSQL's rule, word by word.
    #[test]
    fn case_07_the_newest_base_backup_that_is_complete_before_the_stop_is_chosen(
        times in prop::collection::vec(0i64..40, 4..14),
        bases in prop::collection::btree_set(0usize..12, 1..4),
        asked in 0i64..42,
        exclusive: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let clock = |second: i64| at(&format!("10:00:{second:02}"));
            let sample = SampleRepository::new().await;
            let mut wal = SampleWal::from(Lsn(0x30_0000));
            let mut ends: Vec<(Spot, i64)> = Vec::new();
            let mut labels: Vec<(Lsn, Lsn)> = Vec::new();
            let mut open: Option<Lsn> = Some(wal.checkpoint(600, &clock(0)).start);
            for (index, time) in times.iter().enumerate() {
                if bases.contains(&index) && open.is_none() {
                    open = Some(wal.checkpoint(600 + index as u64, &clock(0)).start);
                }
                ends.push((wal.commit(700 + index as u32, &clock(*time)), *time));
                wal.filler(90_000);
                if let Some(start) = open.take() {
                    labels.push((start, wal.filler(8).end));
                }
            }
            sample.put_wal(sample.branch(), &wal, Lsn(0x30_0000)).await;
            let mut ids = Vec::new();
            for (index, (start, stop)) in labels.iter().enumerate() {
                ids.push(sample.put_label(sample.branch(), *start, *stop, &clock(index as i64), None).await);
            }
            // PostgreSQL's rule, for each base backup, newest first; and none may hold a later transaction already.
            let late = |time: i64| if exclusive { time >= asked } else { time > asked };
            let stops = |start: Lsn| {
                ends.iter().find(|(spot, time)| spot.start >= start && late(*time)).map(|(spot, _)| spot.start)
            };
            let holds_late = |stop: Lsn| ends.iter().any(|(spot, time)| spot.start < stop && late(*time));
            let newest = (0..labels.len()).rev().find(|at| !holds_late(labels[*at].1));
            let request = Request { exclusive, ..Request::to(clock(asked).parse().expect("a target")) };
            let outcome = planned(&sample, &request).await;
            match newest.map(|at| (ids[at].clone(), stops(labels[at].0))) {
                Some((id, Some(stop))) => {
                    let found = outcome.expect("a base backup fits");
                    assert_eq!((found.base.id, found.stop), (id, stop));
                }
                Some((_, None)) => assert!(matches!(outcome, Err(PlanError::TimeAfterEnd { .. })), "{outcome:?}"),
                None => assert!(matches!(outcome, Err(PlanError::NoBaseFits { .. })), "{outcome:?}"),
            }
        });
    }
}
