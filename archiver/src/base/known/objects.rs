//! The data objects that were stored before: which are worth referring to, and still there.

use std::collections::{BTreeSet, HashMap, HashSet};

use walseal_common::repository::{BaseId, ObjectName, Repository, RepositoryError, ResumeObject};

/// An object of which less than one part in so many is still alive is not referred to: its frames are stored anew, so that a
/// restore does not fetch much to need little.
const ALIVE_AT_LEAST: u64 = 4;

/// A data object that was stored before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownObject {
    /// How it is referred to.
    pub listed: ResumeObject,
    /// Whose it is.
    pub base: BaseId,
    /// Bytes of its plaintext that a list still refers to: in the list that needs most of it.
    alive: u64,
    /// Whether it must not be referred to, whatever is alive of it.
    barred: bool,
}

impl KnownObject {
    /// Whether frames of it may be referred to.
    pub fn is_usable(&self) -> bool {
        !self.barred && self.listed.plain_size.is_none_or(|plain| self.alive.saturating_mul(ALIVE_AT_LEAST) >= plain)
    }
}

/// All of them, each once, numbered from 0.
#[derive(Debug, Default)]
pub struct KnownObjects {
    objects: Vec<KnownObject>,
    numbers: HashMap<String, u32>,
}

impl KnownObjects {
    /// Notes an object that a list names; one that another list named as well keeps its number. `None` for one that is no
    /// data object.
    pub fn add(&mut self, listed: ResumeObject) -> Option<u32> {
        if let Some(number) = self.numbers.get(&listed.reference.name) {
            let known = self.objects.get(*number as usize)?;
            // Two lists that disagree about an object: neither is followed.
            return (known.listed.reference == listed.reference).then_some(*number);
        }
        let ObjectName::Data(base, _) = listed.reference.name.parse().ok()? else { return None };
        let number = u32::try_from(self.objects.len()).ok()?;
        self.numbers.insert(listed.reference.name.clone(), number);
        self.objects.push(KnownObject { listed, base, alive: 0, barred: false });
        Some(number)
    }

    /// Notes that a list refers to so many bytes of an object's plaintext.
    pub fn alive(&mut self, number: u32, bytes: u64) {
        if let Some(object) = self.objects.get_mut(number as usize) {
            object.alive = object.alive.max(bytes);
        }
    }

    /// An object.
    pub fn get(&self, number: u32) -> Option<&KnownObject> {
        self.objects.get(number as usize)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Bars all objects of backups for which `allowed` says no.
    pub fn bar_bases(&mut self, allowed: impl Fn(&BaseId) -> bool) {
        self.objects.iter_mut().for_each(|object| object.barred |= !allowed(&object.base));
    }

    /// Bars objects of these names: they are about to be removed (case 40).
    pub fn bar(&mut self, names: &HashSet<String>) {
        self.objects.iter_mut().for_each(|object| object.barred |= names.contains(&object.listed.reference.name));
    }

    /// Bars what is not in the repository any more with the size that it had, and returns how many those are. Each backup that
    /// is referred to is listed once.
    ///
    /// Errors: the repository's.
    pub async fn bar_missing(&mut self, repository: &Repository) -> Result<usize, RepositoryError> {
        let usable = (0..).zip(&self.objects).filter(|(_, object)| object.is_usable());
        let missing = self.missing(repository, usable.map(|(number, _)| number).collect()).await?;
        for number in &missing {
            if let Some(object) = self.objects.get_mut(*number as usize) {
                object.barred = true;
            }
        }
        Ok(missing.len())
    }

    /// Which of these objects are not in the repository with the size that they had.
    ///
    /// Errors: the repository's.
    pub async fn missing(
        &self,
        repository: &Repository,
        wanted: BTreeSet<u32>,
    ) -> Result<BTreeSet<u32>, RepositoryError> {
        let bases: BTreeSet<&BaseId> = wanted.iter().filter_map(|number| self.get(*number)).map(|o| &o.base).collect();
        let mut missing = wanted.clone();
        for base in bases {
            repository
                .for_each_data_object(base, |name, size| {
                    let number = self.numbers.get(name).copied();
                    if let Some(number) = number
                        && self.get(number).is_some_and(|object| object.listed.reference.size == size)
                    {
                        missing.remove(&number);
                    }
                })
                .await?;
        }
        Ok(missing)
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::repository::ObjectReference;
    use walseal_common::seal::ObjectDigest;

    use super::*;

    pub fn object(base: &str, number: u32, plain_size: Option<u64>) -> ResumeObject {
        let name = format!("base/{base}/data/{number:08}");
        let digest = ObjectDigest::of(name.as_bytes());
        ResumeObject { reference: ObjectReference { name, size: 10, digest }, plain_size }
    }

    const ONE: &str = "20261121T023000Z-0000002a";

    #[test]
    fn an_object_of_which_less_than_a_quarter_is_alive_is_not_referred_to() {
        let mut objects = KnownObjects::default();
        let numbers: Vec<u32> =
            (0..4).map(|n| objects.add(object(ONE, n, (n < 3).then_some(100))).expect("a data object")).collect();
        for (number, bytes) in [(0, 25), (1, 24)] {
            objects.alive(numbers[number], bytes);
        }
        objects.alive(numbers[0], 3);
        let usable: Vec<bool> = numbers.iter().map(|n| objects.get(*n).is_some_and(KnownObject::is_usable)).collect();
        assert_eq!(usable, [true, false, false, true], "of the last one the size is not known");
    }

    #[test]
    fn objects_have_one_number_whichever_list_names_them() {
        let mut objects = KnownObjects::default();
        assert_eq!(objects.add(object(ONE, 0, None)), Some(0));
        assert_eq!(objects.add(object(ONE, 1, None)), Some(1));
        assert_eq!(objects.add(object(ONE, 0, Some(5))), Some(0));
        let mut other = object(ONE, 0, None);
        other.reference.digest = ObjectDigest::of(b"other bytes");
        assert_eq!(objects.add(other), None);
        let mut stranger = object(ONE, 0, None);
        stranger.reference.name = format!("base/{ONE}/label");
        assert_eq!(objects.add(stranger), None);
        assert_eq!(objects.len(), 2);
        assert!(
            objects.get(0).is_some_and(KnownObject::is_usable) && objects.get(1).is_some_and(KnownObject::is_usable)
        );
        objects.bar(&HashSet::from([format!("base/{ONE}/data/00000001")]));
        assert!(
            objects.get(0).is_some_and(KnownObject::is_usable) && !objects.get(1).is_some_and(KnownObject::is_usable)
        );
        objects.bar_bases(|base| base.as_str() != ONE);
        assert!(objects.get(0).is_some_and(|object| !object.is_usable()));
    }
}
