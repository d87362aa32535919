//! Lists of files that were stored before, indexed, and opened again page by page as the stream comes to them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use walseal_common::repository::{BaseId, Extent, FileEntry, Label, Layer, RelativePath, RepositoryError};
use walseal_common::seal::SealError;

use super::file::{KnownExtent, KnownFile, even_frame_size};
use super::index::{Index, Place};
use super::line::{self, Line};
use super::reader::{PageName, PageReader};
use super::{KnownFiles, KnownObjects};

/// Pages that are read ahead while the index is made.
const AHEAD: usize = 4;

/// Bytes of opened pages that are kept at hand; one is, whatever its size.
const AT_HAND: usize = 8 << 20;

/// Interrupted attempts that are looked at: those with the most pages.
const MOST_ATTEMPTS: usize = 3;

/// Where frames may be found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    /// The backup that is compared with; none for a full one.
    pub parent: Option<Label>,
    /// Only attempts that began after this backup count.
    pub since: Option<BaseId>,
}

/// What was found.
pub struct Known {
    /// The data objects.
    pub objects: Arc<KnownObjects>,
    /// The files.
    pub files: KnownFrames,
    /// Attempts without a label that had stored something.
    pub attempts: Vec<BaseId>,
    /// Objects that the lists name and that are not there any more.
    pub missing: usize,
}

/// The files, found by path.
pub struct KnownFrames {
    reader: PageReader,
    objects: Arc<KnownObjects>,
    index: Index,
    pages: Vec<ReadPage>,
    /// For each list: the numbers of its objects in `objects`.
    lists: Vec<Vec<Option<u32>>>,
    /// Whether the first list is that of the parent.
    has_parent: bool,
    /// Bytes of the longest line of a file of several layers.
    longest_layered: usize,
    at_hand: VecDeque<(u32, Arc<Vec<u8>>)>,
    /// Whether it was said that a page cannot be read again.
    said: bool,
}

struct ReadPage {
    name: PageName,
    list: usize,
}

impl Known {
    /// Reads the lists of `sources`, each page once.
    ///
    /// Errors: the repository's; the parent's list is not what it must be. What is wrong with an attempt's list only means that
    /// less of it is known.
    pub async fn read(reader: PageReader, sources: &Sources) -> Result<Known, RepositoryError> {
        let repository = reader.repository().clone();
        let mut objects = KnownObjects::default();
        let mut files = KnownFrames::new(reader, Arc::default());
        if let Some(parent) = &sources.parent {
            files.has_parent = true;
            let pages = parent.resume.iter().flat_map(|resume| resume.list.iter().cloned());
            let pages = pages.zip(0..).map(|(reference, number)| PageName {
                id: parent.id.clone(),
                number,
                reference: Some(reference),
            });
            files.read_list(pages.collect(), true, &mut objects).await?;
        }
        let attempts = attempts(&repository, sources.since.as_ref()).await?;
        for (id, pages) in &attempts {
            let name = |number| PageName { id: id.clone(), number, reference: None };
            files.read_list((0..*pages).map(name).collect(), false, &mut objects).await?;
        }
        let attempts: Vec<BaseId> = attempts.into_iter().map(|(id, _)| id).collect();
        if sources.parent.is_none() {
            // A full backup needs no other backup: an attempt's own frames it may have.
            objects.bar_bases(|base| attempts.contains(base));
        }
        // The lease was there before this is read: whoever announces more from now on sees it (case 40).
        objects.bar(&repository.announced().await?);
        let missing = objects.bar_missing(&repository).await?;
        files.index.finish();
        files.objects = Arc::new(objects);
        Ok(Known { objects: files.objects.clone(), files, attempts, missing })
    }
}

/// Attempts since this backup that have pages, with the number of those; the oldest first.
async fn attempts(
    repository: &walseal_common::repository::Repository,
    since: Option<&BaseId>,
) -> Result<Vec<(BaseId, u32)>, RepositoryError> {
    let mut found = Vec::new();
    for id in repository.unlabelled_bases(since).await? {
        let pages = repository.resume_pages(&id).await?;
        if pages > 0 {
            found.push((id, pages));
        }
    }
    found.sort_by_key(|(_, pages)| std::cmp::Reverse(*pages));
    found.truncate(MOST_ATTEMPTS);
    found.sort();
    Ok(found)
}

impl KnownFrames {
    fn new(reader: PageReader, objects: Arc<KnownObjects>) -> KnownFrames {
        let (index, pages, lists, at_hand) = (Index::default(), Vec::new(), Vec::new(), VecDeque::new());
        KnownFrames {
            reader,
            objects,
            index,
            pages,
            lists,
            has_parent: false,
            longest_layered: 0,
            at_hand,
            said: false,
        }
    }

    /// Reads the pages of a list in order. One that is not `whole` ends where a page is not as it must be.
    async fn read_list(
        &mut self,
        names: Vec<PageName>,
        whole: bool,
        objects: &mut KnownObjects,
    ) -> Result<(), RepositoryError> {
        let list = self.lists.len();
        self.lists.push(Vec::new());
        let mut alive: Vec<u64> = Vec::new();
        let reader = self.reader.clone();
        let reading = |name: PageName| {
            let reader = &reader;
            async move {
                let plain = reader.read(&name).await;
                (name, plain)
            }
        };
        let mut pages = stream::iter(names).map(reading).buffered(AHEAD);
        while let Some((name, plain)) = pages.next().await {
            let added = match plain {
                Ok(plain) => self.add_page(list, &name, &plain, objects, &mut alive).map_err(|why| {
                    let object = format!("base/{}/resume/{:08}", name.id, name.number);
                    RepositoryError::Object { name: object, source: SealError::Structure(why) }
                }),
                Err(error) => Err(error),
            };
            match added {
                Ok(()) => {}
                Err(error) if !whole && error.is_permanent() => {
                    tracing::debug!(%error, "the list of an interrupted attempt ends here");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        for (number, bytes) in self.lists.get(list).into_iter().flatten().zip(alive) {
            if let Some(number) = number {
                objects.alive(*number, bytes);
            }
        }
        Ok(())
    }

    fn add_page(
        &mut self,
        list: usize,
        name: &PageName,
        plain: &[u8],
        objects: &mut KnownObjects,
        alive: &mut Vec<u64>,
    ) -> Result<(), String> {
        let page = self.pages.len() as u32;
        self.pages.push(ReadPage { name: name.clone(), list });
        for (at, text) in line::lines(plain) {
            match line::read(text)? {
                Line::Object(object) => {
                    let number = objects.add(object);
                    if let Some(numbers) = self.lists.get_mut(list) {
                        numbers.push(number);
                    }
                    alive.push(0);
                }
                Line::File(file) => {
                    if file.is_layered() {
                        self.longest_layered = self.longest_layered.max(text.len());
                    }
                    for (extents, size) in file.layers() {
                        count_alive(extents, size, alive)?;
                    }
                    self.index.add(&file.path.0, Place { page, at: at as u32 });
                }
            }
        }
        Ok(())
    }

    /// The plaintext of a page, from the few that are at hand or read again.
    async fn page(&mut self, number: u32) -> Option<Arc<Vec<u8>>> {
        if let Some(at) = self.at_hand.iter().position(|(other, _)| *other == number) {
            let page = self.at_hand.remove(at)?;
            let plain = page.1.clone();
            self.at_hand.push_back(page);
            return Some(plain);
        }
        let name = &self.pages.get(number as usize)?.name;
        let plain = match self.reader.read(name).await {
            Ok(plain) => Arc::new(plain),
            Err(error) => {
                if !std::mem::replace(&mut self.said, true) {
                    tracing::warn!(%error, "a list of stored frames cannot be read again; its files are stored anew");
                }
                return None;
            }
        };
        self.at_hand.push_back((number, plain.clone()));
        while self.at_hand.len() > 1 && self.bytes_at_hand() > AT_HAND {
            self.at_hand.pop_front();
        }
        Some(plain)
    }

    /// Bytes of opened pages.
    pub(super) fn bytes_at_hand(&self) -> usize {
        self.at_hand.iter().map(|(_, page)| page.len()).sum()
    }

    /// The line at this place, if it is that of the file at `path`.
    async fn entry(&mut self, place: Place, path: &RelativePath) -> Option<FileEntry> {
        let plain = self.page(place.page).await?;
        let rest = plain.get(place.at as usize..)?;
        let text = rest.split(|byte| *byte == b'\n').next()?;
        line::digested(text).ok().filter(|file| file.path.0 == *path)
    }

    /// The objects that the parent's list names; `None` where there is no parent, or one of them can't be referred to.
    pub fn parent_objects(&self) -> Option<BTreeSet<u32>> {
        self.has_parent.then(|| self.lists.first())??.iter().copied().collect()
    }

    /// Bytes of the longest line of a file of several layers, which changes make longer.
    pub fn longest_layered(&self) -> usize {
        self.longest_layered
    }

    /// Where lines of the file at `path` may be, in the parent's list or in those of attempts.
    fn places(&self, path: &RelativePath, of_parent: bool) -> Vec<Place> {
        let of = |place: &Place| {
            self.pages.get(place.page as usize).is_some_and(|page| (self.has_parent && page.list == 0) == of_parent)
        };
        self.index.find(path).filter(of).collect()
    }

    /// The frames of a layer of a line at this place.
    fn frames_of(&self, place: Place, layer: Layer) -> Option<KnownFile> {
        let numbers = self.lists.get(self.pages.get(place.page as usize)?.list)?;
        let usable = |number: &u32| self.objects.get(*number).is_some_and(super::KnownObject::is_usable);
        let extent = |extent: Extent| KnownExtent {
            object: numbers.get(extent.object as usize).copied().flatten().filter(usable),
            frame: extent.frame,
            count: extent.count,
        };
        let size = layer.plain_size();
        Some(KnownFile::new(size, layer.extents.into_iter().map(extent).collect(), layer.digests))
    }
}

#[async_trait::async_trait]
impl KnownFiles for KnownFrames {
    async fn find(&mut self, path: &RelativePath) -> Vec<KnownFile> {
        let places: Vec<Place> = self.index.find(path).collect();
        let mut found = Vec::new();
        for place in places {
            // Of a file of layers the oldest has frames of the whole file. Those that are the same as now can be referred to,
            // whatever newer layers have over them.
            let oldest = self.entry(place, path).await.and_then(|entry| entry.into_layers().into_iter().next());
            found.extend(oldest.and_then(|layer| self.frames_of(place, layer)));
        }
        found
    }

    async fn changed(&mut self, path: &RelativePath) -> Vec<KnownFile> {
        let mut found = Vec::new();
        for place in self.places(path, false) {
            let newest = self.entry(place, path).await.and_then(|entry| entry.into_layers().pop());
            let newest = newest.filter(|layer| layer.blocks.is_some());
            found.extend(newest.and_then(|layer| self.frames_of(place, layer)));
        }
        found
    }

    async fn line(&mut self, path: &RelativePath) -> Option<FileEntry> {
        for place in self.places(path, true) {
            let Some(mut entry) = self.entry(place, path).await.filter(FileEntry::adds_up) else { continue };
            let numbers = self.lists.first()?;
            for extent in entry.all_extents_mut() {
                extent.object = numbers.get(extent.object as usize).copied().flatten()?;
            }
            return Some(entry);
        }
        None
    }
}

/// Adds the plaintext of a file's frames to that of their objects.
fn count_alive(extents: &[Extent], size: u64, alive: &mut [u64]) -> Result<(), String> {
    let frames: u64 = extents.iter().map(|extent| u64::from(extent.count)).sum();
    let frame_size = if frames == 1 { size } else { even_frame_size(size, frames) };
    let mut before = 0;
    for extent in extents {
        let end = before + u64::from(extent.count);
        // Where the frames are not even, their mean is near enough.
        let at = |frame: u64| match frame_size {
            0 => size / frames.max(1) * frame,
            even => even.saturating_mul(frame).min(size),
        };
        let slot = alive.get_mut(extent.object as usize);
        let slot =
            slot.ok_or_else(|| format!("a file is in object {}, of which no line came before", extent.object))?;
        *slot = slot.saturating_add(at(end) - at(before));
        before = end;
    }
    Ok(())
}
