//! `walk FOLDER`: walks the WAL segments of 16 MiB in a folder as the streamer does while it cuts, and prints as JSON what that takes of
//! a core: `bench/run walk` calls it. Once for times of commits alone, and once for what transactions did, too.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use walseal_common::lsn::Lsn;
use walseal_common::segment::{SegmentName, SegmentSize};
use walseal_common::wal::change::RunWalk;
use walseal_common::wal::{Event, WalSummary, WalVersion, WalkOptions, Walker};

/// Bytes that are walked at a time, as many as a frame of WAL has.
const PIECE: usize = 128 << 10;

/// CPU seconds of this thread, the only one: the first field is in nanoseconds (`Documentation/scheduler/sched-stats.rst` of Linux).
fn cpu() -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds: f64 = text.split_whitespace().next().ok_or("schedstat is empty")?.parse()?;
    Ok(nanoseconds / 1e9)
}

/// The segments of the folder that follow one another, from the first on.
fn segments(folder: &str, size: SegmentSize) -> Result<(Lsn, Vec<PathBuf>), Box<dyn Error>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().to_string_lossy().parse::<SegmentName>().ok());
    }
    names.sort();
    let number = |name: &SegmentName| name.number(size).ok_or("a name of another segment size");
    let first = number(names.first().ok_or("no segment")?)?;
    let mut paths = Vec::new();
    for (name, at) in names.iter().zip(first.0..) {
        if number(name)?.0 != at {
            break;
        }
        paths.push(PathBuf::from(folder).join(name.to_string()));
    }
    Ok((first.start(size), paths))
}

fn main() -> Result<(), Box<dyn Error>> {
    let [folder] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "walk FOLDER")?;
    let size = SegmentSize::DEFAULT;
    let (start, paths) = segments(&folder, size)?;
    let plain = WalkOptions { check_crc: false, ..WalkOptions::default() };
    let mut times = Walker::new(start, size, plain)?;
    let mut changes = Walker::new(start, size, WalkOptions { body_limit: Some(RunWalk::BODY_LIMIT), ..plain })?;
    let (mut summary, mut other, mut runs) = (WalSummary::default(), WalSummary::default(), RunWalk::new(start, size));
    let (mut bytes, mut records, mut told) = (0, 0_u64, 0_u64);
    let (mut without, mut with, mut version) = (0.0, 0.0, None);
    for path in paths {
        let segment = fs::read(path)?;
        let magic = segment.get(..2).and_then(|magic| magic.try_into().ok()).ok_or("an empty segment")?;
        let version = *version.get_or_insert(WalVersion::from_magic(u16::from_le_bytes(magic))?);
        let begun = cpu()?;
        for piece in segment.chunks(PIECE) {
            times.push(piece, |event| summary.add(&event))?;
        }
        let between = cpu()?;
        for piece in segment.chunks(PIECE) {
            changes.push(piece, |event| {
                records += u64::from(matches!(event, Event::Record(_)));
                other.add(&event);
                runs.add(version, &event);
            })?;
        }
        told += u64::from(runs.reached(changes.next_byte()).is_some());
        without += between - begun;
        with += cpu()? - between;
        bytes += segment.len();
    }
    println!(
        "{{\"bytes\": {bytes}, \"records\": {records}, \"commits\": {}, \"runs\": {told}, \"without\": {without}, \"with\": {with}}}",
        other.commits
    );
    Ok(())
}
