//! The verbs: parse, call one thing, show the result.

mod drill;
mod extract;
mod fetch;
mod find;
mod keygen;
mod ledger;
mod list;
mod place;
mod plan;
mod prefetch;
mod report;
mod restore;
mod run;
mod snapshot;
mod standby;
mod target;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use walseal_common::config::cli::GlobalArgs;
use walseal_common::config::{Config, Environment};
use walseal_common::telemetry::init_logging;
use walseal_common::terminal::{AlertsVerb, Exit, Failure, FetchExit, of_usage_error};
use walseal_common::timeline::SystemIdentifier;

use crate::access::Access;

/// Restores a PostgreSQL cluster from a sealed repository to any second.
#[derive(Parser, Debug)]
#[command(name = "walseal-restorer", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: GlobalArgs,
    /// The cluster, by its system identifier, where the repository holds several
    #[arg(long, global = true, value_name = "ID")]
    cluster_id: Option<SystemIdentifier>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Make an identity and print its recipient, or a writer key in the place of a lost one
    Keygen(keygen::Arguments),
    /// What can be restored: windows and base backups
    List(list::Arguments),
    /// Explain a restore before a byte moves
    Plan(plan::Arguments),
    /// Which transaction did what to which table, the worst first, and the restore that undoes it
    Find(find::Arguments),
    /// What happened to the repository: every entry of the ledger, with signatures and chains verified
    Ledger(ledger::Arguments),
    /// Write the report of a month: what was promised, tested, lost and done, as one HTML file or JSON
    Report(report::Arguments),
    /// Whether the repository is whole: everything opened and checked
    #[command(after_help = "Exit code 0 only when nothing was found.")]
    Verify(verify::Arguments),
    /// Rebuild a cluster as it was
    Restore(Box<restore::Arguments>),
    /// Prove a backup: restore it, run recovery, check, record, destroy
    #[command(
        after_help = "Exit code 0 only when every check ran and passed and the result is recorded in the ledger."
    )]
    Drill(drill::Arguments),
    /// Dumps of databases: list them, restore one to a server, or write one to a file
    Snapshot(snapshot::Arguments),
    /// Run the daemon: drills on schedule
    Run,
    /// Who hears of alerts
    Alerts(AlertsVerb),
    /// Deliver a file of WAL to PostgreSQL: the restore_command hook
    #[command(after_help = "Exit codes: 0 delivered; 1 proven that nothing is known there; 200 anything else.")]
    Fetch(fetch::Arguments),
    /// Have WAL ready for fetch, which starts this
    #[command(hide = true)]
    Prefetch(prefetch::Arguments),
}

/// Parses the command line, runs the verb, and says how it ended.
pub fn main() -> ExitCode {
    if std::env::args_os().any(|argument| argument == "fetch") {
        FetchExit::on_panic();
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Where standard error is gone there is nobody to tell; the code says it still.
            let _ = error.print();
            return ExitCode::from(of_usage_error(&error, std::env::args_os()));
        }
    };
    if let Verb::Fetch(verb) = &arguments.verb {
        return start_fetch(&arguments, verb).into();
    }
    match start(&arguments) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => failure.report(),
    }
}

fn start(arguments: &Arguments) -> Result<(), Failure> {
    if let Verb::Keygen(verb) = &arguments.verb
        && !verb.writer
    {
        return keygen::run(verb);
    }
    if let Verb::Prefetch(_) = &arguments.verb {
        prefetch::detach();
    }
    let environment = Environment::of_this_process()?;
    init_logging(arguments.global.log_format, &environment)
        .map_err(|error| Failure::from_error("start logging", &error))?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Verb::Prefetch(_) = &arguments.verb {
        // While all processors open segments, whoever asks is still heard.
        builder.worker_threads(std::thread::available_parallelism().map_or(1, usize::from) + 2);
    }
    let runtime = builder.enable_all().build().map_err(|error| Failure::from_error("start", &error))?;
    runtime.block_on(async {
        match &arguments.verb {
            Verb::Fetch(_) => Ok(()),
            Verb::Keygen(verb) => keygen::run_writer(verb, &arguments.open().await?).await,
            Verb::Prefetch(verb) => prefetch::run(verb, arguments.cluster_id, arguments.global.load()?).await,
            Verb::List(verb) => list::run(verb, &arguments.open().await?).await,
            Verb::Verify(verb) => verify::run(verb, &arguments.open().await?).await,
            Verb::Ledger(verb) => ledger::run(verb, &arguments.open().await?).await,
            Verb::Report(verb) => report::run(verb, &arguments.open().await?).await,
            // The target is read before the repository: a wrong command line should not wait for a store.
            Verb::Restore(verb) => {
                let request = verb.target.request()?;
                restore::run(verb, &request, &arguments.open().await?).await
            }
            Verb::Snapshot(verb) => snapshot::run(verb, arguments).await,
            Verb::Find(verb) => {
                let question = verb.question()?;
                find::run(verb, &question, &arguments.open().await?).await
            }
            Verb::Alerts(verb) => {
                let config = arguments.global.load()?;
                warn_of(&config);
                verb.run(&config).await
            }
            Verb::Run => run::run(&arguments.open().await?).await,
            Verb::Drill(verb) => {
                let exercise = verb.exercise()?;
                drill::run(verb, &exercise, &arguments.open().await?).await
            }
            Verb::Plan(verb) => {
                let request = verb.target.request()?;
                plan::run(verb, &request, &arguments.open().await?).await
            }
        }
    })
}

/// `fetch` has its own exit codes: whatever goes wrong on the way to it must not look like the end of WAL (case 1).
fn start_fetch(arguments: &Arguments, verb: &fetch::Arguments) -> FetchExit {
    let failed = |error: &dyn std::fmt::Display| {
        eprintln!("walseal-restorer: failed to fetch: {error}");
        FetchExit::Failed
    };
    if let Some(exit) = verb.served_by_restore() {
        return exit;
    }
    let environment = match Environment::of_this_process() {
        Ok(environment) => environment,
        Err(error) => return failed(&error),
    };
    if let Err(error) = init_logging(arguments.global.log_format, &environment) {
        return failed(&error);
    }
    // It runs once for each segment: the configuration's warnings are not repeated each time.
    let global = &arguments.global;
    fetch::run(verb, arguments.cluster_id, global.load(), global.config.as_deref())
}

fn warn_of(config: &Config) {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
}

impl Arguments {
    /// The repository that the configuration and the flags name.
    async fn open(&self) -> Result<Access, Failure> {
        let config = self.global.load()?;
        warn_of(&config);
        Access::open(config, self.cluster_id).await.map_err(Failure::saying)
    }
}
