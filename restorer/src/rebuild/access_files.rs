//! `hba_file` and `ident_file` that name files of the old host.
//!
//! Patroni writes both into `postgresql.conf` by their absolute paths in the data directory. At another place the server would
//! not start ("could not load pg_hba.conf"), although the backup brought the files.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::RebuildError;
use crate::plan::RecoverySetting;

/// The settings that name them, and PostgreSQL's own names of the files.
const FILES: [&str; 2] = ["hba_file", "ident_file"];

/// Settings for those files that `postgresql.conf` in `data` names by a path that is not there, while one of the same name
/// lies in `data`, which must be absolute.
///
/// Errors: `postgresql.conf` cannot be read; that there is none is no error (Debian).
pub(super) fn brought_along(data: &Path) -> Result<Vec<RecoverySetting>, RebuildError> {
    let file = data.join("postgresql.conf");
    let text = match fs::read(&file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RebuildError::io("read", &file)(error)),
    };
    let own = |name: &&str| {
        // The last line of a name counts.
        let named = PathBuf::from(text.lines().filter_map(|line| value(line, name)).next_back()?);
        let own = data.join(named.file_name()?);
        let brought = named.is_absolute() && !named.exists() && own.is_file();
        brought.then(|| RecoverySetting::new(name, own.to_string_lossy()))
    };
    Ok(FILES.iter().filter_map(own).collect())
}

/// The quoted value of a line that sets `name`, as `guc-file.l` reads it: quotes doubled or escaped. A path is always quoted.
fn value(line: &str, name: &str) -> Option<String> {
    let line = line.trim_start();
    let (head, rest) = line.split_at_checked(name.len())?;
    let rest = rest.strip_prefix(|c: char| c == '=' || c.is_whitespace())?;
    if !head.eq_ignore_ascii_case(name) {
        return None;
    }
    let mut rest = rest.trim_start_matches(|c: char| c == '=' || c.is_whitespace()).strip_prefix('\'')?.chars();
    let mut value = String::new();
    loop {
        match rest.next()? {
            '\'' if rest.as_str().starts_with('\'') => value.extend(rest.next()),
            '\'' => return Some(value),
            '\\' => value.push(rest.next()?),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_old_host_are_taken_from_the_backup() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        let lines = |text: &str| -> Vec<String> {
            fs::write(data.join("postgresql.conf"), text).expect("ours");
            brought_along(data).expect("readable").iter().map(RecoverySetting::line).collect()
        };
        assert!(brought_along(data).expect("nothing there").is_empty());
        fs::write(data.join("pg_hba.conf"), "").expect("ours");
        let patroni = "port = '5432'\nhba_file = '/gone/data1/pg_hba.conf'\nident_file = '/gone/data1/pg_ident.conf'\n";
        assert_eq!(lines(patroni), [format!("hba_file = '{}'", data.join("pg_hba.conf").display())]);
        // One that is there was put there on purpose; a comment is none; the last one counts.
        let there = data.join("pg_hba.conf");
        for text in [
            format!("hba_file = '{}'", there.display()),
            "#hba_file = '/gone/pg_hba.conf'".to_owned(),
            format!("HBA_FILE '/gone/pg_hba.conf'\nhba_file='{}' # here", there.display()),
            "hba_file = '/gone/it''s/other.conf'".to_owned(),
            "hba_file".to_owned(),
            "é = 'x'".to_owned(),
        ] {
            assert_eq!(lines(&text), Vec::<String>::new(), "{text}");
        }
    }
}
