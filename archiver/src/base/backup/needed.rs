//! The data objects that a backup needs, own and others', as they stand in its label.

use std::collections::BTreeSet;

use walseal_common::repository::{BaseId, ObjectReference, Repository};

use crate::base::error::BaseError;
use crate::base::known::KnownObjects;
use crate::base::packer::Listed;

/// The data objects, in the order in which the list of files refers to them.
pub struct Needed {
    pub objects: Vec<ObjectReference>,
    /// Those of others, by number.
    referenced: BTreeSet<u32>,
}

impl Needed {
    /// Looks up what the list of files refers to.
    ///
    /// Errors: it refers to something that is not there; this is a bug.
    pub fn of(listed: &[Listed], own: &[ObjectReference], known: &KnownObjects) -> Result<Needed, BaseError> {
        let mut needed = Needed { objects: Vec::new(), referenced: BTreeSet::new() };
        for object in listed {
            let reference = match object {
                Listed::Own(number) => own.get(*number as usize),
                Listed::Known(number) => known.get(*number).map(|object| &object.listed.reference),
            };
            let nowhere = || BaseError::Task(format!("the list of files refers to {object:?}, which is nowhere"));
            let reference = reference.ok_or_else(nowhere)?.clone();
            if let Listed::Known(number) = object {
                needed.referenced.insert(*number);
            }
            needed.objects.push(reference);
        }
        Ok(needed)
    }

    /// Looks again whether all of others' objects are there: somebody may have removed them since the backup began (I7).
    ///
    /// Errors: they are not; the repository's.
    pub async fn check(&self, repository: &Repository, known: &KnownObjects) -> Result<(), BaseError> {
        let missing = known.missing(repository, self.referenced.clone()).await?;
        match missing.first().and_then(|number| known.get(*number)) {
            None => Ok(()),
            Some(object) => {
                Err(BaseError::Vanished { count: missing.len(), first: object.listed.reference.name.clone() })
            }
        }
    }

    /// Whether it needs objects of another backup. What has no label is none.
    pub fn refers_to_backups(&self, known: &KnownObjects, attempts: &[BaseId]) -> bool {
        self.referenced.iter().filter_map(|number| known.get(*number)).any(|object| !attempts.contains(&object.base))
    }
}
