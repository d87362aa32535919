//! Talking to a PostgreSQL server: SQL, and the replication protocol.
//!
//! | module | holds |
//! | --- | --- |
//! | [`conninfo`] | connection strings as libpq reads them, the password file |
//! | `transport`, [`tls`] | sockets, and libpq's `sslmode` ladder over rustls |
//! | `wire`, `auth`, `session` | messages, authentication, a session that is ready for commands |
//! | [`replication`] | the replication commands: slots, histories, the WAL stream, base backups |
//! | [`sql`] | ordinary connections |
//! | `cancel` | stopping what a session does |
//! | [`dump_list`] | what an archive of `pg_dump` holds |
//! | [`programs`] | the server's own programs on this machine |
//!
//! Every connection, for SQL or replication, is made by the same code, so hosts, TLS, passwords and errors
//! behave alike in both.
//!
//! ```no_run
//! use walseal_common::postgres::{Conninfo, ReplicationClient};
//!
//! # async fn run() -> Result<(), walseal_common::postgres::PostgresError> {
//! let conninfo = Conninfo::parse("host=/run/postgresql user=walseal", &|name| std::env::var(name).ok())?;
//! let mut client = ReplicationClient::connect(&conninfo, "walseal_orders").await?;
//! let system = client.identify_system().await?;
//! println!("{} is at {}", system.system_identifier, system.position);
//! # Ok(())
//! # }
//! ```

mod auth;
mod cancel;
pub mod conninfo;
pub mod dump_list;
mod error;
pub mod programs;
pub mod replication;
mod session;
pub mod sql;
pub mod tls;
mod transport;
mod wire;

#[cfg(test)]
mod fake_server;
#[cfg(test)]
mod test_cluster;
#[cfg(test)]
mod tests;

pub use cancel::Canceller;
pub use conninfo::{Conninfo, ConninfoError, Host};
pub use dump_list::DumpList;
pub use error::{Attempt, Notice, PostgresError, ServerError};
pub use replication::ReplicationClient;
pub use sql::SqlClient;
