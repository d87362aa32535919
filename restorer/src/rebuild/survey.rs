//! What a backup consists of, before a byte is written.

use std::collections::BTreeMap;

use walseal_common::repository::{FileEntry, Label, ManifestEntry, RelativePath};

use super::{RebuildError, Source};

/// Files without which PostgreSQL does not start, or starts wrongly: from a backup without `backup_label` it would
/// replay from the wrong checkpoint and be silently corrupt (case 27).
const ESSENTIAL: [(&str, &str); 3] = [
    ("backup_label", "it has no backup_label, so PostgreSQL would start replay from the wrong checkpoint"),
    ("PG_VERSION", "it has no PG_VERSION"),
    ("global/pg_control", "it has no global/pg_control"),
];

/// What the list of files says in sum.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Survey {
    /// Tablespaces by object id, with their places on the server; none for one inside the data directory.
    pub tablespaces: BTreeMap<u32, Option<String>>,
    /// Bytes of the files of each tablespace that lies outside the data directory.
    pub tablespace_bytes: BTreeMap<u32, u64>,
    /// Bytes of all other files.
    pub data_bytes: u64,
    /// How many files.
    pub files: u64,
    /// Whether `postgresql.conf` is among them; Debian keeps it elsewhere.
    pub has_configuration: bool,
    /// Whether the cluster was made for reading by its group (`initdb --allow-group-access`).
    pub group_access: bool,
    /// Whether the server's `tablespace_map` is among them: PostgreSQL then makes the links anew when it starts.
    pub has_tablespace_map: bool,
    found: [bool; ESSENTIAL.len()],
}

impl Survey {
    /// Reads the whole list of files, a page at a time.
    ///
    /// Errors: it lacks what a server needs, does not fit its label, or cannot be read.
    pub async fn of(source: Source<'_>) -> Result<Survey, RebuildError> {
        let mut survey = Survey::default();
        for page in 0..source.label.manifest.len() {
            for entry in source.page(page).await? {
                survey.add(&entry, source.label)?;
            }
        }
        survey.judge(source.label)?;
        Ok(survey)
    }

    fn add(&mut self, entry: &ManifestEntry, label: &Label) -> Result<(), RebuildError> {
        match entry {
            ManifestEntry::Tablespace { oid, location } => {
                if self.tablespaces.insert(*oid, location.clone()).is_some() {
                    return Err(RebuildError::backup(label, format!("it lists tablespace {oid} twice")));
                }
            }
            ManifestEntry::Directory { .. } => {}
            ManifestEntry::File(file) => {
                check_extents(file, label)?;
                let path = &file.path.0;
                self.files += 1;
                let outside = tablespace_of(path).filter(|oid| matches!(self.tablespaces.get(oid), Some(Some(_))));
                let sum = match outside {
                    Some(oid) => self.tablespace_bytes.entry(oid).or_default(),
                    None => &mut self.data_bytes,
                };
                *sum = sum.saturating_add(file.size);
                self.has_configuration |= path.as_bytes() == b"postgresql.conf";
                self.has_tablespace_map |= path.as_bytes() == b"tablespace_map";
                self.group_access |= path.as_bytes() == b"PG_VERSION" && file.mode & 0o040 != 0;
                for (found, (name, _)) in self.found.iter_mut().zip(ESSENTIAL) {
                    *found |= path.as_bytes() == name.as_bytes();
                }
            }
        }
        Ok(())
    }

    fn judge(&self, label: &Label) -> Result<(), RebuildError> {
        if let Some((_, (_, why))) = self.found.iter().zip(ESSENTIAL).find(|(found, _)| !**found) {
            return Err(RebuildError::backup(label, why));
        }
        let bytes = self.total_bytes();
        if bytes != label.cluster_size {
            let why = format!("its files have {bytes} bytes, its label says {}", label.cluster_size);
            return Err(RebuildError::backup(label, why));
        }
        Ok(())
    }

    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.tablespace_bytes.values().fold(self.data_bytes, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// The tablespace that a path belongs to: 16384 for `pg_tblspc/16384/PG_15_202209061/5/1259`.
pub(super) fn tablespace_of(path: &RelativePath) -> Option<u32> {
    let rest = path.as_bytes().strip_prefix(b"pg_tblspc/")?;
    let name = rest.split(|byte| *byte == b'/').next()?;
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// Every extent lies in an object of the label, and the parts of the entry fit one another.
fn check_extents(file: &FileEntry, label: &Label) -> Result<(), RebuildError> {
    if file.all_extents().all(|extent| (extent.object as usize) < label.objects.len()) && file.adds_up() {
        Ok(())
    } else {
        let why = format!("the entry of {} in its list of files does not add up", file.path.0);
        Err(RebuildError::backup(label, why))
    }
}
