//! Rows and bytes of tables over time: what transactions did, added up in steps of a clock.

use std::collections::BTreeMap;

use serde::Serialize;
use walseal_common::time::PgTimestamp;
use walseal_common::wal::TimeRange;
use walseal_common::wal::change::RowCounts;

use super::table::{Table, TableChange};
use super::wanted::TablePattern;

#[cfg(test)]
mod tests;

/// Lengths of steps, in seconds. Each is a multiple of the one before, so that steps are joined, never cut; beyond the last one they
/// double.
const STEPS: [i64; 13] = [1, 5, 15, 30, 60, 300, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400];

const MICROS: i64 = 1_000_000;

/// Tables that are told apart, about 100 bytes for each step of each (I11); all beyond are one.
const MOST_TABLES: usize = 2_000;

/// What was done in some time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Amount {
    /// Rows.
    #[serde(flatten)]
    pub rows: RowCounts,
    /// Bytes of WAL.
    pub bytes: u64,
    /// Tables that were dropped.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped: u64,
    /// Tables that were emptied by `TRUNCATE`.
    #[serde(skip_serializing_if = "is_zero")]
    pub truncated: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Amount {
    fn of(table: &TableChange) -> Amount {
        Amount {
            rows: table.rows,
            bytes: table.bytes,
            dropped: table.dropped.into(),
            truncated: table.truncated.into(),
        }
    }

    fn add(&mut self, other: Amount) {
        self.rows.merge(other.rows);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.truncated = self.truncated.saturating_add(other.truncated);
    }

    /// `part` of `whole` of it, rounded down.
    fn part(&self, part: u64, whole: u64) -> Amount {
        let of = |number: u64| share(number, part, whole);
        let RowCounts { inserted, updated, deleted } = self.rows;
        Amount {
            rows: RowCounts { inserted: of(inserted), updated: of(updated), deleted: of(deleted) },
            bytes: of(self.bytes),
            dropped: of(self.dropped),
            truncated: of(self.truncated),
        }
    }

    fn less(&self, other: Amount) -> Amount {
        Amount {
            rows: RowCounts {
                inserted: self.rows.inserted - other.rows.inserted,
                updated: self.rows.updated - other.rows.updated,
                deleted: self.rows.deleted - other.rows.deleted,
            },
            bytes: self.bytes - other.bytes,
            dropped: self.dropped - other.dropped,
            truncated: self.truncated - other.truncated,
        }
    }
}

/// `number * part / whole`, where `part` is at most `whole`.
fn share(number: u64, part: u64, whole: u64) -> u64 {
    let share = u128::from(number) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(number)
}

/// What was done, step by step.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Series {
    /// In all steps.
    pub sum: Amount,
    /// By the step's number; those in which nothing was done are missing.
    steps: BTreeMap<i64, Amount>,
}

impl Series {
    fn add(&mut self, amount: Amount, time: TimeRange, step: i64) {
        self.sum.add(amount);
        let (lowest, highest) = (time.lowest.0, time.highest.0);
        let (first, last) = (lowest.div_euclid(step), highest.div_euclid(step));
        let (length, mut before) = (highest.abs_diff(lowest), Amount::default());
        for number in first..=last {
            let until = if number == last {
                amount
            } else {
                amount.part((number + 1).saturating_mul(step).abs_diff(lowest).min(length), length)
            };
            self.steps.entry(number).or_default().add(until.less(before));
            before = until;
        }
    }

    fn join(&mut self, steps: i64) {
        let mut joined: BTreeMap<i64, Amount> = BTreeMap::new();
        for (number, amount) in &self.steps {
            joined.entry(number.div_euclid(steps)).or_default().add(*amount);
        }
        self.steps = joined;
    }

    fn merge(&mut self, other: &Series) {
        self.sum.add(other.sum);
        for (number, amount) in &other.steps {
            self.steps.entry(*number).or_default().add(*amount);
        }
    }
}

/// What was done to one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Track {
    /// The table.
    pub table: Table,
    /// What was done to it.
    pub series: Series,
}

/// What tells tables apart: the database, the OID, or the file where that is all that is known.
type Key = (String, Option<u32>, Option<String>);

/// Rows and bytes over time. Memory: bounded by the number of steps and of tables that are told apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Activity {
    most: i64,
    /// Which tables are told apart; all of them where none is named.
    only: Option<TablePattern>,
    /// Microseconds.
    step: i64,
    range: Option<TimeRange>,
    /// All of it. Its bytes are those of whole transactions, what was done to catalogs with them; its rows are those of tables.
    pub all: Series,
    /// Transactions.
    pub commits: u64,
    /// Those of them of whose times only the range is known, over which they are spread evenly.
    pub spread: u64,
    tables: BTreeMap<Key, Track>,
    others: Series,
    /// How many tables are in `others`; of those beyond [`MOST_TABLES`] it is not known how many they are.
    other_tables: u64,
}

impl Activity {
    /// Nothing yet, in at most `most` steps, but in four at least: any two times fit into so many, without a step that overflows. Of tables only those that are named, where any is.
    pub fn new(most: usize, only: Option<TablePattern>) -> Activity {
        Activity {
            only,
            most: i64::try_from(most).unwrap_or(i64::MAX).max(4),
            step: STEPS[0] * MICROS,
            range: None,
            all: Series::default(),
            commits: 0,
            spread: 0,
            tables: BTreeMap::new(),
            others: Series::default(),
            other_tables: 0,
        }
    }

    /// From the first to the last time of it.
    pub fn range(&self) -> Option<TimeRange> {
        self.range
    }

    /// The length of a step, in seconds.
    pub fn step_seconds(&self) -> i64 {
        self.step / MICROS
    }

    /// When the steps begin, all of the range.
    pub fn starts(&self) -> impl Iterator<Item = PgTimestamp> {
        let step = self.step;
        self.numbers().map(move |number| PgTimestamp(number.saturating_mul(step)))
    }

    fn numbers(&self) -> impl Iterator<Item = i64> + use<> {
        let numbers = self.range.map(|range| self.number(range.lowest)..=self.number(range.highest));
        numbers.into_iter().flatten()
    }

    /// What was done in each step of [`Activity::starts`].
    pub fn amounts<'a>(&'a self, series: &'a Series) -> impl Iterator<Item = Amount> + 'a {
        self.numbers().map(|number| series.steps.get(&number).copied().unwrap_or_default())
    }

    /// The tables, those with the most bytes of WAL first, at most `most`; and of all others the sum, with how many they are.
    pub fn tables(&self, most: usize) -> (Vec<&Track>, Option<(Series, u64)>) {
        let mut sorted: Vec<&Track> = self.tables.values().collect();
        sorted.sort_by_key(|track| std::cmp::Reverse(track.series.sum.bytes));
        let rest = sorted.split_off(most.min(sorted.len()));
        let (mut others, mut count) = (self.others.clone(), self.other_tables);
        for track in &rest {
            others.merge(&track.series);
            count += 1;
        }
        (sorted, (count > 0).then_some((others, count)))
    }

    fn number(&self, time: PgTimestamp) -> i64 {
        time.0.div_euclid(self.step)
    }

    /// Takes in that this time belongs to it, whatever was done then.
    pub fn reach(&mut self, time: PgTimestamp) {
        let time = TimeRange::at(time);
        let range = self.range.map_or(time, |range| range.union(time));
        self.range = Some(range);
        while self.number(range.highest).saturating_sub(self.number(range.lowest)) >= self.most {
            self.widen();
        }
    }

    /// Goes on to the next length of a step.
    fn widen(&mut self) {
        let longer = STEPS.iter().map(|seconds| seconds * MICROS).find(|step| *step > self.step);
        let longer = longer.unwrap_or(self.step.saturating_mul(2));
        let steps = longer / self.step;
        for series in self.tables.values_mut().map(|track| &mut track.series).chain([&mut self.all, &mut self.others]) {
            series.join(steps);
        }
        self.step = longer;
    }

    /// Adds what `commits` transactions did to tables, with `bytes` in all, at a time, or spread evenly over it. `others`: to tables
    /// that nobody told apart.
    pub fn add(&mut self, time: TimeRange, commits: u64, bytes: u64, tables: &[TableChange], others: Option<Amount>) {
        self.reach(time.lowest);
        self.reach(time.highest);
        self.commits += commits;
        if time.lowest < time.highest {
            self.spread += commits;
        }
        let mut all = Amount { bytes, ..Amount::default() };
        for change in tables {
            let amount = Amount::of(change);
            all.add(Amount { bytes: 0, ..amount });
            if self.only.as_ref().is_none_or(|only| only.holds(&change.table)) {
                self.add_to_table(&change.table, amount, time);
            }
        }
        if let Some(amount) = others {
            all.add(Amount { bytes: 0, ..amount });
            if self.only.is_none() {
                self.add_to_others(amount, time);
            }
        }
        self.all.add(all, time, self.step);
    }

    fn add_to_table(&mut self, table: &Table, amount: Amount, time: TimeRange) {
        let key = (table.database.clone(), table.oid, table.file.clone());
        if self.tables.len() >= MOST_TABLES && !self.tables.contains_key(&key) {
            return self.add_to_others(amount, time);
        }
        let new = || Track { table: table.clone(), series: Series::default() };
        let track = self.tables.entry(key).or_insert_with(new);
        // What it is called may be learned later than what was done to it.
        if !track.table.is_named() {
            track.table.clone_from(table);
        }
        track.series.add(amount, time, self.step);
    }

    fn add_to_others(&mut self, amount: Amount, time: TimeRange) {
        self.others.add(amount, time, self.step);
        self.other_tables = self.other_tables.max(1);
    }
}
