//! A backup made by hand: what an archiver would have stored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walseal_common::lsn::Lsn;
use walseal_common::repository::{
    BlockRun, Extent, FileEntry, FrameDigest, Label, Layer, ManifestEntry, ObjectName, ObjectReference, PathField,
    RelativePath, Repository,
};
use walseal_common::seal::{Draft, Kind, SealedObject};
use walseal_common::store::ObjectStore;

use crate::rebuild::{Accounts, Destination, Layout, Owner, RebuildError, Source, Survey, TablespaceMapping};
use crate::sample::{SYSTEM, SampleRepository};

pub(super) const MTIME: i64 = 1_700_000_000;
const FRAME: usize = 64 << 10;
const FRAMES_IN_OBJECT: usize = 128;

pub(super) fn content(size: usize, seed: usize) -> Vec<u8> {
    (0..size).map(|n| (n / 7 + n * seed) as u8).collect()
}

/// Bytes that do not shrink.
pub(super) fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(size).collect()
}

pub(super) struct Toy {
    sample: SampleRepository,
    folder: tempfile::TempDir,
    files: BTreeMap<Vec<u8>, Vec<u8>>,
    cuts: BTreeMap<Vec<u8>, Vec<usize>>,
    tablespaces: Vec<(u32, Option<String>)>,
    forged: Vec<Vec<u8>>,
    layered: BTreeMap<Vec<u8>, Vec<ToyLayer>>,
}

/// What one backup read of a file.
pub(super) struct ToyLayer {
    /// `[first, count]`; none for the oldest layer.
    pub(super) blocks: Option<Vec<(u32, u32)>>,
    /// The blocks, or the whole file.
    pub(super) bytes: Vec<u8>,
    /// The file's length then.
    pub(super) length: u64,
}

impl Toy {
    /// What every cluster has.
    pub(super) async fn new() -> Toy {
        let mut toy = Toy {
            sample: SampleRepository::new().await,
            folder: tempfile::tempdir().expect("a temporary folder"),
            files: BTreeMap::new(),
            cuts: BTreeMap::new(),
            tablespaces: Vec::new(),
            forged: Vec::new(),
            layered: BTreeMap::new(),
        };
        toy.file("backup_label", b"START WAL LOCATION: 0/2000028\n");
        toy.file("PG_VERSION", b"15\n");
        let mut control = content(8192, 1);
        control[..8].copy_from_slice(&SYSTEM.0.to_ne_bytes());
        toy.file("global/pg_control", &control);
        toy.file("global/1262", &content(8192, 2));
        toy
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn repository(&self) -> &SampleRepository {
        &self.sample
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
        self.files.iter()
    }

    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) {
        self.bytes_path(path.as_bytes(), bytes);
    }

    pub(super) fn bytes_path(&mut self, path: &[u8], bytes: &[u8]) {
        self.files.insert(path.to_vec(), bytes.to_vec());
    }

    pub(super) fn cut_file(&mut self, path: &str, bytes: &[u8], cuts: &[usize]) {
        self.file(path, bytes);
        self.cuts.insert(path.as_bytes().to_vec(), cuts.to_vec());
    }

    /// A file of layers, which `whole` is the content of.
    pub(super) fn layered_file(&mut self, path: &str, layers: Vec<ToyLayer>, whole: &[u8]) {
        self.file(path, whole);
        self.layered.insert(path.as_bytes().to_vec(), layers);
    }

    pub(super) fn without(&mut self, path: &str) {
        self.files.remove(path.as_bytes());
    }

    pub(super) fn tablespace(&mut self, oid: u32, location: Option<&str>) {
        self.tablespaces.push((oid, location.map(str::to_owned)));
    }

    pub(super) fn forge_digest(&mut self, path: &str) {
        self.forged.push(path.as_bytes().to_vec());
    }

    fn seal(&self, kind: Kind, name: &ObjectName, frames: &[Vec<u8>]) -> SealedObject {
        let draft = Draft { kind, cluster: SYSTEM, name: name.to_string(), wal: None, frame_size: 1 << 20, level: 1 };
        let recipient = self.sample.identities[0].recipient().clone();
        let mut sealer = draft.seal(&[recipient], &self.sample.writer).expect("sealable");
        for frame in frames {
            sealer.frame(frame).expect("small enough");
        }
        sealer.finish().expect("sealable")
    }

    /// Stores data, list of files (in two pages) and label.
    pub(super) async fn store(&self) -> Label {
        let branch = self.sample.branch();
        let mut label = self.sample.label(branch, Lsn(0x200_0028), Lsn(0x200_0100), "2026-11-21T02:30:00Z", None);
        let mut entries: Vec<ManifestEntry> = Vec::new();
        for (oid, location) in &self.tablespaces {
            entries.push(ManifestEntry::Tablespace { oid: *oid, location: location.clone() });
        }
        for folder in ["global", "base", "base/5", "pg_wal", "pg_wal/archive_status", "pg_tblspc"] {
            let path = PathField(RelativePath::new(folder.as_bytes()).expect("a path"));
            entries.push(ManifestEntry::Directory { path, mode: 0o700 });
        }
        let mut objects: Vec<Vec<Vec<u8>>> = vec![Vec::new()];
        for (path, bytes) in &self.files {
            let frames: Vec<Vec<u8>> = match self.cuts.get(path) {
                None => bytes.chunks(FRAME).map(<[u8]>::to_vec).collect(),
                Some(cuts) => {
                    let mut at = 0;
                    cuts.iter()
                        .map(|length| {
                            at += length;
                            bytes[at - length..at].to_vec()
                        })
                        .collect()
                }
            };
            let size = bytes.len() as u64;
            let mut layers = Vec::new();
            for layer in self.layered.get(path).into_iter().flatten() {
                let frames = layer.bytes.chunks(FRAME).map(<[u8]>::to_vec).collect();
                let (extents, digests) = place(&mut objects, frames);
                let blocks = layer.blocks.as_ref().map(|runs| runs.iter().copied().map(BlockRun::from).collect());
                layers.push(Layer { extents, digests, blocks, length: layer.length });
            }
            let (extents, mut digests) =
                if layers.is_empty() { place(&mut objects, frames) } else { (Vec::new(), Vec::new()) };
            if self.forged.contains(path) {
                digests[0] = FrameDigest([7; 16]);
            }
            let path = PathField(RelativePath::new(path).expect("a path"));
            let (mode, mtime) = (0o600, MTIME);
            entries.push(ManifestEntry::File(FileEntry { path, mode, mtime, size, extents, digests, layers }));
        }
        for (number, frames) in objects.iter().enumerate() {
            let object = self.seal(Kind::Data, &ObjectName::Data(label.id.clone(), number as u32), frames);
            self.sample.repository.put(&object).await.expect("our own folder");
            label.objects.push(ObjectReference::from(&object));
        }
        for (number, page) in entries.chunks(entries.len().div_ceil(2)).enumerate() {
            let mut plain = Vec::new();
            for entry in page {
                plain.extend(serde_json::to_vec(entry).expect("an entry"));
                plain.push(b'\n');
            }
            let object = self.seal(Kind::Manifest, &ObjectName::Manifest(label.id.clone(), number as u32), &[plain]);
            self.sample.repository.put(&object).await.expect("our own folder");
            label.manifest.push(ObjectReference::from(&object));
        }
        label.cluster_size = self.files.values().map(|bytes| bytes.len() as u64).sum();
        label.tablespaces = self.tablespaces.len() as u32;
        self.sample.put_label_as_is(&label).await;
        label
    }

    /// The repository as it is reached through `store`, which wraps its own.
    pub(super) fn through(&self, store: Arc<dyn ObjectStore>) -> Repository {
        Repository::new(store, SYSTEM, self.sample.repository.trust().clone())
    }

    /// Somewhere to restore to, decided.
    pub(super) async fn bed<'a>(&'a self, label: &'a Label) -> Decided<'a> {
        let bed = self.bed_without_layout(label).await;
        let layout = bed.decide().expect("free places");
        Decided { bed, layout }
    }

    pub(super) fn source<'a>(&'a self, label: &'a Label) -> Source<'a> {
        Source { repository: &self.sample.repository, identities: &self.sample.identities, label }
    }

    pub(super) async fn bed_without_layout<'a>(&'a self, label: &'a Label) -> Bed<'a> {
        let source = self.source(label);
        let data = self.folder().join("data");
        let process = rustix::process::geteuid().as_raw();
        let accounts = Accounts::of_this_machine().expect("accounts");
        let owner = Owner::decide(&accounts, process, None, &data).expect("PostgreSQL's user");
        let destination =
            Destination { data, waldir: None, tablespaces: TablespaceMapping::default(), owner, delta: false };
        let survey = Survey::of(source).await.expect("a sound backup");
        Bed { source, destination, survey }
    }
}

/// Puts frames into objects: where they are, and their digests.
fn place(objects: &mut Vec<Vec<Vec<u8>>>, frames: Vec<Vec<u8>>) -> (Vec<Extent>, Vec<FrameDigest>) {
    let mut extents: Vec<Extent> = Vec::new();
    let digests = frames.iter().map(|frame| FrameDigest::of(frame)).collect();
    for frame in frames {
        if objects.last().expect("one").len() == FRAMES_IN_OBJECT {
            objects.push(Vec::new());
        }
        let object = objects.len() as u32 - 1;
        let last = objects.last_mut().expect("one");
        match extents.last_mut() {
            Some(extent) if extent.object == object => extent.count += 1,
            _ => extents.push(Extent { object, frame: last.len() as u32, count: 1 }),
        }
        last.push(frame);
    }
    (extents, digests)
}

pub(super) struct Bed<'a> {
    source: Source<'a>,
    pub(super) destination: Destination,
    pub(super) survey: Survey,
}

impl<'a> Bed<'a> {
    pub(super) fn source(&self) -> Source<'a> {
        self.source
    }

    pub(super) fn decide(&self) -> Result<Layout, RebuildError> {
        Layout::decide(&self.destination, &self.survey, SYSTEM)
    }
}

pub(super) struct Decided<'a> {
    bed: Bed<'a>,
    pub(super) layout: Layout,
}

impl<'a> Decided<'a> {
    pub(super) fn source(&self) -> Source<'a> {
        self.bed.source
    }
}

pub(super) fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}
