//! The month at a glance: one row for each thing that goes on, over the same days.

use jiff::Timestamp;
use maud::{Markup, html};

use super::chart::{at, days};
use super::scale::TimeAxis;
use super::{moment, share};
use crate::report::Figures;
use crate::report::acts::length;
use walseal_common::objective::Trouble;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 952.0;
const ROW: f64 = 30.0;
const TOP: f64 = 8.0;

/// What stands in a row.
enum Mark {
    Bar { from: Timestamp, until: Timestamp, class: &'static str, words: String },
    Good { time: Timestamp, words: String },
    Bad { time: Timestamp, words: String },
}

pub(super) fn draw(figures: &Figures) -> Markup {
    let across = TimeAxis { period: figures.period, left: LEFT, right: RIGHT };
    let rows = rows(figures);
    let bottom = TOP + ROW * rows.len() as f64;
    let known = across.x(figures.until);
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {}", bottom + 24.0)) role="img" aria-label="The month at a glance" {
            @for day in 0..figures.period.days() {
                @let x = LEFT + day as f64 * across.day_width();
                line class="grid" x1=(at(x)) x2=(at(x)) y1=(TOP) y2=(at(bottom)) {}
            }
            @for (row, (name, marks)) in rows.iter().enumerate() {
                @let middle = TOP + ROW * (row as f64 + 0.5);
                line class="base" x1=(LEFT) x2=(RIGHT) y1=(at(middle)) y2=(at(middle)) {}
                text class="row" x="0" y=(at(middle + 4.5)) { (name) }
                @for mark in marks { (marked(mark, &across, middle - lift(mark, marks, &across))) }
            }
            @if known < RIGHT {
                rect class="unknown" x=(at(known)) y=(TOP) width=(at(RIGHT - known)) height=(at(bottom - TOP)) {
                    title { "after this report was made" }
                }
            }
            (days(&across, bottom + 17.0))
        }
    }
}

/// How far above its row a mark stands: what failed and went well soon afterwards would cover each other.
fn lift(mark: &Mark, row: &[Mark], across: &TimeAxis) -> f64 {
    let Mark::Bad { time, .. } = mark else { return 0.0 };
    let x = across.x(*time);
    let covers = |other: &Mark| matches!(other, Mark::Good { time, .. } if (across.x(*time) - x).abs() < 10.0);
    if row.iter().any(covers) { 9.0 } else { 0.0 }
}

fn marked(mark: &Mark, across: &TimeAxis, y: f64) -> Markup {
    match mark {
        Mark::Bar { from, until, class, words } => {
            let (from, until) = (across.x(*from), across.x(*until));
            html! {
                rect class=(format!("bar {class}")) x=(at(from)) y=(at(y - 7.0)) width=(at((until - from).max(2.0))) height="14" rx="2" {
                    title { (words) }
                }
            }
        }
        Mark::Good { time, words } => html! {
            circle class="good" cx=(at(across.x(*time))) cy=(at(y)) r="4.5" { title { (words) } }
        },
        // Another shape, too: not everybody tells colours apart, and printers do not.
        Mark::Bad { time, words } => {
            let x = across.x(*time);
            html! {
                path class="bad" d=(format!("M{:.1} {:.1}l10 10m0 -10l-10 10", x - 5.0, y - 5.0)) { title { (words) } }
            }
        }
    }
}

fn rows(figures: &Figures) -> Vec<(&'static str, Vec<Mark>)> {
    let windows = figures.windows.iter().filter_map(|window| {
        let (from, until) = (window.from_time?.to_jiff()?, window.to_time?.to_jiff()?);
        let words =
            format!("timeline {}: any second from {} to {}", window.timeline.number(), moment(from), moment(until));
        let inside = from < figures.period.until && until >= figures.period.from;
        inside.then_some(Mark::Bar { from, until, class: "window", words })
    });
    let mut loss = Vec::new();
    if let Some(from) = figures.loss.told.measured_from {
        let words = format!("within the objective: {} of the time", share(figures.objectives.within_rpo));
        loss.push(Mark::Bar { from, until: figures.until, class: "within", words });
    }
    loss.extend(figures.loss.told.outages.iter().map(|outage| {
        let (class, what) = match outage.kind {
            Trouble::Late => ("late", "more than the objective would have been lost"),
            Trouble::Unheard => ("unheard", "nothing was heard"),
        };
        let words = format!("{what} from {} on, for {}", moment(outage.from), length(outage.seconds));
        Mark::Bar { from: outage.from, until: outage.until, class, words }
    }));
    let mut backups: Vec<Mark> = figures
        .backups
        .finished
        .iter()
        .map(|one| Mark::Good { time: one.time, words: format!("{}: finished {}", one.id, moment(one.time)) })
        .collect();
    backups.extend(
        figures
            .backups
            .failed
            .iter()
            .map(|one| Mark::Bad { time: one.time, words: format!("failed {}: {}", moment(one.time), one.class) }),
    );
    let drills = figures.drills.held.iter().map(|drill| {
        let time = drill.time;
        if drill.passed {
            Mark::Good { time, words: format!("passed {}", moment(time)) }
        } else {
            Mark::Bad { time, words: format!("failed {}: {}", moment(time), drill.failed.join(", ")) }
        }
    });
    let alerts = figures.acts.alerts.iter().map(|alert| {
        let (until, class) =
            (alert.cleared.unwrap_or(figures.until), if alert.severity == "critical" { "unheard" } else { "late" });
        let words = format!("{} ({}): raised {}", alert.kind, alert.severity, moment(alert.raised));
        Mark::Bar { from: alert.raised, until, class, words }
    });
    let restores = figures.acts.restores.iter().map(|restore| {
        let (time, words) = (restore.started, format!("{} by {}", moment(restore.started), restore.actor));
        if restore.outcome == Some("finished") { Mark::Good { time, words } } else { Mark::Bad { time, words } }
    });
    vec![
        ("Restorable now", windows.collect()),
        ("Within RPO", loss),
        ("Base backups", backups),
        ("Drills", drills.collect()),
        ("Restores", restores.collect()),
        ("Alerts", alerts.collect()),
    ]
}
