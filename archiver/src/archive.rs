//! What the configuration names for an archiver, opened once: store, keys, trusted writers.

use std::sync::Arc;
use std::time::Duration;

use walseal_common::config::{Config, OpenError, StoreUse};
use walseal_common::postgres::{Conninfo, PostgresError};
use walseal_common::repository::{Ledger, LedgerSigner, Repository, RepositoryError, RepositoryIdentity};
use walseal_common::seal::TrustedWriters;
use walseal_common::store::{ObjectStore, RetryPolicy};
use walseal_common::timeline::SystemIdentifier;

use crate::keys::ArchiveKeys;
use crate::primary;

/// An archiver's configuration, opened.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The configuration.
    pub config: Arc<Config>,
    /// The store below the repository.
    pub store: Arc<dyn ObjectStore>,
    /// The keys that make objects.
    pub keys: Arc<ArchiveKeys>,
    /// Whose objects count: configured writers and this one.
    pub trust: TrustedWriters,
    retry: RetryPolicy,
}

/// How long the end of a process may wait for its last entries of the ledger.
pub const LAST_ENTRIES: Duration = Duration::from_secs(5);

/// No repository could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The configuration.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The server, which was asked which of several clusters it is.
    #[error("{store} holds several clusters, {found}, and the server was asked which one is its own: {source}")]
    WhichCluster {
        /// The store's URL.
        store: String,
        /// Clusters in it.
        found: String,
        /// Why it did not say.
        source: PostgresError,
    },
    /// The repository belongs to other clusters (case 19).
    #[error(
        "{store} holds cluster {found}, but the server is cluster {server}: it went through pg_upgrade or initdb, or \
         this is another server; make a folder for it beside the other with: walseal-archiver init"
    )]
    OtherCluster {
        /// The store's URL.
        store: String,
        /// Clusters in it.
        found: String,
        /// The server's.
        server: SystemIdentifier,
    },
}

impl Archive {
    /// Opens store and keys, for work that has time. Nothing is read from the store yet.
    pub async fn open(config: Config, purpose: StoreUse) -> Result<Archive, OpenError> {
        Archive::open_with(config, purpose, RetryPolicy::default()).await
    }

    /// As [`Archive::open`], with calls to the store repeated as `retry` says.
    pub async fn open_with(config: Config, purpose: StoreUse, retry: RetryPolicy) -> Result<Archive, OpenError> {
        let store = config.open_store_with(purpose, retry).await?;
        let keys = ArchiveKeys { recipients: config.open_recipients()?, writer: config.open_writer_key()? };
        let trust = keys.trust(config.open_trusted_writers()?);
        Ok(Archive { config: Arc::new(config), store, keys: Arc::new(keys), trust, retry })
    }

    /// Where the store is, for a person: its URL, and the endpoint where there is one.
    pub fn place(&self) -> String {
        match &self.config.repository.s3.endpoint {
            Some(endpoint) if self.store.describe().starts_with("s3:") => {
                format!("{} at {}", self.store.describe(), endpoint.value)
            }
            _ => self.store.describe(),
        }
    }

    /// The repository of the cluster that `conninfo` leads to, and what it is. With one cluster in the store the server
    /// is not asked: it may be down when the daemon starts, and every stream checks again.
    pub async fn repository(&self, conninfo: &Conninfo) -> Result<(Repository, RepositoryIdentity), ArchiveError> {
        let clusters = Repository::clusters(self.store.as_ref()).await?;
        let cluster = match clusters.as_slice() {
            [] => return Err(RepositoryError::Empty { store: self.store.describe() }.into()),
            [one] => *one,
            several => {
                let store = self.store.describe();
                let found = several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let server = match identify(conninfo).await {
                    Ok(server) => server,
                    Err(source) => return Err(ArchiveError::WhichCluster { store, found, source }),
                };
                if !several.contains(&server) {
                    return Err(ArchiveError::OtherCluster { store, found, server });
                }
                server
            }
        };
        self.with_capabilities(Repository::new(self.store.clone(), cluster, self.trust.clone())).await
    }

    /// The one repository in the store, without a server; where there are several, the one of the server that the configuration names.
    pub async fn chosen(&self) -> Result<(Repository, RepositoryIdentity), ArchiveError> {
        match Repository::find(self.store.clone(), None, self.trust.clone()).await {
            Ok(one) => self.with_capabilities(one).await,
            Err(RepositoryError::SeveralClusters { .. }) => self.repository(&self.config.open_conninfo()?).await,
            Err(error) => Err(error.into()),
        }
    }

    /// The ledger of this process in `repository`.
    pub fn ledger(&self, repository: &Repository) -> Ledger {
        let signer = LedgerSigner {
            writer: self.keys.writer.clone(),
            actor: self.config.actor(),
            program: concat!("walseal-archiver ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        Ledger::start(repository, signer)
    }

    /// What `repository` is, and the repository as its store must be used: where that was seen to overwrite, every put
    /// looks first.
    pub async fn with_capabilities(
        &self,
        repository: Repository,
    ) -> Result<(Repository, RepositoryIdentity), ArchiveError> {
        let cluster = repository.cluster();
        let identity = repository.identity().await?;
        if identity.capabilities.conditional_put {
            return Ok((repository, identity));
        }
        let store = self.config.open_store_with(StoreUse::LookFirst, self.retry).await?;
        Ok((Repository::new(store, cluster, self.trust.clone()), identity))
    }
}

/// Which cluster answers there.
async fn identify(conninfo: &Conninfo) -> Result<SystemIdentifier, PostgresError> {
    let mut client = primary::connect(conninfo, "walseal").await?;
    let server = client.identify_system().await?.system_identifier;
    client.close().await;
    Ok(server)
}
