//! One base backup, opened: every file put together in memory, frame by frame, and its size and checksum compared with the server's own
//! manifest. Nothing is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use walseal_common::repository::{
    BaseId, FileEntry, Flaw, FlawKind, Label, Layer, ManifestEntry, ObjectName, Repository, RepositoryError, Span,
    cure_of_base_object, spans,
};
use walseal_common::seal::{Identity, ObjectDigest};
use walseal_common::terminal::Opened;

use super::frames::{Frames, LayerFrames};

/// The server's own list of files, which is one of them.
const SERVER_MANIFEST: &str = "backup_manifest";

/// Flaws of one backup that are kept; it is of no use after the first.
const MOST_FLAWS: usize = 100;

/// What was computed of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sum {
    size: u64,
    /// CRC-32C, which the archiver asks the server's manifest for.
    crc: u32,
}

/// A file's line in the server's manifest.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

/// A base backup that is being verified.
struct Base<'a> {
    label: &'a Label,
    frames: Frames<'a>,
    opened: &'a mut Opened,
    /// What was computed, by the first bytes of a digest of the path: paths of millions of files need not be kept (I11).
    sums: BTreeMap<[u8; 8], Sum>,
    server_manifest: Vec<u8>,
    flaws: Vec<Flaw>,
}

/// Opens everything of a base backup. `told` hears of bytes that were put together.
///
/// Errors: the store's, where it does not answer.
pub(crate) async fn verify(
    repository: &Repository,
    identities: &[Identity],
    id: &BaseId,
    opened: &mut Opened,
    told: &mut impl FnMut(u64),
) -> Result<Vec<Flaw>, RepositoryError> {
    let label = match repository.label(id).await {
        Ok(label) => label,
        Err(error) => {
            let flaw = Flaw::of(&ObjectName::Label(id.clone()), &error).ok_or(error)?;
            return Ok(vec![costing(id, flaw)]);
        }
    };
    let frames = Frames::new(repository, identities, &label);
    let (sums, server_manifest, flaws) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut base = Base { label: &label, frames, opened, sums, server_manifest, flaws };
    for page in 0..label.manifest.len() {
        match repository.manifest_page(&label, page, identities).await {
            Ok(entries) => {
                for entry in entries {
                    if let ManifestEntry::File(file) = entry {
                        base.file(file, told).await?;
                    }
                }
            }
            Err(error) => base.refuse(error)?,
        }
    }
    base.compare();
    let flaws = std::mem::take(&mut base.flaws);
    opened.bases += 1;
    Ok(flaws.into_iter().map(|flaw| costing(id, flaw)).collect())
}

fn costing(id: &BaseId, flaw: Flaw) -> Flaw {
    let mut flaw = flaw.cured_by(cure_of_base_object());
    flaw.bases = vec![id.clone()];
    flaw
}

fn key(path: &[u8]) -> [u8; 8] {
    let mut key = [0; 8];
    key.iter_mut().zip(ObjectDigest::of(path).as_bytes()).for_each(|(to, from)| *to = *from);
    key
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }
}

impl Base<'_> {
    fn flaw(&mut self, object: String, what: String) {
        if self.flaws.len() < MOST_FLAWS {
            self.flaws.push(Flaw::new(FlawKind::File, object, what));
        }
    }

    /// Takes an error about one object.
    ///
    /// Errors: it is about the store.
    fn refuse(&mut self, error: RepositoryError) -> Result<(), RepositoryError> {
        let name = match &error {
            RepositoryError::Object { name, .. } => name.parse().ok(),
            RepositoryError::Store(error) => error.key.split_once('/').and_then(|(_, name)| name.parse().ok()),
            _ => None,
        };
        let name: ObjectName = name.unwrap_or_else(|| ObjectName::Label(self.label.id.clone()));
        let flaw = Flaw::of(&name, &error).ok_or(error)?;
        if self.flaws.len() < MOST_FLAWS && !self.flaws.contains(&flaw) {
            self.flaws.push(flaw);
        }
        Ok(())
    }

    async fn file(&mut self, file: FileEntry, told: &mut impl FnMut(u64)) -> Result<(), RepositoryError> {
        let place = format!("base/{}/label", self.label.id);
        let (path, size) = (file.path.0.clone(), file.size);
        let listed = |extent: &walseal_common::repository::Extent| (extent.object as usize) < self.label.objects.len();
        if !file.adds_up() || !file.all_extents().all(listed) {
            self.flaw(place, format!("the entry of {path} in its list of files does not add up"));
            return Ok(());
        }
        let mut sum = Sum::default();
        let keep = path.as_bytes() == SERVER_MANIFEST.as_bytes();
        let layers = file.into_layers();
        let read = match layers.as_slice() {
            [only] => self.in_order(only, &mut sum, keep).await,
            several => self.in_layers(several, size, &mut sum, keep).await,
        };
        if let Err(error) = read {
            return self.refuse(error);
        }
        told(sum.size);
        self.opened.files += 1;
        self.opened.file_bytes += sum.size;
        if sum.size != size {
            self.flaw(place, format!("the frames of {path} have {} bytes, its list of files says {size}", sum.size));
            return Ok(());
        }
        self.sums.insert(key(path.as_bytes()), sum);
        Ok(())
    }

    /// A file whose frames follow one another.
    async fn in_order(&mut self, layer: &Layer, sum: &mut Sum, keep: bool) -> Result<(), RepositoryError> {
        let mut digests = layer.digests.iter();
        for extent in &layer.extents {
            for frame in extent.frame..extent.frame.saturating_add(extent.count) {
                let plain = self.frames.frame(extent.object, frame, digests.next()).await?;
                sum.add(&plain);
                if keep {
                    self.server_manifest.extend_from_slice(&plain);
                }
            }
        }
        Ok(())
    }

    /// A file of which each block comes from the newest layer that has it; what none has is zeros.
    async fn in_layers(
        &mut self,
        layers: &[Layer],
        size: u64,
        sum: &mut Sum,
        keep: bool,
    ) -> Result<(), RepositoryError> {
        let mut all: Vec<(usize, Span)> = Vec::new();
        for (number, found) in spans(layers).into_iter().enumerate() {
            all.extend(found.into_iter().map(|span| (number, span)));
        }
        all.sort_by_key(|(_, span)| span.file);
        let mut readers: Vec<LayerFrames<'_>> = layers.iter().map(LayerFrames::new).collect();
        for (number, span) in all {
            self.zeros(span.file.saturating_sub(sum.size), sum);
            let mut done = 0;
            while done < span.length {
                let Some(reader) = readers.get_mut(number) else { break };
                let bytes = reader.at(&mut self.frames, span.stream + done, span.length - done).await?;
                if bytes.is_empty() {
                    return Ok(()); // Its size tells.
                }
                sum.add(bytes);
                if keep {
                    self.server_manifest.extend_from_slice(bytes);
                }
                done += bytes.len() as u64;
            }
        }
        self.zeros(size.saturating_sub(sum.size), sum);
        Ok(())
    }

    fn zeros(&self, count: u64, sum: &mut Sum) {
        const ZEROS: [u8; 8192] = [0; 8192];
        let mut left = count;
        while left > 0 {
            let part = left.min(ZEROS.len() as u64);
            sum.add(ZEROS.get(..part as usize).unwrap_or_default());
            left -= part;
        }
    }

    /// Compares every file of the server's manifest with what was put together.
    fn compare(&mut self) {
        let place = format!("base/{}/label", self.label.id);
        let manifest = std::mem::take(&mut self.server_manifest);
        let mut wrong = Vec::new();
        let mut compared = 0;
        for line in manifest.split(|byte| *byte == b'\n') {
            let text = line.trim_ascii();
            let text = text.strip_suffix(b",").unwrap_or(text);
            if !text.starts_with(b"{ \"Path\"") && !text.starts_with(b"{ \"Encoded-Path\"") {
                continue;
            }
            let Ok(line) = serde_json::from_slice::<Line>(text) else {
                wrong.push("a line of the server's manifest cannot be read".to_owned());
                continue;
            };
            // A path that is not UTF-8 has its frames' digests.
            let Some(path) = line.path else { continue };
            let last = path.rsplit('/').next().unwrap_or_default();
            // Of these the server sent changed blocks; backup_label says other things in such a backup.
            if self.label.native && (last.starts_with("INCREMENTAL.") || path == "backup_label") {
                continue;
            }
            let Some(sum) = self.sums.get(&key(path.as_bytes())) else {
                wrong.push(format!("{path}, which the server's manifest lists, is not in the backup"));
                continue;
            };
            compared += 1;
            if sum.size != line.size {
                wrong.push(format!("{path} has {} bytes, the server's manifest says {}", sum.size, line.size));
            } else if line.algorithm.as_deref() == Some("CRC32C")
                && let Some(told) = line.checksum
            {
                let hex = |bytes: [u8; 4]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                // As the server's memory has it.
                let found = [hex(sum.crc.to_le_bytes()), hex(sum.crc.to_be_bytes())];
                if !found.contains(&told) {
                    wrong
                        .push(format!("{path} has checksum {}, the server's manifest says {told}", found.join(" or ")));
                }
            }
        }
        if compared == 0 && self.flaws.is_empty() {
            wrong.push("it has no manifest of the server that lists its files".to_owned());
        }
        self.opened.compared += compared;
        for what in wrong {
            self.flaw(place.clone(), what);
        }
    }
}
