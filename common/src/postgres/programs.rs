//! The server's own programs on this machine: `postgres`, `pg_ctl`, `pg_dump`, …

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program of a given major version was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no {program} of PostgreSQL {major} was found; looked at {}; install the package of that version, or set \
     pg_bin (--pg-bin) to the directory that holds it", looked_text(.looked)
)]
pub struct ProgramError {
    /// The program's name.
    pub program: String,
    /// The major version that was asked for.
    pub major: u32,
    /// Where it was looked for, and what was there.
    pub looked: Vec<(PathBuf, String)>,
}

const NOT_THERE: &str = "not there";

/// What was found and did not do, one by one; the folders without it together.
fn looked_text(looked: &[(PathBuf, String)]) -> String {
    let (missing, found): (Vec<_>, Vec<_>) = looked.iter().partition(|(_, found)| found == NOT_THERE);
    let mut places: Vec<String> = found.iter().map(|(path, found)| format!("{} ({found})", path.display())).collect();
    let folders: Vec<String> =
        missing.iter().filter_map(|(path, _)| path.parent()).map(|folder| folder.display().to_string()).collect();
    if !folders.is_empty() {
        places.push(format!("and not there at all in {}", folders.join(":")));
    }
    places.join(", ")
}

/// A program, with the version it gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// Its version as `server_version_num`: 150018 for 15.18.
    pub version: u32,
}

/// Finds `program` of PostgreSQL `major`: in `pg_bin` alone when it is given, else in `PATH`, in
/// `/usr/lib/postgresql/<major>/bin` (Debian), in `/usr/pgsql-<major>/bin` (PGDG's RPMs), and where `pg_config` says.
/// What is found counts only once its `--version` is of that major.
///
/// Runs programs and waits for them: not for async code without `spawn_blocking`.
///
/// Errors: with all places and what was there.
pub fn find(program: &str, major: u32, pg_bin: Option<&Path>) -> Result<Program, ProgramError> {
    let path = env::var_os("PATH").unwrap_or_default();
    find_in(program, major, &directories(major, pg_bin, &path))
}

/// Finds `program` of PostgreSQL `major`, else of the next later one that is here: in `pg_bin` alone when it is given, else where
/// [`find`] looks, and beside the places of later majors. For `pg_dump` and `pg_restore`: an older one refuses a newer server or
/// archive, and what a later `pg_dump` writes need not load into a server of the dumped one's own major.
///
/// Runs programs and waits for them: not for async code without `spawn_blocking`.
///
/// Errors: with all places and what was there.
pub fn find_nearest(program: &str, major: u32, pg_bin: Option<&Path>) -> Result<Program, ProgramError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = directories(major, pg_bin, &path);
    if pg_bin.is_none() {
        places.extend(other_majors(major));
    }
    find_nearest_in(program, major, &places)
}

/// Folders of later majors, as Debian and PGDG's RPMs name them.
fn other_majors(major: u32) -> Vec<PathBuf> {
    let shapes = [("/usr/lib/postgresql", "", "bin"), ("/usr", "pgsql-", "bin")];
    let mut places = Vec::new();
    for (above, before, below) in shapes {
        let Ok(entries) = std::fs::read_dir(above) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(before)).and_then(|name| name.parse().ok());
            if number.is_some_and(|number: u32| number > major) {
                places.push(entry.path().join(below));
            }
        }
    }
    places
}

fn find_nearest_in(program: &str, major: u32, directories: &[PathBuf]) -> Result<Program, ProgramError> {
    let mut looked: Vec<(PathBuf, String)> = Vec::new();
    let mut best: Option<Program> = None;
    for directory in directories {
        let path = directory.join(program);
        if looked.iter().any(|(seen, _)| *seen == path) {
            continue;
        }
        let said = if path.is_file() { version_of(&path) } else { Err(NOT_THERE.to_owned()) };
        let found = match said {
            Ok(version) if version / 10_000 < major => format!("is of version {}, and too old", version / 10_000),
            Ok(version) => {
                let rank = |version: u32| (version / 10_000, std::cmp::Reverse(version));
                if best.as_ref().is_none_or(|best| rank(version) < rank(best.version)) {
                    best = Some(Program { path: path.clone(), version });
                }
                format!("is of version {}", version / 10_000)
            }
            Err(why) => why,
        };
        looked.push((path, found));
    }
    best.ok_or(ProgramError { program: program.to_owned(), major, looked })
}

fn directories(major: u32, pg_bin: Option<&Path>, path: &OsStr) -> Vec<PathBuf> {
    if let Some(directory) = pg_bin {
        return vec![directory.to_owned()];
    }
    let mut directories: Vec<PathBuf> = env::split_paths(path).filter(|path| path.is_absolute()).collect();
    directories.push(PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
    directories.push(PathBuf::from(format!("/usr/pgsql-{major}/bin")));
    let configured = Command::new("pg_config").arg("--bindir").output();
    if let Some(output) = configured.ok().filter(|output| output.status.success()) {
        directories.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    directories
}

fn find_in(program: &str, major: u32, directories: &[PathBuf]) -> Result<Program, ProgramError> {
    let mut looked: Vec<(PathBuf, String)> = Vec::new();
    for directory in directories {
        let path = directory.join(program);
        if looked.iter().any(|(seen, _)| *seen == path) {
            continue;
        }
        if !path.is_file() {
            looked.push((path, NOT_THERE.to_owned()));
            continue;
        }
        match version_of(&path) {
            Ok(version) if version / 10_000 == major => return Ok(Program { path, version }),
            Ok(version) => looked.push((path, format!("is of version {}", version / 10_000))),
            Err(why) => looked.push((path, why)),
        }
    }
    Err(ProgramError { program: program.to_owned(), major, looked })
}

/// Asks a program for its version.
fn version_of(path: &Path) -> Result<u32, String> {
    let output = Command::new(path).arg("--version").output().map_err(|error| format!("does not run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| "does not say its version".to_owned())
}

/// Reads "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)" as 150018.
fn parse_version(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    Some(super::session::version_number(version)).filter(|version| *version > 0)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod program_tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn versions_are_read_as_programs_print_them() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(150_018));
        assert_eq!(parse_version("pg_dump (PostgreSQL) 18beta1\n"), Some(180_000));
        assert_eq!(parse_version("psql from somewhere 15.1"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn the_first_place_with_the_right_major_counts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut places = Vec::new();
        for (name, version) in [("empty", ""), ("old", "14.9"), ("right", "15.18 (Debian)"), ("other", "15.19")] {
            let place = folder.path().join(name);
            fs::create_dir(&place).expect("made");
            if !version.is_empty() {
                let path = place.join("postgres");
                fs::write(&path, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).expect("written");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
            }
            places.push(place);
        }
        let path = env::join_paths(&places).expect("a path");
        let found = find_in("postgres", 15, &directories(15, None, &path)).expect("there is one");
        assert_eq!(found, Program { path: folder.path().join("right/postgres"), version: 150_018 });
        let known = directories(15, None, OsStr::new(""));
        assert!(known.contains(&PathBuf::from("/usr/lib/postgresql/15/bin")), "{known:?}");
        assert!(known.contains(&PathBuf::from("/usr/pgsql-15/bin")), "{known:?}");
    }

    #[test]
    fn the_nearest_program_that_is_not_older_than_the_server_counts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut places = Vec::new();
        for (name, version) in [("a", "14.9"), ("b", "16.1"), ("c", "18.2"), ("d", "17.6")] {
            let place = folder.path().join(name);
            fs::create_dir(&place).expect("made");
            let path = place.join("pg_dump");
            fs::write(&path, format!("#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}'\n")).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
            places.push(place);
        }
        let found = find_nearest_in("pg_dump", 15, &places).expect("three will do");
        assert_eq!(found, Program { path: folder.path().join("b/pg_dump"), version: 160_001 });
        let error = find_nearest_in("pg_dump", 15, &places[..1]).expect_err("14 is older than 15").to_string();
        assert!(error.contains("is of version 14, and too old"), "{error}");
    }

    #[test]
    fn a_program_of_another_major_does_not_do_and_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("pg_ctl");
        fs::write(&path, "#!/bin/sh\necho 'pg_ctl (PostgreSQL) 14.2'\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
        let error = find("pg_ctl", 15, Some(folder.path())).expect_err("14 is not 15");
        assert_eq!(error.looked, [(path, "is of version 14".to_owned())]);
        let text = find("pg_dump", 15, Some(folder.path())).expect_err("not there").to_string();
        assert!(text.contains("not there at all in /") && text.contains("pg_bin"), "{text}");
    }
}
