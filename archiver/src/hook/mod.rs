//! `archive_command`: one file of `pg_wal`, durable in the repository or an error.
//!
//! [`Archivist`] does the work, in the daemon as well as without one; the verb asks the daemon ([`push_by_daemon`]) and falls back to
//! doing it itself ([`push_alone`]). Both ship what lies ahead in PostgreSQL's queue during the same call.
//!
//! | file | what becomes of it |
//! | --- | --- |
//! | segment | checked by its first page (case 25), walked to its end, stored whole, or in parts of 16 MiB |
//! | `.partial` | its valid part is stored, cut at the fork (case 4) |
//! | `.history` | stored with its ancestors (case 2) |
//! | `.backup` | accepted and not stored: a base backup's label says all that it says |

mod ahead;
mod archivist;
mod error;
mod freight;
mod kinship;
mod lineage;
mod partial;
mod push;
mod stored;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
mod verified;
mod whole;
mod witness;

use serde::{Deserialize, Serialize};

pub use archivist::Archivist;
pub use error::PushError;
pub use push::{push_alone, push_by_daemon};

/// What became of a file that was pushed. Each is success: PostgreSQL may remove the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pushed {
    /// It was shipped now, and is durable.
    Shipped,
    /// The same bytes were durable before (cases 21 and 23).
    AlreadyThere,
    /// It carries nothing that a restore needs: a `.backup` file.
    NotNeeded,
}
