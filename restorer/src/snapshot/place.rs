//! Where a snapshot is drilled: in a new cluster, or on a server that is there, in a database of its own.

use walseal_common::config::Config;
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};
use walseal_common::repository::{SnapshotId, SnapshotLabel};

use super::lodging::Lodging;
use super::{SnapshotError, limits};
use crate::instance::{Instance, InstanceError, Programs, Scratch};

/// Room for one dump. Dropped, it is gone with all that is in it.
#[derive(Debug)]
pub enum Place {
    /// A cluster that nobody else uses. The instance is dropped first.
    Cluster {
        /// Its server.
        instance: Instance,
        /// The folder that it is in.
        scratch: Scratch,
        /// Its superuser.
        user: String,
    },
    /// A database on a server that others use.
    Server(Lodging),
}

impl Place {
    /// A new cluster of the dump's own major: what `pg_dump` wrote is for servers of that.
    ///
    /// Errors: no programs of it, no room, a server that does not start.
    pub async fn cluster(config: &Config, label: &SnapshotLabel) -> Result<Place, InstanceError> {
        let pg_bin = config.drill.pg_bin.as_ref().or(config.cluster.pg_bin.as_ref());
        let programs = Programs::find(label.dump_version, pg_bin.map(|setting| setting.value.clone()))?;
        let (scratch, owner) = Scratch::fresh(&config.drill.scratch_dir.value)?;
        let user = config.drill.user.value.clone();
        let instance = Instance::fresh(&programs, &scratch, &owner, &user).await?;
        Ok(Place::Cluster { instance, scratch, user })
    }

    /// A database on this server.
    ///
    /// Errors: as those of [`Lodging::take`].
    pub async fn server(conninfo: &Conninfo, id: &SnapshotId, label: &SnapshotLabel) -> Result<Place, SnapshotError> {
        Ok(Place::Server(Lodging::take(conninfo, id, label.dump_version / 10_000).await?))
    }

    /// Whether roles may be made: those of a server that others use are theirs.
    pub fn is_private(&self) -> bool {
        matches!(self, Place::Cluster { .. })
    }

    /// Makes the database that the dump goes to, and says how to reach it.
    ///
    /// Errors: the server's.
    pub async fn database(&self, dumped: &str) -> Result<Conninfo, PostgresError> {
        let (instance, user) = match self {
            Place::Cluster { instance, user, .. } => (instance, user),
            Place::Server(lodging) => return Ok(lodging.conninfo()),
        };
        let client = instance.connect(user, "postgres").await?;
        // The dump's roles came with their settings, its superuser's among them.
        limits::lift(&client).await?;
        if dumped != "postgres" {
            let name = walseal_common::postgres::sql::quoted(dumped);
            let order = format!("create database {name} template template0");
            client.simple_query("making the database failed", &order).await?;
        }
        limits::lift_for_sessions(&client, dumped).await?;
        let text = instance.conninfo(user, dumped);
        Conninfo::parse(&text, &|_| None)
            .map_err(|error| PostgresError::Sql { doing: "naming the database".to_owned(), why: error.to_string() })
    }

    /// A connection to it.
    ///
    /// Errors: the server's.
    pub async fn connect(&self, into: &Conninfo) -> Result<SqlClient, PostgresError> {
        match self {
            Place::Cluster { instance, user, .. } => instance.connect(user, into.dbname()).await,
            Place::Server(lodging) => lodging.connect().await,
        }
    }
}
