//! Where the tablespaces of a backup go (case 28).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::owner::resolve;
use super::standing::Standing;
use super::vacancy::{self, Vacancy};
use super::{RebuildError, Survey};

/// What the user said about tablespaces.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
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
    /// Whether the folder is there already.
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

    /// Decides for all tablespaces of the backup that lie outside the data directory; `standing` is what is there of it.
    ///
    /// Errors: a place that is not free, or missing; a pair for a tablespace that the backup does not have. Each names the
    /// flags to give.
    pub(super) fn place(
        &self,
        survey: &Survey,
        standing: Option<&Standing>,
    ) -> Result<Vec<PlacedTablespace>, RebuildError> {
        let outside = || survey.tablespaces.iter().filter_map(|(oid, location)| Some((*oid, location.as_deref()?)));
        if let Some((old, _)) = self.pairs.iter().find(|(old, _)| !outside().any(|(_, was)| Path::new(was) == old)) {
            let known: Vec<&str> = outside().map(|(_, was)| was).collect();
            let known = if known.is_empty() { "none outside its data directory".to_owned() } else { known.join(", ") };
            let why = format!("the backup has no tablespace at {}; it has {known}", old.display());
            return Err(RebuildError::refused(why, ["give --tablespace OLD=NEW with one of these as OLD".to_owned()]));
        }
        let (mut placed, mut homeless) = (Vec::new(), Vec::new());
        for (oid, was) in outside() {
            match self.place_one(oid, Path::new(was), standing)? {
                Ok(space) => placed.push(space),
                Err(unplaced) => homeless.push(unplaced),
            }
        }
        if homeless.is_empty() { Ok(placed) } else { Err(Homeless::refusal(&homeless)) }
    }

    fn place_one(
        &self,
        oid: u32,
        was: &Path,
        standing: Option<&Standing>,
    ) -> Result<Result<PlacedTablespace, Homeless>, RebuildError> {
        let placed = |place: PathBuf, exists| Ok(Ok(PlacedTablespace { oid, was: was.to_owned(), place, exists }));
        let there = standing.and_then(|standing| standing.tablespaces.get(&oid));
        let pair = self.pairs.iter().find(|(old, _)| old == was).map(|(_, new)| new.clone());
        let flag = if pair.is_some() { "--tablespace" } else { "--tablespace-dir" };
        if let Some(new) = pair.or_else(|| self.folder.as_ref().map(|folder| folder.join(oid.to_string()))) {
            if there == Some(&resolve(&new)?) {
                return placed(resolve(&new)?, new.is_dir());
            }
            let (place, vacancy) = vacancy::look(&new, flag)?;
            return placed(place, vacancy == Vacancy::Empty);
        }
        let homeless = |why: String, place: Option<PathBuf>| Ok(Err(Homeless { was: was.to_owned(), place, why }));
        match (standing, there) {
            (Some(Standing { interrupted: true, .. }), Some(there)) => return placed(there.clone(), there.is_dir()),
            // A copy of a data directory has the links of the original, which may be in use.
            (_, Some(there)) => {
                let why = format!("tablespace {oid} lies in {}, which nothing else may use", there.display());
                return homeless(why, Some(there.clone()));
            }
            _ => {}
        }
        // Its old place does only when somebody made it ready: a folder of that name may belong to a live cluster.
        if !was.exists() {
            return homeless(format!("tablespace {oid} was at {}, which does not exist here", was.display()), None);
        }
        match vacancy::look(was, "tablespace") {
            Ok((_, _)) => placed(was.to_owned(), true),
            Err(RebuildError::Refused { .. }) => {
                let why = "which is not empty here: it may belong to a living cluster";
                homeless(format!("tablespace {oid} was at {}, {why}", was.display()), None)
            }
            Err(error) => Err(error),
        }
    }
}

/// A tablespace of which nobody said where it goes.
struct Homeless {
    was: PathBuf,
    /// Where it is in the directory that is to be written over.
    place: Option<PathBuf>,
    /// Why it is not put there, or where it was, a statement.
    why: String,
}

impl Homeless {
    /// One refusal for all of them, with the flags to give.
    fn refusal(all: &[Homeless]) -> RebuildError {
        let join = |parts: Vec<String>, between: &str| parts.join(between);
        let why = join(all.iter().map(|one| one.why.clone()).collect(), "; ");
        let flag = |one: &Homeless| {
            let new = one.place.as_ref().map_or("NEW".to_owned(), |place| place.display().to_string());
            format!("--tablespace {}={new}", one.was.display())
        };
        let flags = join(all.iter().map(flag).collect(), " ");
        if all.iter().all(|one| one.place.is_some()) {
            return RebuildError::refused(why, [format!("when that is so: {flags}")]);
        }
        let mut next = vec![
            format!("say where: {flags}"),
            "put all tablespaces below one folder: --tablespace-dir FOLDER".to_owned(),
        ];
        if all.iter().all(|one| !one.was.exists()) {
            let places = all.iter().map(|one| one.was.display().to_string()).collect();
            next.push(format!("make the old places ready, as empty folders: mkdir -p {}", join(places, " ")));
        }
        RebuildError::refused(why, next)
    }
}
