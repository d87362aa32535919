//! Where everything goes.

use std::path::{Path, PathBuf};

use walseal_common::timeline::SystemIdentifier;

use super::owner::resolve;
use super::standing::{self, Standing};
use super::vacancy::{self, Vacancy};
use super::{Owner, PlacedTablespace, RebuildError, Survey, TablespaceMapping};

/// What the user said about where to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Destination {
    /// `--target-dir`.
    pub data: PathBuf,
    /// `--waldir`.
    pub waldir: Option<PathBuf>,
    /// Tablespaces.
    pub tablespaces: TablespaceMapping,
    /// Who will own it.
    pub owner: Owner,
    /// `--delta`: a cluster that is there may be written over.
    pub delta: bool,
}

/// Where everything goes, decided and free to be taken. Paths are absolute and real.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The data directory.
    pub data: PathBuf,
    /// Permission bits of all top folders: what `initdb` gave the cluster.
    pub mode: u32,
    /// Where `pg_wal` points, when it is not in the data directory.
    pub waldir: Option<PathBuf>,
    /// Tablespaces outside the data directory.
    pub tablespaces: Vec<PlacedTablespace>,
    /// Who will own it.
    pub owner: Owner,
    /// Of all these folders, those that are there already.
    pub existing: Vec<PathBuf>,
    /// Whether they hold an earlier state of the cluster, of which is kept what is right. Else they are empty.
    pub stands: bool,
}

impl Layout {
    /// Decides for a backup of `cluster`, without writing anything.
    ///
    /// Errors: a place that is neither free nor part of what may be written over; places that lie within each other.
    pub fn decide(
        destination: &Destination,
        survey: &Survey,
        cluster: SystemIdentifier,
    ) -> Result<Layout, RebuildError> {
        let standing = standing::look(&destination.data, destination.delta, cluster)?;
        let mut existing = Vec::new();
        let mut take = |path: &Path, flag: &str| {
            let (path, vacancy) = vacancy::look(path, flag)?;
            if vacancy == Vacancy::Empty {
                existing.push(path.clone());
            }
            Ok::<PathBuf, RebuildError>(path)
        };
        let data = match &standing {
            Some(standing) => standing.data.clone(),
            None => take(&destination.data, "--target-dir")?,
        };
        let waldir = match (&standing, &destination.waldir) {
            (Some(standing), wanted) if standing.has_waldir(wanted.as_deref())? => standing.waldir.clone(),
            (_, wanted) => wanted.as_ref().map(|waldir| take(waldir, "--waldir")).transpose()?,
        };
        if let Some(standing) = &standing {
            existing.push(data.clone());
            existing.extend(
                standing.waldir.iter().filter(|there| waldir.as_ref() == Some(there) && there.is_dir()).cloned(),
            );
        }
        let tablespaces = destination.tablespaces.place(survey, standing.as_ref())?;
        existing.extend(tablespaces.iter().filter(|space| space.exists).map(|space| space.place.clone()));
        let mode = if survey.group_access { 0o750 } else { 0o700 };
        let (owner, stands) = (destination.owner.clone(), standing.is_some());
        let layout = Layout { data, mode, waldir, tablespaces, owner, existing, stands };
        layout.check_apart()?;
        if survey.has_tablespace_map && layout.is_remapped() {
            // Changing the map would make it another file than the server's manifest says (case 56).
            let why = "this backup carries a tablespace_map, by which PostgreSQL puts tablespaces back where they were";
            return Err(RebuildError::refused(why, ["restore its tablespaces to their old places".to_owned()]));
        }
        Ok(layout)
    }

    /// All top folders, the data directory first: the data directory, the WAL's, the tablespaces'.
    pub fn roots(&self) -> impl Iterator<Item = &Path> {
        let spaces = self.tablespaces.iter().map(|space| space.place.as_path());
        std::iter::once(self.data.as_path()).chain(self.waldir.as_deref()).chain(spaces)
    }

    /// Whether any tablespace goes elsewhere than it was.
    pub fn is_remapped(&self) -> bool {
        self.tablespaces.iter().any(PlacedTablespace::is_moved)
    }

    fn check_apart(&self) -> Result<(), RebuildError> {
        let roots: Vec<&Path> = self.roots().collect();
        for (index, one) in roots.iter().enumerate() {
            if let Some(other) =
                roots.iter().skip(index + 1).find(|other| one.starts_with(other) || other.starts_with(one))
            {
                let why = format!("{} and {} lie within each other", one.display(), other.display());
                let next = "give the data directory, --waldir and each tablespace a folder of its own".to_owned();
                return Err(RebuildError::refused(why, [next]));
            }
        }
        Ok(())
    }
}

impl Standing {
    /// Whether its `pg_wal` is a link, and to where it was asked for.
    ///
    /// Errors: it is elsewhere than asked for.
    fn has_waldir(&self, wanted: Option<&Path>) -> Result<bool, RebuildError> {
        let wanted = wanted.map(resolve).transpose()?;
        let folder = self.data.join("pg_wal");
        let shown = folder.display();
        match (&self.waldir, wanted) {
            (Some(there), Some(wanted)) if *there == wanted => Ok(true),
            (Some(there), _) => {
                let why = format!("{shown} is a link to {}, which nothing else may use", there.display());
                Err(RebuildError::refused(why, [format!("when that is so: --waldir {}", there.display())]))
            }
            (None, Some(_)) if folder.is_dir() => {
                let why = format!("{shown} is a folder, and stays one");
                Err(RebuildError::refused(why, ["leave out --waldir".to_owned()]))
            }
            (None, _) => Ok(false),
        }
    }
}
