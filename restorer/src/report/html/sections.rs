//! What was promised, and what was measured.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use walseal_common::terminal::units;

use super::chart::{Chart, Column};
use super::scale::Unit;
use super::{glance as picture, moment, share};
use crate::report::Figures;
use crate::report::acts::length;
use walseal_common::objective::Trouble;

pub(super) fn glance(figures: &Figures) -> Markup {
    html! {
        section {
            h2 { "The month at a glance" }
            figure.scroll {
                (picture::draw(figures))
                figcaption { "Green: as promised. Amber: more would have been lost, or a warning. Red: nothing was heard, failed, or critical. Point at a mark to read it." }
            }
        }
    }
}

pub(super) fn promised(figures: &Figures) -> Markup {
    let promises = &figures.promises;
    let objectives = &figures.objectives;
    html! {
        section {
            h2 { "What was promised" }
            div.scroll { table {
                thead { tr { th { "promise" } th { "by" } th.n { "kept" } } }
                tbody {
                    tr {
                        td { "At most " (length(promises.rpo_seconds)) " of work would be lost" }
                        td { @if promises.rpo_configured { code { "drill.max_rpo" } } @else { "nobody: an assumption, as drill.max_rpo is not set" } }
                        td.n { (share(objectives.within_rpo)) @if objectives.within_rpo.is_some() { " of the time" } }
                    }
                    @if let (Some(limit), Some(within)) = (promises.rto_seconds, objectives.within_rto) {
                        tr {
                            td { "A restore answers its first query within " (length(limit)) }
                            td { code { "drill.max_rto" } }
                            td.n { (within.good) " of " (within.all) " drills that passed" }
                        }
                    }
                    @if let Some(schedule) = &promises.drill_schedule {
                        tr {
                            td { "A drill is held at " code { (schedule) } }
                            td { code { "drill.schedule" } }
                            td.n { (figures.drills.held.len()) " held" }
                        }
                    }
                    tr {
                        td { "Every base backup that is begun is finished" }
                        td { "walseal" }
                        td.n { (objectives.backups.good) " of " (objectives.backups.all) }
                    }
                    tr {
                        td { "No WAL is lost without a record" }
                        td { "walseal" }
                        td.n { (figures.gaps.len()) " recorded" }
                    }
                }
            } }
        }
    }
}

/// The worst that would have been lost in each four hours.
fn loss_columns(figures: &Figures) -> Vec<Column> {
    const HOURS: i64 = 4;
    let width = SignedDuration::from_hours(HOURS);
    let middle = |from: Timestamp| from + SignedDuration::from_hours(HOURS / 2);
    let mut columns = Vec::new();
    let mut from = figures.from;
    let mut words = figures.loss.told.words.iter().peekable();
    let limit = figures.promises.rpo_seconds;
    while from < figures.until {
        let until = (from + width).min(figures.until);
        let mut worst: Option<f64> = None;
        while let Some(word) = words.next_if(|word| word.time < until) {
            worst = worst.max_with(word.seconds);
        }
        for outage in figures.loss.told.outages.iter().filter(|outage| outage.from < until && outage.until > from) {
            // While nothing is heard, what may be lost grows from the last word on.
            if outage.kind == Trouble::Unheard {
                worst = worst.max_with(Some(until.min(outage.until).duration_since(outage.from).as_secs_f64()));
            }
        }
        columns.extend(worst.map(|value| Column {
            time: middle(from),
            value,
            bad: value > limit,
            words: format!("{}: at most {}", moment(from), length(value)),
        }));
        from += width;
    }
    columns
}

/// The higher one of two values of which either may be missing.
trait MaxWith {
    fn max_with(self, other: Option<f64>) -> Option<f64>;
}

impl MaxWith for Option<f64> {
    fn max_with(self, other: Option<f64>) -> Option<f64> {
        match (self, other) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        }
    }
}

pub(super) fn loss(figures: &Figures) -> Markup {
    let limit = figures.promises.rpo_seconds;
    let chart = Chart {
        label: "What would have been lost, at worst, in each four hours",
        period: figures.period,
        unit: Unit::Magnitudes,
        columns: loss_columns(figures),
        days: 0.14,
        line: Vec::new(),
        limit: Some((limit, if figures.promises.rpo_configured { "promised" } else { "assumed" })),
    };
    html! {
        section {
            h2 { "What would have been lost" }
            p.soft {
                "The archiver writes down, signed, how far WAL is durable, every few minutes. Had the primary died, at most this much work "
                "would have been gone. Where no word arrived, nobody can tell, and the time counts as an outage."
            }
            @if figures.loss.told.measured_seconds > 0.0 {
                figure { (chart.draw()) figcaption { "Worst in each four hours, on a logarithmic scale." } }
            }
            @if !figures.loss.told.outages.is_empty() {
                h3 { "Outages" }
                div.scroll { table {
                    thead { tr { th { "from" } th { "until" } th.n { "lasted" } th { "what" } th.n { "first alert after" } } }
                    tbody { @for outage in &figures.loss.told.outages { tr {
                        td.t { (moment(outage.from)) } td.t { (moment(outage.until)) } td.n { (length(outage.seconds)) }
                        td { @match outage.kind {
                            Trouble::Late => "more than promised would have been lost",
                            Trouble::Unheard => "nothing was heard of an archiver",
                        } }
                        td.n { @match outage.seconds_to_detect { Some(seconds) => (length(seconds)), None => span.no { "none" } } }
                    } } }
                } }
            }
            @if !figures.gaps.is_empty() {
                h3 { "WAL that is lost" }
                div.scroll { table {
                    thead { tr { th { "found" } th { "last transaction before" } th { "branch" } th.n { "from" } th.n { "to" } th.n { "size" } th { "why" } } }
                    tbody { @for gap in &figures.gaps { tr {
                        td.t { (moment(gap.found)) }
                        td.t { (gap.highest_time.map_or_else(|| "unknown".to_owned(), moment)) }
                        td { code { (gap.branch) } } td.n { (gap.from) } td.n { (gap.to) }
                        td.n { (units::distance(gap.from, gap.to)) } td.words { (gap.why) }
                    } } }
                } }
            }
        }
    }
}

pub(super) fn backups(figures: &Figures) -> Markup {
    let columns = |of: fn(&crate::report::backups::Finished) -> f64, unit: Unit| -> Vec<Column> {
        let column = |backup: &crate::report::backups::Finished| Column {
            time: backup.time,
            value: of(backup),
            bad: backup.suspect > 0,
            words: format!("{}: {}", backup.id, super::chart::value(unit, of(backup))),
        };
        figures.backups.finished.iter().map(column).collect()
    };
    let chart = |label, unit, columns| Chart {
        label,
        period: figures.period,
        unit,
        columns,
        days: 0.5,
        line: Vec::new(),
        limit: None,
    };
    html! {
        section {
            h2 { "Base backups" }
            @if figures.backups.finished.is_empty() {
                p { "None was finished." }
            } @else {
                figure {
                    (chart("Bytes that each base backup added", Unit::Bytes, columns(|backup| backup.stored_size as f64, Unit::Bytes)).draw())
                    figcaption { "What each added to the repository." }
                }
                figure {
                    (chart("How long each base backup took", Unit::Seconds, columns(|backup| backup.seconds, Unit::Seconds)).draw())
                    figcaption { "How long each took." }
                }
            }
            (super::records::backups(figures))
        }
    }
}

pub(super) fn drills(figures: &Figures) -> Markup {
    let column = |drill: &crate::report::drills::HeldDrill| {
        let value = drill.first_query_seconds?;
        let verdict = if drill.passed { "passed" } else { "failed" };
        let words = format!("{}: {}, {verdict}", moment(drill.time), length(value));
        Some(Column { time: drill.time, value, bad: !drill.passed, words })
    };
    let chart = Chart {
        label: "Time to the first answer in each drill",
        period: figures.period,
        unit: Unit::Seconds,
        columns: figures.drills.held.iter().filter_map(column).collect(),
        days: 0.5,
        line: Vec::new(),
        limit: figures.promises.rto_seconds.map(|limit| (limit, "promised")),
    };
    html! {
        section {
            h2 { "What was tested: drills" }
            p.soft {
                "In a drill a base backup is restored into a server that is thrown away afterwards, brought to its target, and checked. "
                "A check that could not run fails it."
            }
            @if figures.drills.held.is_empty() {
                p.no { "None was held." }
            } @else {
                figure { (chart.draw()) figcaption { "From the beginning of the restore to the answer to the first query; red where the drill failed." } }
            }
            (super::records::drills(figures))
        }
    }
}

pub(super) fn growth(figures: &Figures) -> Markup {
    let sizes =
        figures.backups.finished.iter().map(|backup| (backup.time, backup.cluster_size as f64)).collect::<Vec<_>>();
    let days = figures.loss.wal_bytes_by_day.iter().enumerate().map(|(day, bytes)| Column {
        time: figures.from + SignedDuration::from_hours(24 * day as i64 + 12),
        value: *bytes as f64,
        bad: false,
        words: format!("day {}: {}", day + 1, units::size(*bytes)),
    });
    let chart = |label, columns, line| Chart {
        label,
        period: figures.period,
        unit: Unit::Bytes,
        columns,
        days: 0.7,
        line,
        limit: None,
    };
    let stored: u64 = figures.backups.finished.iter().map(|backup| backup.stored_size).sum();
    let wal: u64 = figures.loss.wal_bytes_by_day.iter().sum();
    html! {
        section {
            h2 { "Growth" }
            p { "Base backups added " (units::size(stored)) "; " (units::size(wal)) " of WAL became durable, before compression." }
            figure { (chart("WAL that became durable each day", days.collect(), Vec::new()).draw()) figcaption { "WAL that became durable, day by day." } }
            @if sizes.len() > 1 {
                figure { (chart("Size of the cluster", Vec::new(), sizes).draw()) figcaption { "Size of the cluster, as each base backup found it." } }
            }
        }
    }
}
