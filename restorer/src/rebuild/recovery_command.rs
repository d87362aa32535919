//! The `restore_command` of a restored cluster.

use std::path::Path;

use super::RebuildError;
use crate::shell::quoted;

/// `restore_command` for PostgreSQL's shell: absolute paths of this program, its configuration and the plan.
///
/// Errors: a path that is not absolute, or not UTF-8, which a configuration file cannot hold.
pub fn recovery_command(program: &Path, config: Option<&Path>, plan: &Path) -> Result<String, RebuildError> {
    let mut words = vec![word(program)?];
    if let Some(config) = config {
        words.extend(["--config".to_owned(), word(config)?]);
    }
    words.extend(["fetch".to_owned(), "--plan".to_owned(), word(plan)?]);
    // %f and %p come from PostgreSQL and are never odd; quotes cost nothing.
    Ok(format!("{} \"%f\" \"%p\"", words.join(" ")))
}

/// The same for a server that the restore itself serves, in `folder`.
///
/// Errors: as [`recovery_command`].
pub fn served_command(program: &Path, folder: &Path) -> Result<String, RebuildError> {
    Ok(format!("{} fetch --from {} \"%f\" \"%p\"", word(program)?, word(folder)?))
}

/// A path as one word of the shell, with `%` doubled for PostgreSQL.
fn word(path: &Path) -> Result<String, RebuildError> {
    let text = path.to_str().filter(|text| path.is_absolute() && !text.contains(['\n', '\r']));
    let Some(text) = text else {
        let why = format!("{} cannot stand in restore_command: it must be an absolute path in UTF-8", path.display());
        return Err(RebuildError::refused(why, ["move it to a plain path".to_owned()]));
    };
    Ok(quoted(&text.replace('%', "%%")))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_absolute_paths_and_survives_odd_ones() {
        let command = |program: &str, config: Option<&str>, plan: &str| {
            recovery_command(Path::new(program), config.map(Path::new), Path::new(plan))
        };
        assert_eq!(
            command("/usr/bin/walseal-restorer", Some("/etc/walseal/walseal.toml"), "/srv/d.walseal/plan.json")
                .expect("absolute"),
            "/usr/bin/walseal-restorer --config /etc/walseal/walseal.toml fetch --plan /srv/d.walseal/plan.json \"%f\" \"%p\""
        );
        assert_eq!(
            command("/opt/a b/x", None, "/srv/it's 100%/plan.json").expect("absolute"),
            r#"'/opt/a b/x' fetch --plan '/srv/it'\''s 100%%/plan.json' "%f" "%p""#
        );
        assert!(command("walseal-restorer", None, "/plan.json").is_err());
    }
}
