//! From times and values to places in a picture.

use jiff::Timestamp;

use crate::report::Period;

/// How many steps of an axis are labelled, at most.
const MOST_STEPS: f64 = 4.0;

/// Lengths of time that make good steps, in seconds.
const LENGTHS: [f64; 20] = [
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0,
    14_400.0, 43_200.0, 86_400.0,
];

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Seconds, from moments to weeks: each power takes the same room.
    Magnitudes,
}

/// The time of a month, from left to right.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeAxis {
    pub(super) period: Period,
    pub(super) left: f64,
    pub(super) right: f64,
}

impl TimeAxis {
    /// Where a moment lies; what is outside the month lies on its edge.
    pub(super) fn x(&self, time: Timestamp) -> f64 {
        let all = self.period.until.duration_since(self.period.from).as_secs_f64();
        let part = (time.duration_since(self.period.from).as_secs_f64() / all).clamp(0.0, 1.0);
        self.left + part * (self.right - self.left)
    }

    /// The middle of a day, counted from 0.
    pub(super) fn middle(&self, day: usize) -> f64 {
        self.left + (day as f64 + 0.5) * self.day_width()
    }

    /// How wide a day is.
    pub(super) fn day_width(&self) -> f64 {
        (self.right - self.left) / self.period.days() as f64
    }
}

/// Values, from the bottom up.
#[derive(Clone, Debug)]
pub(super) struct ValueAxis {
    unit: Unit,
    bottom: f64,
    top: f64,
    most: f64,
    /// The values that are labelled.
    pub(super) steps: Vec<f64>,
}

impl ValueAxis {
    /// An axis that values up to `most` fit on.
    pub(super) fn new(unit: Unit, most: f64, bottom: f64, top: f64) -> ValueAxis {
        let most = if most.is_finite() { most.max(1.0) } else { 1.0 };
        if unit == Unit::Magnitudes {
            let steps = [1.0, 10.0, 60.0, 600.0, 3600.0, 43_200.0, 604_800.0];
            let most = steps.iter().copied().find(|step| *step >= most).unwrap_or(most);
            let steps = steps.into_iter().filter(|step| *step <= most).collect();
            return ValueAxis { unit, bottom, top, most, steps };
        }
        let step = step(unit, most);
        let count = (most / step).ceil().max(1.0);
        let steps = (0..=count as u32).map(|at| f64::from(at) * step).collect();
        ValueAxis { unit, bottom, top, most: count * step, steps }
    }

    /// Where a value lies.
    pub(super) fn y(&self, value: f64) -> f64 {
        let place = |value: f64| if self.unit == Unit::Magnitudes { value.max(0.0).ln_1p() } else { value };
        let part = (place(value) / place(self.most)).clamp(0.0, 1.0);
        self.bottom - part * (self.bottom - self.top)
    }
}

fn step(unit: Unit, most: f64) -> f64 {
    let fits = |step: &f64| most / step <= MOST_STEPS;
    match unit {
        // Powers of two, so that labels are short.
        Unit::Bytes => (0..64).map(|power| 2f64.powi(power)).find(fits).unwrap_or(most),
        _ => LENGTHS.into_iter().find(fits).unwrap_or((most / MOST_STEPS / 86_400.0).ceil() * 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_to_be_shown_lies_within_the_picture(most: f64, value: f64, which in 0..3usize) {
            let unit = [Unit::Bytes, Unit::Seconds, Unit::Magnitudes][which];
            let axis = ValueAxis::new(unit, most, 100.0, 10.0);
            prop_assert!(!axis.steps.is_empty() && axis.steps.len() <= 8, "{:?}", axis.steps);
            if !value.is_nan() {
                prop_assert!((10.0..=100.0).contains(&axis.y(value)));
            }
        }
    }
}
