//! What arrives of a backup, taken apart. No I/O but to ask what is known of a file: bytes in, data objects and pages out.

use bytes::Bytes;
use walseal_common::repository::{FileEntry, ManifestEntry, PathField, RelativePath};

use super::checksum::{ChecksumAlgorithm, FileDigest};
use super::content::Content;
use super::error::BaseError;
use super::incremental::IncrementalError;
use super::known::KnownFiles;
use super::layering::layered;
use super::packer::{Listed, PackedRun, Packer};
use super::pages::{self, Page, Pages};
use super::resume_pages::{ResumePage, ResumePages};
use super::server_manifest::{ManifestReader, ReceivedFiles, ServerManifest};
use super::tablespaces::Tablespaces;
use super::tar::{EntryKind, TarEvent, TarHeader, TarReader};

/// What is ready to be sealed and stored.
#[derive(Debug)]
pub enum Ready {
    /// Frames of a data object.
    Run(PackedRun),
    /// A page of the list of files.
    Page(Page),
    /// A page for the next backup.
    Resume(ResumePage),
}

impl Ready {
    /// Bytes of plaintext.
    pub fn plain_size(&self) -> u64 {
        match self {
            Ready::Run(run) => run.plain.len() as u64,
            Ready::Page(page) => page.plain.len() as u64,
            Ready::Resume(page) => page.plain.len() as u64,
        }
    }
}

/// What a backup holds, when everything was there.
#[derive(Debug)]
pub struct TakenIn {
    /// The last frames and the last pages.
    pub last: Vec<Ready>,
    /// The data objects that the list of files refers to, in order.
    pub listed: Vec<Listed>,
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
    /// Bytes that came, and their digest.
    size: u64,
    digest: FileDigest,
    /// What of it is stored.
    content: Content,
}

impl OpenFile {
    fn malformed(&self, source: IncrementalError) -> BaseError {
        BaseError::ChangedBlocks { path: self.path.clone(), source }
    }
}

/// Takes a backup apart as it arrives: every entry of every archive is listed, none is skipped.
pub struct Intake {
    algorithm: ChecksumAlgorithm,
    archive: Option<Archive>,
    manifest: Option<ManifestReader>,
    packer: Packer,
    full: Vec<PackedRun>,
    pages: Pages,
    resume: ResumePages,
    /// A resume page is passed on when this many bytes had to be stored since the last one.
    resume_every: u64,
    /// What had been stored by then.
    resumed: u64,
    tablespaces: Tablespaces,
    received: ReceivedFiles,
    cluster_size: u64,
    /// Mode and time of `backup_label`, which `backup_manifest` gets as well: it does not come in an archive.
    label: Option<(u32, i64)>,
    control_seen: bool,
    /// Whether only blocks come that have changed since the parent.
    native: bool,
}

impl Intake {
    /// Before the first archive. The server was asked for checksums of this `algorithm`. Of what was stored, the next attempt
    /// knows all but the last `resume_every` bytes and the file that was being read.
    pub fn new(tablespaces: Tablespaces, algorithm: ChecksumAlgorithm, resume_every: u64, packer: Packer) -> Intake {
        Intake {
            algorithm,
            archive: None,
            manifest: None,
            packer,
            full: Vec::new(),
            pages: Pages::default(),
            resume: ResumePages::default(),
            resume_every,
            resumed: 0,
            tablespaces,
            received: ReceivedFiles::default(),
            cluster_size: 0,
            label: None,
            control_seen: false,
            native: false,
        }
    }

    /// The server was asked for changed blocks only.
    pub fn native(self) -> Intake {
        Intake { native: true, ..self }
    }

    /// An archive begins; the one before has ended. `tablespace` is none for the data directory.
    ///
    /// Errors: the one before is cut off.
    pub fn archive_start(&mut self, name: String, tablespace: Option<u32>) -> Result<(), BaseError> {
        self.archive_end()?;
        self.archive = Some(Archive { name, tablespace, reader: TarReader::new(), file: None });
        Ok(())
    }

    /// The next bytes of the archive. Frames of its files that `known` has are referred to.
    ///
    /// Errors: they are not as they must be.
    pub async fn data(&mut self, bytes: Bytes, known: &mut dyn KnownFiles) -> Result<Vec<Ready>, BaseError> {
        let mut archive = self.archive.take().ok_or(BaseError::Order("data outside of any archive"))?;
        let events =
            archive.reader.push(bytes).map_err(|source| BaseError::Tar { archive: archive.name.clone(), source })?;
        let mut ready = Vec::new();
        for event in events {
            match event {
                TarEvent::Entry(header) => {
                    archive.file = self.entry(archive.tablespace, header, known, &mut ready).await?;
                }
                TarEvent::Data(bytes) => {
                    if let Some(file) = &mut archive.file {
                        file.size += bytes.len() as u64;
                        file.digest.update(&bytes);
                        let stored = file.content.take(&bytes);
                        let stored = stored.map_err(|source| file.malformed(source))?;
                        self.packer.add(stored, &mut self.full);
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
        ready.extend(self.full.drain(..).map(Ready::Run));
        Ok(ready)
    }

    /// The server's manifest begins; all archives have ended.
    ///
    /// Errors: the last archive is cut off, a file is missing without which nothing works.
    pub fn manifest_start(&mut self) -> Result<Vec<Ready>, BaseError> {
        self.archive_end()?;
        if self.label.is_none() {
            return Err(BaseError::Missing("backup_label"));
        }
        if !self.control_seen {
            return Err(BaseError::Missing("global/pg_control"));
        }
        let mut ready = Vec::new();
        self.cut_resume(&mut ready);
        self.packer.begin(None, Vec::new(), &mut self.full);
        self.manifest = Some(ManifestReader::new());
        Ok(ready)
    }

    /// The next bytes of the manifest, which is a file of the backup like others.
    ///
    /// Errors: they are not as they must be; a file they list is not what was received.
    pub fn manifest_data(&mut self, bytes: &[u8]) -> Result<Vec<Ready>, BaseError> {
        let reader = self.manifest.as_mut().ok_or(BaseError::Order("a manifest where none should be"))?;
        reader.push(bytes, &mut |file| self.received.strike(file))?;
        self.packer.add(bytes, &mut self.full);
        let page = self.resume.manifest(bytes).map(Ready::Resume);
        Ok(self.full.drain(..).map(Ready::Run).chain(page).collect())
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
        self.file_end(OpenFile { path, mode, mtime, size: 0, digest, content: Content::Whole }, false, &mut last)?;
        let listed = self.packer.finish(&mut self.full);
        last.extend(self.full.drain(..).map(Ready::Run));
        last.extend(self.resume.finish().map(Ready::Resume));
        let spaces = self.tablespaces.entries();
        let pages = self.pages.finish(&spaces).map_err(|error| BaseError::Task(error.to_string()))?;
        last.extend(pages.into_iter().map(Ready::Page));
        let (cluster_size, tablespaces) = (self.cluster_size, self.tablespaces.count());
        Ok(TakenIn { last, listed, manifest, cluster_size, tablespaces })
    }

    /// Notes an entry, and opens it when it is a file.
    async fn entry(
        &mut self,
        tablespace: Option<u32>,
        header: TarHeader,
        known: &mut dyn KnownFiles,
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
                let content = self.content(&path, size, known).await?;
                let before = match &content {
                    Content::Whole if size > 0 => known.find(&path).await,
                    Content::Changed { before, .. } => known.changed(&before.path.0).await,
                    Content::Whole | Content::Label(_) => Vec::new(),
                };
                self.packer.begin(Some(size), before, &mut self.full);
                let digest = FileDigest::new(self.algorithm);
                Ok(Some(OpenFile { path, mode, mtime, size: 0, digest, content }))
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

    /// What of a file is stored.
    async fn content(&self, path: &RelativePath, size: u64, known: &mut dyn KnownFiles) -> Result<Content, BaseError> {
        if !self.native {
            return Ok(Content::Whole);
        }
        let before = match path.changed_blocks_of() {
            None => None,
            Some(real) => Some(known.line(&real).await.ok_or_else(|| BaseError::NothingBefore(real))?),
        };
        Ok(Content::of(path, size, before))
    }

    /// Notes a file that is whole.
    fn file_end(&mut self, file: OpenFile, compare: bool, ready: &mut Vec<Ready>) -> Result<(), BaseError> {
        let OpenFile { path, mode, mtime, size, digest, mut content } = file;
        self.packer.add(&content.rest(), &mut self.full);
        let packed = self.packer.end(&mut self.full);
        if compare {
            self.received.note(&path, size, digest.finish());
        }
        let entry = match content {
            Content::Changed { reader, before } => {
                let changed = reader.finish();
                let changed = changed.map_err(|source| BaseError::ChangedBlocks { path: path.clone(), source })?;
                layered(*before, changed, packed, mode, mtime, &mut |object| self.packer.known(object))
            }
            Content::Whole | Content::Label(_) => {
                let (size, extents, digests) = (packed.size, packed.extents, packed.digests);
                let layers = Vec::new();
                FileEntry { path: PathField(path.clone()), mode, mtime, size, extents, digests, layers }
            }
        };
        self.cluster_size += entry.size;
        let line = self.list(&ManifestEntry::File(entry), path, ready)?;
        // The server's manifest itself comes last, and no other one is like it.
        if compare {
            if !self.resume.has_room(&line) {
                self.cut_resume(ready);
            }
            self.resume.add(&line);
            if self.packer.fresh() - self.resumed >= self.resume_every {
                self.cut_resume(ready);
            }
        }
        Ok(())
    }

    /// Notes an entry in the list of files, and returns its line.
    fn list(
        &mut self,
        entry: &ManifestEntry,
        path: RelativePath,
        ready: &mut Vec<Ready>,
    ) -> Result<Vec<u8>, BaseError> {
        let line = pages::line(entry);
        let listed = line.and_then(|line| self.pages.add(&line).map(|page| (line, page)));
        let (line, page) = listed.map_err(|source| BaseError::Listing { path, source })?;
        ready.extend(page.map(Ready::Page));
        Ok(line)
    }

    /// Ends the resume page that is open, and with it the data object: a page is worth something once all objects that it names
    /// are stored, and must not wait for one that fills up slowly.
    fn cut_resume(&mut self, ready: &mut Vec<Ready>) {
        self.packer.cut(&mut self.full);
        ready.extend(self.full.drain(..).map(Ready::Run));
        ready.extend(self.resume.cut(self.packer.listed()).into_iter().map(Ready::Resume));
        self.resumed = self.packer.fresh();
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use futures_util::FutureExt;
    use walseal_tests::cluster::Cluster;

    use super::*;

    /// The archives and the manifest that `pg_basebackup -Ft` makes of a cluster.
    fn archives() -> BTreeMap<String, Bytes> {
        let cluster = Cluster::builder().start().expect("a cluster");
        let space = cluster.scratch().dir("space").expect("a folder");
        cluster.sql(&format!("create tablespace s location '{}'", space.display())).expect("a tablespace");
        cluster.sql("create table t tablespace s as select generate_series(1, 1000) as n").expect("a table");
        let folder = cluster.scratch().dir("archives").expect("a folder");
        let call = cluster.client("pg_basebackup").args(["-Ft", "-X", "none", "-c", "fast", "-D"]).arg(&folder);
        call.args(["--manifest-checksums=SHA256", "-d", &cluster.conninfo()])
            .run()
            .expect("it runs")
            .success()
            .expect("it works");
        let read = |path: &Path| Bytes::from(std::fs::read(path).expect("a file"));
        let files = std::fs::read_dir(folder).expect("a folder").map(|entry| {
            let entry = entry.expect("an entry");
            (entry.file_name().into_string().expect("UTF-8"), read(&entry.path()))
        });
        files.collect()
    }

    /// Takes archives and manifest in as if they came from the server, in pieces of `piece` bytes.
    fn take_in(files: &BTreeMap<String, Bytes>, piece: usize) -> Result<TakenIn, BaseError> {
        let packer = Packer::new(Packer::plains(0));
        let mut intake = Intake::new(Tablespaces::new([]), ChecksumAlgorithm::Sha256, 1 << 20, packer);
        for (name, content) in files.iter().filter(|(name, _)| name.ends_with(".tar")) {
            intake.archive_start(name.clone(), name.strip_suffix(".tar").and_then(|oid| oid.parse().ok()))?;
            for at in (0..content.len()).step_by(piece) {
                let bytes = content.slice(at..content.len().min(at + piece));
                intake.data(bytes, &mut ()).now_or_never().expect("nobody has to be asked")?;
            }
        }
        intake.manifest_start()?;
        intake.manifest_data(&files["backup_manifest"])?;
        intake.finish()
    }

    /// The content of `name` with each place of `from` replaced by `to`, which is as long.
    fn changed(files: &BTreeMap<String, Bytes>, name: &str, from: &[u8], to: &[u8]) -> BTreeMap<String, Bytes> {
        let mut content = files[name].to_vec();
        let at = content.windows(from.len()).position(|window| window == from).expect("it is there");
        content[at..at + from.len()].copy_from_slice(to);
        let mut files = files.clone();
        files.insert(name.to_owned(), content.into());
        files
    }

    #[test]
    fn archives_of_pg_basebackup_agree_with_its_manifest_and_what_is_wrong_is_named() {
        let files = archives();
        assert_eq!(files.len(), 3, "{:?}", files.keys());
        let taken = take_in(&files, 32 << 10).expect("it agrees");
        let other = take_in(&files, 999).expect("it agrees");
        assert!(taken.manifest.files > 900 && taken.cluster_size > 20 << 20);
        assert_eq!((taken.cluster_size, taken.tablespaces), (other.cluster_size, other.tablespaces));
        assert_eq!(taken.manifest, other.manifest);

        let broken = changed(&files, "base.tar", b"START WAL LOCATION", b"START WAL L0CATION");
        let error = take_in(&broken, 4096).expect_err("a byte changed").to_string();
        assert!(error.starts_with("backup_label was changed on its way: its SHA256 is"), "{error}");

        let damaged = changed(&files, "base.tar", b"backup_label\0", b"backup_labe1\0");
        let error = take_in(&damaged, 4096).expect_err("a header changed").to_string();
        assert!(error.contains("base.tar") && error.contains("byte 0 ") && error.contains("backup_labe1"), "{error}");

        let mut cut = files.clone();
        let base = cut.get_mut("base.tar").expect("it is there");
        *base = base.slice(..base.len() / 2);
        let error = take_in(&cut, 4096).expect_err("cut off").to_string();
        assert!(error.contains("base.tar") && error.contains("ends"), "{error}");

        let mut without = files.clone();
        without.insert("base.tar".to_owned(), Bytes::new());
        assert!(matches!(take_in(&without, 4096), Err(BaseError::Missing("backup_label"))), "case 27");

        let mut without = files.clone();
        without.retain(|name, _| !name.starts_with(|c: char| c.is_ascii_digit()));
        let error = take_in(&without, 4096).expect_err("a tablespace is missing").to_string();
        assert!(error.starts_with("pg_tblspc/") && error.contains("was not received"), "{error}");
    }
}
