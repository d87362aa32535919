//! Base backups that were not taken of the cluster itself, but of an instance that a drill had restored from another one. Section 6
//! of the format, "Derived backups".

use serde::{Deserialize, Serialize};

use super::{BaseId, ConfigEntry};
use crate::lsn::Lsn;

/// What such a backup comes from: `derived` of its label.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lineage {
    /// The backup that the drill restored.
    pub base: BaseId,
    /// Up to where it had replayed WAL on the backup's branch when this one was taken of it.
    pub to: Lsn,
}

/// What whoever holds the instance tells the archiver that backs it up. It does not go to the repository as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Derivation {
    /// What the backup comes from.
    pub lineage: Lineage,
    /// The configuration files that lay outside the cluster's data directory: those that the instance has are not the cluster's.
    pub config: Vec<ConfigEntry>,
}
