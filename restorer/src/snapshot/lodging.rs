//! A database for one drill, on a server that others use.
//!
//! It is called `verify_` and 16 hexadecimal digits, and belongs to the role that drills. From before it is made until it is gone a session
//! is called after it, which whoever drills on that server sees, whichever database he is in: advisory locks of one database are none of
//! another's. Another session is in the database itself. What no session is called after was left by a drill that was killed, and the next
//! one drops it.

use std::time::Duration;

use walseal_common::postgres::conninfo::Host;
use walseal_common::postgres::sql::quoted;
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};
use walseal_common::repository::{RunId, SnapshotId};

use super::SnapshotError;
use super::limits::{lift, lift_for_sessions};

/// What its sessions are called, before the database's name.
const APPLICATION: &str = "walseal drill ";

/// How long dropping may take when the drill is given up.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// Databases of the role that drills which are called as those of drills, and whose drill has no session any more. One that is made while
/// this is asked is either not yet seen, or its session is: that is there first.
const LEFT: &str = "select d.datname::text from pg_database d \
     where d.datname ~ '^verify_[0-9a-f]{16}$' and pg_get_userbyid(d.datdba) = current_user \
     and not exists (select from pg_stat_activity a where a.application_name = $1::text || d.datname::text) order by 1";

/// Whether a session is in a database.
const VISITED: &str = "select exists (select from pg_stat_activity where datname = $1)";

/// `object_in_use`, `invalid_catalog_name`.
const IN_USE: &str = "55006";
const GONE: &str = "3D000";

/// The database, and the sessions that hold it. Dropped, it is gone from the server, too, as far as that can be reached.
#[derive(Debug)]
pub struct Lodging {
    /// As whom, and how; its database is the one that orders are given in.
    conninfo: Conninfo,
    host: Host,
    name: String,
    /// Gives the orders, from outside of the database.
    keeper: Option<SqlClient>,
    /// Is in the database.
    guest: Option<SqlClient>,
}

impl Lodging {
    /// Makes the database, after what killed drills left is gone. `major` is that of the dump.
    ///
    /// Errors: the server does not answer, is a standby, or is of an older major; the role may not make databases.
    pub async fn take(conninfo: &Conninfo, id: &SnapshotId, major: u32) -> Result<Lodging, SnapshotError> {
        let name = format!("verify_{}", RunId::random().map_err(|error| SnapshotError::Task(error.to_string()))?);
        let keeper = SqlClient::connect(conninfo, &application(&name)).await?;
        lift(&keeper).await?;
        let host = keeper.host().clone();
        let refuse = |why: String, next: &str| SnapshotError::Refused { why, next: vec![next.to_owned()] };
        if keeper.was_standby() {
            let why = format!("the server at {host} (drill.conninfo) is a standby: no database can be made there");
            return Err(refuse(why, "name a server that takes writes, or none: then a new cluster is made"));
        }
        let version = keeper.server_version_num();
        if version / 10_000 < major {
            let why = format!(
                "the server at {host} (drill.conninfo) is PostgreSQL {}, and pg_dump {major} wrote the snapshot: it is for {major} or later",
                version / 10_000
            );
            return Err(refuse(why, "name a server of that major, or none: then a new cluster is made"));
        }
        sweep(&keeper).await?;
        // What a dump says of its own locale it brings for columns and indexes; the rest sorts as in a new cluster.
        let provider = if version >= 150_000 { " locale_provider libc" } else { "" };
        let order =
            format!("create database {} template template0 encoding 'UTF8' locale 'C'{provider}", quoted(&name));
        // From here on it goes when this is dropped, however far the server came.
        let mut lodging = Lodging { conninfo: conninfo.clone(), host, name, keeper: Some(keeper), guest: None };
        if let Err(error) = lodging.order("making a database failed", &order).await {
            if error.sqlstate() != Some("42501") {
                return Err(error.into());
            }
            lodging.keeper = None;
            return Err(refuse(
                format!("user \"{}\" may not make a database at {} (drill.conninfo)", conninfo.user(), lodging.host),
                &format!("as a superuser there: alter role {} createdb", quoted(conninfo.user())),
            ));
        }
        lodging.guest = Some(lodging.connect().await?);
        lodging.close_doors(id).await?;
        if let Some(keeper) = &lodging.keeper {
            lift_for_sessions(keeper, &lodging.name).await?;
        }
        Ok(lodging)
    }

    /// Nobody else is to read what is restored there, and whoever finds it is to know what it is.
    async fn close_doors(&self, id: &SnapshotId) -> Result<(), PostgresError> {
        let name = quoted(&self.name);
        let orders = format!(
            "revoke connect, temporary on database {name} from public; \
             comment on database {name} is 'drill of walseal snapshot {id}; the next drill drops it where nobody is in it'"
        );
        self.order("closing the database failed", &orders).await
    }

    async fn order(&self, doing: &str, sql: &str) -> Result<(), PostgresError> {
        match &self.keeper {
            Some(keeper) => keeper.simple_query(doing, sql).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host that it is on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// How to reach it.
    pub fn conninfo(&self) -> Conninfo {
        self.conninfo.with_dbname(&self.name).pinned(&self.host)
    }

    /// A connection to it.
    ///
    /// Errors: the server's.
    pub async fn connect(&self) -> Result<SqlClient, PostgresError> {
        let client = SqlClient::connect_to(&self.conninfo(), &self.host, &application(&self.name)).await?;
        lift(&client).await?;
        Ok(client)
    }

    /// Drops the database.
    ///
    /// Errors: the server's; the database is still there.
    pub async fn give_back(mut self) -> Result<(), PostgresError> {
        let dropped = tear_down(&self.conninfo, &self.host, &self.name, self.keeper.as_ref()).await;
        if dropped.is_ok() {
            self.keeper = None;
        }
        dropped
    }
}

impl Drop for Lodging {
    fn drop(&mut self) {
        if self.keeper.take().is_none() {
            return;
        }
        // The drill was given up, with the runtime perhaps: a thread of its own sees to it.
        let (conninfo, host, name) = (self.conninfo.clone(), self.host.clone(), self.name.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return Err("no thread for it".to_owned()) };
            let dropped = async {
                tokio::time::timeout(LAST_WORDS, tear_down(&conninfo, &host, &name, None))
                    .await
                    .map_err(|_| "the server does not answer".to_owned())?
                    .map_err(|error| error.to_string())
            };
            runtime.block_on(dropped)
        });
        if let Err(why) = thread.join().unwrap_or_else(|_| Err("a thread ended".to_owned())) {
            let (database, host) = (&self.name, &self.host);
            tracing::warn!(database, %host, why, "the database of a drill was not dropped; the next drill there does it");
        }
    }
}

/// Drops the database, whoever is in it.
async fn tear_down(
    conninfo: &Conninfo,
    host: &Host,
    name: &str,
    keeper: Option<&SqlClient>,
) -> Result<(), PostgresError> {
    let fresh;
    let client = match keeper.filter(|keeper| !keeper.is_closed()) {
        Some(keeper) => keeper,
        None => {
            fresh = SqlClient::connect_to(conninfo, host, &application(name)).await?;
            lift(&fresh).await?;
            &fresh
        }
    };
    let order = format!("drop database if exists {} with (force)", quoted(name));
    client.simple_query("dropping the database of the drill failed", &order).await?;
    Ok(())
}

/// Drops what drills left that were killed. What cannot be dropped is told, and keeps no drill away.
async fn sweep(keeper: &SqlClient) -> Result<(), PostgresError> {
    let doing = "looking for databases of drills failed";
    for row in keeper.query(doing, LEFT, &[&APPLICATION]).await? {
        let name: String = row.try_get(0).map_err(|error| SqlClient::error(doing, &error))?;
        // Without force: whoever is in it is at work.
        let order = format!("drop database {}", quoted(&name));
        let Err(error) = keeper.simple_query("dropping it failed", &order).await else {
            tracing::info!(database = name, "a drill that was killed left this database; it is dropped");
            continue;
        };
        match error.sqlstate() {
            Some(GONE) => {}
            Some(IN_USE) => {
                let row = keeper.query_one(doing, VISITED, &[&name]).await?;
                let is_visited: bool = row.try_get(0).map_err(|error| SqlClient::error(doing, &error))?;
                if !is_visited {
                    tracing::warn!(
                        database = name, %error,
                        "a drill that was killed left this database; nobody is in it, and all the same it cannot be dropped: look there for \
                         subscriptions, replication slots and prepared transactions"
                    );
                }
            }
            _ if error.is_disconnect() => return Err(error),
            _ => tracing::warn!(database = name, %error, "a drill that was killed left this database"),
        }
    }
    Ok(())
}

/// What the sessions of the drill are called whose database this is.
fn application(name: &str) -> String {
    format!("{APPLICATION}{name}")
}
