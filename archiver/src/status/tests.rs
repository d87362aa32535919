//! The status as a value: what its one line says, and how a monitor takes it.

use walseal_common::telemetry::AlertKind;
use walseal_common::timeline::{SystemIdentifier, TimelineHistory, TimelineId};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_228_200 + seconds).expect("a time")
}

fn branch() -> Branch {
    TimelineHistory::root(TimelineId::FIRST).branch(SystemIdentifier(7))
}

fn base(suspect: u64) -> BaseStatus {
    BaseStatus {
        id: "20261121T023000Z-9f3a01bc".parse().expect("an id"),
        kind: BaseType::Full,
        parent: None,
        branch: branch(),
        start: Lsn(0x200_0028),
        stop: Lsn(0x200_0138),
        stop_time: at(-3600),
        cluster_size: 30 << 20,
        stored_size: 4 << 20,
        referenced_size: 0,
        suspect,
        proven: None,
        proven_at: None,
        derived: None,
        alone: false,
        given_up: false,
        cut_off: false,
    }
}

/// Streaming, with 5 MiB that came 2 s ago and are not durable; the first commit in them is 2.2 s old.
fn behind() -> Progress {
    serde_json::from_value(serde_json::json!({
        "connected": true, "branch": branch(), "server_end": Lsn(0x350_0000), "received": Lsn(0x350_0000),
        "frontier": Lsn(0x300_0000), "frontier_moved": at(-3), "behind_since": at(-2), "highest_time": null,
        "exposed_since": "2026-11-21T02:29:57.8Z", "current_at": "2026-11-21T02:29:57.8Z", "heard_at": at(-1),
        "trouble": null, "shipped_bytes": 7,
    }))
    .expect("as a daemon would say it")
}

fn but(mut progress: Progress, change: impl FnOnce(&mut Progress)) -> Progress {
    change(&mut progress);
    progress
}

fn status(stream: Option<Progress>, bases: Option<Vec<BaseStatus>>, error: Option<&str>) -> Status {
    Status {
        repository: "s3://acme-pg/orders".to_owned(),
        cluster: bases.is_some().then(|| "7".to_owned()),
        daemon_pid: stream.is_some().then_some(4711),
        alerts: stream.is_some().then(Vec::new),
        backup: None,
        next_backup: None,
        retention: None,
        objectives: None,
        requests: None,
        rpo_seconds: stream.as_ref().and_then(|stream| stream.loss(at(0))).map(|loss| loss.time.as_secs_f64()),
        rpo_at_most: false,
        stream,
        branches: bases.is_some().then(Vec::new),
        gaps: bases.is_some().then(Vec::new),
        adoptions: bases.is_some().then(Vec::new),
        drills: bases.is_some().then(DrillStatus::default),
        snapshots: bases.is_some().then(SnapshotStatus::default),
        verified: None,
        bases,
        error: error.map(str::to_owned),
    }
}

#[test]
fn i5_a_gap_behind_which_no_base_backup_was_taken_is_the_first_thing_said() {
    let gap = |from, to, open: bool| {
        let why = "the slot was dropped".to_owned();
        let (from, to) = (Lsn(from), Lsn(to));
        let gap = Gap {
            branch: branch(),
            from,
            to,
            next: branch(),
            found: at(-60),
            highest_time: None,
            why,
            way: Vec::new(),
        };
        GapStatus { open: open.then(|| gap.range()), gap, given_up: false }
    };
    let with = |gaps| Status { gaps: Some(gaps), ..status(Some(behind()), Some(vec![base(0)]), None) };
    let lost = with(vec![gap(0x300_0000, 0x500_0000, true)]);
    assert_eq!(
        lost.first_line(at(0)),
        "Nothing after 0/3000000 can be restored: the WAL up to 0/5000000 is lost, and no base backup was taken since. \
         Proven: never (no drill has run)."
    );
    assert_eq!(lost.check(at(0)).1, CheckExit::Critical);
    let filled = with(vec![gap(0x300_0000, 0x500_0000, false)]);
    let mended = with(vec![gap(0x100_0000, 0x200_0000, true)]);
    for fine in [filled, mended] {
        assert!(fine.first_line(at(0)).starts_with("Any second from"), "{}", fine.first_line(at(0)));
        assert_eq!(fine.check(at(0)).1, CheckExit::Fine);
    }
}

#[test]
fn the_first_line_says_from_when_to_when_and_what_would_be_lost() {
    let line = |status: Status| status.first_line(at(0));
    let from = "Any second from 2026-11-21T01:30:00Z to";
    assert_eq!(
        line(status(Some(behind()), Some(vec![base(2), base(0)]), None)),
        format!("{from} 3 s ago. If the primary died now: 2.2 s lost. Proven: never (no drill has run).")
    );
    let done = but(behind(), |now| {
        now.frontier = Lsn(0x350_0000);
        (now.behind_since, now.exposed_since) = (None, None);
    });
    assert_eq!(
        line(status(Some(done), Some(vec![base(0)]), None)),
        format!("{from} now. If the primary died now: 0 ms lost. Proven: never (no drill has run).")
    );
    let away = but(behind(), |now| {
        now.connected = false;
    });
    assert_eq!(
        line(status(Some(away), Some(vec![base(0)]), None)),
        format!(
            "{from} the end of the WAL in the repository; no WAL is being streamed now. At least 5 MiB of WAL waits on \
             the server. If the primary died now: 2.2 s lost. Proven: never (no drill has run)."
        )
    );
    assert!(line(status(None, Some(vec![base(1)]), None)).starts_with("Nothing up to now can be restored"));
    // What is kept beyond the window leads to its own stop point, and no further.
    let beyond = BaseStatus { alone: true, stop_time: at(-9_000_000), ..base(0) };
    assert!(line(status(Some(behind()), Some(vec![beyond, base(0)]), None)).starts_with(from));
    // All was durable when the server was last heard, five minutes ago.
    let unheard = but(behind(), |now| {
        now.connected = false;
        (now.frontier, now.behind_since, now.exposed_since) = (now.server_end, None, None);
        now.current_at = Some(at(-300));
    });
    assert_eq!(
        line(status(Some(unheard), Some(vec![base(0)]), None)),
        format!(
            "{from} the end of the WAL in the repository; no WAL is being streamed now. If the primary died now: up to 5 min \
             lost. Proven: never (no drill has run)."
        )
    );
}

#[test]
fn with_the_store_gone_the_first_line_says_what_the_daemon_knows() {
    let unread =
        |stream| status(stream, None, Some("list in s3://acme-pg/orders: connection refused")).first_line(at(0));
    assert_eq!(
        unread(Some(behind())),
        "The repository cannot be read: from when on can be restored is not known; to 3 s ago. If the primary died now: 2.2 s \
         lost. Proven: not known."
    );
    assert_eq!(
        unread(Some(but(behind(), |now| {
            now.connected = false;
        }))),
        "The repository cannot be read: what can be restored is not known; no WAL is being streamed now. At least 5 MiB of WAL \
         waits on the server. If the primary died now: 2.2 s lost. Proven: not known."
    );
}

#[test]
fn a_monitor_hears_of_trouble_on_one_line_and_by_the_exit_code() {
    let check = |status: Status| status.check(at(0));
    assert_eq!(check(status(Some(behind()), Some(vec![base(0)]), None)).1, CheckExit::Fine);
    let late = but(behind(), |now| {
        now.behind_since = Some(at(-61));
    });
    assert_eq!(check(status(Some(late), Some(vec![base(0)]), None)).1, CheckExit::Warning);
    // A backlog of an hour of which the first bytes have just come.
    let catching_up = but(behind(), |now| now.exposed_since = Some(at(-3600)));
    assert_eq!(check(status(Some(catching_up), Some(vec![base(0)]), None)).1, CheckExit::Warning);
    for critical in [
        status(None, Some(vec![base(0)]), None),
        status(Some(behind()), Some(vec![base(1)]), None),
        status(
            Some(but(behind(), |now| {
                now.connected = false;
            })),
            Some(vec![base(0)]),
            None,
        ),
        status(Some(behind()), None, Some("the store is gone")),
    ] {
        assert_eq!(check(critical).1, CheckExit::Critical);
    }
    // What no restore to now can begin from counts for nothing.
    let left: [fn(&mut BaseStatus); 2] = [|base| base.given_up = true, |base| base.cut_off = true];
    for change in left {
        let mut of_no_use = base(0);
        change(&mut of_no_use);
        let (line, exit) = check(status(Some(behind()), Some(vec![of_no_use]), None));
        assert!(line.starts_with("Nothing up to now can be restored") && exit == CheckExit::Critical, "{line}");
    }
    // An alert is as bad as it says.
    for (severity, expected) in [(Severity::Warning, CheckExit::Warning), (Severity::Critical, CheckExit::Critical)] {
        let (kind, subject, text) = (AlertKind::NotWhole, String::new(), "an object is missing".to_owned());
        let alerts = Some(vec![OpenAlert { kind, subject, severity, text, since: at(-60) }]);
        let alerting = Status { alerts, ..status(Some(behind()), Some(vec![base(0)]), None) };
        assert_eq!(check(alerting).1, expected);
    }
    let drills = Some(DrillStatus { last: Some(at(-60)), passed: Some(false), last_passed: None });
    let failed = Status { drills, ..status(Some(behind()), Some(vec![base(0)]), None) };
    assert_eq!(check(failed).1, CheckExit::Warning);
    let full = "put tail/1 in s3://acme-pg/orders: quota exceeded; raise it";
    let refused = but(behind(), |now| {
        now.store_trouble = Some(full.to_owned());
        now.behind_since = Some(at(-6));
    });
    let (line, exit) = check(status(Some(refused.clone()), Some(vec![base(0)]), None));
    assert!(line.ends_with(full) && exit == CheckExit::Warning, "{line}");
    // The same reason stands in both: it is said once.
    let stalled = but(refused, |now| {
        now.connected = false;
        now.trouble = Some(format!("no\nWAL; because: {full}"));
    });
    let (line, exit) = check(status(Some(stalled), None, Some("gone")));
    assert!(line.contains("gone no WAL; because: put") && exit == CheckExit::Critical, "{line}");
    assert_eq!((line.matches(full).count(), line.lines().count()), (1, 1), "{line}");
}

#[test]
fn in_json_what_could_not_be_read_is_null_and_the_error_says_why() {
    let value = serde_json::to_value(status(Some(behind()), None, Some("gone"))).expect("JSON");
    for field in ["cluster", "branches", "bases"] {
        assert!(value.get(field).is_some_and(serde_json::Value::is_null), "{field}: {value}");
    }
    assert_eq!(value["error"], "gone");
    assert_eq!((&value["rpo_seconds"], &value["rpo_at_most"]), (&2.2.into(), &false.into()));
    let unheard = serde_json::to_value(status(None, None, Some("gone"))).expect("JSON");
    assert!(unheard["rpo_seconds"].is_null());
    assert_eq!(value["stream"]["frontier"], "0/3000000");
}

#[test]
fn i12_only_a_drill_that_passed_is_said_to_prove_and_one_that_failed_since_is_named() {
    let said = |last_passed: Option<i64>, last: Option<i64>, passed| {
        let drills = Some(DrillStatus { last_passed: last_passed.map(at), last: last.map(at), passed });
        let line = Status { drills, ..status(Some(behind()), Some(vec![base(0)]), None) }.first_line(at(0));
        line.split_once("Proven").expect("it says so").1.to_owned()
    };
    assert_eq!(said(Some(-21_600), Some(-21_600), Some(true)), " 6 h ago.");
    assert_eq!(said(Some(-108_000), Some(-21_600), Some(false)), " 30 h ago; the last drill failed 6 h ago.");
    assert_eq!(said(None, Some(-21_600), Some(false)), ": never (the last drill failed 6 h ago).");
    // Snapshots are proven by drills of their own.
    let drills = DrillStatus { last_passed: Some(at(-7_200)), last: Some(at(-7_200)), passed: Some(true) };
    let snapshots = SnapshotStatus { count: 3, newest: Some(at(-10_800)), drills };
    assert_eq!(snapshots.words(at(0)).as_deref(), Some("3, the newest taken 3 h ago; proven 2 h ago"));
    let undrilled = SnapshotStatus { drills: DrillStatus::default(), ..snapshots };
    assert_eq!(
        undrilled.words(at(0)).as_deref(),
        Some("3, the newest taken 3 h ago; proven: never (no drill has run)")
    );
    assert_eq!(SnapshotStatus::default().words(at(0)), None);
}
