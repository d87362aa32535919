//! Whether systemd's journal reads standard error.

use rustix::fs::fstat;

/// Whether standard error is the stream that `JOURNAL_STREAM` names as `device:inode` (systemd.exec(5)). The variable alone
/// is not enough: it is inherited by programs whose output goes elsewhere.
pub(super) fn reads_stderr(journal_stream: Option<&str>) -> bool {
    let Some((device, inode)) = journal_stream.and_then(|text| text.split_once(':')) else { return false };
    let (Ok(device), Ok(inode)) = (device.parse::<u64>(), inode.parse::<u64>()) else { return false };
    fstat(std::io::stderr()).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (device, inode))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode_of_standard_error() {
        let own = fstat(std::io::stderr()).expect("standard error is open");
        assert!(reads_stderr(Some(&format!("{}:{}", own.st_dev, own.st_ino))));
        assert!(!reads_stderr(Some(&format!("{}:{}", own.st_dev, own.st_ino + 1))));
        for stream in [None, Some(""), Some(":"), Some("x:y"), Some("8"), Some("-1:2")] {
            assert!(!reads_stderr(stream), "{stream:?}");
        }
    }
}
