//! Objects that are there and cannot be used: what is restored without them goes on, what needs them says their names.

use std::fmt;

use walseal_common::repository::{ObjectName, RepositoryError};
use walseal_common::store::StoreErrorKind;
use walseal_common::timeline::SystemIdentifier;

/// An object that is there and cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Which.
    pub name: ObjectName,
    /// What is wrong with it.
    pub why: String,
}

impl Damage {
    /// The one object of `cluster` that an error is about, where it is about no more than that: it is damaged, or the store
    /// refuses this object. `None` for a store that does not answer, and where the reader lacks trust or a key: then no
    /// object is to blame.
    pub fn of(error: &RepositoryError, cluster: SystemIdentifier) -> Option<Damage> {
        match error {
            RepositoryError::Object { name, source } if source.is_damage() => {
                Some(Damage { name: name.parse().ok()?, why: source.to_string() })
            }
            RepositoryError::Store(error)
                if matches!(error.kind, StoreErrorKind::Denied | StoreErrorKind::Protocol) =>
            {
                let name = error.key.strip_prefix(&format!("{cluster}/"))?;
                Some(Damage { name: name.parse().ok()?, why: format!("the store does not give it: {}", error.reason) })
            }
            _ => None,
        }
    }
}

/// As the end of "it cannot be used: ".
impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {}: {}", self.name, self.why)
    }
}

/// Several of them in one sentence.
pub fn sentence(damages: &[Damage]) -> String {
    damages.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
