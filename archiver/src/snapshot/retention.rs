//! Which snapshots may go. A plan is a value; nothing here touches the repository.
//!
//! Snapshots only: they refer to nothing but their own objects, so that one can go without another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use walseal_common::clock;
use walseal_common::repository::{SnapshotId, SnapshotLabel};

/// What is kept, of each series: a database, or a part of one, dumped again and again. Nothing set keeps all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Keep {
    /// All that are younger.
    pub within: Option<Duration>,
    /// The newest so many.
    pub last: u32,
    /// The newest one of each of so many days, weeks and months that have one.
    pub daily: u32,
    /// Likewise.
    pub weekly: u32,
    /// Likewise.
    pub monthly: u32,
}

impl Keep {
    /// Whether everything is kept.
    pub fn is_all(&self) -> bool {
        *self == Keep::default()
    }

    /// The snapshots that may go, oldest first. The newest whole one of each series stays, whatever is configured, and so does what
    /// is held. One of a clock that was ahead stays until its time has come, and takes nobody's place before: it is the newest for as
    /// long, and those that come must neither go for its sake nor stay (case 44).
    pub fn plan(&self, labels: &[SnapshotLabel], zone: &TimeZone, now: Timestamp) -> Vec<SnapshotId> {
        if self.is_all() {
            return Vec::new();
        }
        let mut series: BTreeMap<&str, Vec<&SnapshotLabel>> = BTreeMap::new();
        let mut kept: BTreeSet<&SnapshotId> = BTreeSet::new();
        for label in labels {
            if clock::was_wrong(label.start_time, now) {
                kept.insert(&label.id);
            } else {
                series.entry(&label.series).or_default().push(label);
            }
        }
        for labels in series.values_mut() {
            // Newest first.
            labels.sort_by(|one, other| (other.start_time, &other.id).cmp(&(one.start_time, &one.id)));
            kept.extend(labels.first().map(|label| &label.id));
            kept.extend(labels.iter().take(self.last as usize).map(|label| &label.id));
            let young = |label: &&&SnapshotLabel| self.within.is_some_and(|within| is_younger(label, within, now));
            kept.extend(labels.iter().filter(young).map(|label| &label.id));
            let day = |time: Timestamp| time.to_zoned(zone.clone()).date();
            let of_day = |label: &SnapshotLabel| day(label.start_time).to_string();
            let of_week = |label: &SnapshotLabel| {
                let week = day(label.start_time).iso_week_date();
                format!("{}-{}", week.year(), week.week())
            };
            let of_month = |label: &SnapshotLabel| day(label.start_time).strftime("%Y-%m").to_string();
            first_of_each(labels, self.daily, of_day, &mut kept);
            first_of_each(labels, self.weekly, of_week, &mut kept);
            first_of_each(labels, self.monthly, of_month, &mut kept);
        }
        let held = |label: &&SnapshotLabel| label.hold_until.is_some_and(|until| until > now);
        kept.extend(labels.iter().filter(held).map(|label| &label.id));
        let mut gone: Vec<SnapshotId> =
            labels.iter().map(|label| &label.id).filter(|id| !kept.contains(id)).cloned().collect();
        gone.sort();
        gone
    }
}

fn is_younger(label: &SnapshotLabel, within: Duration, now: Timestamp) -> bool {
    now.duration_since(label.start_time) < SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX)
}

/// Of labels, newest first, the first of each of the first `most` periods.
fn first_of_each<'a>(
    labels: &[&'a SnapshotLabel],
    most: u32,
    period: impl Fn(&SnapshotLabel) -> String,
    kept: &mut BTreeSet<&'a SnapshotId>,
) {
    let mut seen: Vec<String> = Vec::new();
    for label in labels {
        let this = period(label);
        if seen.last() == Some(&this) {
            continue;
        }
        if seen.len() >= most as usize {
            return;
        }
        seen.push(this);
        kept.insert(&label.id);
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label(day: u32, hour: u32, series: &str) -> SnapshotLabel {
        let time = format!("2026-11-{day:02}T{hour:02}:00:00Z").parse().expect("a time");
        SnapshotLabel::sample(time, series.len() as u32 * 100 + hour, series).expect("an id")
    }

    fn now() -> Timestamp {
        "2026-11-30T12:00:00Z".parse().expect("a time")
    }

    fn left(keep: Keep, labels: &[SnapshotLabel]) -> Vec<String> {
        let gone = keep.plan(labels, &TimeZone::UTC, now());
        let stays = labels.iter().filter(|label| !gone.contains(&label.id));
        stays.map(|label| label.start_time.strftime("%d-%H").to_string()).collect()
    }

    #[test]
    fn nothing_configured_keeps_all() {
        let labels = [label(1, 0, "a"), label(2, 0, "a")];
        assert_eq!(left(Keep::default(), &labels).len(), 2);
    }

    #[test]
    fn days_weeks_and_counts_keep_the_newest_of_each() {
        let mut labels: Vec<SnapshotLabel> =
            (1..=29).flat_map(|day| [label(day, 2, "a"), label(day, 14, "a")]).collect();
        assert_eq!(left(Keep { daily: 3, ..Keep::default() }, &labels), ["27-14", "28-14", "29-14"]);
        assert_eq!(left(Keep { last: 3, ..Keep::default() }, &labels), ["28-14", "29-02", "29-14"]);
        // 2026-11-29 is a Sunday: it closes a week, and so does every seventh day before.
        assert_eq!(left(Keep { weekly: 3, ..Keep::default() }, &labels), ["15-14", "22-14", "29-14"]);
        assert_eq!(left(Keep { monthly: 5, ..Keep::default() }, &labels), ["29-14"]);
        let within = Some(Duration::from_secs(36 * 3600));
        assert_eq!(left(Keep { within, ..Keep::default() }, &labels), ["29-02", "29-14"]);
        // What is held stays, and each series has its own newest.
        labels[0].hold_until = Some(now().checked_add(SignedDuration::from_hours(1)).expect("a time"));
        labels[1].hold_until = Some(now());
        labels.push(label(3, 5, "other"));
        assert_eq!(left(Keep { last: 1, ..Keep::default() }, &labels), ["01-02", "29-14", "03-05"]);
    }

    #[test]
    fn case_44_one_of_a_clock_that_was_ahead_takes_nobodys_place() {
        let mut labels: Vec<SnapshotLabel> = (27..=29).map(|day| label(day, 2, "a")).collect();
        // More than an hour after now: a host whose clock was ahead, which was set right since.
        labels.push(label(30, 14, "a"));
        assert_eq!(left(Keep { last: 1, ..Keep::default() }, &labels), ["29-02", "30-14"]);
        assert_eq!(left(Keep { daily: 2, ..Keep::default() }, &labels), ["28-02", "29-02", "30-14"]);
        let within = Some(Duration::from_secs(60 * 3600));
        assert_eq!(left(Keep { within, ..Keep::default() }, &labels), ["28-02", "29-02", "30-14"]);
        // Clocks that are right may be apart a little.
        assert_eq!(left(Keep { last: 1, ..Keep::default() }, &[label(29, 2, "a"), label(30, 13, "a")]), ["30-13"]);
    }

    proptest! {
        #[test]
        fn the_newest_of_each_series_always_stays(
            days in proptest::collection::vec((1u32..30, 0u32..24, 0usize..3), 1..40),
            (last, daily, weekly, monthly) in (0u32..3, 0u32..3, 0u32..3, 0u32..3),
        ) {
            let names = ["a", "bb", "ccc"];
            let labels: Vec<_> = days.iter().map(|(day, hour, of)| label(*day, *hour, names[*of])).collect();
            let keep = Keep { within: Some(Duration::from_secs(1)), last, daily, weekly, monthly };
            let gone = keep.plan(&labels, &TimeZone::UTC, now());
            for name in names {
                let newest = labels.iter().filter(|label| label.series == name).max_by_key(|label| label.start_time);
                prop_assert!(newest.is_none_or(|label| !gone.contains(&label.id)));
            }
        }
    }
}
