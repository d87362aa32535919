//! The reading side: from a repository back to a PostgreSQL cluster.
//!
//! [`plan`] turns a target and a repository into a [`plan::Plan`], a value that says everything before a byte moves;
//! [`rebuild`] writes the data directory; [`instance`] runs recovery on it; [`drill`] proves a backup; [`extract`] takes one database or some
//! tables out of one; [`find`] tells which transaction did what; [`fetch`] hands PostgreSQL its WAL; [`daemon`] drills on schedule, and [`figures`] shows how that goes;
//! [`snapshot`] hands dumps back to a server or a file; [`verify`] opens and checks everything;
//! [`record`] is what of it goes to the ledger; [`report`] tells a month from what lies there; [`segment_source`] puts the bytes of a segment together from whatever objects hold them.

pub mod access;
pub mod cmd;
pub mod daemon;
pub mod damage;
pub mod drill;
pub mod extract;
pub mod fetch;
pub mod figures;
pub mod find;
pub mod heads;
pub mod instance;
pub mod plan;
mod program;
pub mod rebuild;
pub mod record;
pub mod report;
pub mod segment_source;
mod shell;
pub mod snapshot;
pub mod verify;

#[cfg(test)]
mod sample;
