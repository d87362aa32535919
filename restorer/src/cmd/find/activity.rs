//! `find --activity`: rows and bytes of tables over time, drawn and as JSON.

use std::fmt::Write;

use serde::Serialize;
use walseal_common::lsn::LsnRange;
use walseal_common::terminal::{Failure, Schema, printable, to_json, units, width_of_stdout};
use walseal_common::time::PgTimestamp;

use super::{Arguments, gaps, span};
use crate::find::table::counted;
use crate::find::{Activity, Amount, Searched, Series, Table};

const SCHEMA: Schema = Schema { name: "activity", version: 1 };

/// Steps of the JSON document, at most.
const STEPS_OF_JSON: usize = 240;

/// What stands before a chart, and what behind it where there is room.
const LABEL: usize = 8;
const SCALE: usize = 18;
/// With fewer columns there is nothing behind it.
const NARROW: usize = 40;

/// From little to much. Nothing is a dot.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const NOTHING: char = '·';

/// In how many steps time is cut, on lines of so many columns.
pub(super) fn steps(json: bool, columns: usize) -> usize {
    if json { STEPS_OF_JSON } else { chart(columns) }
}

/// Columns of a chart.
fn chart(columns: usize) -> usize {
    let scale = if columns < NARROW { 0 } else { SCALE };
    columns.saturating_sub(LABEL + scale).clamp(4, 200)
}

/// Prints what was done.
pub(super) fn show(activity: &Activity, searched: &Searched, arguments: &Arguments) -> Result<(), Failure> {
    let most = usize::try_from(arguments.limit).unwrap_or(usize::MAX);
    if arguments.json {
        let text = to_json(SCHEMA, &Report::of(activity, searched, most));
        let text = text.map_err(|error| Failure::from_error("print what was found", &error))?;
        walseal_common::show!("{text}");
    } else {
        let text = render(activity, searched, most, width_of_stdout());
        walseal_common::show!("{}", printable(&text).trim_end());
    }
    Ok(())
}

/// For machines.
#[derive(Serialize)]
struct Report<'a> {
    from: Option<PgTimestamp>,
    to: Option<PgTimestamp>,
    step_seconds: i64,
    commits: u64,
    spread: u64,
    read: Option<LsnRange>,
    gaps: &'a [LsnRange],
    all: Told<'a>,
    tables: Vec<Told<'a>>,
    others: Option<Told<'a>>,
}

#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    table: Option<&'a Table>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tables: Option<u64>,
    #[serde(flatten)]
    sum: Amount,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    time: PgTimestamp,
    #[serde(flatten)]
    amount: Amount,
}

impl<'a> Report<'a> {
    fn of(activity: &'a Activity, searched: &'a Searched, most: usize) -> Report<'a> {
        let told = |table, tables, series: &Series| {
            let all = activity.starts().zip(activity.amounts(series));
            let steps = all.filter(|(_, amount)| *amount != Amount::default());
            let steps = steps.map(|(time, amount)| Step { time, amount }).collect();
            Told { table, tables, sum: series.sum, steps }
        };
        let (tables, others) = activity.tables(most);
        Report {
            from: activity.range().map(|range| range.lowest),
            to: activity.range().map(|range| range.highest),
            step_seconds: activity.step_seconds(),
            commits: activity.commits,
            spread: activity.spread,
            read: searched.read,
            gaps: &searched.gaps,
            all: told(None, None, &activity.all),
            tables: tables.into_iter().map(|track| told(Some(&track.table), None, &track.series)).collect(),
            others: others.map(|(series, tables)| told(None, Some(tables), &series)),
        }
    }
}

/// For a person, on lines of so many columns.
pub(super) fn render(activity: &Activity, searched: &Searched, most: usize, columns: usize) -> String {
    let Some(range) = activity.range() else {
        return format!("no transaction committed in that time, in {} of WAL\n{}", span(searched.read), gaps(searched));
    };
    let step = std::time::Duration::from_secs(activity.step_seconds().unsigned_abs());
    let mut text = format!("{} to {}, in steps of {}\n", range.lowest, range.highest, units::duration(step));
    let drawing = Drawing { activity, columns };
    let commits =
        format!("{} {}", activity.commits, if activity.commits == 1 { "transaction" } else { "transactions" });
    drawing.draw(&mut text, &commits, &activity.all);
    drawing.axis(&mut text);
    let (tables, others) = activity.tables(most);
    for track in tables {
        drawing.draw(&mut text, &track.table.to_string(), &track.series);
    }
    if let Some((series, count)) = others {
        drawing.draw(&mut text, if count == 1 { "others" } else { "all other tables" }, &series);
    }
    text.push('\n');
    if activity.spread > 0 {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{} of the transactions are only counted; they are spread evenly over the time of their 16 segments",
            activity.spread
        );
    }
    text + &gaps(searched)
}

struct Drawing<'a> {
    activity: &'a Activity,
    columns: usize,
}

impl Drawing<'_> {
    /// How many columns a step takes.
    fn width(&self) -> usize {
        (chart(self.columns) / self.activity.starts().count().max(1)).max(1)
    }

    fn draw(&self, text: &mut String, name: &str, series: &Series) {
        let mut words = counted(&series.sum.rows);
        words.push(format!("{} of WAL", units::size(series.sum.bytes)));
        let _ = writeln!(text, "\n{name}: {}", words.join(", "));
        let amounts: Vec<Amount> = self.activity.amounts(series).collect();
        let rows: Vec<u64> = amounts.iter().map(|amount| amount.rows.total()).collect();
        let bytes: Vec<u64> = amounts.iter().map(|amount| amount.bytes).collect();
        self.line(text, "rows", &rows, |most| most.to_string());
        self.line(text, "WAL", &bytes, units::size);
        let mark = |amount: &Amount| match (amount.dropped, amount.truncated) {
            (0, 0) => ' ',
            (0, _) => 'T',
            _ => 'D',
        };
        let marks: String = amounts.iter().map(|amount| format!("{:<1$}", mark(amount), self.width())).collect();
        if !marks.trim().is_empty() {
            let _ = writeln!(text, "{:LABEL$}{}", "", marks.trim_end());
        }
    }

    fn line(&self, text: &mut String, label: &str, values: &[u64], scale: impl Fn(u64) -> String) {
        let most = values.iter().copied().max().unwrap_or(0);
        if most == 0 {
            return;
        }
        let _ = write!(text, "  {label:<0$}", LABEL - 2);
        for value in values {
            text.extend(std::iter::repeat_n(bar(*value, most), self.width()));
        }
        if self.columns >= NARROW {
            let _ = write!(text, "  up to {}", scale(most));
        }
        text.push('\n');
    }

    /// When the first and the last step begin, below them.
    fn axis(&self, text: &mut String) {
        let starts: Vec<PgTimestamp> = self.activity.starts().collect();
        let (Some(first), Some(last)) = (starts.first(), starts.last()) else { return };
        let days = last.0.abs_diff(first.0) >= 86_400_000_000;
        // Of `2026-11-21 02:30:00+00` month and minute, or the time of day.
        let short = |time: &PgTimestamp| {
            let whole = time.to_string();
            whole.get(if days { 5..16 } else { 11..19 }).map(str::to_owned).unwrap_or(whole)
        };
        let (first, last) = (short(first), short(last));
        let room = (starts.len() * self.width()).saturating_sub(first.len());
        let last = if last.len() < room { last } else { String::new() };
        let _ = writeln!(text, "{}", format!("{:LABEL$}{first}{last:>room$}", "").trim_end());
    }
}

fn bar(value: u64, most: u64) -> char {
    if value == 0 {
        return NOTHING;
    }
    let height = (u128::from(value) * BARS.len() as u128).div_ceil(u128::from(most.max(1)));
    usize::try_from(height).ok().and_then(|height| BARS.get(height.saturating_sub(1)).copied()).unwrap_or('█')
}
