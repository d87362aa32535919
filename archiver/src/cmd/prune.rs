//! `prune`: remove what retention does not keep.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::config::parse_duration;
use walseal_common::show;
use walseal_common::terminal::{Align, Exit, Failure, Look, Progress, Schema, Table, printable, to_json, units};
use walseal_common::time::PgTimestamp;

use crate::archive::{Archive, LAST_ENTRIES};
use crate::cost::Month;
use crate::retention::holdings::Sum;
use crate::retention::plan::Window;
use crate::retention::{Plan, Pruned, Pruner};

const SCHEMA: Schema = Schema { name: "prune", version: 1 };

/// What `prune` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Say what would go and what stays restorable, and stop
    #[arg(long)]
    dry_run: bool,
    /// How long what goes is announced before it does, by the store's clock; 0 removes it now
    #[arg(long, value_name = "DURATION", value_parser = grace)]
    grace: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn grace(text: &str) -> Result<Duration, String> {
    if text == "0" {
        Ok(Duration::ZERO)
    } else {
        parse_duration(text).map_err(|wrong| format!("{}; {}", wrong.problem, wrong.fix))
    }
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Document<'a> {
    dry_run: bool,
    #[serde(flatten)]
    plan: &'a Plan,
    /// What a month costs of what stays.
    month: Month,
    /// What came of it; `null` after a dry run.
    done: Option<Done<'a>>,
}

#[derive(Serialize)]
struct Done<'a> {
    announced: Sum,
    removed: Sum,
    waiting: Sum,
    next: Option<Timestamp>,
    refused: &'a [crate::retention::Refused],
    vetoed: Option<&'a str>,
}

/// Plans, and removes unless it is a dry run.
pub async fn run(arguments: &Arguments, archive: Archive) -> Result<(), Failure> {
    let (repository, identity) = archive.chosen().await.map_err(|error| failed(&error))?;
    let ledger = archive.ledger(&repository);
    let prices = archive.config.cost.clone();
    // What goes is counted as gone, the sooner or later.
    let month = |plan: &Plan| Month::of(plan.stored().total().less(plan.total), plan.fresh, &prices);
    let grace = arguments.grace.unwrap_or(archive.config.retention.grace.value);
    let pruner = Pruner::of(&archive, repository, identity, grace, ledger.clone());
    let progress = Progress::new("prune", None);
    progress.message("reading what the repository holds");
    if arguments.dry_run {
        let plan = pruner.plan().await;
        progress.finish("done");
        let plan = plan.map_err(|error| failed(&error))?;
        if arguments.json {
            return print_json(&Document { dry_run: true, month: month(&plan), plan: &plan, done: None });
        }
        tell(&plan);
        show!("\n{}", month(&plan).words());
        if plan.total.objects == 0 {
            show!("\nNothing goes{}.", if plan.locked.sum.objects > 0 { " yet" } else { "" });
        } else {
            show!("\nNothing was removed: this was a dry run.");
        }
        return Ok(());
    }
    let pruned = pruner.prune().await;
    ledger.finish(LAST_ENTRIES).await;
    progress.finish("done");
    let pruned = pruned.map_err(|error| failed(&error))?;
    if arguments.json {
        let next = pruned.next.and_then(|seconds| Timestamp::from_second(seconds).ok());
        let Pruned { announced, removed, waiting, .. } = pruned;
        let (refused, vetoed) = (pruned.refused.as_slice(), pruned.vetoed.as_deref());
        let done = Some(Done { announced, removed, waiting, next, refused, vetoed });
        print_json(&Document { dry_run: false, month: month(&pruned.plan), plan: &pruned.plan, done })?;
    } else {
        tell(&pruned.plan);
        show!("\n{}", month(&pruned.plan).words());
        tell_done(&pruned);
    }
    outcome(&pruned)
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::from_error("prune", error)
}

fn print_json(document: &Document<'_>) -> Result<(), Failure> {
    show!("{}", to_json(SCHEMA, document).map_err(|error| failed(&error))?);
    Ok(())
}

/// What did not work is the exit code.
fn outcome(pruned: &Pruned) -> Result<(), Failure> {
    if let Some(why) = &pruned.vetoed {
        let why = format!("retention.before_window_moves said no: {}", printable(why));
        return Err(Failure::new("prune", why).exit(Exit::Failed));
    }
    if pruned.is_forbidden() {
        let left = pruned.waiting;
        let first = pruned.refused.first().map_or_else(String::new, |one| one.why.clone());
        let why = format!("{} past retention, and no permission to delete: {first}", units::size(left.bytes));
        return Err(Failure::new("prune", why).next("run it where credentials may delete"));
    }
    Ok(())
}

fn tell(plan: &Plan) {
    show!(
        "Promised: any second since {}; beyond that the last backup of {} days, {} weeks and {} months; {} proven.",
        time(plan.window_begin),
        plan.policy.daily,
        plan.policy.weekly,
        plan.policy.monthly,
        plan.policy.min_proven
    );
    for sentence in &plan.held_back {
        show!("HELD BACK   {}", printable(sentence));
    }
    if plan.unknown.objects > 0 {
        let names = plan.unknown_names.join(", ");
        let (objects, size) = (plan.unknown.objects, units::size(plan.unknown.bytes));
        show!("unknown     {objects} objects ({size}) that this version does not know stay: {}", printable(&names));
    }
    let mut table = Table::new([("base backup", Align::Left), ("", Align::Left), ("because of", Align::Left)]);
    for kept in &plan.keep {
        let reasons: Vec<&str> = kept.reasons.iter().map(|reason| reason.word()).collect();
        table.row([kept.id.to_string(), "stays".to_owned(), reasons.join(", ")]);
    }
    for id in &plan.go {
        table.row([id.to_string(), "GOES".to_owned(), String::new()]);
    }
    if !plan.keep.is_empty() || !plan.go.is_empty() {
        show!("\n{}", table.render(Look::of_stdout()));
    }
    show!("\nRestorable now:");
    tell_windows(&plan.before);
    if plan.before != plan.after {
        show!("Restorable then:");
        tell_windows(&plan.after);
    }
    if let Some(locked) = plan.locked.words() {
        show!("\nLOCKED      {locked}: not asked to go before");
    }
    if plan.total.objects > 0 {
        let mut table = Table::new([("what goes", Align::Left), ("objects", Align::Right), ("bytes", Align::Right)]);
        for (cause, sum) in &plan.sums {
            table.row([cause.words().to_owned(), sum.objects.to_string(), units::size(sum.bytes)]);
        }
        table.row(["all".to_owned(), plan.total.objects.to_string(), units::size(plan.total.bytes)]);
        show!("\n{}", table.render(Look::of_stdout()));
    }
}

fn tell_windows(windows: &[Window]) {
    if windows.is_empty() {
        show!("  nothing");
    }
    for window in windows {
        let bases = window.bases.len();
        show!(
            "  {} on, {} to {} on branch {}, from {bases} base backup{}",
            time(window.from_time),
            window.from,
            window.to,
            window.branch,
            if bases == 1 { "" } else { "s" }
        );
    }
}

fn tell_done(pruned: &Pruned) {
    let sum = |sum: Sum| format!("{} objects ({})", sum.objects, units::size(sum.bytes));
    show!();
    if pruned.announced.objects > 0 {
        show!("Announced {}.", sum(pruned.announced));
    }
    if pruned.removed.objects > 0 {
        show!("Removed {}.", sum(pruned.removed));
    }
    if pruned.waiting.objects > 0 {
        let next = pruned.next.and_then(|seconds| Timestamp::from_second(seconds).ok());
        let from = next.map_or_else(String::new, |next| format!("; the next may go from {} on", time(next)));
        show!("Still there {}{from}.", sum(pruned.waiting));
    }
    for refused in &pruned.refused {
        let until = refused.until.map_or_else(String::new, |until| format!(" until {}", time(until)));
        show!("NOT LET GO  {}{until}: {}", printable(&refused.name), printable(&refused.why));
    }
    if pruned.plan.total.objects == 0 {
        show!("Nothing goes{}.", if pruned.plan.locked.sum.objects > 0 { " yet" } else { "" });
    }
}

fn time(moment: Timestamp) -> String {
    units::time_argument(PgTimestamp::from_jiff(moment))
}
