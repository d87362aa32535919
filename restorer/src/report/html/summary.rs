//! What somebody reads who reads nothing else: the verdict, and five numbers.

use maud::{Markup, html};

use super::{count, moment, share};
use crate::report::Figures;
use crate::report::acts::length;

pub(super) fn head(figures: &Figures, month: &str) -> Markup {
    html! {
        header {
            h1 { "Backups and restores, " (month) }
            p.soft {
                "PostgreSQL " (figures.postgres_major) ", cluster " code { (figures.cluster) } ", in "
                code { (figures.repository) } ". Covers " span.t { (moment(figures.from)) } " to " span.t { (moment(figures.until)) } "; all times are UTC."
            }
        }
    }
}

/// What went wrong, each in a sentence.
fn complaints(figures: &Figures) -> (Vec<String>, bool) {
    let mut words = Vec::new();
    let objectives = &figures.objectives;
    if !figures.verified() {
        let wrong = figures.ledger_findings.len() + figures.unverified.len();
        words.push(format!("The record itself does not verify: {}, listed at the end.", count(wrong, "finding")));
    }
    if !figures.gaps.is_empty() {
        words.push(format!("WAL was lost: {} recorded.", count(figures.gaps.len(), "gap")));
    }
    if !figures.unrecorded.is_empty() {
        words.push(format!(
            "WAL is missing in {}, and not because retention removed it: no restore crosses that.",
            count(figures.unrecorded.len(), "place")
        ));
    }
    if objectives.outages > 0 {
        let all: f64 = figures.loss.told.outages.iter().map(|outage| outage.seconds).sum();
        words.push(format!(
            "For {} in all, in {}, more than {} would have been lost, or nobody can tell.",
            length(all),
            count(objectives.outages, "outage"),
            length(figures.promises.rpo_seconds)
        ));
    }
    if objectives.undetected > 0 {
        words.push(format!("No alert told of {} of them.", objectives.undetected));
    }
    if objectives.within_rpo.is_none() {
        words.push(
            "How much would have been lost was not measured: no word of an archiver on how far WAL was durable is kept."
                .to_owned(),
        );
    }
    if objectives.drills.all == 0 {
        words.push("No drill was held: nothing that was backed up is proven to be restorable.".to_owned());
    } else if objectives.drills.good < objectives.drills.all {
        words.push(format!(
            "{} of {} failed.",
            objectives.drills.all - objectives.drills.good,
            count(objectives.drills.all, "drill")
        ));
    }
    if objectives.backups.all == 0 {
        words.push("No base backup was taken.".to_owned());
    } else if objectives.backups.good < objectives.backups.all {
        let failed = objectives.backups.all - objectives.backups.good;
        words.push(format!("{failed} of {} failed.", count(objectives.backups.all, "base backup")));
    }
    let suspect = figures.backups.finished.iter().filter(|backup| backup.suspect > 0).count();
    if suspect > 0 {
        words.push(format!("In {} the server reported page checksum failures.", count(suspect, "base backup")));
    }
    if let Some(within) = objectives.within_rto.filter(|within| within.good < within.all) {
        words.push(format!(
            "{} took longer than promised to the first answer.",
            count(within.all - within.good, "drill")
        ));
    }
    let bad =
        !figures.verified() || !figures.gaps.is_empty() || objectives.drills.good == 0 || figures.windows.is_empty();
    (words, bad)
}

pub(super) fn verdict(figures: &Figures) -> Markup {
    let (words, bad) = complaints(figures);
    let class = match (words.is_empty(), bad) {
        (_, true) => "verdict bad",
        (true, _) => "verdict",
        (false, _) => "verdict warn",
    };
    let restorable: Vec<_> = figures
        .windows
        .iter()
        .filter_map(|window| Some((window.from_time?.to_jiff()?, window.to_time?.to_jiff()?)))
        .collect();
    html! {
        section class=(class) {
            @if words.is_empty() {
                strong { "Everything that was promised was kept, and was tested." }
            } @else {
                strong { "What to look at" }
                ul { @for words in &words { li { (words) } } }
            }
            @if restorable.is_empty() {
                p.no { "When this report was made, nothing with a transaction in it could be restored." }
            } @else {
                p {
                    "When this report was made, any second could be restored "
                    @for (place, (from, to)) in restorable.iter().enumerate() {
                        @if place > 0 { ", and " }
                        "from " span.t { (moment(*from)) } " to " span.t { (moment(*to)) }
                    }
                    "."
                }
            }
        }
    }
}

fn card(name: &str, value: &str, words: &str) -> Markup {
    html! { div.card { span.name { (name) } b { (value) } small { (words) } } }
}

pub(super) fn cards(figures: &Figures) -> Markup {
    let objectives = &figures.objectives;
    let of = |good: usize, all: usize| if all == 0 { "none".to_owned() } else { format!("{good} of {all}") };
    let times = figures.drills.held.iter().filter(|drill| drill.passed).filter_map(|drill| drill.first_query_seconds);
    let slowest =
        times.fold(None, |worst: Option<f64>, seconds| Some(worst.map_or(seconds, |worst| worst.max(seconds))));
    let rto = match figures.promises.rto_seconds {
        Some(limit) => format!("slowest drill to its first answer; promised {}", length(limit)),
        None => "slowest drill to its first answer; nothing was promised".to_owned(),
    };
    let detect = match (objectives.mean_seconds_to_detect, objectives.outages) {
        (Some(seconds), _) => length(seconds),
        (None, 0) => "–".to_owned(),
        (None, _) => "never".to_owned(),
    };
    html! {
        section.cards aria-label="Objectives" {
            (card("Within RPO", &share(objectives.within_rpo), &format!("of {} measured, at most {} would have been lost", length(objectives.measured_seconds), length(figures.promises.rpo_seconds))))
            (card("Drills passed", &of(objectives.drills.good, objectives.drills.all), "restores that were tried, checked and recorded"))
            (card("Time to restore", &slowest.map_or_else(|| "–".to_owned(), length), &rto))
            (card("Base backups", &of(objectives.backups.good, objectives.backups.all), "that were begun were finished"))
            (card("Time to detect", &detect, &format!("on average, from the beginning of an outage to the first alert; {}", count(objectives.outages, "outage"))))
        }
    }
}

pub(super) fn foot(figures: &Figures) -> Markup {
    html! {
        footer {
            @if figures.verified() {
                p { span.ok { "Verified: " } "all " (figures.ledger_entries) " entries of the ledger, their signatures and chains, and every label and record of a gap." }
            } @else {
                p.no { "What did not verify:" }
                ul { @for words in figures.ledger_findings.iter().chain(&figures.unverified) { li { code { (words) } } } }
            }
            p {
                "Made by " (figures.program) " on " (moment(figures.made)) ", from signed objects in the repository only. Times are those of the clocks of the hosts that wrote them. "
                "That the newest entries of the ledger were cut off shows only where something else has seen them."
            }
        }
    }
}
