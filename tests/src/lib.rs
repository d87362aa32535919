//! The test bed of walseal: real PostgreSQL, a real object store, and both programs as a user runs them.
//!
//! Everything that a test makes lies in its own [`scratch::Scratch`], below a folder of this user in `/tmp`;
//! whoever drops it, also by a panic, ends the processes that live in it and removes it. What a killed test
//! left behind is swept when the next one starts.
//!
//! ```no_run
//! use walseal_tests::cluster::{Cluster, Stop};
//!
//! # fn main() -> anyhow::Result<()> {
//! let mut cluster = Cluster::builder().segment_mib(1).setting("archive_mode", "on").start()?;
//! assert_eq!(cluster.value("select 6 * 7")?, "42");
//! cluster.stop(Stop::Fast)?;
//! # Ok(())
//! # }
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`account`] | the user that servers and programs run as |
//! | [`deadline`] | waiting for a real state, for a bounded time |
//! | [`process`] | a program that is run, its output, its end |
//! | [`scratch`] | the folder of one test, and the sweeper |
//! | [`server`] | the programs of one PostgreSQL major |
//! | [`template`], [`cluster`], [`settings`], [`session`], [`tls`], [`port`] | a cluster |
//! | [`patroni`] | a cluster of three members that Patroni manages |
//! | [`workload`], [`pgbench`] | load that remembers what it committed |
//! | [`oracle`], [`wal`] | answers that walseal has no part in |
//! | [`store`] | where a repository lies, read past walseal |
//! | [`proxy`] | an outage of the store at the turn of a switch |
//! | [`programs`], [`site`] | walseal's programs, configured and with keys |

pub mod account;
pub mod cluster;
pub mod deadline;
pub mod oracle;
pub mod patroni;
pub mod pgbench;
pub mod port;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod scratch;
pub mod server;
pub mod session;
pub mod settings;
pub mod site;
pub mod store;
pub mod template;
pub mod tls;
pub mod wal;
pub mod workload;
