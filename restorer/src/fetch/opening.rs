//! What a request needs, opened: the plan, the keys, the store.

use std::path::PathBuf;
use std::sync::Arc;

use walseal_common::config::{Config, StorePatience, StoreUse};
use walseal_common::repository::Repository;
use walseal_common::seal::TrustedWriters;
use walseal_common::timeline::SystemIdentifier;

use super::{FetchError, Fetcher, Patience, Route, WorkingDirectory};
use crate::rebuild::read_plan;

/// What requests for one data directory are answered from.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The configuration that names repository and keys.
    pub config: Arc<Config>,
    /// The plan beside the data directory, where there is one.
    pub plan: Option<PathBuf>,
    /// The cluster, where somebody named it.
    pub cluster: Option<SystemIdentifier>,
    /// The data directory.
    pub place: WorkingDirectory,
}

impl Opening {
    /// How long is tried in this data directory, as it is now.
    pub fn patience(&self) -> Patience {
        let standby = self.place.is_standby().then_some(self.config.fetch.retry_standby.value);
        Patience { retry: self.config.fetch.retry.value, standby }
    }

    /// Opens everything anew: a file system may be mounted by now, or credentials renewed. With a plan, or in a data directory,
    /// nothing is asked of the store for that.
    ///
    /// Errors: something cannot be used; the data directory is another cluster's (I4).
    pub async fn open(&self, patience: StorePatience) -> Result<Fetcher, FetchError> {
        let route = match &self.plan {
            Some(path) => Route::Planned(Arc::new(read_plan(path)?)),
            None => Route::ByNumber,
        };
        let cluster = match (&route, self.cluster) {
            (Route::Planned(plan), _) => self.place.agree(Some(plan.cluster), "the plan")?,
            (Route::ByNumber, flag) => self.place.agree(flag, "--cluster-id")?,
        };
        let identities = self.config.open_identities()?;
        let trust = TrustedWriters::new(self.config.open_trusted_writers()?);
        let store = self.config.open_patient_store(StoreUse::Conditional, patience).await?;
        let repository = match cluster {
            Some(cluster) => Repository::new(store, cluster, trust),
            None => Repository::find(store, None, trust).await?,
        };
        let read_through = self.place.read_through(&route);
        Ok(Fetcher { repository, identities, route, read_through, size: Arc::default() })
    }
}
