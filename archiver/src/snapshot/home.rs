//! The server that is dumped, and its repository. No replication is needed: an ordinary connection tells what it is.

use std::path::PathBuf;
use std::sync::Arc;

use walseal_common::postgres::conninfo::Host;
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};
use walseal_common::repository::{Act, Ledger, Repository, RepositoryError};
use walseal_common::segment::SegmentSize;

use super::{Databases, SnapshotError, pooler, state};
use crate::archive::{Archive, ArchiveError};
use crate::founding::{self, Server};
use crate::keys::ArchiveKeys;

/// Where dumps come from and go to.
#[derive(Clone, Debug)]
pub struct Home {
    /// How to reach the server.
    pub conninfo: Conninfo,
    /// The host that answered; all connections go there (case 16).
    pub host: Host,
    /// What the server is.
    pub server: Server,
    /// Its repository.
    pub repository: Repository,
    /// What objects are made with.
    pub keys: Arc<ArchiveKeys>,
    /// Folder of PostgreSQL's programs, where one is configured.
    pub pg_bin: Option<PathBuf>,
    /// The databases to dump, by name.
    pub databases: Vec<String>,
    /// What its repository was made as, where it was not there before.
    made: Option<Act>,
}

/// What a server without replication says of itself.
const IDENTIFY: &str = "select system_identifier::text, current_setting('server_version_num')::int4, \
     pg_size_bytes(current_setting('wal_segment_size'))::int8 from pg_control_system()";

impl Home {
    /// Asks the server what it is, and opens its repository; makes one where there is none.
    ///
    /// Errors: the server's; the store's.
    pub async fn find(archive: &Archive, conninfo: Conninfo, databases: &Databases) -> Result<Home, SnapshotError> {
        if let Some((host, next)) = conninfo.hosts().iter().find_map(|host| Some((host, pooler::direct(host)?))) {
            return Err(SnapshotError::Pooler { host: host.to_string(), next });
        }
        let client = SqlClient::connect(&conninfo, "walseal snapshot").await?;
        let host = client.host().clone();
        let server = identify(&client).await?;
        let databases = match databases {
            Databases::Connected => vec![conninfo.dbname().to_owned()],
            Databases::Named(names) => names.clone(),
            Databases::All => state::databases(&client).await?,
        };
        client.close().await;
        let (repository, made) = repository(archive, &server).await?;
        let (keys, pg_bin) = (archive.keys.clone(), archive.config.cluster.pg_bin.as_ref());
        let pg_bin = pg_bin.map(|setting| setting.value.clone());
        Ok(Home { conninfo, host, server, repository, keys, pg_bin, databases, made })
    }

    /// The ledger of this process, which begins with the repository where that is new.
    pub fn ledger(&self, archive: &Archive) -> Ledger {
        let ledger = archive.ledger(&self.repository);
        if let Some(made) = &self.made {
            ledger.record(made.clone());
        }
        ledger
    }
}

async fn identify(client: &SqlClient) -> Result<Server, PostgresError> {
    let doing = "asking the server what it is failed";
    let row = client.query_one(doing, IDENTIFY, &[]).await?;
    let wrong = |why: String| PostgresError::Sql { doing: doing.to_owned(), why };
    let (cluster, version, bytes): (String, i32, i64) = (row.get(0), row.get(1), row.get(2));
    let segment = u64::try_from(bytes).ok().and_then(|bytes| SegmentSize::new(bytes).ok());
    Ok(Server {
        cluster: cluster.parse().map_err(|_| wrong(format!("\"{cluster}\" is no system identifier")))?,
        version: version.unsigned_abs(),
        segment_size: segment.ok_or_else(|| wrong(format!("WAL segments of {bytes} bytes")))?,
    })
}

async fn repository(archive: &Archive, server: &Server) -> Result<(Repository, Option<Act>), SnapshotError> {
    let there = Repository::new(archive.store.clone(), server.cluster, archive.trust.clone());
    match archive.with_capabilities(there).await {
        Ok((repository, _)) => Ok((repository, None)),
        Err(ArchiveError::Repository(RepositoryError::Empty { .. })) => {
            let capabilities = founding::probe_store(archive).await.map_err(RepositoryError::from)?;
            let founded = founding::found(archive, server, capabilities).await?;
            let (postgres_major, size) = (founded.identity.postgres_major, founded.identity.segment_size);
            let made = founded.made.then(|| Act::Init { postgres_major, segment_size: size.bytes() });
            if made.is_some() {
                tracing::info!(cluster = %server.cluster, store = archive.place(), "made a repository for this cluster");
            }
            let (repository, _) = archive.with_capabilities(founded.repository).await?;
            Ok((repository, made))
        }
        Err(error) => Err(error.into()),
    }
}
