//! In which page a file is: 16 bytes for each, whatever its size (I11).

use std::hash::{DefaultHasher, Hash, Hasher};

use walseal_common::repository::RelativePath;

/// Where a line is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Entry {
    /// Of the path; two paths may have the same, so the line itself is looked at.
    hash: u64,
    place: Place,
}

/// A line of a page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// Which of the pages that were read.
    pub page: u32,
    /// Where in its plaintext, in bytes.
    pub at: u32,
}

/// Paths of files, with the places of their lines.
#[derive(Debug, Default)]
pub struct Index {
    entries: Vec<Entry>,
}

impl Index {
    /// Notes a file.
    pub fn add(&mut self, path: &RelativePath, place: Place) {
        self.entries.push(Entry { hash: hash(path), place });
    }

    /// After the last file was noted.
    pub fn finish(&mut self) {
        self.entries.sort_unstable();
        self.entries.shrink_to_fit();
    }

    /// Where lines of the file at `path` may be, in the order of their pages. They may be another file's.
    pub fn find(&self, path: &RelativePath) -> impl Iterator<Item = Place> {
        let hash = hash(path);
        let first = self.entries.partition_point(|entry| entry.hash < hash);
        let rest = self.entries.get(first..).unwrap_or_default();
        rest.iter().take_while(move |entry| entry.hash == hash).map(|entry| entry.place)
    }

    /// How many files.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn hash(path: &RelativePath) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.as_bytes().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn i11_a_file_takes_16_bytes_and_is_found_in_every_list_that_has_it() {
        assert_eq!(size_of::<Entry>(), 16);
        let path = |n: u32| RelativePath::new(format!("base/1/{n}").as_bytes()).expect("a path");
        let mut index = Index::default();
        for page in [1, 0] {
            (0..1000).for_each(|n| index.add(&path(n), Place { page, at: n }));
        }
        index.finish();
        assert_eq!(index.len(), 2000);
        assert_eq!(index.find(&path(7)).collect::<Vec<_>>(), [Place { page: 0, at: 7 }, Place { page: 1, at: 7 }]);
        assert_eq!(index.find(&path(1000)).count(), 0);
    }
}
