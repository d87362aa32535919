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
//! | [`workload`], [`ledger`], [`pgbench`] | load that remembers what it committed |
//! | [`dice`] | chance that repeats itself |
//! | [`oracle`], [`wal`] | answers that walseal has no part in |
//! | [`store`], [`s3_server`] | where a repository lies, read past walseal; an S3 server that can be killed |
//! | [`proxy`] | an outage of the store at the turn of a switch |
//! | [`clock`] | a clock that is wrong, and is set right |
//! | [`disk`] | a disk of the state folder that runs full, or becomes read-only |
//! | [`inbox`] | somebody who is posted to |
//! | [`told`] | what somebody was told of alerts |
//! | [`ring`] | something goes wrong at the n-th message to the store, or to the server |
//! | [`programs`], [`site`] | walseal's programs, configured and with keys |

pub mod account;
pub mod clock;
pub mod cluster;
pub mod deadline;
pub mod dice;
pub mod disk;
pub mod inbox;
pub mod ledger;
pub mod oracle;
pub mod patroni;
pub mod pgbench;
pub mod port;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod ring;
mod s3_client;
pub mod s3_server;
pub mod scratch;
pub mod server;
pub mod session;
pub mod settings;
pub mod site;
pub mod store;
pub mod template;
pub mod tls;
pub mod told;
pub mod wal;
pub mod workload;
