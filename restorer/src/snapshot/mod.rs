//! Snapshots: dumps of `pg_dump` out of the repository, to a server or to a file.
//!
//! | module | holds |
//! | --- | --- |
//! | [`contents`] | what a snapshot says of itself |
//! | [`pour`] | its bytes, in order |
//! | [`tool`] | `pg_restore` as a child |
//! | [`counts`] | rows that were dumped beside rows that are there |
//! | [`restore`] | all of it |
//! | [`drill`] | a dump in a place that is thrown away, and the questions to it |
//! | [`globals`] | roles for it |
//! | [`rows`] | whether its tables are as they were dumped |
//! | [`place`], [`lodging`] | that place: a new cluster, or a database on a server that others use |
//! | [`limits`] | limits of time there |
//! | [`error`] | why it did not work |

pub mod contents;
pub mod counts;
pub mod drill;
pub mod error;
pub mod globals;
pub mod limits;
pub mod lodging;
pub mod place;
pub mod pour;
pub mod restore;
pub mod rows;
pub mod tool;

pub use contents::Contents;
pub use error::SnapshotError;
pub use restore::{Order, Restored};
