//! `heal`: fills a gap from what a server still has in `pg_wal`, from a standby, or from a folder.
//!
//! | module | holds |
//! | --- | --- |
//! | [`plan`] | what is missing, what of it was found, and what is left: a plain value |
//! | [`source`] | where WAL comes from; [`server`] over the replication protocol, [`folder`] from files |
//! | [`known`] | the digests by which the repository's own objects tell whether WAL is theirs |
//! | [`examine`] | whether bytes are the WAL that is missing: headers, records, digests |
//! | [`healer`] | looks, then fills |
//! | [`restorable`] | what can be restored, before and after |
//!
//! What is stored under a segment's name stays for ever (I3), so WAL counts only when it is tied to what the repository holds: it
//! is read from before the gap or to beyond it, every record's link and checksum leads from one end to the other, and where
//! the repository has objects of the same bytes, their digests agree. A copy of the cluster that went its own way on the same timeline
//! has the right headers and the right checksums; only the digests tell it apart.
//!
//! Nothing here touches the slot, and nothing is confirmed (I1, I2). It needs no stream either, so that the verb does it in
//! its own process, whether or not a daemon runs: every put is write-once, and equal bytes are success.

mod error;
mod examine;
mod fill;
mod folder;
mod healer;
mod known;
mod plan;
mod restorable;
mod server;
mod source;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

pub use error::{HealError, SourceError};
pub use fill::Stored;
pub use folder::FolderSource;
pub use healer::Healer;
pub(crate) use known::Knowledge;
pub use plan::{Fill, GapPlan, HealPlan, place};
pub use restorable::{Restorable, restorable};
pub use server::ServerSource;
pub use source::{Brought, Reading, Source};
