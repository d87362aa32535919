//! A data directory made from a repository by the format's page alone, to see what a backup is worth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use walseal_common::repository::{
    FileEntry, FrameDigest, LAYER_BLOCK, Label, Layer, ManifestEntry, PathField, Repository,
};
use walseal_common::seal::Identity;
use walseal_tests::account::Account;

/// The list of files of a backup.
pub async fn entries(repository: &Repository, label: &Label, identity: &Identity) -> Vec<ManifestEntry> {
    let mut entries = Vec::new();
    for page in 0..label.manifest.len() {
        let identities = std::slice::from_ref(identity);
        entries.extend(repository.manifest_page(label, page, identities).await.expect("a page"));
    }
    entries
}

/// Writes all files below `data`, each tablespace into a folder of its own beside it; all belong to `owner`.
pub async fn rebuild(repository: &Repository, label: &Label, identity: &Identity, data: &Path, owner: &Account) {
    let mut frames: BTreeMap<(u32, u32), Vec<u8>> = BTreeMap::new();
    for (object, reference) in label.objects.iter().enumerate() {
        let envelope = repository.read_reference(reference).await.expect("a data object");
        let mut opener = envelope.open(std::slice::from_ref(identity)).expect("it opens");
        for frame in 0..envelope.trailer.frames.len() {
            let plain = envelope.read_frame(&mut opener, frame).expect("a frame");
            frames.insert((object as u32, frame as u32), plain);
        }
    }
    make_folder(data, 0o700, owner);
    let mut modes: Vec<(PathBuf, u32)> = Vec::new();
    for entry in entries(repository, label, identity).await {
        match entry {
            ManifestEntry::Tablespace { oid, location } => {
                let spaces = data.join("pg_tblspc");
                make_folder(&spaces, 0o700, owner);
                if location.is_none() {
                    // Its files may come before its own line, which gives it its mode.
                    make_folder(&spaces.join(oid.to_string()), 0o700, owner);
                    continue;
                }
                let folder = data.with_file_name(format!("space-{oid}"));
                make_folder(&folder, 0o700, owner);
                symlink(&folder, spaces.join(oid.to_string())).expect("a link");
            }
            ManifestEntry::Directory { path, mode } => {
                make_folder(&place(data, &path), 0o700, owner);
                modes.push((place(data, &path), mode));
            }
            ManifestEntry::File(file) => write(data, &file, &frames, owner),
        }
    }
    for (path, mode) in modes {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("permissions");
    }
}

fn place(data: &Path, path: &PathField) -> PathBuf {
    data.join(OsStr::from_bytes(path.0.as_bytes()))
}

fn make_folder(path: &Path, mode: u32, owner: &Account) {
    if !path.is_dir() {
        fs::create_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("permissions");
    owner.own(path).expect("an owner");
}

fn write(data: &Path, file: &FileEntry, frames: &BTreeMap<(u32, u32), Vec<u8>>, owner: &Account) {
    assert!(file.adds_up(), "{}", file.path.0);
    let mut content: Vec<u8> = Vec::new();
    for Layer { extents, digests, blocks, length } in file.clone().into_layers() {
        let numbers = extents.iter().flat_map(|run| (run.frame..run.frame + run.count).map(|n| (run.object, n)));
        let parts: Vec<&Vec<u8>> = numbers.map(|number| &frames[&number]).collect();
        let found: Vec<FrameDigest> = parts.iter().map(|plain| FrameDigest::of(plain)).collect();
        assert_eq!(found, digests, "{}", file.path.0);
        let plain: Vec<u8> = parts.into_iter().flatten().copied().collect();
        content.resize(length as usize, 0);
        let Some(runs) = blocks else {
            content = plain;
            continue;
        };
        let numbers = runs.iter().flat_map(|run| run.first..run.first + run.count);
        assert_eq!(plain.len() as u64, numbers.clone().count() as u64 * LAYER_BLOCK);
        for (number, block) in numbers.zip(plain.chunks(LAYER_BLOCK as usize)) {
            let at = (u64::from(number) * LAYER_BLOCK) as usize;
            content[at..at + block.len()].copy_from_slice(block);
        }
    }
    assert_eq!(content.len() as u64, file.size, "{}", file.path.0);
    let path = place(data, &file.path);
    fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    fs::set_permissions(&path, Permissions::from_mode(file.mode)).expect("permissions");
    owner.own(&path).expect("an owner");
}
