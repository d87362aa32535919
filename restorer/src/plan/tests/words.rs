//! What people read, word by word.

use walseal_common::repository::ObjectName;

use super::*;

/// The text with what differs from run to run replaced.
fn told(day: &Day, text: impl ToString) -> String {
    let store = day.sample.repository.describe();
    text.to_string().replace(&store, "file:///srv/walseal").replace(&day.sample.branch().to_string(), "00000001-BRANCH")
}

#[tokio::test]
async fn a_plan_is_explained_in_calm_words() {
    let day = Day::new().await;
    let plan = day.plan(&at("10:02:45")).await.expect("a plan");
    assert_eq!(
        told(&day, plan.explain()),
        "\
Restore cluster 7437123456789012345 from file:///srv/walseal to 2026-11-21 10:02:45+00.

  base backup  20261121T100000Z-00000007, full, PostgreSQL 15.18, complete at 0/300120
  WAL          2 MiB from 0/300050 to 0/4FFFE8, in 2 segments, without a gap
  recovery     stops at 0/4FFFE8 on timeline 1, just before transaction 704
  last in it   transaction 703, rolled back 2026-11-21 10:02:00+00 at 0/300148
  first after  transaction 704, committed 2026-11-21 10:03:00+00 at 0/4FFFE8
  to fetch     0 B in 0 objects of the base backup, and the WAL, in about 2 requests; about 42 MiB on disk
  expected     about 1 s: 1 s to fetch, meanwhile 1 s to rebuild, then 1 s to replay (assuming 112 MiB/s, 300 MiB/s of files \
             and 40 MiB/s of WAL; nothing was measured)

Recovery settings:
  recovery_target_timeline = '1'
  recovery_target_time = '2026-11-21 10:02:45.000000+00'
  recovery_target_inclusive = 'on'
  recovery_target_action = 'promote'
"
    );
}

#[tokio::test]
async fn a_suspect_or_unusable_base_backup_is_spoken_of() {
    let day = Day::new().await;
    let (start, stop) = (day.commit_705.start, day.commit_705.end);
    let mut label = day.sample.label(day.sample.branch(), start, stop, &at("10:03:30"), None);
    label.suspect = 3;
    day.sample.put_label_as_is(&label).await;
    let text = day.plan("latest").await.expect("a plan").explain();
    let warning = "Warning: The server reported 3 page checksum failure(s) while base backup 20261121T100330Z-00000007 was \
                   made; a sound one: --base 20261121T100000Z-00000007.";
    assert!(text.ends_with(&format!("{warning}\n")), "{text}");
    let text = day.plan(&at("10:01:00")).await.expect("a plan").explain();
    let newer = "Newer base backups that are not taken:\n  20261121T100330Z-00000007: it is complete only at 0/500060, and \
                 holds transaction 705 of 2026-11-21 10:02:30+00, later than the target\n";
    assert!(text.ends_with(newer), "{text}");
}

#[tokio::test]
async fn every_refusal_says_what_to_do_instead() {
    let day = Day::new().await;
    for (target, words) in [
        (
            at("10:00:00"),
            "\
2026-11-21 10:00:00+00 cannot be reached: no base backup on timeline 1 is complete before it
  20261121T100000Z-00000007: it is complete only at 0/300120, and holds a transaction of 2026-11-21 10:00:01+00, later \
             than the target
The earliest point that can be reached is 0/300120 (the last transaction there is of 2026-11-21 10:00:01+00): --to \
             immediate --base 20261121T100000Z-00000007",
        ),
        (
            at("10:06:00"),
            "\
2026-11-21 10:06:00+00 cannot be reached: PostgreSQL stops before the first transaction that ended after it, and the last \
             one in the repository is transaction 706 of 2026-11-21 10:05:00+00 (WAL ends at 0/600608); recovery would run \
             to the end and fail.
Everything that is known: --to latest",
        ),
        (
            "lsn:0/9000000".to_owned(),
            "\
lsn:0/9000000 cannot be reached: recovery stops at the first record that starts there or later, and WAL on timeline 1 ends \
             at 0/600608, 138 MiB before it.
To get everything up to that end: --to latest",
        ),
        (
            "xid:9".to_owned(),
            "no end of transaction 9 is in the WAL of timeline 1 from 0/300050 to 0/600608. It may not have ended by \
             then, may have written nothing, be a part (savepoint) of another transaction, or lie on another timeline",
        ),
        (
            "name:Before_migration".to_owned(),
            "no restore point \"Before_migration\" is in the WAL of timeline 1 from 0/300050 to 0/600608; names are \
             compared letter by letter",
        ),
    ] {
        let error = day.plan(&target).await.expect_err("it cannot be reached");
        assert_eq!(told(&day, error), words);
    }
    let stranger: BaseId = "20261121T110000Z-00000007".parse().expect("an id");
    let request = Request { base: Some(stranger), ..Request::to(Target::Latest) };
    assert_eq!(
        told(&day, day.request(&request).await.expect_err("it is not there")),
        "there is no base backup 20261121T110000Z-00000007 that can be used; there are: 20261121T100000Z-00000007"
    );
    let request = Request { base: Some(day.base.clone()), ..Request::to(at("10:00:00").parse().expect("a target")) };
    assert_eq!(
        told(&day, day.request(&request).await.expect_err("it is too new")),
        "base backup 20261121T100000Z-00000007 cannot lead to 2026-11-21 10:00:00+00: it is complete only at 0/300120, \
         and holds a transaction of 2026-11-21 10:00:01+00, later than the target; leave out --base, and the newest \
         one that fits is taken"
    );
}

#[tokio::test]
async fn a_gap_is_named_by_position_segment_and_branch() {
    let day = Day::new().await;
    let hole = day.sample.size.number(day.commit_705.start);
    let name = day.sample.segment(day.sample.branch(), hole);
    day.sample.remove(&ObjectName::Wal(day.sample.branch(), name, None)).await;
    assert_eq!(
        told(&day, day.plan("latest").await.expect_err("a hole lies on the way")),
        "\
latest cannot be reached: WAL is missing on the way, from 0/500000 to 0/600000 (1 MiB, in segment 000000010000000000000005, \
         branch 00000001-BRANCH).
Hole without a record: 0/500000 to 0/600000 (1 MiB) on timeline 1. No gap was recorded there, so the WAL was in the repository \
         once, or is on its way into it.
If the server, a standby or another archive still has it, it can be filled: walseal-archiver heal. Nothing shows that the WAL \
         ended there: \
         tail/00000001-BRANCH/000000010000000000000006/0000000000600000-0000000000600608 does not tell whether the WAL before \
         it was ever confirmed
The last point before the gap: --to lsn:0/4FE478   (with transaction 703 of 2026-11-21 10:02:00+00)"
    );
}

#[tokio::test]
async fn an_empty_repository_and_one_without_a_base_backup_say_what_to_run() {
    let sample = SampleRepository::new().await;
    let request = Request::to(Target::Latest);
    let error = planned(&sample, &request).await.expect_err("no base backup");
    let text = error.to_string();
    assert!(text.ends_with("holds no base backup that can be used; make one with: walseal-archiver backup"), "{text}");
    sample.remove(&ObjectName::Identity).await;
    let error = planned(&sample, &request).await.expect_err("nothing at all");
    assert!(error.to_string().ends_with("holds no repository yet; make one with: walseal-archiver init"), "{error}");
}
