//! The archiver: what takes base backups and WAL from PostgreSQL into a sealed repository.
//!
//! | room | holds |
//! | --- | --- |
//! | [`cmd`] | the verbs: thin |
//! | [`scheduler`], [`turns`] | base backups on schedule, and one at a time |
//! | [`daemon`], [`desk`] | owns the tasks, and shuts them down in order; does what is asked over the socket |
//! | [`arrival`] | what the daemon does where its store is away at the start |
//! | [`doctor`] | every precondition, with its fix |
//! | [`socket`] | how the other verbs and the hook talk to the daemon |
//! | [`status`], [`told`] | what the daemon knows and what the repository holds; how the daemon is asked |
//! | [`stream`] | WAL over the replication protocol: receive, cut, ship, confirm |
//! | [`hook`] | `archive_command`: header checks, look-ahead, standalone shipping |
//! | [`heal`] | fills a gap from `pg_wal`, a standby, a folder |
//! | [`requests`] | how often the store was asked in the last day |
//! | [`retention`] | what stays restorable, and what goes |
//! | [`cost`] | what a month is expected to cost |
//! | [`verify`] | whether the repository is whole, without keys |
//! | [`adopt`] | names the living one of two servers that wrote the same timeline |
//! | [`shipment`] | a piece of WAL on its way into the repository |
//! | [`landed`] | digests of segments that the stream has stored |
//! | [`chunks`], [`memory`] | its bytes, freed as they are sealed; and the bound on all that is under way |
//! | [`base`] | base backups; [`base_backup`] brings one together with the stream, [`derived_backup`] takes one of a drill's instance |
//! | [`snapshot`] | dumps of databases by `pg_dump` |
//! | [`admission`] | what lets the archiver's role into the server |
//! | [`aftermath`] | the base backup that follows a gap by itself |
//! | [`cataloguer`] | pages that say what 256 segments hold |
//! | [`summarist`] | what the transactions of 16 segments did, sealed |
//! | [`frontier_recorder`] | the frontier, written down now and then, signed |
//! | [`heartbeat`], [`canary`] | a commit now and then on an idle cluster; a chained row for drills to find |
//! | [`writing_connection`] | how both are written |
//! | [`gaps`] | gaps on record, and which of them count |
//! | [`figures`] | metrics and health over HTTP |
//! | [`wellness`] | that all is as it should be, for somebody who misses it |
//! | [`lookout`] | what is looked at at intervals, and becomes an alert |
//! | [`primary`] | which of several hosts is the primary |
//! | [`alone`], [`drain`] | a stream for one verb; everything that the server has, durable |
//! | [`founding`] | a repository where there is none yet |
//! | [`policy`] | the least that credentials of a bucket must allow |
//! | [`card`] | the recovery card |
//! | [`courtesy`] | the database goes first |
//! | [`lock`] | one daemon to a state folder |
//! | [`index`] | the sled cache of verified ranges |
//! | [`archive`], [`keys`] | the configuration, opened |

pub mod admission;
pub mod adopt;
pub mod aftermath;
pub mod alone;
pub mod archive;
pub mod arrival;
pub mod base;
pub mod base_backup;
pub mod canary;
pub mod card;
pub mod cataloguer;
pub mod chunks;
pub mod cmd;
pub mod cost;
pub mod courtesy;
pub mod daemon;
pub mod derived_backup;
pub mod desk;
pub mod doctor;
pub mod drain;
pub mod figures;
pub mod founding;
pub mod frontier_recorder;
pub mod gaps;
pub mod heal;
pub mod heartbeat;
pub mod hook;
pub mod index;
pub mod keys;
pub mod landed;
pub mod lock;
pub mod lookout;
pub mod memory;
pub mod objectives;
pub mod policy;
pub mod primary;
pub mod requests;
pub mod retention;
pub mod scheduler;
pub mod shipment;
pub mod snapshot;
pub mod socket;
pub mod status;
pub mod stream;
pub mod summarist;
pub mod told;
pub mod turns;
pub mod verify;
pub mod wellness;
pub mod writing_connection;
