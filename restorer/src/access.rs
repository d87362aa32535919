//! What the configuration names for a restorer, opened: repository, trusted writers, identities.

use std::sync::Arc;

use walseal_common::config::{Config, OpenError, StoreUse};
use walseal_common::repository::{Repository, RepositoryError};
use walseal_common::seal::{Identity, TrustedWriters};
use walseal_common::timeline::SystemIdentifier;

use crate::plan::InventoryError;
use crate::plan::inventory::claimed_writers;

/// A restorer's configuration, opened.
#[derive(Clone, Debug)]
pub struct Access {
    /// The configuration.
    pub config: Arc<Config>,
    /// The cluster's folder, read with the eyes of the trusted writers.
    pub repository: Repository,
    /// What opens its objects.
    pub identities: Vec<Identity>,
}

/// The repository could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The configuration.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No cluster could be chosen.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Nobody is trusted.
    #[error(transparent)]
    NobodyTrusted(#[from] InventoryError),
}

impl AccessError {
    /// Whether the same call could succeed later without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        match self {
            AccessError::Open(error) => error.is_permanent(),
            AccessError::Repository(error) => error.is_permanent(),
            AccessError::NobodyTrusted(error) => error.is_permanent(),
        }
    }
}

impl Access {
    /// Opens the repository of the one cluster that the store holds, or of `cluster`.
    ///
    /// Errors: something is not configured or not usable; several clusters and none named; no trusted writer: then the error
    /// names those that the repository's objects claim, and the line to add.
    pub async fn open(config: Config, cluster: Option<SystemIdentifier>) -> Result<Access, AccessError> {
        let store = config.open_store(StoreUse::Conditional).await?;
        let identities = config.open_identities()?;
        let trust = TrustedWriters::new(config.open_trusted_writers()?);
        let repository = Repository::find(store, cluster, trust).await?;
        if repository.trust().is_empty() {
            let (store, found) = (repository.describe(), claimed_writers(&repository).await?);
            return Err(InventoryError::NobodyTrusted { store, found }.into());
        }
        Ok(Access { config: Arc::new(config), repository, identities })
    }
}
