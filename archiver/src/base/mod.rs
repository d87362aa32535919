//! Base backups: BASE_BACKUP -> tar reader -> frames -> data objects -> manifest pages -> label.
//!
//! | part | holds |
//! | --- | --- |
//! | [`tar`] | a strict reader of the archives that PostgreSQL streams |
//! | [`checksum`] | the checksum that the server's manifest has for each file, computed as the file passes |
//! | [`server_manifest`] | PostgreSQL's `backup_manifest`, read and compared with what was received |
//! | [`packer`] | files into frames, frames into data objects |
//! | [`pages`] | the list of files, page by page |
//! | [`tablespaces`] | which there are, and where |
//! | [`intake`] | all of the above: what arrives in, what is ready to be sealed out; no I/O |
//! | [`shipper`] | sealing and storing, several objects at once, in bounded memory |
//! | [`lease`] | what it relies on is not removed meanwhile |
//! | [`pace`] | how fast a backup reads while the server suffers from it |
//! | [`suspect`] | page checksums that failed |
//! | [`switch`] | the primary is asked for WAL that a standby's backup waits for |
//! | [`backup`] | a backup from beginning to end |

pub mod backup;
pub mod checksum;
pub mod error;
pub mod intake;
pub mod lease;
pub mod pace;
pub mod packer;
pub mod pages;
pub mod progress;
pub mod server_manifest;
pub mod shipper;
pub mod suspect;
pub mod switch;
pub mod tablespaces;
pub mod tar;

pub use backup::{BackupOptions, DurableWal, WaitDurable, run};
pub use error::BaseError;
pub use progress::{Progress, Stage};
pub use shipper::Effort;
