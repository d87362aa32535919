//! The tables: each backup, drill, restore, alert, and who did what.

use maud::{Markup, html};
use walseal_common::terminal::units;

use super::{count, moment};
use crate::report::Figures;
use crate::report::acts::length;

/// Entries of the ledger that a page shows; the others are in the JSON document and in the ledger.
const MOST_EVENTS: usize = 2000;

/// Acts that others tell of, too.
const SAID_ELSEWHERE: [&str; 1] = ["base-started"];

pub(super) fn backups(figures: &Figures) -> Markup {
    let backups = &figures.backups;
    html! {
        @if !backups.failed.is_empty() {
            h3 { "Failed" }
            div.scroll { table {
                thead { tr { th { "when" } th { "base backup" } th { "what failed" } } }
                tbody { @for one in &backups.failed { tr {
                    td.t { (moment(one.time)) }
                    td { @match &one.id { Some(id) => code { (id) }, None => "–" } }
                    td.no { (one.class) }
                } } }
            } }
        }
        @if backups.stopped > 0 { p.soft { (count(backups.stopped, "backup")) " somebody stopped." } }
        @if !backups.finished.is_empty() {
            h3 { "Finished" }
            div.scroll { table {
                thead { tr { th { "finished" } th { "base backup" } th { "type" } th.n { "cluster" } th.n { "added" } th.n { "took" } th { "proven" } } }
                tbody { @for one in &backups.finished { tr {
                    td.t { (moment(one.time)) }
                    td { code { (one.id) } }
                    td { (one.kind.unwrap_or("removed since")) }
                    td.n { (units::size(one.cluster_size)) } td.n { (units::size(one.stored_size)) } td.n { (length(one.seconds)) }
                    td {
                        @if one.proven {
                            span.ok { "yes" }
                        } @else if figures.drills.held.iter().any(|drill| drill.base.as_ref() == Some(&one.id)) {
                            span.no { "no: its drill failed" }
                        } @else {
                            span.soft { "not drilled" }
                        }
                        @if one.suspect > 0 { " " span.no { "suspect: " (one.suspect) " page checksum failures" } }
                    }
                } } }
            } }
        }
    }
}

pub(super) fn drills(figures: &Figures) -> Markup {
    html! { @if !figures.drills.held.is_empty() {
        div.scroll { table {
            thead { tr { th { "when" } th { "by" } th { "verdict" } th { "base backup" } th { "target" } th.n { "restored" } th.n { "first answer" } th.n { "in all" } th.n { "checks" } } }
            tbody { @for drill in &figures.drills.held { tr {
                td.t { (moment(drill.time)) }
                td { (drill.actor) }
                td { @if drill.passed { span.ok { "passed" } } @else { span.no { "failed: " (drill.failed.join(", ")) } } }
                td { @match &drill.base { Some(id) => code { (id) }, None => "none found" } }
                td { (drill.target) }
                td.n { (units::size(drill.bytes)) }
                td.n { (drill.first_query_seconds.map_or_else(|| "–".to_owned(), length)) }
                td.n { (length(drill.seconds)) }
                td.n { (drill.checks_passed) @if drill.checks_warned > 0 { ", " span.warned { (drill.checks_warned) " warned" } } }
            } } }
        } }
    } }
}

pub(super) fn restores(figures: &Figures) -> Markup {
    html! {
        section {
            h2 { "Restores" }
            @if figures.acts.restores.is_empty() {
                p { "None was recorded. A restore host without a writer key of its own records nothing." }
            } @else {
                div.scroll { table {
                    thead { tr { th { "began" } th { "by" } th { "base backup" } th { "target" } th { "directory" } th { "outcome" } th.n { "took" } } }
                    tbody { @for restore in &figures.acts.restores { tr {
                        td.t { (moment(restore.started)) } td { (restore.actor) } td { code { (restore.base) } } td { (restore.target) }
                        td { code { (restore.directory) } }
                        td { @match restore.outcome {
                            Some("finished") => span.ok { "finished" },
                            Some(other) => span.no { (other) },
                            None => span.warned { "no end recorded" },
                        } }
                        td.n { (restore.seconds.map_or_else(|| "–".to_owned(), length)) }
                    } } }
                } }
                p.soft { "Names of directories and restore points do not stand in the repository; what is shown is the same for the same name." }
            }
        }
    }
}

pub(super) fn alerts(figures: &Figures) -> Markup {
    html! {
        section {
            h2 { "Alerts" }
            @if figures.acts.alerts.is_empty() {
                p { "None was raised." }
            } @else {
                div.scroll { table {
                    thead { tr { th { "raised" } th { "kind" } th { "severity" } th { "over" } th.n { "stood for" } } }
                    tbody { @for alert in &figures.acts.alerts { tr {
                        td.t { (moment(alert.raised)) } td { (alert.kind) }
                        td class=(if alert.severity == "critical" { "no" } else { "warned" }) { (alert.severity) }
                        td.t { @match alert.cleared { Some(time) => (moment(time)), None => span.no { "stands" } } }
                        td.n { (length(alert.cleared.unwrap_or(figures.until).duration_since(alert.raised).as_secs_f64())) }
                    } } }
                } }
            }
        }
    }
}

pub(super) fn actors(figures: &Figures) -> Markup {
    html! {
        section {
            h2 { "Who acted" }
            @if figures.acts.actors.is_empty() {
                p { "Nobody recorded anything." }
            } @else {
                div.scroll { table {
                    thead { tr { th { "who" } th { "program" } th { "what" } th { "key that signed" } } }
                    tbody { @for actor in &figures.acts.actors { tr {
                        td { (actor.actor) } td.t { (actor.program) }
                        td.words { (actor.acts.iter().map(|(act, times)| format!("{act} ×{times}")).collect::<Vec<_>>().join(", ")) }
                        td.key { code { (actor.writer) } }
                    } } }
                } }
            }
        }
    }
}

pub(super) fn events(figures: &Figures) -> Markup {
    let shown: Vec<_> =
        figures.acts.events.iter().filter(|event| !SAID_ELSEWHERE.contains(&event.act.as_str())).collect();
    html! { @if !shown.is_empty() {
        section {
            h2 { "Who did what" }
            p.soft { "Entries of the ledger, as their writers signed them; beginnings of base backups are left out." }
            div.scroll { table {
                thead { tr { th { "when" } th { "who" } th { "what" } } }
                tbody { @for event in shown.iter().take(MOST_EVENTS) { tr {
                    td.t { (moment(event.time)) } td { (event.actor) }
                    td class=(if event.bad { "words no" } else { "words" }) { (event.words) }
                } } }
            } }
            @if shown.len() > MOST_EVENTS { p { (shown.len() - MOST_EVENTS) " more are in the JSON document and in the ledger." } }
        }
    } }
}
