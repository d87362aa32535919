#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use walseal_common::lsn::Lsn;
use walseal_common::wal::TimeRange;
use walseal_common::wal::change::RowCounts;

use super::activity::{render, steps};
use super::*;
use crate::find::{Activity, Table, TableChange};

fn change(name: &str, updated: u64, dropped: bool, truncated: bool) -> TableChange {
    let table = Table {
        database: "shop".to_owned(),
        schema: Some("public".to_owned()),
        name: Some(name.to_owned()),
        oid: Some(16_400),
        file: None,
    };
    let rows = RowCounts { updated, deleted: updated / 10, ..RowCounts::default() };
    TableChange { table, dropped, truncated, rewritten: false, rows, toast: 0, bytes: updated * 100 }
}

/// Twelve minutes of a table that grows busy and is dropped, beside one with a quiet life.
fn some(columns: usize) -> (Activity, Searched) {
    let mut activity = Activity::new(steps(false, columns), None);
    let begin: PgTimestamp = "2026-11-21T02:30:00Z".parse().unwrap();
    for minute in 0..12 {
        let time = TimeRange::at(PgTimestamp(begin.0 + minute * 60_000_000));
        let busy = change("orders", 20 * minute.unsigned_abs(), minute == 11, minute == 4);
        activity.add(time, 1, busy.bytes + 100, &[busy], None);
        if minute % 5 == 0 {
            let mut quiet = change("Odd\u{1b}[2J", 1, false, false);
            quiet.table.oid = Some(16_500);
            activity.add(time, 1, 200, &[quiet], None);
        }
    }
    let gap = LsnRange { start: Lsn(1 << 24), end: Lsn(2 << 24) };
    (activity, Searched { gaps: vec![gap], ..Searched::default() })
}

#[test]
fn activity_is_drawn_with_a_line_for_rows_and_one_for_wal() {
    let (activity, searched) = some(100);
    let expected = "\
2026-11-21 02:30:00+00 to 2026-11-21 02:41:00+00, in steps of 15 s

15 transactions: deleted 132 rows, updated 1323 rows, 131 KiB of WAL
  rows  ▁···▁···▂···▃···▃···▄···▅···▆···▆···▇···█···█  up to 242
  WAL   ▁···▁···▂···▃···▃···▄···▅···▆···▆···▇···█···█  up to 21.6 KiB
                        T                           D
        02:30:00                             02:41:00

shop.public.orders: deleted 132 rows, updated 1320 rows, 129 KiB of WAL
  rows  ····▁···▂···▃···▃···▄···▅···▆···▆···▇···█···█  up to 242
  WAL   ····▁···▂···▃···▃···▄···▅···▆···▆···▇···█···█  up to 21.5 KiB
                        T                           D

shop.public.\"Odd\\u{1b}[2J\": updated 3 rows, 300 B of WAL
  rows  █···················█···················█····  up to 1
  WAL   █···················█···················█····  up to 100 B

WAL from 0/1000000 to 0/2000000 is not in the repository; nobody can say what happened there
";
    assert_eq!(printable(&render(&activity, &searched, 20, 100)), expected);
}

#[test]
fn activity_fits_a_narrow_terminal_without_colours() {
    for columns in [24, 30, 39, 40, 60, 100, 300] {
        let (activity, searched) = some(columns);
        let text = printable(&render(&activity, &searched, 20, columns));
        assert!(!text.contains('\u{1b}'), "{text}");
        let drawn: Vec<&str> = text.lines().filter(|line| line.starts_with("  ")).collect();
        assert!(drawn.len() >= 6, "{text}");
        for line in drawn {
            assert!(line.chars().count() <= columns, "{columns}: {line}");
        }
    }
}

#[test]
fn activity_of_a_time_without_transactions_says_so() {
    let searched = Searched::default();
    let text = render(&Activity::new(10, None), &searched, 20, 100);
    assert_eq!(text, "no transaction committed in that time, in 0 B of WAL\n");
}
