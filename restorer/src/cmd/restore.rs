//! `restore`: rebuild a cluster, and with `--start` run recovery to its end.

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use walseal_common::config::Config;
use walseal_common::repository::{FailureClass, Ledger};
use walseal_common::terminal::{Exit, Failure, Progress, Schema, printable, to_json};

use super::extract::{self, PartArguments};
use super::plan;
use super::target::TargetArguments;
use crate::access::Access;
use crate::instance::{self, InstanceError, Landing};
use crate::plan::{Plan, Request};
use crate::rebuild::{Accounts, Destination, Order, Owner, RebuildError, Restored, TablespaceMapping};
use crate::record;

const SCHEMA: Schema = Schema { name: "restore", version: 1 };

/// Data objects at a time, when nothing else is said: the store's latency is what is waited for.
const JOBS_PER_CPU: usize = 2;

/// What `restore` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) target: TargetArguments,
    /// The data directory to make: a folder that is empty or not there yet
    #[arg(long, value_name = "D", required_unless_present_any = ["dry_run", "into"])]
    target_dir: Option<PathBuf>,
    /// Explain the restore and stop: as the verb plan
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Also run recovery to its end, on a private server
    #[arg(long)]
    start: bool,
    /// Where a tablespace goes; may be given several times
    #[arg(long, value_name = "OLD=NEW", value_parser = TablespaceMapping::parse_pair)]
    tablespace: Vec<(PathBuf, PathBuf)>,
    /// Where all other tablespaces go: each to D/<oid>
    #[arg(long, value_name = "D")]
    tablespace_dir: Option<PathBuf>,
    /// A folder for pg_wal elsewhere
    #[arg(long, value_name = "D")]
    waldir: Option<PathBuf>,
    /// Data objects to fetch at a time, each about 20 MiB of memory [default: two for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: Option<u16>,
    /// The user that the cluster will belong to, for root [default: the owner of D's parent, else postgres]
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// The folder of PostgreSQL's programs, for --start
    #[arg(long, value_name = "D")]
    pub(super) pg_bin: Option<PathBuf>,
    /// Leave archiving as it was: for a restore that replaces the cluster
    #[arg(long)]
    keep_archiving: bool,
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
    let Some(target_dir) = arguments.target_dir.as_ref().filter(|_| !arguments.dry_run) else {
        let plan = plan::make(access, request).await?;
        return plan::show(&plan, arguments.json);
    };
    let failed = |error: RebuildError| failure(&error);
    let target_dir = std::path::absolute(target_dir).map_err(|error| Failure::from_error("restore", &error))?;
    // What costs nothing to find out comes before WAL is read for the plan.
    let accounts = Accounts::of_this_machine().map_err(failed)?;
    let process = rustix::process::geteuid().as_raw();
    let owner = Owner::decide(&accounts, process, arguments.owner.as_deref(), &target_dir).map_err(failed)?;
    let tablespaces =
        TablespaceMapping { pairs: arguments.tablespace.clone(), folder: arguments.tablespace_dir.clone() };
    let destination = Destination { data: target_dir, waldir: arguments.waldir.clone(), tablespaces, owner };
    let plan = plan::make(access, request).await?;
    // Without --start they are only named in what is printed last.
    let programs = instance::Programs::find(plan.base.postgres_version, pg_bin(arguments, &access.config));
    let programs = match programs {
        Err(error) if arguments.start => return Err(start_failure(&error)),
        found => found.ok(),
    };
    if !arguments.json {
        eprint!("{}", plan.explain());
    }
    let order = Order {
        plan: &plan,
        destination,
        jobs: jobs(arguments),
        keep_archiving: arguments.keep_archiving,
        program: std::env::current_exe().map_err(|error| Failure::from_error("find this program's path", &error))?,
        config: &access.config,
        inherits_environment: arguments.start,
    };
    let ledger = record::ledger(access);
    ledger.record(record::started(&plan, &order.destination.data));
    let carried_out = carry_out(order, access, programs.as_ref().filter(|_| arguments.start), &ledger).await;
    ledger.finish(record::LAST_ENTRIES).await;
    let (restored, landing) = carried_out?;
    let next = instance::next_steps(&plan, &restored, landing.as_ref(), arguments.keep_archiving, programs.as_ref());
    show(&plan, &restored, landing.as_ref(), next, arguments)?;
    match landing.and_then(|landing| landing.missed(&plan)) {
        None => Ok(()),
        Some(why) => Err(Failure::new("land where the plan leads", why)
            .next("do not go live with it before the server's log beside the data directory says why")),
    }
}

/// Rebuilds, runs recovery where there are programs for it, and records how that went.
async fn carry_out(
    order: Order<'_>,
    access: &Access,
    programs: Option<&instance::Programs>,
    ledger: &Ledger,
) -> Result<(Restored, Option<Landing>), Failure> {
    let (begun, plan, directory) = (Instant::now(), order.plan, &order.destination.data.clone());
    let progress = Progress::new("restore", None);
    let restored = match order.carry_out(&access.repository, &access.identities, &progress).await {
        Ok(restored) => restored,
        Err(error) => {
            progress.abandon();
            ledger.record(record::failed(directory, record::class(&error)));
            return Err(failure(&error));
        }
    };
    progress.finish(&format!("files in {}", restored.layout.data.display()));
    let landing = match programs {
        None => None,
        Some(programs) => match instance::recover(programs, &restored, plan).await {
            Ok(landing) => Some(landing),
            Err(error) => {
                ledger.record(record::failed(directory, FailureClass::Recovery));
                return Err(start_failure(&error));
            }
        },
    };
    ledger.record(record::finished(directory, restored.bytes, begun.elapsed(), landing.as_ref()));
    Ok((restored, landing))
}

pub(super) fn jobs(arguments: &Arguments) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.jobs.map_or(processors * JOBS_PER_CPU, usize::from)
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
fn failure(error: &RebuildError) -> Failure {
    let shown = match error {
        RebuildError::Refused { .. } => Failure::saying(error).exit(Exit::Failed),
        _ => Failure::from_error("rebuild the data directory", error)
            .next("look at the reason, remove what was written to the target, and restore again"),
    };
    error.next().iter().fold(shown, |failure, step| failure.next(step))
}

fn start_failure(error: &InstanceError) -> Failure {
    let shown = Failure::from_error("run recovery", error);
    error.next().into_iter().fold(shown, |failure, step| failure.next(step))
}
