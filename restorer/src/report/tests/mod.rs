#![allow(clippy::expect_used, clippy::panic)]

mod month;

use jiff::SignedDuration;
use walseal_common::objective::Trouble;
use walseal_common::repository::FrontierRecord;
use walseal_common::terminal::{Schema, to_json};

use self::month::{Month, at, period};
use super::{Facts, Figures, html};

/// Where to leave the page and the document of the month, for somebody who wants to look at them.
const SAMPLE: &str = "WALSEAL_REPORT_SAMPLE";

#[tokio::test]
async fn a_month_with_two_outages_and_a_failed_drill_is_told_as_it_was() {
    let month = Month::new().await;
    let facts = month.facts().await;
    let figures = Figures::of(&facts);
    let page = html::page(&figures);
    let document = to_json(Schema { name: "report", version: 1 }, &figures).expect("a document");
    if let Some(folder) = std::env::var_os(SAMPLE) {
        let folder = std::path::PathBuf::from(folder);
        std::fs::write(folder.join("report.html"), &page).expect("written");
        std::fs::write(folder.join("report.json"), &document).expect("written");
    }
    assert!(figures.verified(), "{:?} {:?}", figures.ledger_findings, figures.unverified);

    // From the last word before to the first one after; the backlog from the last word that was fine.
    let outages: Vec<_> = figures.loss.told.outages.iter().map(|one| (one.from, one.until, one.kind)).collect();
    let expected = [
        (at(8, 5, 0), at(8, 13, 0), Trouble::Unheard),
        (at(18, 22, 0), at(19, 9, 0), Trouble::Unheard),
        (at(23, 10, 0), at(23, 14, 0), Trouble::Late),
    ];
    assert_eq!(outages, expected);
    let detected: Vec<_> = figures.loss.told.outages.iter().map(|one| one.detected).collect();
    assert_eq!(detected, [Some(at(8, 6, 11)), Some(at(19, 8, 57)), Some(at(23, 11, 12))]);
    let objectives = &figures.objectives;
    let within = objectives.within_rpo.expect("measured");
    assert!((within - (720.0 - 23.0) / 720.0).abs() < 1e-9, "{within}");
    assert_eq!((objectives.drills.good, objectives.drills.all), (28, 29));
    assert_eq!((objectives.backups.good, objectives.backups.all), (30, 31));
    assert_eq!(objectives.within_rto.map(|within| (within.good, within.all)), Some((28, 28)));
    assert_eq!(objectives.mean_seconds_to_detect, Some(f64::from(71 + 10 * 60 + 57 + 72) * 60.0 / 3.0));
    assert_eq!((figures.gaps.len(), figures.windows.len()), (1, 2));
    assert_eq!(figures.drills.held.iter().find(|drill| !drill.passed).expect("one").failed, ["amcheck"]);
    assert_eq!(figures.backups.failed[0].class, "server");
    // What is lost did not become durable.
    let most = figures.loss.wal_bytes_by_day.iter().max().expect("days");
    assert!(*most < 600 << 10, "{most}");
    let proven = figures.backups.finished.iter().filter(|backup| backup.proven).count();
    assert_eq!(proven, 28);
    let restore = &figures.acts.restores[0];
    assert_eq!((restore.actor.as_str(), restore.outcome), ("grace@restore1", Some("finished")));
    assert_eq!(restore.target, "time 2026-11-25T10:15:00Z");
    assert!(figures.acts.alerts.iter().all(|alert| alert.cleared.is_some()), "{:?}", figures.acts.alerts);
    assert_eq!(figures.acts.alerts.len(), 3);
    let actors: Vec<_> = figures.acts.actors.iter().map(|one| one.actor.as_str()).collect();
    assert_eq!(actors, ["drill@restore1", "grace@restore1", "postgres@db1"]);

    for words in [
        "November 2026",
        "28 of 29",
        "30 of 31",
        "96.80 %",
        "failed: amcheck",
        "no: its drill failed",
        "grace@restore1",
        "1 gap recorded",
    ] {
        assert!(page.contains(words), "{words}");
    }
    for elsewhere in ["http:", "https:", "src=", "url(", "@import", "<link", "<script", "NaN"] {
        assert!(!page.contains(elsewhere), "{elsewhere}: a report fetches and runs nothing");
    }
    // A hole that nobody recorded is no smaller: somebody else has removed WAL.
    assert!(!page.contains("WAL is missing in"), "the gap on record is told already");
    let mut earlier = facts.clone();
    earlier.gaps.iter_mut().for_each(|gap| gap.found = at(1, 0, 0) - SignedDuration::from_hours(1000));
    assert!(!html::page(&Figures::of(&earlier)).contains("WAL is missing in"), "so is one of an earlier month");
    let unrecorded = html::page(&Figures::of(&Facts { gaps: Vec::new(), ..facts.clone() }));
    assert!(unrecorded.contains("WAL is missing in 1 place, and not because retention removed it"), "{unrecorded}");
    case_with_a_prune(facts.clone());
    case_with_tampering(&month).await;
    case_with_hostile_words(facts);
}

/// Retention removes old words: what lies before those that it kept is not measured, and no outage.
fn case_with_a_prune(mut facts: Facts) {
    let prune = at(28, 3, 30);
    let last = facts.ledger.entries.last_mut().expect("entries");
    (last.body.time, last.body.act) = (prune + FrontierRecord::KEPT, "prune-finished".to_owned());
    let kept = facts.frontiers.iter().filter(|record| record.written < prune).count() - 3;
    facts.frontiers.drain(..kept);
    let loss = Figures::of(&facts).loss.told;
    assert_eq!((loss.measured_from, loss.measured_seconds), (Some(prune), (2.0 * 24.0 + 20.5) * 3600.0));
    assert_eq!((loss.within_seconds, loss.outages.len()), (loss.measured_seconds, 0));
    assert_eq!(loss.words.first().map(|word| word.time), Some(at(28, 4, 0)));
}

/// A report of a ledger of which something is gone says so first.
async fn case_with_tampering(month: &Month) {
    let entry = Figures::of(&month.facts().await).acts.events[3].entry.clone();
    month.sample.remove(&entry.parse().expect("a name")).await;
    let figures = Figures::of(&month.facts().await);
    assert!(!figures.verified());
    assert!(html::page(&figures).contains("The record itself does not verify"));
}

/// Whatever somebody with a key writes is text.
fn case_with_hostile_words(mut facts: Facts) {
    let hostile = "\"'><script>alert(1)</script><img src=x onerror=y>";
    facts.repository = hostile.to_owned();
    facts.unverified = vec![hostile.to_owned()];
    for gap in &mut facts.gaps {
        gap.why = hostile.to_owned();
    }
    for entry in &mut facts.ledger.entries {
        entry.body.actor = hostile.to_owned();
        entry.body.program = hostile.to_owned();
        for (_, value) in
            entry.body.facts.iter_mut().filter(|(name, _)| !["id", "base", "directory"].contains(&name.as_str()))
        {
            if value.is_string() {
                *value = hostile.into();
            }
        }
    }
    let page = html::page(&Figures::of(&facts));
    assert!(!page.contains("<script") && !page.contains("<img"), "it was not escaped");
    assert!(page.matches("&lt;script&gt;").count() > 100);
}

#[tokio::test]
async fn a_month_of_which_nothing_is_known_says_that_nothing_is_proven() {
    let sample = crate::sample::SampleRepository::new().await;
    let config = walseal_common::config::Config::from_toml("").expect("a configuration");
    let access = crate::access::Access {
        config: config.into(),
        repository: sample.repository.clone(),
        identities: sample.identities.clone(),
    };
    let facts = Facts::gather(&access, period(), at(15, 0, 0)).await.expect("readable");
    let figures = Figures::of(&facts);
    assert_eq!((figures.until, figures.objectives.within_rpo), (at(15, 0, 0), None));
    assert_eq!((figures.objectives.drills.share, figures.objectives.backups.share), (None, None));
    let page = html::page(&figures);
    for words in [
        "No drill was held",
        "was not measured",
        "No base backup was taken",
        "nothing with a transaction in it could be restored",
    ] {
        assert!(page.contains(words), "{words}");
    }
}
