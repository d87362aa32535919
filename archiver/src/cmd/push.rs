//! `push`: the `archive_command` hook.

use std::path::PathBuf;

use walseal_common::config::Config;
use walseal_common::terminal::{Exit, Failure};

use crate::hook::{self, PushError};

/// What `push` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The file, as PostgreSQL's %p names it
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

/// Returns `true` once the daemon has made the file durable in the repository; PostgreSQL may remove it then. `false`: there is no
/// daemon, or it could not.
pub async fn ask(arguments: &Arguments, config: &Config) -> Result<bool, Failure> {
    let pushed = hook::push_by_daemon(&arguments.path, config).await;
    let outcome = pushed.map_err(|error| failed(arguments, error))?;
    tracing::debug!(path = %arguments.path.display(), ?outcome, "asked the daemon");
    Ok(outcome.is_some())
}

/// Returns once this process has made the file durable in the repository.
pub async fn run(arguments: &Arguments, config: Config) -> Result<(), Failure> {
    let pushed = hook::push_alone(&arguments.path, config).await;
    let outcome = pushed.map_err(|error| failed(arguments, error))?;
    tracing::debug!(path = %arguments.path.display(), ?outcome, "archived");
    Ok(())
}

fn failed(arguments: &Arguments, error: PushError) -> Failure {
    Failure::new(format!("archive {}", arguments.path.display()), error)
}

/// The failure in one line, as PostgreSQL's log wants it.
pub fn line(failure: &Failure) -> String {
    let text = failure.to_string();
    text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

/// Makes every panic of this process, on any thread, end it with 1, as every failure of the hook does (case 22).
pub fn fail_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(i32::from(Exit::Failed as u8));
    }));
}
