//! Looking ahead: what PostgreSQL will ask for next is shipped while it waits for this one.

use std::path::{Path, PathBuf};

use walseal_common::segment::WalFileName;

/// Segments that wait to be archived beside `path`, oldest first, without `path` itself; at most `limit`. PostgreSQL marks them
/// with `<name>.ready` in `archive_status` (pgarch.c). A folder that cannot be read has none: looking ahead is a favour.
pub fn ready_beside(path: &Path, limit: usize) -> Vec<PathBuf> {
    let Some(folder) = path.parent() else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(folder.join("archive_status")) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.strip_suffix(".ready").map(str::to_owned))
        .filter(|name| matches!(name.parse(), Ok(WalFileName::Segment(_))))
        .filter(|name| path.file_name().is_none_or(|own| own != name.as_str()))
        .collect();
    names.sort();
    names.truncate(limit);
    names.into_iter().map(|name| folder.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ready_beside_comes_oldest_first() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let status = folder.path().join("archive_status");
        std::fs::create_dir(&status).expect("a new folder");
        for name in [
            "000000010000000000000007.ready",
            "000000010000000000000005.ready",
            "000000010000000000000006.ready",
            "000000010000000000000004.done",
            "00000002.history.ready",
            "notes.ready",
        ] {
            std::fs::write(status.join(name), "").expect("a small file");
        }
        let path = folder.path().join("000000010000000000000005");
        let found: Vec<String> = ready_beside(&path, 10)
            .iter()
            .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
            .collect();
        assert_eq!(found, ["000000010000000000000006", "000000010000000000000007"]);
        assert_eq!(ready_beside(&path, 1).len(), 1);
        assert!(ready_beside(Path::new("/nowhere/at/all"), 10).is_empty());
    }
}
