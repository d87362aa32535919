//! The list of files of a backup, page by page.

use walseal_common::repository::ManifestEntry;
use walseal_common::seal::MAX_PLAINTEXT;

/// A page is passed on once it has this many bytes: about 6 GB of the cluster in frames of 64 KiB.
const PAGE: usize = 2 << 20;

/// The longest line of a page: what an object holds, less some room for the tablespaces before it. In large frames
/// that is a file of 700 GB.
const LONGEST_LINE: usize = MAX_PLAINTEXT as usize - (1 << 20);

/// A page of the list, ready to be sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// Its number, from 0.
    pub number: u32,
    /// Its lines.
    pub plain: Vec<u8>,
}

/// An entry does not go into the list.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// It has more frames than a page can list.
    #[error(
        "it takes {0} bytes in the list of files, and a page of it holds {LONGEST_LINE}; move it out of the data directory"
    )]
    TooLarge(usize),
    /// It has no form as JSON.
    #[error("it can't be written to the list of files: {0}")]
    Json(#[from] serde_json::Error),
}

/// Collects entries in the order of arrival, and holds two pages at most (I11).
///
/// The first page stays here until the end: tablespaces come first in the list, and a server before PostgreSQL 16
/// shows those inside the data directory only as it sends that.
#[derive(Debug, Default)]
pub struct Pages {
    first: Option<Vec<u8>>,
    open: Vec<u8>,
    /// Number of the page that is open.
    number: u32,
}

impl Pages {
    /// Adds the line of an entry, and returns the page that it did not fit into any more.
    ///
    /// Errors: the entry alone is too large for a page.
    pub fn add(&mut self, line: &[u8]) -> Result<Option<Page>, PageError> {
        if line.len() > LONGEST_LINE {
            return Err(PageError::TooLarge(line.len()));
        }
        let full = if !self.open.is_empty() && self.open.len() + line.len() > PAGE {
            let (number, plain) = (self.number, std::mem::take(&mut self.open));
            self.number += 1;
            if number == 0 {
                self.first = Some(plain);
                None
            } else {
                Some(Page { number, plain })
            }
        } else {
            None
        };
        self.open.extend_from_slice(line);
        Ok(full)
    }

    /// Ends the list, and returns the pages that are left. There is always at least one.
    pub fn finish(self, tablespaces: &[ManifestEntry]) -> Result<Vec<Page>, PageError> {
        let mut head = Vec::new();
        for tablespace in tablespaces {
            head.extend_from_slice(&line(tablespace)?);
        }
        Ok(match self.first {
            None => {
                head.extend_from_slice(&self.open);
                vec![Page { number: 0, plain: head }]
            }
            Some(first) => {
                head.extend_from_slice(&first);
                vec![Page { number: 0, plain: head }, Page { number: self.number, plain: self.open }]
            }
        })
    }
}

/// The entry as a line.
///
/// Errors: it has no form as JSON.
pub fn line(entry: &ManifestEntry) -> Result<Vec<u8>, PageError> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::repository::{FileEntry, FrameDigest, PathField, RelativePath};

    use super::*;

    fn file(name: &str, frames: usize) -> ManifestEntry {
        let path = PathField(RelativePath::new(name.as_bytes()).expect("a path"));
        let digests = vec![FrameDigest([7; 16]); frames];
        ManifestEntry::File(FileEntry {
            path,
            mode: 0o600,
            mtime: 0,
            size: 1,
            extents: vec![],
            digests,
            layers: vec![],
        })
    }

    /// Pages in order of their numbers, as entries.
    fn collect(entries: &[ManifestEntry], tablespaces: &[ManifestEntry]) -> Vec<Vec<ManifestEntry>> {
        let mut pages = Pages::default();
        let mut found: Vec<Page> =
            entries.iter().filter_map(|entry| pages.add(&line(entry).expect("JSON")).expect("fits")).collect();
        found.extend(pages.finish(tablespaces).expect("fits"));
        found.sort_by_key(|page| page.number);
        assert!(found.iter().enumerate().all(|(n, page)| page.number as usize == n));
        found
            .iter()
            .map(|page| {
                let lines = page.plain.split_inclusive(|&b| b == b'\n');
                lines.map(|line| serde_json::from_slice(line).expect("an entry")).collect()
            })
            .collect()
    }

    #[test]
    fn tablespaces_come_first_and_files_in_order() {
        let spaces = [ManifestEntry::Tablespace { oid: 16384, location: None }];
        for count in [0, 1, 150] {
            let files: Vec<ManifestEntry> = (0..count).map(|n| file(&format!("f{n}"), 3_000)).collect();
            let pages = collect(&files, &spaces);
            assert_eq!(pages.len(), if count < 150 { 1 } else { 5 });
            assert_eq!(pages.concat(), [&spaces[..], &files[..]].concat());
        }
    }

    #[test]
    fn a_file_with_more_frames_than_a_page_can_list_is_refused() {
        let mut pages = Pages::default();
        let line = |name, frames| line(&file(name, frames)).expect("JSON");
        assert!(pages.add(&line("fits", 730_000)).is_ok());
        assert!(pages.add(&line("too large", 750_000)).is_err());
    }
}
