//! Files of `pg_wal` in a folder: what `pg_receivewal`, another archive or a copied data directory holds.
//!
//! Segments and `.partial` files, as they are; compressed ones are named, and left to whoever can unpack them. A file is not
//! taken at its word: its size must be right, and its bytes are examined like any others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;
use walseal_common::lsn::Lsn;
use walseal_common::segment::{SegmentNumber, SegmentSize, WalFileName};
use walseal_common::timeline::{Branch, SystemIdentifier, TimelineHistory, TimelineId};

use super::SourceError;
use super::source::{AHEAD, Brought, Lineage, Reading, Source};

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// Most bytes of a history file; real ones have some hundred.
const LARGEST_HISTORY: u64 = 1 << 20;

/// What programs append to the name of a segment that they compress.
const COMPRESSED: [&str; 8] = [".gz", ".zst", ".lz4", ".bz2", ".xz", ".lzo", ".br", ".gpg"];

/// A folder with files of WAL.
#[derive(Clone, Debug)]
pub struct FolderSource {
    folder: PathBuf,
    size: SegmentSize,
    system: SystemIdentifier,
}

/// A file of a segment.
#[derive(Clone, Debug)]
struct SegmentFile {
    path: PathBuf,
    /// Whether its name says that it is not finished.
    partial: bool,
    length: u64,
}

/// What a folder has of one timeline.
#[derive(Clone, Default, Debug)]
struct Contents {
    segments: BTreeMap<SegmentNumber, SegmentFile>,
    notes: Vec<String>,
}

impl FolderSource {
    /// The folder, for a cluster with segments of `size`.
    ///
    /// Errors: it cannot be listed.
    pub fn open(folder: &Path, size: SegmentSize, system: SystemIdentifier) -> Result<FolderSource, SourceError> {
        let folder = std::path::absolute(folder).map_err(|error| read_error(folder, error))?;
        fs::read_dir(&folder).map_err(|error| read_error(&folder, error))?;
        Ok(FolderSource { folder, size, system })
    }

    fn contents(&self, timeline: TimelineId) -> Result<Contents, SourceError> {
        let mut contents = Contents::default();
        let mut packed = 0;
        for entry in fs::read_dir(&self.folder).map_err(|error| read_error(&self.folder, error))? {
            let entry = entry.map_err(|error| read_error(&self.folder, error))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let (segment, partial) = match name.parse() {
                Ok(WalFileName::Segment(segment)) => (segment, false),
                Ok(WalFileName::Partial(segment)) => (segment, true),
                _ => {
                    packed += u32::from(is_packed(name, timeline));
                    continue;
                }
            };
            let Some(number) = segment.number(self.size).filter(|_| segment.timeline == timeline) else { continue };
            // A link may lead to nothing.
            let length = fs::metadata(entry.path()).map_err(|error| read_error(&entry.path(), error))?.len();
            let file = SegmentFile { path: entry.path(), partial, length };
            match contents.segments.get(&number) {
                Some(there) if !there.partial => {}
                _ => drop(contents.segments.insert(number, file)),
            }
        }
        let right = self.size.bytes();
        let wrong = contents.segments.extract_if(.., |_, file| file.length != right);
        let notes = wrong.map(|(_, file)| {
            format!(
                "{} has {} bytes, and a segment of this cluster {right}: it is cut off, or none",
                file.path.display(),
                file.length
            )
        });
        let notes = notes.collect::<Vec<_>>();
        contents.notes = notes;
        if packed > 0 {
            contents.notes.push(format!(
                "{packed} file{} in {} look like compressed or encrypted segments: unpack them first",
                if packed == 1 { "" } else { "s" },
                self.folder.display()
            ));
        }
        Ok(contents)
    }

    fn history(&self, timeline: TimelineId) -> Result<Option<TimelineHistory>, SourceError> {
        let path = self.folder.join(WalFileName::History(timeline).to_string());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read_error(&path, error)),
        };
        let mut content = Vec::new();
        file.take(LARGEST_HISTORY).read_to_end(&mut content).map_err(|error| read_error(&path, error))?;
        let history = TimelineHistory::parse(timeline, &content);
        history.map(Some).map_err(|error| SourceError::History { path, error })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(FolderSource) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let own = self.clone();
        let ended = tokio::task::spawn_blocking(move || work(own)).await;
        ended.map_err(|_| SourceError::Task(self.describe()))?
    }
}

fn is_packed(name: &str, timeline: TimelineId) -> bool {
    let stem = COMPRESSED.iter().find_map(|end| name.strip_suffix(end));
    let of = |stem: &str| match stem.parse() {
        Ok(WalFileName::Segment(segment) | WalFileName::Partial(segment)) => segment.timeline == timeline,
        _ => false,
    };
    stem.is_some_and(of)
}

fn read_error(path: &Path, error: std::io::Error) -> SourceError {
    SourceError::Read { path: path.to_owned(), error }
}

#[async_trait::async_trait]
impl Source for FolderSource {
    fn describe(&self) -> String {
        format!("the folder {}", self.folder.display())
    }

    async fn lineage(&self, branch: Branch) -> Result<Lineage, SourceError> {
        if branch.timeline == TimelineId::FIRST {
            return Ok(Lineage::of(branch, &TimelineHistory::root(branch.timeline), self.system));
        }
        let history = self.blocking(move |own| own.history(branch.timeline)).await?;
        Ok(history.map_or(Lineage::Silent, |history| Lineage::of(branch, &history, self.system)))
    }

    async fn read(&self, timeline: TimelineId, from: Lsn, until: Lsn) -> Result<Option<Reading>, SourceError> {
        let contents = self.blocking(move |own| own.contents(timeline)).await?;
        let size = self.size;
        let mut files = contents.segments.into_iter().skip_while(move |(number, _)| number.start(size) < from);
        let Some(first) = files.next().filter(|(number, _)| number.start(size) < until) else { return Ok(None) };
        let start = first.0.start(size);
        let (sender, brought) = mpsc::channel(AHEAD);
        let describe = self.describe();
        tokio::task::spawn_blocking(move || {
            let mut next = first.0;
            let mut why = format!("{describe} has no more");
            for (number, file) in std::iter::once(first).chain(files) {
                if number.start(size) >= until {
                    break;
                }
                if number != next {
                    why = format!("{describe} has no segment at {}", next.start(size));
                    break;
                }
                let finished = (!file.partial).then(|| number.end(size));
                if !bring(&file.path, finished, &sender) {
                    return;
                }
                next = number.next();
            }
            // Nobody may be left to hear it.
            drop(sender.blocking_send(Ok(Brought::End(why))));
        });
        Ok(Some(Reading { start, brought }))
    }

    async fn notes(&self, timeline: TimelineId) -> Result<Vec<String>, SourceError> {
        self.blocking(move |own| Ok(own.contents(timeline)?.notes)).await
    }
}

/// Sends a file. Whether anybody listens, and it could be read.
fn bring(path: &Path, finished: Option<Lsn>, sender: &mpsc::Sender<Result<Brought, SourceError>>) -> bool {
    let send = |brought| sender.blocking_send(brought).is_ok();
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) => {
            send(Err(read_error(path, error)));
            return false;
        }
    };
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        match file.by_ref().take(CHUNK as u64).read_to_end(&mut chunk) {
            Ok(0) => break,
            Ok(_) if !send(Ok(Brought::Wal(Bytes::from(chunk)))) => return false,
            Ok(_) => {}
            Err(error) => {
                send(Err(read_error(path, error)));
                return false;
            }
        }
    }
    finished.is_none_or(|end| send(Ok(Brought::Finished(end))))
}
