//! `prefetch`: what `fetch` starts, not for people. It stays while recovery asks for WAL.

use std::path::PathBuf;

use walseal_common::config::Config;
use walseal_common::segment::SegmentName;
use walseal_common::terminal::Failure;
use walseal_common::timeline::SystemIdentifier;

use crate::fetch::prefetcher::{Orders, run as serve};

/// What `prefetch` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The data directory
    #[arg(value_name = "D")]
    data: PathBuf,
    /// The plan that restore wrote beside the data directory
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// The segment that is being delivered
    #[arg(long, value_name = "FILE")]
    after: Option<SegmentName>,
}

/// Cuts this process loose from the one that started it, before there are threads.
pub fn detach() {
    // Under a postmaster that is process 1 any other end of a process than 0 and 1 counts as a crash of its own.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(1);
    }));
    // PostgreSQL signals the whole session of the process that runs restore_command.
    if let Err(error) = rustix::process::setsid() {
        eprintln!("walseal-restorer: this process stays in the session that it was started in: {error}");
    }
}

/// Serves until nobody asks any more.
pub async fn run(arguments: &Arguments, cluster: Option<SystemIdentifier>, config: Config) -> Result<(), Failure> {
    // Its file system may be unmounted as soon as PostgreSQL is done with it. All paths are absolute by now.
    std::env::set_current_dir("/").map_err(|error| Failure::from_error("leave the data directory", &error))?;
    let orders = Orders { data: arguments.data.clone(), plan: arguments.plan.clone(), cluster, after: arguments.after };
    serve(orders, config).await.map_err(|error| Failure::from_error("prefetch", &error))
}
