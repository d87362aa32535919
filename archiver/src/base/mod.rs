//! Base backups: BASE_BACKUP -> tar reader -> frames -> data objects -> manifest pages -> label.
//!
//! | part | holds |
//! | --- | --- |
//! | [`tar`] | a strict reader of the archives that PostgreSQL streams |
//! | [`checksum`] | the checksum that the server's manifest has for each file, computed as the file passes |
//! | [`server_manifest`] | PostgreSQL's `backup_manifest`, read and compared with what was received |
//! | [`packer`] | files into frames, frames into data objects |
//! | [`pages`] | the list of files, page by page |

pub mod checksum;
pub mod packer;
pub mod pages;
pub mod server_manifest;
pub mod tar;
