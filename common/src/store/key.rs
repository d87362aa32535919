//! Which texts may be keys, the same for every backend.

/// The longest key in bytes: S3's limit.
const LONGEST_KEY: usize = 1024;
/// The longest part between slashes in bytes: the limit of Linux file systems.
const LONGEST_PART: usize = 255;

/// Checks that `key` names an object on every backend: parts joined by single slashes, none of them empty,
/// `.` or `..`, no control characters (a listing in XML cannot carry them), no backslash (some servers take it for
/// a slash), at most 1,024 bytes, 255 per part.
///
/// Errors: what is wrong with it, as a sentence fragment.
pub(super) fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    if key.len() > LONGEST_KEY {
        return Err(format!("the key has {} bytes; {LONGEST_KEY} are allowed", key.len()));
    }
    check_characters(key)?;
    for part in key.split('/') {
        match part {
            "" => return Err("the key has an empty part; it may not start or end with / nor contain //".to_owned()),
            "." | ".." => return Err(format!("the key has the part \"{part}\", which would leave its folder")),
            long if long.len() > LONGEST_PART => {
                return Err(format!("a part of the key has {} bytes; {LONGEST_PART} are allowed", long.len()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks the prefix of a listing: what [`check_key`] asks, but it may be empty or end anywhere.
pub(super) fn check_prefix(prefix: &str) -> Result<(), String> {
    check_characters(prefix)?;
    let folders = prefix.rsplit_once('/').map_or("", |(folders, _)| folders);
    if prefix.contains('/') { check_key(folders) } else { Ok(()) }
}

fn check_characters(text: &str) -> Result<(), String> {
    match text.chars().find(|c| c.is_control() || matches!(c, '\\' | '\u{FFFE}' | '\u{FFFF}')) {
        Some(bad) => Err(format!("the key contains the character {bad:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_would_leave_the_repository_or_name_nothing_are_refused() {
        let long_part = "x".repeat(256);
        let long_key = ["y"; 600].join("/");
        for key in [
            "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", "./a", "a\0b", "a\nb", "a\\b", "\u{7f}",
            "a\u{85}",
        ]
        .into_iter()
        .chain([long_part.as_str(), long_key.as_str()])
        {
            assert!(check_key(key).is_err(), "{key:?} was accepted");
        }
        for key in ["a", "a/b", "..a", "a..", ".a", "a b", "ä/ö", "a+b%20&=~'\""] {
            assert_eq!(check_key(key), Ok(()), "{key:?} was refused");
        }
    }

    #[test]
    fn prefixes_may_end_anywhere_but_not_leave_the_repository() {
        for prefix in ["", "a", "a/", "a/b", "a/b/", ".", "a/."] {
            assert_eq!(check_prefix(prefix), Ok(()), "{prefix:?} was refused");
        }
        for prefix in ["/", "/a", "../", "a/../b", "a//", "a\0"] {
            assert!(check_prefix(prefix).is_err(), "{prefix:?} was accepted");
        }
    }
}
