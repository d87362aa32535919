//! How far replay is, by the server's log and the WAL that it has been handed, as a line of progress.
//!
//! The server is not asked: during recovery it lets nobody in unless it is to be read, and then a recovery whose
//! settings are too small for the WAL waits for somebody instead of ending.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use walseal_common::lsn::Lsn;
use walseal_common::segment::{SegmentName, SegmentSize, WalFileName};
use walseal_common::terminal::Progress;
use walseal_common::time::PgTimestamp;
use walseal_common::wal::{Content, Event, WalkOptions, Walker};

use crate::plan::Plan;

/// Bytes of a segment that are looked at for the end of a transaction.
const LOOKED_AT: u64 = 4 << 20;

/// Bytes that are read at a time.
const PIECE: usize = 64 << 10;

/// Follows replay from the server's messages.
#[derive(Debug)]
pub(super) struct Replay {
    data: PathBuf,
    size: SegmentSize,
    stop: Lsn,
    progress: Progress,
    /// Everything before it has been replayed. `begun <= position`.
    position: Option<Lsn>,
    /// When a transaction ended about there, by the WAL.
    time: Option<PgTimestamp>,
}

impl Replay {
    /// That of `plan` in the data directory `data`, shown by `progress`.
    pub(super) fn new(plan: &Plan, data: &Path, progress: &Progress) -> Replay {
        let (data, progress) = (data.to_owned(), progress.clone());
        Replay { data, size: plan.segment_size, stop: plan.stop, progress, position: None, time: None }
    }

    /// Progress of recovery by `plan`, from the base backup's start on.
    pub(super) fn progress(plan: &Plan) -> Progress {
        Progress::new("recovery", Some(plan.stop.bytes_since(plan.base.start)))
    }

    /// Takes a message of the server. Messages are those of PostgreSQL's `xlogrecovery.c` and `xlogarchive.c`.
    pub(super) fn hear(&mut self, message: &str) {
        if let Some(begun) = redo_start(message) {
            // A recovery that is gone on with begins later than the base backup.
            self.progress.set_total(self.stop.bytes_since(begun));
            self.position = Some(begun);
        } else if let Some(name) = restored_segment(message) {
            let Some(number) = name.number(self.size) else { return };
            self.reaches(number.start(self.size));
            self.time = first_end(&self.data.join("pg_wal").join(name.to_string()), number.start(self.size), self.size)
                .or(self.time);
        } else if let Some((_, lsn)) = message.split_once("current LSN: ") {
            // PostgreSQL 15 and newer say so every 10 s, unless log_startup_progress_interval is another.
            self.reaches(lsn.trim().parse().unwrap_or(Lsn::INVALID));
        } else if let Some(lsn) = redo_end(message) {
            self.reaches(lsn);
        } else {
            return;
        }
        self.progress.note(&self.words());
    }

    fn reaches(&mut self, lsn: Lsn) {
        let Some(position) = self.position.filter(|position| lsn > *position) else { return };
        self.position = Some(lsn);
        self.progress.advance(lsn.bytes_since(position));
    }

    /// `replay at 0/5000000, commits of 2026-11-21 02:14:05+00`
    fn words(&self) -> String {
        let at = self.position.map_or_else(|| "reading WAL".to_owned(), |position| format!("replay at {position}"));
        match self.time {
            Some(time) => format!("{at}, commits of {time}"),
            None => at,
        }
    }
}

/// Where replay began, from the message that says so.
pub(super) fn redo_start(message: &str) -> Option<Lsn> {
    message.strip_prefix("redo starts at ")?.trim().parse().ok()
}

/// Start of the last record that was read, from the message that says so.
pub(super) fn redo_end(message: &str) -> Option<Lsn> {
    message.strip_prefix("redo done at ")?.split_whitespace().next()?.parse().ok()
}

/// The segment that has come, from the message that says so; `None` for a history.
fn restored_segment(message: &str) -> Option<SegmentName> {
    let name = message.strip_prefix("restored log file \"")?.split('"').next()?;
    match name.parse() {
        Ok(WalFileName::Segment(name)) => Some(name),
        _ => None,
    }
}

/// When the first transaction ended of which this segment has the end, as far as [`LOOKED_AT`]; `None` where there is
/// none, or the server has put the file away by now.
fn first_end(file: &Path, start: Lsn, size: SegmentSize) -> Option<PgTimestamp> {
    // It is a file of the server's user.
    let mut open = OpenOptions::new();
    let file = open.read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(file).ok()?;
    let (mut file, mut piece) = (file.take(LOOKED_AT), vec![0; PIECE]);
    let mut walker = Walker::new(start, size, WalkOptions::default()).ok()?;
    let mut found = None;
    while found.is_none() {
        let length = file.read(&mut piece).ok().filter(|length| *length > 0)?;
        let walked = walker.push(piece.get(..length)?, |event| {
            if let Event::Record(record) = event
                && let Content::Transaction(end) = &record.content
            {
                found = found.or(Some(end.time));
            }
        });
        if walked.is_err() {
            break;
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::lsn::LsnRange;

    use super::*;
    use crate::sample::SampleWal;

    const MIB: u64 = 1 << 20;

    fn replay(data: &Path, progress: &Progress) -> Replay {
        let size = SegmentSize::new(MIB).expect("a legal size");
        let (data, progress) = (data.to_owned(), progress.clone());
        Replay { data, size, stop: Lsn(13 * MIB), progress, position: None, time: None }
    }

    #[test]
    fn the_line_has_the_position_the_time_of_commits_and_how_much_of_all() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("pg_wal")).expect("ours");
        let mut wal = SampleWal::from(Lsn(5 * MIB));
        wal.filler(100);
        wal.commit(700, "2026-11-21T10:00:00Z");
        wal.commit(701, "2026-11-21T10:00:09Z");
        wal.fill_segment();
        let bytes = wal.slice(LsnRange { start: Lsn(5 * MIB), end: Lsn(6 * MIB) });
        std::fs::write(folder.path().join("pg_wal/000000010000000000000005"), bytes).expect("ours");

        let progress = Progress::new("recovery", None);
        let mut replay = replay(folder.path(), &progress);
        replay.hear("restored log file \"00000002.history\" from archive");
        replay.hear("restored log file \"000000010000000000000003\" from archive");
        assert_eq!(replay.words(), "reading WAL");
        replay.hear("redo starts at 0/300028");
        assert_eq!(replay.words(), "replay at 0/300028");
        replay.hear("restored log file \"000000010000000000000005\" from archive");
        assert_eq!(replay.words(), "replay at 0/500000, commits of 2026-11-21 10:00:00+00");
        // A segment that is put away by now, and messages in between.
        replay.hear("redo in progress, elapsed time: 10.00 s, current LSN: 0/5F0000");
        replay.hear("restored log file \"000000010000000000000006\" from archive");
        replay.hear("consistent recovery state reached at 0/500100");
        assert_eq!(replay.words(), "replay at 0/600000, commits of 2026-11-21 10:00:00+00");
        let done = 3 * MIB - 0x28;
        let shown = format!("{progress:?}");
        assert!(shown.contains(&format!("done: {done}, total: Some({})", 10 * MIB - 0x28)), "{shown}");
        assert!(shown.contains("message: \"replay at 0/600000, commits of"), "{shown}");
        replay.hear("redo done at 0/CFFF00 system usage: CPU: user: 0.00 s");
        replay.hear("restored log file \"000000010000000000000006\" from archive");
        assert_eq!(replay.words(), "replay at 0/CFFF00, commits of 2026-11-21 10:00:00+00");
    }

    #[test]
    fn what_is_no_wal_has_no_times() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, size) = (folder.path().join("a"), SegmentSize::new(MIB).expect("a legal size"));
        assert_eq!(first_end(&file, Lsn(5 * MIB), size), None);
        for bytes in [Vec::new(), vec![7; 100_000]] {
            std::fs::write(&file, bytes).expect("ours");
            assert_eq!(first_end(&file, Lsn(5 * MIB), size), None);
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).expect("ours");
        assert_eq!(first_end(&link, Lsn(5 * MIB), size), None);
    }
}
