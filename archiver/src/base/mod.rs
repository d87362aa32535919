//! Base backups: BASE_BACKUP -> tar reader -> frames -> data objects -> manifest pages -> label.
//!
//! | part | holds |
//! | --- | --- |
//! | [`path`] | the path of a file below the data directory, as bytes |
//! | [`tar`] | a strict reader of the archives that PostgreSQL streams |
//! | [`checksum`] | the checksum that the server's manifest has for each file, computed as the file passes |
//! | [`server_manifest`] | PostgreSQL's `backup_manifest`, read and compared with what was received |

pub mod checksum;
pub mod path;
pub mod server_manifest;
pub mod tar;
