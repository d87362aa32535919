//! Words of a command line that a person, or PostgreSQL, gives to a shell.

use std::path::Path;

/// A word as it stands in a shell's command line.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The same of a path.
pub fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_a_shell_would_take_apart_is_quoted() {
        assert_eq!(quoted("/var/lib/postgresql/15/main"), "/var/lib/postgresql/15/main");
        assert_eq!(quoted_path(Path::new("/srv/it's here")), r"'/srv/it'\''s here'");
        assert_eq!(quoted(""), "''");
    }
}
