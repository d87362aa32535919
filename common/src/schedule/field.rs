//! One field of a schedule.

use super::ScheduleError;

/// What a field may hold.
pub(super) struct Range {
    what: &'static str,
    first: u8,
    last: u8,
    /// Words for its values, the first one for `first`.
    words: &'static [&'static str],
}

pub(super) const MINUTES: Range = Range { what: "minute", first: 0, last: 59, words: &[] };
pub(super) const HOURS: Range = Range { what: "hour", first: 0, last: 23, words: &[] };
pub(super) const DAYS: Range = Range { what: "day of the month", first: 1, last: 31, words: &[] };
pub(super) const MONTHS: Range = Range {
    what: "month",
    first: 1,
    last: 12,
    words: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
/// 7 is Sunday, too.
pub(super) const WEEKDAYS: Range =
    Range { what: "day of the week", first: 0, last: 7, words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// The values that fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Field {
    /// A bit for each.
    values: u64,
    /// Whether it begins with `*`.
    open: bool,
}

impl Field {
    pub(super) fn has(self, value: u8) -> bool {
        self.values & (1 << value) != 0
    }

    pub(super) fn is_open(self) -> bool {
        self.open
    }
}

impl Range {
    pub(super) fn parse(&self, text: &str) -> Result<Field, ScheduleError> {
        let mut values = 0;
        for part in text.split(',') {
            values |= self.part(part)?;
        }
        if self.last == 7 && values & (1 << 7) != 0 {
            values = values & !(1 << 7) | 1;
        }
        Ok(Field { values, open: text.starts_with('*') })
    }

    /// `*`, a value, a range, with a step or without.
    fn part(&self, text: &str) -> Result<u64, ScheduleError> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (text, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.first, self.last.min(if self.last == 7 { 6 } else { self.last })),
            Some((first, last)) => (self.value(first)?, self.end(last)?),
            None if step.is_some() => {
                let fix = format!("write \"{range}-{}/…\" or \"*/…\"", self.last);
                return Err(ScheduleError::new(format!("the {} {text:?} has a step and no range", self.what), fix));
            }
            None => {
                let value = self.value(range)?;
                (value, value)
            }
        };
        if first > last {
            let fix = format!(
                "write the smaller one first, or two ranges such as \"{first}-{},{}-{last}\"",
                self.last, self.first
            );
            return Err(ScheduleError::new(format!("the {} {text:?} runs backwards", self.what), fix));
        }
        let step = match step.map(str::parse::<usize>) {
            None => 1,
            Some(Ok(step)) if step > 0 => step,
            Some(_) => {
                return Err(ScheduleError::new(
                    format!("the {} {text:?} has a step that is no number above 0", self.what),
                    "write it as in \"*/15\"",
                ));
            }
        };
        Ok((first..=last).step_by(step).fold(0, |values, value| values | 1 << value))
    }

    /// The end of a range: Sunday ends a week as well as it begins one.
    fn end(&self, text: &str) -> Result<u8, ScheduleError> {
        let value = self.value(text)?;
        Ok(if self.last == 7 && value == 0 { 7 } else { value })
    }

    fn value(&self, text: &str) -> Result<u8, ScheduleError> {
        let word = self.words.iter().position(|word| word.eq_ignore_ascii_case(text));
        let named = word.and_then(|at| u8::try_from(at).ok()).map(|at| at + self.first);
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if plain { text.parse().ok() } else { None };
        named.or(number).filter(|value| (self.first..=self.last).contains(value)).ok_or_else(|| {
            let words = match (self.words.first(), self.words.last()) {
                (Some(first), Some(last)) => format!(", or {first} to {last}"),
                _ => String::new(),
            };
            let fix = format!("it goes from {} to {}{words}", self.first, self.last);
            ScheduleError::new(format!("{text:?} is no {}", self.what), fix)
        })
    }
}
