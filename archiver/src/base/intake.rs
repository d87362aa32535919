//! What arrives of a backup, taken apart. No I/O: bytes in, data objects and pages out.

use bytes::Bytes;
use walseal_common::repository::{FileEntry, ManifestEntry, PathField, RelativePath};

use super::checksum::{ChecksumAlgorithm, FileDigest};
use super::error::BaseError;
use super::packer::{PackedObject, Packer};
use super::pages::{Page, Pages};
use super::server_manifest::{ManifestReader, ReceivedFiles, ServerManifest};
use super::tablespaces::Tablespaces;
use super::tar::{EntryKind, TarEvent, TarHeader, TarReader};

/// What is ready to be sealed and stored.
#[derive(Debug)]
pub enum Ready {
    /// A data object.
    Object(PackedObject),
    /// A page of the list of files.
    Page(Page),
}

impl Ready {
    /// Bytes of plaintext.
    pub fn plain_size(&self) -> u64 {
        match self {
            Ready::Object(object) => object.frames.iter().map(|frame| frame.len() as u64).sum(),
            Ready::Page(page) => page.plain.len() as u64,
        }
    }
}

/// What a backup holds, when everything was there.
#[derive(Debug)]
pub struct TakenIn {
    /// The last data object and the last pages.
    pub last: Vec<Ready>,
    /// The server's manifest, which agrees with what was received.
    pub manifest: ServerManifest,
    /// Bytes of all files.
    pub cluster_size: u64,
    /// How many tablespaces beside the default one.
    pub tablespaces: u32,
}

/// An archive that is being read.
struct Archive {
    name: String,
    tablespace: Option<u32>,
    reader: TarReader,
    file: Option<OpenFile>,
}

/// A file that is being read.
struct OpenFile {
    path: RelativePath,
    mode: u32,
    mtime: i64,
    digest: FileDigest,
}

/// Takes a backup apart as it arrives: every entry of every archive is listed, none is skipped.
pub struct Intake {
    algorithm: ChecksumAlgorithm,
    archive: Option<Archive>,
    manifest: Option<ManifestReader>,
    packer: Packer,
    full: Vec<PackedObject>,
    pages: Pages,
    tablespaces: Tablespaces,
    received: ReceivedFiles,
    cluster_size: u64,
    /// Mode and time of `backup_label`, which `backup_manifest` gets as well: it does not come in an archive.
    label: Option<(u32, i64)>,
    control_seen: bool,
}

impl Intake {
    /// Before the first archive. The server was asked for checksums of this `algorithm`.
    pub fn new(tablespaces: Tablespaces, algorithm: ChecksumAlgorithm) -> Intake {
        Intake {
            algorithm,
            archive: None,
            manifest: None,
            packer: Packer::default(),
            full: Vec::new(),
            pages: Pages::default(),
            tablespaces,
            received: ReceivedFiles::default(),
            cluster_size: 0,
            label: None,
            control_seen: false,
        }
    }

    /// An archive begins; the one before has ended. `tablespace` is none for the data directory.
    ///
    /// Errors: the one before is cut off.
    pub fn archive_start(&mut self, name: String, tablespace: Option<u32>) -> Result<(), BaseError> {
        self.archive_end()?;
        self.archive = Some(Archive { name, tablespace, reader: TarReader::new(), file: None });
        Ok(())
    }

    /// The next bytes of the archive.
    ///
    /// Errors: they are not as they must be.
    pub fn data(&mut self, bytes: Bytes) -> Result<Vec<Ready>, BaseError> {
        let mut archive = self.archive.take().ok_or(BaseError::Order("data outside of any archive"))?;
        let events =
            archive.reader.push(bytes).map_err(|source| BaseError::Tar { archive: archive.name.clone(), source })?;
        let mut ready = Vec::new();
        for event in events {
            match event {
                TarEvent::Entry(header) => archive.file = self.entry(archive.tablespace, header, &mut ready)?,
                TarEvent::Data(bytes) => {
                    if let Some(file) = &mut archive.file {
                        file.digest.update(&bytes);
                        self.packer.add(&bytes, &mut self.full);
                    }
                }
                TarEvent::EntryEnd => {
                    if let Some(file) = archive.file.take() {
                        self.file_end(file, true, &mut ready)?;
                    }
                }
                TarEvent::End => {}
            }
        }
        self.archive = Some(archive);
        ready.extend(self.full.drain(..).map(Ready::Object));
        Ok(ready)
    }

    /// The server's manifest begins; all archives have ended.
    ///
    /// Errors: the last archive is cut off, a file is missing without which nothing works.
    pub fn manifest_start(&mut self) -> Result<(), BaseError> {
        self.archive_end()?;
        if self.label.is_none() {
            return Err(BaseError::Missing("backup_label"));
        }
        if !self.control_seen {
            return Err(BaseError::Missing("global/pg_control"));
        }
        self.packer.begin(None);
        self.manifest = Some(ManifestReader::new());
        Ok(())
    }

    /// The next bytes of the manifest, which is a file of the backup like others.
    ///
    /// Errors: they are not as they must be; a file they list is not what was received.
    pub fn manifest_data(&mut self, bytes: &[u8]) -> Result<Vec<Ready>, BaseError> {
        let reader = self.manifest.as_mut().ok_or(BaseError::Order("a manifest where none should be"))?;
        reader.push(bytes, &mut |file| self.received.strike(file))?;
        self.packer.add(bytes, &mut self.full);
        Ok(self.full.drain(..).map(Ready::Object).collect())
    }

    /// Everything has arrived.
    ///
    /// Errors: the manifest is cut off, or does not list a file that was received.
    pub fn finish(mut self) -> Result<TakenIn, BaseError> {
        let reader = self.manifest.take().ok_or(BaseError::Missing("backup_manifest"))?;
        let manifest = reader.finish()?;
        std::mem::take(&mut self.received).finish()?;
        let (mode, mtime) = self.label.ok_or(BaseError::Missing("backup_label"))?;
        let path = RelativePath::new(b"backup_manifest").map_err(|_| BaseError::Missing("backup_manifest"))?;
        let mut last = Vec::new();
        let digest = FileDigest::new(ChecksumAlgorithm::None);
        self.file_end(OpenFile { path, mode, mtime, digest }, false, &mut last)?;
        last.extend(self.full.drain(..).chain(self.packer.finish()).map(Ready::Object));
        let spaces = self.tablespaces.entries();
        let pages = self.pages.finish(&spaces).map_err(|error| BaseError::Task(error.to_string()))?;
        last.extend(pages.into_iter().map(Ready::Page));
        let (cluster_size, tablespaces) = (self.cluster_size, self.tablespaces.count());
        Ok(TakenIn { last, manifest, cluster_size, tablespaces })
    }

    /// Notes an entry, and opens it when it is a file.
    fn entry(
        &mut self,
        tablespace: Option<u32>,
        header: TarHeader,
        ready: &mut Vec<Ready>,
    ) -> Result<Option<OpenFile>, BaseError> {
        let TarHeader { path, mode, mtime, kind } = header;
        let path = match tablespace {
            Some(oid) => path.in_tablespace(oid),
            None => path,
        };
        match kind {
            EntryKind::File { size } => {
                match path.as_bytes() {
                    b"backup_label" => self.label = Some((mode, mtime)),
                    b"global/pg_control" => self.control_seen = true,
                    _ => {}
                }
                self.packer.begin(Some(size));
                Ok(Some(OpenFile { path, mode, mtime, digest: FileDigest::new(self.algorithm) }))
            }
            EntryKind::Directory => {
                if tablespace.is_none() {
                    self.tablespaces.directory(&path)?;
                }
                self.list(&ManifestEntry::Directory { path: PathField(path.clone()), mode }, path, ready)?;
                Ok(None)
            }
            // The link itself follows from the tablespace's own line.
            EntryKind::Symlink { target } => self.tablespaces.link(&path, &target).map(|()| None),
        }
    }

    /// Notes a file that is whole.
    fn file_end(&mut self, file: OpenFile, compare: bool, ready: &mut Vec<Ready>) -> Result<(), BaseError> {
        let OpenFile { path, mode, mtime, digest } = file;
        let packed = self.packer.end(&mut self.full);
        self.cluster_size += packed.size;
        if compare {
            self.received.note(path.clone(), packed.size, digest.finish())?;
        }
        let (size, extents, digests) = (packed.size, packed.extents, packed.digests);
        let entry = FileEntry { path: PathField(path.clone()), mode, mtime, size, extents, digests };
        self.list(&ManifestEntry::File(entry), path, ready)
    }

    fn list(&mut self, entry: &ManifestEntry, path: RelativePath, ready: &mut Vec<Ready>) -> Result<(), BaseError> {
        let page = self.pages.add(entry).map_err(|source| BaseError::Listing { path, source })?;
        ready.extend(page.map(Ready::Page));
        Ok(())
    }

    fn archive_end(&mut self) -> Result<(), BaseError> {
        match self.archive.take() {
            None => Ok(()),
            Some(Archive { name, reader, .. }) => {
                reader.finish().map_err(|source| BaseError::Tar { archive: name, source })
            }
        }
    }
}
