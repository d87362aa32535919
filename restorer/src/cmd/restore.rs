//! `restore`: rebuild a cluster, and with `--start` run recovery to its end.

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use walseal_common::config::Config;
use walseal_common::repository::{FailureClass, Ledger};
use walseal_common::terminal::{Exit, Failure, Progress, Schema, printable, to_json};

use super::extract::{self, PartArguments};
use super::place::PlaceArguments;
use super::plan;
use super::standby::{StandbyArguments, follow};
use super::target::TargetArguments;
use crate::access::Access;
use crate::fetch::prefetcher::Serving;
use crate::instance::{self, InstanceError, Landing};
use crate::plan::{Plan, Request};
use crate::rebuild::{Alone, Asked, Interrupted, Order, Owner, RebuildError, Recovering, Restored, Swept, Traffic};
use crate::record;

const SCHEMA: Schema = Schema { name: "restore", version: 1 };

/// Data objects at a time, when nothing else is said: the store's latency is what is waited for.
const JOBS_PER_CPU: usize = 2;

/// What `restore` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) target: TargetArguments,
    /// The data directory to make: a folder that is empty or not there yet, or what an interrupted restore left
    #[arg(long, value_name = "D", required_unless_present_any = ["dry_run", "into"])]
    target_dir: Option<PathBuf>,
    /// Explain the restore and stop: as the verb plan
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Also run recovery to its end, on a private server
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    place: PlaceArguments,
    /// Data objects to fetch at a time, each about 20 MiB of memory [default: two for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: Option<u16>,
    /// The folder of PostgreSQL's programs, for --start
    #[arg(long, value_name = "D")]
    pub(super) pg_bin: Option<PathBuf>,
    /// Leave archiving as it was: for a restore that replaces the cluster
    #[arg(long)]
    keep_archiving: bool,
    #[command(flatten)]
    standby: StandbyArguments,
    #[command(flatten)]
    pub(super) part: PartArguments,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// What a restore says when it is done.
#[derive(Serialize)]
struct Report<'a> {
    target_dir: String,
    bytes: u64,
    #[serde(flatten)]
    traffic: Traffic,
    /// What was in the data directory and is not in the backup.
    swept: &'a Swept,
    plan: &'a Plan,
    archiving: &'static str,
    /// Configuration files that lay outside the data directory, where they are now.
    config_files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    landing: Option<&'a Landing>,
    next: String,
}

/// Plans, rebuilds, and starts where that was asked for.
pub async fn run(arguments: &Arguments, request: &Request, access: &Access) -> Result<(), Failure> {
    if let Some(part) = arguments.part.part()? {
        return extract::run(arguments, part, request, access).await;
    }
    let standby = arguments.standby.standby(request)?;
    // What costs nothing to find out comes before WAL is read for the plan.
    let destination = arguments.target_dir.as_deref().map(|data| arguments.place.destination(data)).transpose()?;
    let Some(destination) = destination.as_ref().filter(|_| !arguments.dry_run) else {
        return plan::run_for(destination.as_ref(), request, access, arguments.json).await;
    };
    let (cluster, keep_archiving, starts) = (access.repository.cluster(), arguments.keep_archiving, arguments.start);
    let asked = Asked { request, cluster, destination, keep_archiving, starts };
    let interrupted = Interrupted::find(&asked).map_err(|error| failure(&error))?;
    let plan = match &interrupted {
        Some(interrupted) => interrupted.plan.clone(),
        None => new_plan(access, request, standby.is_some()).await?,
    };
    // Without --start they are only named in what is printed last.
    let programs = instance::Programs::find(plan.base.postgres_version, pg_bin(arguments, &access.config));
    let programs = match programs {
        Err(error) if starts => return Err(start_failure(&error)),
        found => found.ok(),
    };
    if !arguments.json {
        eprint!("{}", plan.explain());
    }
    let order = Order {
        plan: &plan,
        destination: destination.clone(),
        jobs: jobs(arguments),
        keep_archiving,
        program: crate::program::path().map_err(|error| Failure::from_error("find this program's path", &error))?,
        config: &access.config,
        inherits_environment: starts,
        is_served: starts && instance::ends_promoted(&plan),
        starts,
        standby,
    };
    let ledger = record::ledger(access);
    ledger.record(record::started(&plan, &order.destination.data));
    let programs_to_start = programs.as_ref().filter(|_| starts);
    let carried_out = carry_out(order, interrupted.as_ref(), access, programs_to_start, &ledger).await;
    ledger.finish(record::LAST_ENTRIES).await;
    let (restored, landing) = carried_out?;
    let next = instance::next_steps(&plan, &restored, landing.as_ref(), keep_archiving, programs.as_ref());
    show(&plan, &restored, landing.as_ref(), next, arguments)?;
    match landing.and_then(|landing| landing.missed(&plan)) {
        None => Ok(()),
        Some(why) => Err(Failure::new("land where the plan leads", why)
            .next("do not go live with it before the server's log beside the data directory says why")),
    }
}

async fn new_plan(access: &Access, request: &Request, is_standby: bool) -> Result<Plan, Failure> {
    let mut plan = plan::make(access, request).await?;
    if is_standby {
        follow(&mut plan);
    }
    Ok(plan)
}

/// Rebuilds, unless a restore is gone on with that had come further, runs recovery where there are programs for it, and
/// records how that went.
async fn carry_out(
    order: Order<'_>,
    interrupted: Option<&Interrupted>,
    access: &Access,
    programs: Option<&instance::Programs>,
    ledger: &Ledger,
) -> Result<(Restored, Option<Landing>), Failure> {
    let (begun, plan, directory) = (Instant::now(), order.plan, &order.destination.data.clone());
    let server = order.is_served.then(|| order.program.clone());
    let restored = match interrupted {
        None => rebuild(order, access).await,
        Some(interrupted) => take_up(interrupted, &order.destination.owner),
    };
    let restored = match restored {
        Ok(restored) => restored,
        Err(error) => {
            ledger.record(record::failed(directory, record::class(&error)));
            return Err(failure(&error));
        }
    };
    let landing = match programs {
        None => None,
        Some(programs) => match recover(programs, &restored, plan, access, server).await {
            Ok(landing) => Some(landing),
            Err(error) => {
                ledger.record(record::failed(directory, FailureClass::Recovery));
                return Err(recovery_failure(&error));
            }
        },
    };
    ledger.record(record::finished(directory, restored.bytes, begun.elapsed(), landing.as_ref()));
    Ok((restored, landing))
}

async fn rebuild(order: Order<'_>, access: &Access) -> Result<Restored, RebuildError> {
    let progress = Progress::new("restore", None);
    match order.carry_out(&access.repository, &access.identities, &progress).await {
        Ok(restored) => {
            progress.finish(&format!("files in {}{}", restored.layout.data.display(), restored.kept()));
            Ok(restored)
        }
        Err(error) => {
            progress.abandon();
            Err(error)
        }
    }
}

fn take_up(interrupted: &Interrupted, owner: &Owner) -> Result<Restored, RebuildError> {
    let restored = interrupted.take_up(owner)?;
    eprintln!("All files are in {}; recovery goes on where it was.", restored.layout.data.display());
    Ok(restored)
}

/// Runs recovery; where `program` is given, its server gets its WAL from this process.
async fn recover(
    programs: &instance::Programs,
    restored: &Restored,
    plan: &Plan,
    access: &Access,
    program: Option<PathBuf>,
) -> Result<Landing, InstanceError> {
    let _alone = Alone::in_recovery(&restored.layout.data)?;
    let landing = match program {
        None => instance::recover(programs, restored, plan, None).await?,
        Some(program) => {
            let serving = Serving::begin(&access.config, restored).await?;
            let command = serving.command(&program)?;
            instance::recover(programs, restored, plan, Some(&command)).await?
        }
    };
    if let Err(error) = Recovering::remove(&restored.layout.data) {
        tracing::warn!("recovery has ended, and the next restore to this place is told that it has not: {error}");
    }
    Ok(landing)
}

pub(super) fn jobs(arguments: &Arguments) -> usize {
    arguments.jobs.map_or_else(default_jobs, usize::from)
}

/// Data objects at a time, where nothing says how many.
pub(super) fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) * JOBS_PER_CPU
}

pub(super) fn pg_bin(arguments: &Arguments, config: &Config) -> Option<PathBuf> {
    arguments.pg_bin.clone().or_else(|| config.cluster.pg_bin.as_ref().map(|setting| setting.value.clone()))
}

fn show(
    plan: &Plan,
    restored: &Restored,
    landing: Option<&Landing>,
    next: String,
    arguments: &Arguments,
) -> Result<(), Failure> {
    if !arguments.json {
        let landed = landing.map(|landing| landing.explain(plan)).unwrap_or_default();
        print!("{}", printable(&format!("{landed}{next}")));
        return Ok(());
    }
    let report = Report {
        target_dir: restored.layout.data.display().to_string(),
        bytes: restored.bytes,
        traffic: restored.traffic,
        swept: &restored.swept,
        plan,
        config_files: restored.config_files.files.iter().map(|(_, path)| path.display().to_string()).collect(),
        archiving: if arguments.keep_archiving { "kept" } else { "off" },
        landing,
        next,
    };
    let text = to_json(SCHEMA, &report).map_err(|error| Failure::from_error("print the report", &error))?;
    println!("{text}");
    Ok(())
}

/// A refusal or failure of the rebuild as a person sees it.
pub(super) fn failure(error: &RebuildError) -> Failure {
    let shown = match error {
        RebuildError::Refused { .. } => Failure::saying(error).exit(Exit::Failed),
        _ => Failure::from_error("rebuild the data directory", error)
            .next("look at the reason, and give the same command again: it goes on with what is there"),
    };
    error.next().iter().fold(shown, |failure, step| failure.next(step))
}

/// A failure of recovery, which goes on where it was unless that would change nothing.
fn recovery_failure(error: &InstanceError) -> Failure {
    let shown = start_failure(error);
    if error.is_gone_on_with() {
        shown.next("give the same command again: it goes on with recovery where it was")
    } else {
        shown
    }
}

fn start_failure(error: &InstanceError) -> Failure {
    let shown = Failure::from_error("run recovery", error);
    error.next().into_iter().fold(shown, |failure, step| failure.next(step))
}
