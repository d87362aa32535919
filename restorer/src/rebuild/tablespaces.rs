//! Where the tablespaces of a backup go (case 28).

use std::path::{Path, PathBuf};

use super::vacancy::{self, Vacancy};
use super::{RebuildError, Survey};

/// What the user said about tablespaces.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TablespaceMapping {
    /// `--tablespace OLD=NEW`.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// `--tablespace-dir D`: all others go to `D/<oid>`.
    pub folder: Option<PathBuf>,
}

/// Where a tablespace goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacedTablespace {
    /// Its object id.
    pub oid: u32,
    /// Where it was on the server.
    pub was: PathBuf,
    /// Where it goes.
    pub place: PathBuf,
    /// Whether the folder is there already, empty.
    pub exists: bool,
}

impl PlacedTablespace {
    /// Whether it goes elsewhere than it was.
    pub fn is_moved(&self) -> bool {
        self.was != self.place
    }
}

impl TablespaceMapping {
    /// Reads one `OLD=NEW`. A `=` within a path is written `\=`, as for `pg_basebackup --tablespace-mapping`.
    pub fn parse_pair(text: &str) -> Result<(PathBuf, PathBuf), String> {
        let wrong = || format!("\"{text}\" is not OLD=NEW with two absolute paths (a = within a path is written \\=)");
        let mut halves = vec![String::new()];
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '\\' if rest.peek() == Some(&'=') => {
                    rest.next();
                    halves.last_mut().ok_or_else(wrong)?.push('=');
                }
                '=' => halves.push(String::new()),
                c => halves.last_mut().ok_or_else(wrong)?.push(c),
            }
        }
        match halves.as_slice() {
            [old, new] if old.starts_with('/') && new.starts_with('/') => {
                let trim =
                    |path: &str| if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path.to_owned() };
                Ok((PathBuf::from(trim(old)), PathBuf::from(trim(new))))
            }
            _ => Err(wrong()),
        }
    }

    /// Decides for all tablespaces of the backup that lie outside the data directory.
    ///
    /// Errors: a place that is not free, or missing; a pair for a tablespace that the backup does not have. Each names the
    /// flags to give.
    pub fn place(&self, survey: &Survey) -> Result<Vec<PlacedTablespace>, RebuildError> {
        let outside = || survey.tablespaces.iter().filter_map(|(oid, location)| Some((*oid, location.as_deref()?)));
        if let Some((old, _)) = self.pairs.iter().find(|(old, _)| !outside().any(|(_, was)| Path::new(was) == old)) {
            let known: Vec<&str> = outside().map(|(_, was)| was).collect();
            let known = if known.is_empty() { "none outside its data directory".to_owned() } else { known.join(", ") };
            let why = format!("the backup has no tablespace at {}; it has {known}", old.display());
            return Err(RebuildError::refused(why, ["give --tablespace OLD=NEW with one of these as OLD".to_owned()]));
        }
        outside().map(|(oid, was)| self.place_one(oid, Path::new(was))).collect()
    }

    fn place_one(&self, oid: u32, was: &Path) -> Result<PlacedTablespace, RebuildError> {
        let pair = self.pairs.iter().find(|(old, _)| old == was).map(|(_, new)| new.clone());
        if let Some(new) = pair.or_else(|| self.folder.as_ref().map(|folder| folder.join(oid.to_string()))) {
            let flag = if self.pairs.iter().any(|(old, _)| old == was) { "--tablespace" } else { "--tablespace-dir" };
            let (place, vacancy) = vacancy::look(&new, flag)?;
            return Ok(PlacedTablespace { oid, was: was.to_owned(), place, exists: vacancy == Vacancy::Empty });
        }
        // Its old place does only when somebody made it ready: a folder of that name may belong to a live cluster.
        let next = [
            format!("say where it goes: --tablespace {0}=NEW", was.display()),
            "put all tablespaces below one folder: --tablespace-dir FOLDER".to_owned(),
            format!("make its old place ready, as an empty folder: mkdir -p {}", was.display()),
        ];
        if !was.exists() {
            let why = format!("tablespace {oid} was at {}, which does not exist here", was.display());
            return Err(RebuildError::refused(why, next));
        }
        match vacancy::look(was, "tablespace") {
            Ok((_, _)) => Ok(PlacedTablespace { oid, was: was.to_owned(), place: was.to_owned(), exists: true }),
            Err(RebuildError::Refused { .. }) => {
                let why = format!(
                    "tablespace {oid} was at {}, which is not empty here: it may belong to a living cluster",
                    was.display()
                );
                Err(RebuildError::refused(why, next.into_iter().take(2)))
            }
            Err(error) => Err(error),
        }
    }
}
