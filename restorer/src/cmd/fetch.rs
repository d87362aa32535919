//! `fetch`: the `restore_command` hook. PostgreSQL runs it for each file, in its data directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;
use walseal_common::config::{Config, ConfigError, OpenError};
use walseal_common::segment::WalFileName;
use walseal_common::terminal::{FetchExit, printable};
use walseal_common::timeline::SystemIdentifier;

use crate::fetch::prefetcher::{Fingerprint, NoReply, Orders, Premises, PremisesError, ask, launch};
use crate::fetch::{FetchError, Opening, Reply, WorkingDirectory, patiently};

/// What `fetch` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The file that is wanted: %f
    #[arg(value_name = "FILE")]
    file: String,
    /// Where it goes: %p
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The plan that restore wrote beside the data directory
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    plan: Option<PathBuf>,
    /// The folder in which a running restore serves; nothing else is asked
    #[arg(long, value_name = "D", hide = true)]
    from: Option<PathBuf>,
}

impl Arguments {
    /// The reply of the restore that serves its own server, where the command names one: it needs neither configuration nor keys.
    pub fn served_by_restore(&self) -> Option<FetchExit> {
        let folder = self.from.clone()?;
        let reply = premises(|uid| Premises::at(folder, uid))
            .map_err(|error| error.to_string())
            .and_then(|premises| ask(&premises, &self.file, None, &self.path).map_err(|none| none.to_string()));
        Some(match reply {
            Ok(reply) => self.say(reply),
            Err(why) => self.say(Reply::Failed(format!("the restore that serves this server does not: {why}"))),
        })
    }

    /// Says on standard error, which is PostgreSQL's log, why there is no file.
    fn say(&self, reply: Reply) -> FetchExit {
        let file = printable(&self.file);
        match &reply {
            Reply::Delivered => {}
            // A standby asks every few seconds; its log is not for that.
            Reply::NotThere(why) if WorkingDirectory::current().is_standby() => {
                tracing::debug!("{file} is not there: {why}");
            }
            Reply::NotThere(why) => eprintln!("walseal-restorer: {file} is not there: {}", printable(why)),
            Reply::StandbyWaits(error) => {
                let error = printable(error);
                eprintln!("walseal-restorer: {file} cannot be had now, and this standby may ask again: {error}");
            }
            Reply::Failed(error) => eprintln!("walseal-restorer: failed to fetch {file}: {}", printable(error)),
        }
        reply.exit()
    }
}

fn premises(open: impl FnOnce(u32) -> Result<Premises, PremisesError>) -> Result<Premises, PremisesError> {
    open(rustix::process::geteuid().as_raw())
}

/// Delivers the file, or says why not.
pub fn run(
    arguments: &Arguments,
    cluster: Option<SystemIdentifier>,
    config: Result<Config, ConfigError>,
    config_flag: Option<&Path>,
) -> FetchExit {
    let begun = Instant::now();
    let opened = config.map_err(|error| FetchError::Open(OpenError::Config(error))).and_then(|config| {
        let file: WalFileName = arguments.file.parse()?;
        // Absolute for the prefetcher, which works elsewhere.
        let plan = arguments.plan.as_ref().map(|plan| std::path::absolute(plan).unwrap_or_else(|_| plan.clone()));
        let place = WorkingDirectory::current();
        Ok((file, Opening { config: Arc::new(config), plan, cluster, place }))
    });
    let (file, opening) = match opened {
        Ok(opened) => opened,
        Err(error) => return arguments.say(Reply::Failed(error.to_string())),
    };
    match from_prefetcher(arguments, file, &opening, config_flag) {
        // A refusal is not the prefetcher's to make: what it could not have may be had with what this process finds.
        None | Some(Reply::Failed(_)) => {}
        Some(reply) => return arguments.say(reply),
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return arguments.say(Reply::Failed(error.to_string())),
    };
    let opening = &opening;
    let ending = runtime.block_on(patiently(opening.patience(), begun, |store| async move {
        opening.open(store).await?.fetch(file, &arguments.path).await
    }));
    arguments.say(ending.into())
}

/// Asks the prefetcher; where there is none, starts one, and does not wait for it.
fn from_prefetcher(
    arguments: &Arguments,
    file: WalFileName,
    opening: &Opening,
    config_flag: Option<&Path>,
) -> Option<Reply> {
    // Only PostgreSQL's own calls are followed by others: it runs them in its data directory, and wants files below it.
    let is_recovery = arguments.path.is_relative() && matches!(opening.place.cluster(), Ok(Some(_)));
    if opening.config.fetch.prefetch.value == 0 || !is_recovery {
        return None;
    }
    let data = opening.place.absolute().ok()?;
    let premises = match premises(|uid| Premises::beside(&data, uid, true)) {
        Ok(premises) => premises,
        // Somebody should know: WAL is not where it is safe.
        Err(error @ PremisesError::Open { .. }) => {
            eprintln!("walseal-restorer: no WAL is fetched ahead: {}", printable(&error.to_string()));
            return None;
        }
        Err(error) => {
            tracing::debug!("no WAL is fetched ahead: {error}");
            return None;
        }
    };
    match ask(&premises, &arguments.file, Some(&Fingerprint::of(opening)), &arguments.path) {
        Ok(reply) => return Some(reply),
        Err(NoReply::Nobody) => {}
        // The next call finds a new one, or starts it.
        Err(none @ (NoReply::Stale | NoReply::Broken(_))) => {
            tracing::debug!("the prefetcher gives no reply: {none}");
            return None;
        }
    }
    let after = if let WalFileName::Segment(name) = file { Some(name) } else { None };
    let orders = Orders { data, plan: opening.plan.clone(), cluster: opening.cluster, after };
    if let Err(error) = launch(&premises, &orders, config_flag) {
        eprintln!("walseal-restorer: no WAL is fetched ahead: {}", printable(&error.to_string()));
    }
    None
}
