//! `push`: the `archive_command` hook.

use std::path::PathBuf;

use walseal_common::config::Config;
use walseal_common::terminal::{Exit, Failure};

use crate::hook;

/// What `push` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The file, as PostgreSQL's %p names it
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

/// Returns once the file is durable in the repository; PostgreSQL may remove it then.
pub async fn run(arguments: &Arguments, config: Config) -> Result<(), Failure> {
    let pushed = hook::push(&arguments.path, config).await;
    let outcome = pushed.map_err(|error| Failure::new(format!("archive {}", arguments.path.display()), error))?;
    tracing::debug!(path = %arguments.path.display(), ?outcome, "archived");
    Ok(())
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
