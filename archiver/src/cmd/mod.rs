//! The verbs: parse, call one thing, show the result.

mod adopt;
mod backup;
mod doctor;
mod drain;
mod heal;
mod hold;
mod init;
mod keygen;
mod prune;
mod push;
mod run;
mod snapshot;
mod status;
mod verify;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use walseal_common::config::cli::GlobalArgs;
use walseal_common::config::{Config, Environment, StoreUse};
use walseal_common::secret::keep_out_of_core_dumps;
use walseal_common::store::RetryPolicy;
use walseal_common::telemetry::{init_hook_logging, init_logging};
use walseal_common::terminal::{AlertsVerb, Exit, Failure};

use crate::archive::Archive;
use crate::courtesy::let_the_server_go_first;

/// Keeps a PostgreSQL cluster recoverable to any second, sealed, in a bucket its owner controls.
#[derive(Parser, Debug)]
#[command(name = "walseal-archiver", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Make a writer key and print its public half
    Keygen(keygen::Arguments),
    /// Check server, store and keys; make the repository and the replication slot
    Init(init::Arguments),
    /// The daemon: stream WAL and take base backups on schedule, until told to stop
    Run,
    /// Take a base backup now
    Backup(backup::Arguments),
    /// Ship a file of pg_wal: the archive_command hook; exits 0 once the file is durable in the repository
    Push(push::Arguments),
    /// Look at every precondition, and prove that WAL arrives: one line each, with what to do
    Doctor(doctor::Arguments),
    /// Ship everything up to the server's current position, then return
    Drain(drain::Arguments),
    /// Dump databases now, sealed, with the rows of each table counted: needs no REPLICATION
    Snapshot(Box<snapshot::Arguments>),
    /// Look for WAL that is missing, in the server's pg_wal, on a standby or in a folder, and store what verifies
    Heal(heal::Arguments),
    /// Name the living one of two servers that wrote the same timeline; run it on the living host
    Adopt(adopt::Arguments),
    /// Remove what retention does not keep: announced first, removed once that is old enough
    Prune(prune::Arguments),
    /// Keep a base backup until some time, whatever retention says
    Hold(hold::Arguments),
    /// Whether the repository is whole: every object read and checked, without keys that open it
    #[command(after_help = "Exit code 0 only when nothing was found.")]
    Verify(verify::Arguments),
    /// Who hears of alerts
    Alerts(AlertsVerb),
    /// How far back and how close to now the cluster can be restored
    Status(status::Arguments),
}

/// Parses the command line, runs the verb, and says how it ended.
pub fn main() -> ExitCode {
    if let Err(error) = keep_out_of_core_dumps() {
        eprintln!("warning: keys could end up in a core dump, because its size cannot be limited: {error}");
    }
    let arguments = Arguments::parse();
    let ended = start(&arguments);
    match ended {
        Ok(()) => Exit::Done.into(),
        Err(failure) if matches!(arguments.verb, Verb::Push(_)) => {
            eprintln!("{}", push::line(&failure));
            Exit::Failed.into()
        }
        Err(failure) => failure.report(),
    }
}

impl Verb {
    /// Whether it may wait for its turn on a busy machine: whatever works in the background, as long as no commit waits for it.
    fn is_patient(&self, config: &Config) -> bool {
        match self {
            Verb::Run => !config.wal.synchronous.value,
            Verb::Backup(_) | Verb::Snapshot(_) | Verb::Heal(_) | Verb::Prune(_) | Verb::Verify(_) => true,
            _ => false,
        }
    }
}

fn start(arguments: &Arguments) -> Result<(), Failure> {
    if let Verb::Keygen(arguments) = &arguments.verb {
        return keygen::run(arguments);
    }
    if matches!(arguments.verb, Verb::Push(_)) {
        push::fail_on_panic();
    }
    let environment = Environment::of_this_process()?;
    let init = if matches!(arguments.verb, Verb::Push(_)) { init_hook_logging } else { init_logging };
    init(arguments.global.log_format, &environment).map_err(|error| Failure::from_error("start logging", &error))?;
    let config = arguments.global.load()?;
    if arguments.verb.is_patient(&config) {
        let_the_server_go_first();
    }
    let cannot_start = |error: io::Error| Failure::from_error("start", &error);
    if let Verb::Push(arguments) = &arguments.verb {
        // A process for each segment: more threads would cost more than all that it does, and a change between them at each step.
        let alone = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
        if alone.block_on(push::ask(arguments, &config))? {
            return Ok(());
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()
        .map_err(cannot_start)?;
    let ended = runtime.block_on(async {
        match &arguments.verb {
            Verb::Keygen(_) => Ok(()),
            Verb::Init(init::Arguments { print_policy: Some(worker) }) => init::print_policy(*worker, &config),
            Verb::Init(_) => {
                let patience = RetryPolicy::while_a_person_waits();
                init::run(open(config, StoreUse::SetUp, patience).await?).await
            }
            Verb::Run => run::run(open(config, StoreUse::Conditional, RetryPolicy::default()).await?).await,
            Verb::Backup(arguments) => {
                backup::run(arguments, open(config, StoreUse::Conditional, RetryPolicy::default()).await?).await
            }
            Verb::Drain(arguments) => {
                drain::run(arguments, open(config, StoreUse::Conditional, RetryPolicy::default()).await?).await
            }
            Verb::Snapshot(arguments) => {
                snapshot::run(arguments, open(config, StoreUse::Conditional, RetryPolicy::default()).await?).await
            }
            Verb::Heal(arguments) => {
                heal::run(arguments, open(config, StoreUse::Conditional, RetryPolicy::default()).await?).await
            }
            Verb::Adopt(arguments) => {
                adopt::run(arguments, open(config, StoreUse::Conditional, RetryPolicy::default()).await?).await
            }
            Verb::Prune(arguments) => {
                prune::run(arguments, open(config, StoreUse::Conditional, RetryPolicy::default()).await?).await
            }
            Verb::Hold(arguments) => {
                let patience = RetryPolicy::while_a_person_waits();
                hold::run(arguments, open(config, StoreUse::Conditional, patience).await?).await
            }
            Verb::Push(arguments) => push::run(arguments, config).await,
            Verb::Alerts(verb) => {
                warn_of(&config);
                verb.run(&config).await
            }
            Verb::Doctor(arguments) => doctor::run(arguments, config).await,
            Verb::Verify(arguments) => verify::run(arguments, config).await,
            Verb::Status(arguments) => status::run(arguments, config).await,
        }
    });
    // Threads that seal for an answer nobody waits for any more must not hold up the end.
    runtime.shutdown_background();
    ended
}

async fn open(config: Config, purpose: StoreUse, retry: RetryPolicy) -> Result<Archive, Failure> {
    warn_of(&config);
    Archive::open_with(config, purpose, retry).await.map_err(Failure::from)
}

fn warn_of(config: &Config) {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
}
