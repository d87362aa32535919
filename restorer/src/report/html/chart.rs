//! One chart: columns over the days of a month, a line, and a limit.

use jiff::Timestamp;
use maud::{Markup, html};
use walseal_common::terminal::units;

use super::scale::{TimeAxis, Unit, ValueAxis};
use crate::report::Period;
use crate::report::acts::length;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 952.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 162.0;

/// A column.
pub(super) struct Column {
    /// Where its middle is.
    pub(super) time: Timestamp,
    /// How high it is.
    pub(super) value: f64,
    /// Whether it tells of something wrong.
    pub(super) bad: bool,
    /// What is shown where somebody points at it.
    pub(super) words: String,
}

/// What is drawn.
pub(super) struct Chart<'a> {
    /// What it shows, for those who do not see it.
    pub(super) label: &'a str,
    pub(super) period: Period,
    pub(super) unit: Unit,
    pub(super) columns: Vec<Column>,
    /// How wide a column is, in days.
    pub(super) days: f64,
    /// A line of its own.
    pub(super) line: Vec<(Timestamp, f64)>,
    /// What columns should not exceed, and its name.
    pub(super) limit: Option<(f64, &'a str)>,
}

/// A value with its unit.
pub(super) fn value(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Bytes => units::size(value as u64),
        _ if value == 0.0 => "0".to_owned(),
        _ => length(value),
    }
}

impl Chart<'_> {
    pub(super) fn draw(&self) -> Markup {
        let across = TimeAxis { period: self.period, left: LEFT, right: RIGHT };
        let values = self.columns.iter().map(|column| column.value).chain(self.line.iter().map(|(_, value)| *value));
        let most = values.chain(self.limit.map(|(limit, _)| limit)).fold(0.0, f64::max);
        let up = ValueAxis::new(self.unit, most, BOTTOM, TOP);
        let width = (self.days * across.day_width()).max(1.5);
        let points: Vec<String> =
            self.line.iter().map(|(time, value)| format!("{:.1},{:.1}", across.x(*time), up.y(*value))).collect();
        html! {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(self.label) {
                @for step in &up.steps {
                    line class="grid" x1=(LEFT) x2=(RIGHT) y1=(at(up.y(*step))) y2=(at(up.y(*step))) {}
                    text class="tick end" x=(LEFT - 8.0) y=(at(up.y(*step) + 4.0)) { (value(self.unit, *step)) }
                }
                (days(&across, BOTTOM + 17.0))
                @for column in &self.columns {
                    @let y = up.y(column.value).min(BOTTOM - if column.value > 0.0 { 1.0 } else { 0.0 });
                    rect class=(if column.bad { "column bad" } else { "column" }) x=(at((across.x(column.time) - width / 2.0).clamp(LEFT, RIGHT - width)))
                        y=(at(y)) width=(at(width)) height=(at(BOTTOM - y)) rx="1" { title { (column.words) } }
                }
                @if points.len() > 1 {
                    polyline class="line" points=(points.join(" ")) {}
                }
                @if let Some((limit, name)) = self.limit {
                    line class="limit" x1=(LEFT) x2=(RIGHT) y1=(at(up.y(limit))) y2=(at(up.y(limit))) {}
                    text class="tick end limit-name" x=(RIGHT) y=(at(up.y(limit) - 6.0)) { (name) }
                }
            }
        }
    }
}

/// The days below a picture.
pub(super) fn days(across: &TimeAxis, y: f64) -> Markup {
    html! {
        @for day in (0..across.period.days()).filter(|day| day % 5 == 4 || *day == 0) {
            text class="tick middle" x=(at(across.middle(day))) y=(at(y)) { (day + 1) }
        }
    }
}

/// A place, as short as can be.
pub(super) fn at(place: f64) -> String {
    format!("{place:.1}")
}
