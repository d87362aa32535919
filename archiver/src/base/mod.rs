//! Base backups: BASE_BACKUP -> tar reader -> frames -> data objects -> manifest pages -> label.
//!
//! | part | holds |
//! | --- | --- |
//! | [`tar`] | a strict reader of the archives that PostgreSQL streams |
//! | [`checksum`] | the checksum that the server's manifest has for each file, computed as the file passes |
//! | [`server_manifest`] | PostgreSQL's `backup_manifest`, read and compared with what was received |
//! | [`incremental`], [`content`], [`layering`] | files of which the server sent changed blocks only: read, what of them is stored, and their lines |
//! | [`known`] | what was stored before, so that it is referred to and not stored again |
//! | [`packer`] | files into frames, frames into data objects |
//! | [`pages`] | the list of files, page by page |
//! | [`resume_pages`] | what the next backup has to know of this one |
//! | [`tablespaces`] | which there are, and where |
//! | [`decision`] | full or incremental, and why |
//! | [`intake`] | all of the above: what arrives in, what is ready to be sealed out; no I/O |
//! | [`shipper`] | sealing and storing, several objects at once, in bounded memory |
//! | [`names`], [`config_files`] | which relation is which file; configuration outside the data directory |
//! | [`attachment`] | both, sealed and stored page by page |
//! | [`lease`] | what it relies on is not removed meanwhile |
//! | [`pace`] | how fast a backup reads while the server suffers from it |
//! | [`suspect`], [`suspect_names`] | page checksums that failed, in which files and relations |
//! | [`switch`] | the primary is asked for WAL that a standby's backup waits for |
//! | [`backup`] | a backup from beginning to end |

pub mod attachment;
pub mod backup;
pub mod checksum;
pub mod config_files;
pub mod content;
pub mod decision;
pub mod error;
pub mod incremental;
pub mod intake;
pub mod known;
pub mod layering;
pub mod lease;
pub mod names;
pub mod pace;
pub mod packer;
pub mod pages;
pub mod progress;
pub mod resume_pages;
pub mod server_manifest;
pub mod shipper;
pub mod suspect;
pub mod suspect_names;
pub mod switch;
pub mod tablespaces;
pub mod tar;

pub use backup::{BackupOptions, DurableWal, WaitDurable, publish, run, store};
pub use decision::{BackupMode, Policy};
pub use error::BaseError;
pub use known::PageCache;
pub use progress::{Progress, Stage};
pub use shipper::Effort;
