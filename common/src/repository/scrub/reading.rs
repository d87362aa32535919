//! Reads every object, in the order of names, and checks all that can be checked without a key: that it is what its writer signed under
//! this name, every frame's checksum and digest, and what others say of it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::cure;
use super::flaw::{Flaw, FlawKind};
use super::sequence::Sequence;
use super::survey::{Survey, is_strangers};
use crate::lsn::LsnRange;
use crate::repository::{ObjectName, Repository, RepositoryError};
use crate::seal::{Envelope, ObjectDigest, SealError, WalSection};
use crate::store::{LARGEST_GET, LARGEST_PAGE};

/// Objects that are read at the same time, at most.
const AT_A_TIME: usize = 16;

/// Bytes of objects that are in memory at the same time, at most; a single one may be larger, up to [`LARGEST_GET`] (I11).
const IN_MEMORY: u32 = 64 << 20;

/// Objects above so many bytes are checked on another thread.
const SMALL: usize = 64 << 10;

/// Flaws that are kept; of more only the number is.
pub(super) const MOST_FLAWS: usize = 1000;

/// Names of strangers' objects that are kept.
const MOST_FOREIGN: usize = 20;

/// What was read so far. A round goes through all names once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Reading {
    /// The last name that was read; `None` before the first.
    pub after: Option<String>,
    /// Objects that were read.
    pub objects: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Objects that are none of this format, or lie in the folder of a writer that is not trusted.
    pub foreign: u64,
    /// The names of the first of them.
    pub foreign_names: Vec<String>,
    /// What is wrong.
    pub flaws: Vec<Flaw>,
    /// How many more flaws there are than are kept.
    pub more_flaws: u64,
    /// Whether there are no more names.
    pub ended: bool,
}

impl Reading {
    fn add(&mut self, flaw: Flaw) {
        if self.flaws.len() < MOST_FLAWS {
            self.flaws.push(flaw);
        } else {
            self.more_flaws += 1;
        }
    }
}

/// What one object turned out to be.
struct Read {
    name: ObjectName,
    size: u64,
    result: Result<Option<WalSection>, Box<Flaw>>,
}

/// Reads one repository, a page of names at a time.
#[derive(Debug)]
pub struct Reader<'a> {
    repository: &'a Repository,
    survey: &'a Survey,
    sequence: Sequence,
    memory: Arc<Semaphore>,
    /// Objects that the store took before this, in seconds since 1970, are passed over.
    since: Option<i64>,
}

impl<'a> Reader<'a> {
    /// Reads `repository`, of which `survey` was taken just now.
    pub fn new(repository: &'a Repository, survey: &'a Survey, since: Option<i64>) -> Reader<'a> {
        let memory = Arc::new(Semaphore::new(IN_MEMORY as usize));
        Reader { repository, survey, sequence: Sequence::new(survey.segment_size), memory, since }
    }

    /// Reads the objects of the next page of names, at most 1000, and takes them into `reading`. What it holds is whole after each
    /// call: from there a later reader, with a newer survey, can go on.
    ///
    /// Errors: the store's, where it does not answer.
    pub async fn next(&mut self, reading: &mut Reading) -> Result<(), RepositoryError> {
        let page = self.repository.page("", reading.after.as_deref(), LARGEST_PAGE).await?;
        let mut found = reading.clone();
        found.ended = !page.more || page.objects.is_empty();
        let mut known = Vec::new();
        for meta in &page.objects {
            let old = self.since.is_some_and(|since| meta.modified.is_some_and(|modified| modified < since));
            match meta.key.parse::<ObjectName>() {
                Ok(_) if old => {}
                Ok(name) if !is_strangers(self.repository, &name) => known.push((name, meta.size)),
                Err(_) if meta.key.starts_with("probe/") => {}
                Ok(_) | Err(_) => {
                    found.foreign += 1;
                    if found.foreign_names.len() < MOST_FOREIGN {
                        found.foreign_names.push(meta.key.clone());
                    }
                }
            }
        }
        let mut flaws = Vec::new();
        {
            let (repository, survey, memory) = (self.repository, self.survey, &self.memory);
            let reads = known.into_iter().map(|(name, size)| read(repository, survey, memory, name, size));
            let mut reads = stream::iter(reads).buffered(AT_A_TIME);
            while let Some(read) = reads.next().await {
                let Some(Read { name, size, result }) = read? else { continue };
                found.objects += 1;
                found.bytes += size;
                match result {
                    Ok(None) => {}
                    Ok(Some(section)) => flaws.extend(self.sequence.next(repository, &name, &section).await?),
                    Err(flaw) => flaws.push(*flaw),
                }
            }
        }
        self.say_what_it_costs(&mut flaws).await?;
        flaws.into_iter().for_each(|flaw| found.add(flaw));
        found.after = page.objects.last().map(|last| last.key.clone()).or(found.after);
        *reading = found;
        Ok(())
    }

    async fn say_what_it_costs(&self, flaws: &mut Vec<Flaw>) -> Result<(), RepositoryError> {
        let mut of_bases = Vec::new();
        let mut rest = Vec::new();
        for flaw in flaws.drain(..) {
            match flaw.object.parse::<ObjectName>() {
                Ok(name @ (ObjectName::Wal(..) | ObjectName::Partial(..) | ObjectName::Tail(..))) => {
                    rest.push(self.of_wal(&name, flaw));
                }
                Ok(ObjectName::Label(id)) => {
                    let mut flaw = flaw.cured_by(cure::of_base_object());
                    flaw.bases.push(id);
                    rest.push(flaw);
                }
                Ok(ObjectName::Snapshot(id)) => rest.push(flaw.costing_snapshot(&id)),
                Ok(ref name @ ObjectName::Dump(ref id, _)) if self.survey.references.get(name).is_some() => {
                    rest.push(flaw.costing_snapshot(id));
                }
                Ok(ObjectName::History(_)) => rest.push(flaw.cured_by(cure::of_history())),
                Ok(name) if self.survey.references.get(&name).is_some() => {
                    of_bases.push(flaw.cured_by(cure::of_base_object()));
                }
                _ => {
                    let object = flaw.object.clone();
                    rest.push(flaw.cured_by(cure::of_small_object(&object)));
                }
            }
        }
        if !of_bases.is_empty() {
            self.survey.stakes.attribute(self.repository, &mut of_bases).await?;
        }
        flaws.append(&mut of_bases);
        flaws.append(&mut rest);
        Ok(())
    }

    /// What it costs that an object of WAL is of no use: nothing where others hold the same bytes.
    fn of_wal(&self, name: &ObjectName, flaw: Flaw) -> Flaw {
        let Some(size) = self.survey.segment_size else { return flaw.cured_by(cure::of_small_object("wal")) };
        let (branch, listing) = match name {
            ObjectName::Wal(branch, ..) | ObjectName::Partial(branch, _) | ObjectName::Tail(branch, ..) => {
                (*branch, self.survey.stakes.listings.get(branch))
            }
            _ => return flaw,
        };
        let mut listing = listing.cloned();
        let lost = listing.as_mut().and_then(|listing| listing.leave_out(name));
        let start = match (name, lost) {
            (ObjectName::Wal(_, segment, _) | ObjectName::Partial(_, segment), None) => {
                segment.number(size).map(|number| number.start(size)).unwrap_or_default()
            }
            (_, Some(lost)) => lost.start,
            (ObjectName::Tail(_, _, range), None) => range.start,
            _ => crate::lsn::Lsn::INVALID,
        };
        let flaw = flaw.cured_by(cure::of_wal_object(name, start));
        let Some((listing, lost)) = listing.zip(lost) else { return flaw };
        let held = listing.contiguous_end(lost.start).max(lost.start);
        match LsnRange::new(held, lost.end).filter(|rest| !rest.is_empty()) {
            Some(rest) => self.survey.stakes.of_wal(branch, rest, flaw),
            None => flaw,
        }
    }
}

/// Reads and checks one object; `None` when it went meanwhile.
async fn read(
    repository: &Repository,
    survey: &Survey,
    memory: &Semaphore,
    name: ObjectName,
    size: u64,
) -> Result<Option<Read>, RepositoryError> {
    let flaw = |kind, what: String| {
        Ok(Some(Read { name: name.clone(), size, result: Err(Box::new(Flaw::new(kind, &name, what))) }))
    };
    if size > LARGEST_GET {
        return flaw(FlawKind::Damaged, format!("it has {size} bytes; no object has more than {LARGEST_GET}"));
    }
    let permits = u32::try_from(size).unwrap_or(IN_MEMORY).clamp(1, IN_MEMORY);
    // Never closed.
    let _room = memory.acquire_many(permits).await.ok();
    let bytes = match repository.store().get(&name.key(repository.cluster())).await {
        Ok(bytes) => bytes,
        Err(error) => {
            let error = RepositoryError::from(error);
            // What is referred to and went is missed by the next survey.
            if error.is_not_found() {
                return Ok(None);
            }
            let flaw = Flaw::of(&name, &error).ok_or(error)?;
            return Ok(Some(Read { name, size, result: Err(Box::new(flaw)) }));
        }
    };
    if bytes.len() as u64 != size {
        return flaw(FlawKind::Unreadable, format!("the store lists {size} bytes, and gives {}", bytes.len()));
    }
    let told = survey.references.get(&name);
    let evidence = survey.references.evidence(&name.to_string()).copied();
    let judged = {
        let (repository, name) = (repository.clone(), name.clone());
        let judge = move || {
            // Its digest takes as long as everything else.
            let digest = (told.is_some() || evidence.is_some()).then(|| ObjectDigest::of(&bytes));
            let as_told = told.is_none_or(|told| digest.is_some_and(|digest| told.is(&digest)));
            let same = as_told && evidence.is_none_or(|evidence| digest == Some(evidence));
            judge(&repository, &name, bytes).and_then(|section| match same {
                true => Ok(section),
                false => {
                    let what = "its writer signed it, and it is not the object that is referred to";
                    Err(Box::new(Flaw::new(FlawKind::Replaced, &name, what)))
                }
            })
        };
        if size as usize > SMALL {
            match tokio::task::spawn_blocking(judge).await {
                Ok(judged) => judged,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        } else {
            judge()
        }
    };
    Ok(Some(Read { name, size, result: judged }))
}

/// Checks what the object says of itself.
fn judge(repository: &Repository, name: &ObjectName, bytes: Bytes) -> Result<Option<WalSection>, Box<Flaw>> {
    let flaw = |kind, what: String| Err(Box::new(Flaw::new(kind, name, what)));
    let refused = |source: SealError| {
        let error = RepositoryError::Object { name: name.to_string(), source };
        // Every error of an object is one of a flaw.
        Box::new(Flaw::of(name, &error).unwrap_or_else(|| Flaw::new(FlawKind::Damaged, name, error.to_string())))
    };
    let text = name.to_string();
    let envelope = Envelope::read(bytes, repository.trust(), repository.cluster(), &text).map_err(refused)?;
    let header = envelope.header();
    if header.kind != name.kind() {
        let what = format!("it is an object of kind \"{}\"", header.kind.word());
        return flaw(FlawKind::Misplaced, what);
    }
    if let Some(owner) = name.owner().map(ToString::to_string).filter(|owner| *owner != header.writer) {
        let what = format!("it was signed by {}, in the folder of {owner}", header.writer);
        return flaw(FlawKind::Misplaced, what);
    }
    envelope.verify_frames().map_err(refused)?;
    let section = envelope.header().wal.clone();
    match (name, section) {
        (ObjectName::Wal(..) | ObjectName::Partial(..) | ObjectName::Tail(..), None) => {
            flaw(FlawKind::Misplaced, "its header does not say which WAL it holds".to_owned())
        }
        (_, Some(section)) if section.end.bytes_since(section.start) != envelope.trailer.plain_size => {
            let (said, held) = (section.end.bytes_since(section.start), envelope.trailer.plain_size);
            flaw(FlawKind::Damaged, format!("its header says {said} bytes of WAL, and it holds {held}"))
        }
        (_, section) => Ok(section.filter(|_| !matches!(name, ObjectName::Conflict(..)))),
    }
}
