//! Why a segment cannot be read.

use walseal_common::lsn::Lsn;
use walseal_common::repository::{Repository, RepositoryError};
use walseal_common::segment::SegmentName;
use walseal_common::timeline::Branch;

use crate::damage::Damage;

/// A segment could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SegmentError {
    /// No object holds anything of it. Whether that is the end of WAL or a hole, the caller must judge (I6).
    #[error("segment {segment} of branch {branch} is not in {store}, neither whole nor in pieces")]
    Missing {
        /// The branch that was asked.
        branch: Branch,
        /// The segment.
        segment: SegmentName,
        /// The store's URL.
        store: String,
    },
    /// Two objects of the segment hold different bytes for the same place.
    #[error(
        "{first} and {second} disagree about the WAL before {at}: two servers wrote the same branch; \
         find out which writer is the living one (walseal-archiver adopt --writer) before this segment is used"
    )]
    Disagreement {
        /// One object.
        first: String,
        /// The other.
        second: String,
        /// Where the bytes up to it differ.
        at: Lsn,
    },
    /// Two objects follow each other, but nobody can tell that they belong together.
    #[error(
        "{first} and {second} follow each other at {at} but were written with different compare keys, so that nothing \
         shows that they belong together; archivers of one cluster must share a compare key"
    )]
    Incomparable {
        /// One object.
        first: String,
        /// The other.
        second: String,
        /// Where they meet.
        at: Lsn,
    },
    /// An object's header or content is not what its name says.
    #[error("object {name}: its header says {found}, its name {expected}")]
    Misplaced {
        /// The object.
        name: String,
        /// What the header says.
        found: String,
        /// What the name says.
        expected: String,
    },
    /// The objects changed each time they were read.
    #[error("the pieces of segment {segment} of branch {branch} changed each time they were read; try again")]
    Unsteady {
        /// The branch.
        branch: Branch,
        /// The segment.
        segment: SegmentName,
    },
    /// The repository did not give an object.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl SegmentError {
    /// Whether the same call could succeed later without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        match self {
            SegmentError::Repository(error) => error.is_permanent(),
            SegmentError::Unsteady { .. } => false,
            _ => true,
        }
    }

    /// The objects that it is about, where it is about no more than those.
    pub fn damage(&self, repository: &Repository) -> Vec<Damage> {
        let named = |name: &str, why: String| Some(Damage { name: name.parse().ok()?, why });
        match self {
            SegmentError::Repository(error) => Damage::of(error, repository.cluster()).into_iter().collect(),
            SegmentError::Misplaced { name, found, expected } => {
                named(name, format!("its header says {found}, its name {expected}")).into_iter().collect()
            }
            SegmentError::Disagreement { first, second, .. } | SegmentError::Incomparable { first, second, .. } => {
                [first, second].into_iter().filter_map(|name| named(name, self.to_string())).collect()
            }
            SegmentError::Missing { .. } | SegmentError::Unsteady { .. } => Vec::new(),
        }
    }

    /// Whether there is just nothing of the segment.
    pub fn is_missing(&self) -> bool {
        matches!(self, SegmentError::Missing { .. })
    }
}
