//! `fetch`: the `restore_command` hook. PostgreSQL runs it for each file, in its data directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use walseal_common::config::{Config, ConfigError, OpenError, StorePatience, StoreUse};
use walseal_common::repository::Repository;
use walseal_common::seal::TrustedWriters;
use walseal_common::segment::WalFileName;
use walseal_common::terminal::{FetchExit, printable};
use walseal_common::timeline::SystemIdentifier;

use crate::fetch::{Ending, FetchError, Fetcher, Patience, Route, WorkingDirectory, patiently};
use crate::rebuild::read_plan;

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
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

/// Delivers the file; says on standard error, which is PostgreSQL's log, why not.
pub async fn run(
    arguments: &Arguments,
    cluster: Option<SystemIdentifier>,
    config: Result<Config, ConfigError>,
) -> FetchExit {
    let file = printable(&arguments.file);
    let ending = match attempt(arguments, cluster, config).await {
        Ok(ending) => ending,
        Err(error) => {
            eprintln!("walseal-restorer: failed to fetch {file}: {}", printable(&error.to_string()));
            return FetchExit::Failed;
        }
    };
    match &ending {
        Ending::Delivered => {}
        // A standby asks every few seconds; its log is not for that.
        Ending::NotThere(why) if arguments.plan.is_none() => tracing::debug!("{file} is not there: {why}"),
        Ending::NotThere(why) => eprintln!("walseal-restorer: {file} is not there: {}", printable(why)),
        Ending::StandbyWaits(error) => {
            let error = printable(&error.to_string());
            eprintln!("walseal-restorer: {file} cannot be had now, and this standby may ask again: {error}");
        }
        Ending::Failed(error) => {
            eprintln!("walseal-restorer: failed to fetch {file}: {}", printable(&error.to_string()));
        }
    }
    ending.exit()
}

async fn attempt(
    arguments: &Arguments,
    cluster: Option<SystemIdentifier>,
    config: Result<Config, ConfigError>,
) -> Result<Ending, FetchError> {
    let file: WalFileName = arguments.file.parse()?;
    let config = config.map_err(OpenError::Config)?;
    let place = WorkingDirectory::current();
    let standby = place.is_standby().then_some(config.fetch.retry_standby.value);
    let patience = Patience { retry: config.fetch.retry.value, standby };
    let attempt = |store_patience| {
        let (config, place) = (&config, &place);
        async move {
            // Opened anew each time: a file system may be mounted by then, or credentials renewed.
            let fetcher = open(config, store_patience, arguments.plan.as_deref(), cluster, place).await?;
            fetcher.fetch(file, &arguments.path).await
        }
    };
    Ok(patiently(patience, attempt).await)
}

/// Opens what the configuration names. With a plan, or in a data directory, nothing is asked of the store for that.
async fn open(
    config: &Config,
    store_patience: StorePatience,
    plan: Option<&Path>,
    cluster: Option<SystemIdentifier>,
    place: &WorkingDirectory,
) -> Result<Fetcher, FetchError> {
    let route = match plan {
        Some(path) => Route::Planned(Arc::new(read_plan(path)?)),
        None => Route::ByNumber,
    };
    let cluster = match (&route, cluster) {
        (Route::Planned(plan), _) => place.agree(Some(plan.cluster), "the plan")?,
        (Route::ByNumber, flag) => place.agree(flag, "--cluster-id")?,
    };
    let identities = config.open_identities()?;
    let trust = TrustedWriters::new(config.open_trusted_writers()?);
    let store = config.open_patient_store(StoreUse::Conditional, store_patience).await?;
    let repository = match cluster {
        Some(cluster) => Repository::new(store, cluster, trust),
        None => Repository::find(store, None, trust).await?,
    };
    let read_through = match &route {
        Route::Planned(plan) => place.read_through(plan),
        Route::ByNumber => None,
    };
    Ok(Fetcher { repository, identities, route, read_through })
}
