//! What a backup leaves for the next one: the list of files and the server's manifest, page by page.

use std::ops::Range;

use walseal_common::repository::ResumeObject;
use walseal_common::seal::MAX_PLAINTEXT;

use super::packer::Listed;

/// A page of the list is passed on once it has this many bytes, and likewise one of the server's manifest.
const PAGE: usize = 2 << 20;

/// More than an object's line ever takes, in bytes: its name has 46, its digest 64.
const OBJECT_LINE: usize = 256;

/// Most objects on a page without files.
const MOST_OBJECTS: u32 = 32 << 10;

/// What a page is part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResumePart {
    /// The list of files and objects.
    List,
    /// The server's manifest.
    ServerManifest,
}

/// A page, ready but for the lines of its objects, which are known when those are stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResumePage {
    /// Its number in the backup, from 0.
    pub number: u32,
    /// What it is part of.
    pub part: ResumePart,
    /// The objects whose lines come first. All of them have ended when the page is passed on.
    pub objects: Vec<Listed>,
    /// What follows.
    pub plain: Vec<u8>,
}

impl ResumePage {
    /// The whole page, with the lines of its objects.
    pub fn with_objects(self, objects: &[ResumeObject]) -> Result<Vec<u8>, serde_json::Error> {
        let mut whole = Vec::with_capacity(self.plain.len() + objects.len() * OBJECT_LINE);
        for object in objects {
            // As `ResumeEntry` writes it, without a copy.
            serde_json::to_writer(&mut whole, &Tagged { kind: "object", object })?;
            whole.push(b'\n');
        }
        whole.extend_from_slice(&self.plain);
        Ok(whole)
    }
}

#[derive(serde::Serialize)]
struct Tagged<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(flatten)]
    object: &'a ResumeObject,
}

/// Collects the pages in order; holds one at most (I11).
#[derive(Debug, Default)]
pub struct ResumePages {
    plain: Vec<u8>,
    number: u32,
    /// Objects whose lines are on pages before.
    listed: u32,
}

impl ResumePages {
    /// Whether the line of a file still goes onto the page that is open.
    pub fn has_room(&self, line: &[u8]) -> bool {
        self.plain.is_empty() || self.plain.len() + line.len() <= PAGE
    }

    /// Adds the line of a file.
    pub fn add(&mut self, line: &[u8]) {
        self.plain.extend_from_slice(line);
    }

    /// Ends the page that is open; `listed` are all objects so far. More than one where the objects take more than a page; none
    /// where there is nothing to say.
    pub fn cut(&mut self, listed: &[Listed]) -> Vec<ResumePage> {
        let mut pages = Vec::new();
        let all = listed.len() as u32;
        let most = MAX_PLAINTEXT as usize;
        while (all - self.listed) as usize * OBJECT_LINE + self.plain.len() > most {
            let end = all.min(self.listed + MOST_OBJECTS);
            pages.push(self.page(listed, self.listed..end, Vec::new()));
        }
        if self.listed < all || !self.plain.is_empty() {
            let plain = std::mem::take(&mut self.plain);
            pages.push(self.page(listed, self.listed..all, plain));
        }
        pages
    }

    fn page(&mut self, listed: &[Listed], range: Range<u32>, plain: Vec<u8>) -> ResumePage {
        let objects = listed.get(range.start as usize..range.end as usize).unwrap_or_default().to_vec();
        self.listed = range.end;
        self.number += 1;
        ResumePage { number: self.number - 1, part: ResumePart::List, objects, plain }
    }

    /// Adds bytes of the server's manifest, after the last file; returns the page that they fill.
    pub fn manifest(&mut self, bytes: &[u8]) -> Option<ResumePage> {
        self.plain.extend_from_slice(bytes);
        if self.plain.len() < PAGE { None } else { self.finish() }
    }

    /// The last page of the server's manifest.
    pub fn finish(&mut self) -> Option<ResumePage> {
        if self.plain.is_empty() {
            return None;
        }
        self.number += 1;
        let (number, plain) = (self.number - 1, std::mem::take(&mut self.plain));
        Some(ResumePage { number, part: ResumePart::ServerManifest, objects: Vec::new(), plain })
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::repository::{ObjectReference, ResumeEntry};
    use walseal_common::seal::ObjectDigest;

    use super::*;

    #[test]
    fn objects_come_before_the_files_that_refer_to_them_and_count_on() {
        let mut pages = ResumePages::default();
        let listed = [Listed::Own(0), Listed::Known(7), Listed::Own(1)];
        assert!(pages.cut(&[]).is_empty());
        pages.add(b"one\n");
        let first = pages.cut(&listed[..2]);
        pages.add(b"two\n");
        let second = pages.cut(&listed);
        assert!(pages.cut(&listed).is_empty());
        assert_eq!([first.len(), second.len()], [1, 1]);
        assert_eq!(
            (first[0].number, first[0].objects.as_slice(), &first[0].plain[..]),
            (0, &listed[..2], &b"one\n"[..])
        );
        assert_eq!((second[0].number, second[0].objects.as_slice()), (1, &listed[2..]));
        assert_eq!(pages.manifest(b"{}"), None);
        let manifest = pages.finish().expect("a page");
        assert_eq!((manifest.number, manifest.part), (2, ResumePart::ServerManifest));
        assert_eq!(pages.finish(), None);
    }

    #[test]
    fn the_objects_of_a_file_of_many_gigabytes_have_pages_of_their_own() {
        let mut pages = ResumePages::default();
        let listed: Vec<Listed> = (0..44_000).map(Listed::Own).collect();
        pages.add(&vec![b'x'; 15 << 20]);
        let cut = pages.cut(&listed);
        assert_eq!(cut.iter().map(|page| page.objects.len()).collect::<Vec<_>>(), [32_768, 11_232, 0]);
        assert_eq!(cut.iter().map(|page| page.number).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_page_is_read_as_it_was_written() {
        let name = "base/20261121T023000Z-0000002a/data/99999999".to_owned();
        let reference = ObjectReference { name, size: u64::MAX, digest: ObjectDigest::of(b"") };
        let object = ResumeObject { reference, plain_size: Some(u64::MAX) };
        let page =
            ResumePage { number: 0, part: ResumePart::List, objects: vec![Listed::Own(0)], plain: b"{}\n".to_vec() };
        let whole = page.with_objects(std::slice::from_ref(&object)).expect("JSON");
        assert!(whole.len() < OBJECT_LINE);
        let mut lines = whole.split(|byte| *byte == b'\n');
        let line: ResumeEntry = serde_json::from_slice(lines.next().expect("a line")).expect("an entry");
        assert_eq!(line, ResumeEntry::Object(object));
        assert_eq!(lines.collect::<Vec<_>>(), [&b"{}"[..], b""]);
    }
}
