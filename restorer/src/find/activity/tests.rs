#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3_600 * MICROS;

fn table(oid: u32, rows: RowCounts) -> TableChange {
    let table = Table {
        database: "shop".to_owned(),
        schema: Some("public".to_owned()),
        name: Some(format!("t{oid}")),
        oid: Some(oid),
        file: None,
    };
    TableChange { table, dropped: false, truncated: false, rewritten: false, rows, toast: 0, bytes: rows.total() * 100 }
}

fn between(lowest: i64, highest: i64) -> TimeRange {
    TimeRange { lowest: PgTimestamp(lowest), highest: PgTimestamp(highest) }
}

fn rows(updated: u64) -> RowCounts {
    RowCounts { updated, ..RowCounts::default() }
}

fn updated(activity: &Activity, series: &Series) -> Vec<u64> {
    activity.amounts(series).map(|amount| amount.rows.updated).collect()
}

#[test]
fn steps_grow_until_all_of_the_time_fits() {
    let mut activity = Activity::new(60, None);
    activity.add(between(5 * MICROS, 5 * MICROS), 1, 500, &[table(1, rows(3))], None);
    assert_eq!((activity.step_seconds(), updated(&activity, &activity.all)), (1, vec![3]));
    activity.add(between(HOUR - 1, HOUR - 1), 1, 500, &[table(1, rows(4))], None);
    assert_eq!(activity.step_seconds(), 60);
    let told = updated(&activity, &activity.all);
    assert_eq!((told.len(), told[0], told[59], activity.all.sum.rows.updated), (60, 3, 4, 7));
    activity.reach(PgTimestamp(HOUR));
    assert_eq!((activity.step_seconds(), updated(&activity, &activity.all).len()), (300, 13));
    assert_eq!(activity.spread, 0);
}

#[test]
fn what_has_only_a_range_of_times_is_spread_over_it() {
    let mut activity = Activity::new(10, None);
    activity.add(between(0, 10 * MICROS - 1), 50, 5_000, &[table(1, rows(100))], None);
    assert_eq!((activity.step_seconds(), updated(&activity, &activity.all)), (1, vec![10; 10]));
    assert_eq!((activity.spread, activity.commits), (50, 50));
}

#[test]
fn only_the_table_that_is_named_is_told_apart_and_the_sum_is_that_of_all() {
    let mut activity = Activity::new(10, Some("public.t2".parse().unwrap()));
    let rest = Amount { rows: rows(5), bytes: 9, ..Amount::default() };
    activity.add(between(0, 0), 1, 2_000, &[table(1, rows(3)), table(2, rows(4))], Some(rest));
    let (tables, others) = activity.tables(20);
    assert_eq!(tables.iter().map(|track| track.table.oid).collect::<Vec<_>>(), [Some(2)]);
    assert_eq!((others, activity.all.sum.rows.updated, activity.all.sum.bytes), (None, 12, 2_000));
}

#[test]
fn the_tables_with_the_most_wal_are_told_and_the_others_are_one() {
    let mut activity = Activity::new(10, None);
    for oid in 1..=5 {
        activity.add(between(0, 0), 1, 1_000, &[table(oid, rows(oid.into()))], None);
    }
    let (tables, others) = activity.tables(2);
    assert_eq!(tables.iter().map(|track| track.table.oid).collect::<Vec<_>>(), [Some(5), Some(4)]);
    let (others, count) = others.expect("three more");
    assert_eq!((others.sum.rows.updated, count), (6, 3));
}

#[test]
fn tables_beyond_what_memory_allows_are_one() {
    let mut activity = Activity::new(10, None);
    let most = u32::try_from(MOST_TABLES).unwrap();
    for oid in 0..most + 7 {
        activity.add(between(0, 0), 1, 100, &[table(oid, rows(1))], None);
    }
    let (tables, others) = activity.tables(usize::MAX);
    assert_eq!((tables.len(), others.expect("some").0.sum.rows.updated), (MOST_TABLES, 7));
}

proptest! {
    #[test]
    fn nothing_is_lost_however_long_the_steps_become(
        done in proptest::collection::vec((any::<i64>(), 0i64..40 * HOUR, 1u32..5, 0u64..1_000), 1..40),
        most in 4usize..80,
        near in any::<bool>(),
    ) {
        let mut activity = Activity::new(most, None);
        let mut expected = (0, 0);
        for (from, length, oid, count) in done {
            let from = if near { from % (30 * HOUR) } else { from };
            let change = table(oid, RowCounts { inserted: count, updated: count / 3, deleted: count / 7 });
            expected.0 += change.rows.total();
            expected.1 += change.bytes;
            activity.add(between(from, from.saturating_add(length)), 1, change.bytes, &[change], None);
        }
        let sum = |series: &Series| {
            let amounts: Vec<Amount> = activity.amounts(series).collect();
            prop_assert!(amounts.len() <= most);
            let rows: u64 = amounts.iter().map(|amount| amount.rows.total()).sum();
            let bytes: u64 = amounts.iter().map(|amount| amount.bytes).sum();
            prop_assert_eq!((rows, bytes), (series.sum.rows.total(), series.sum.bytes));
            Ok((rows, bytes))
        };
        prop_assert_eq!(sum(&activity.all)?, expected);
        let (tables, others) = activity.tables(2);
        let mut by_table = others.map_or(Ok((0, 0)), |(series, _)| sum(&series))?;
        for track in tables {
            let (rows, bytes) = sum(&track.series)?;
            by_table = (by_table.0 + rows, by_table.1 + bytes);
        }
        prop_assert_eq!(by_table, expected);
    }
}
