//! What a repository is: the one object that `init` writes.

use serde::{Deserialize, Serialize};

use crate::segment::SegmentSize;
use crate::store::Capabilities;
use crate::timeline::SystemIdentifier;

/// The plain, signed body of `identity`, as in section 7 of the format.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RepositoryIdentity {
    /// The repository format's version.
    pub format: u32,
    /// The cluster that is kept here.
    pub cluster: SystemIdentifier,
    /// PostgreSQL's major version when the repository was made.
    pub postgres_major: u32,
    /// Size of the cluster's WAL segments.
    pub segment_size: SegmentSize,
    /// The system identifier before `pg_upgrade`.
    pub predecessor: Option<SystemIdentifier>,
    /// What the store was seen to do.
    pub capabilities: Capabilities,
}
