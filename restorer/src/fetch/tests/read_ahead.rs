//! Recovery to a target reads ahead of it: what is missing or damaged there is of no consequence, and before it is a hole.

use std::fs;

use walseal_common::lsn::Lsn;

use super::bed::{Bed, MIB, not_there, segment_name};
use crate::fetch::*;
use crate::sample::SYSTEM;

/// Segments 3 to 5, the last one as a tail; a restore that stops at `stop` and knew of WAL up to segment 9.
async fn stopping_at(stop: impl FnOnce(&Bed) -> Lsn) -> (Bed, Fetcher) {
    let bed = Bed::new(3, 5000).await;
    let planned = bed.planned(vec![(bed.root(), bed.wal.end(), Lsn(9 * MIB))]);
    let fetcher = Fetcher { read_through: Some(stop(&bed)), ..planned.fetcher.clone() };
    (bed, fetcher)
}

async fn fetch(bed: &Bed, fetcher: &Fetcher, number: u64) -> Result<Outcome, FetchError> {
    fetcher.fetch(segment_name(number).parse().expect("a name"), &bed.target()).await
}

#[tokio::test]
async fn case_01_a_target_in_the_last_segment_before_a_hole_is_reached() {
    let (bed, fetcher) = stopping_at(|bed| bed.wal.end()).await;
    assert_eq!(fetch(&bed, &fetcher, 5).await.expect("the last tail"), Outcome::Delivered);
    not_there(fetch(&bed, &fetcher, 6).await);
    // A record more, and the same segment would be needed whole.
    let further = Fetcher { read_through: Some(bed.wal.end().advance(1)), ..fetcher };
    let error = fetch(&bed, &further, 5).await.expect_err("it was known to go on");
    assert!(matches!(error, FetchError::Hole { .. }), "{error}");
}

#[tokio::test]
async fn case_01_what_is_gone_or_damaged_beyond_the_target_does_not_stop_recovery_before_it() {
    let (bed, fetcher) = stopping_at(|_| Lsn(4 * MIB)).await;
    assert_eq!(fetch(&bed, &fetcher, 4).await.expect("it is there"), Outcome::Delivered);
    let path = bed.sample.folder.path().join(format!("{SYSTEM}/wal/{}/{}", bed.branch(), segment_name(4)));
    let mut bytes = fs::read(&path).expect("a file of the store");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("ours");
    not_there(fetch(&bed, &fetcher, 4).await);
    bed.remove_segment(4).await;
    not_there(fetch(&bed, &fetcher, 4).await);
    // What the target needs still ends recovery when it is gone.
    bed.remove_segment(3).await;
    assert!(fetch(&bed, &fetcher, 3).await.is_err());
}

#[tokio::test]
async fn i6_recovery_settings_that_somebody_changed_are_not_the_plans() {
    let (bed, _) = stopping_at(|bed| bed.wal.end()).await;
    let planned = bed.planned(vec![(bed.root(), bed.wal.end(), bed.wal.end())]);
    let Route::Planned(plan) = &planned.fetcher.route else { panic!("there is a plan") };
    let mut plan = (**plan).clone();
    plan.request = crate::plan::Request::to("lsn:0/500010".parse().expect("a target"));
    plan.recovery = crate::plan::recovery_settings(&plan.request, plan.timeline());
    plan.stop = Lsn(0x50_0100);
    let route = Route::Planned(std::sync::Arc::new(plan.clone()));
    let place = WorkingDirectory::at(bed.folder());
    let write = |text: &str| fs::write(bed.folder().join("postgresql.auto.conf"), text).expect("ours");
    assert_eq!(place.read_through(&route), None, "there is no such file");
    let lines: Vec<String> = plan.recovery.iter().map(|setting| setting.line()).collect();
    let all = format!("# written by hand\nport = 5433\nrecovery_target_time = ''\n{}\n", lines.join("\n"));
    write(&all);
    assert_eq!(place.read_through(&route), Some(Lsn(0x50_0100)));
    write(&all.replace("0/500010", "0/900010"));
    assert_eq!(place.read_through(&route), None, "another target");
    write(&all.replace("recovery_target_lsn", "# recovery_target_lsn"));
    assert_eq!(place.read_through(&route), None, "no target");
    write(&format!("{all}recovery_target_lsn = ''\n"));
    assert_eq!(place.read_through(&route), None, "a later line counts");
}
