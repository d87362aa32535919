//! What `pg_waldump` says, taken apart.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::TimelineId;
use walseal_tests::cluster::Cluster;

/// A line of `pg_waldump`.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub manager: String,
    /// Bytes of the record without full-page images.
    pub without_images: u64,
    pub length: u32,
    pub xid: u32,
    pub start: Lsn,
    pub prev: Lsn,
    /// The kind of record, as `COMMIT`.
    pub kind: String,
    /// What follows the kind.
    pub description: String,
    /// From the first block reference on.
    pub blocks: String,
}

/// All records from some place on, and what it said about where they end.
pub struct Dump {
    pub lines: Vec<Line>,
    pub stderr: String,
}

pub fn dump(cluster: &Cluster, folder: &Path, timeline: TimelineId, start: Lsn) -> Result<Dump> {
    let call = cluster.client("pg_waldump").env("TZ", "UTC").arg("-p").arg(folder);
    let said = call.args(["-t", &timeline.number().to_string(), "-s", &start.to_string()]).run()?;
    let lines: Result<Vec<Line>> = said.stdout.lines().filter(|line| line.starts_with("rmgr:")).map(line).collect();
    let lines = lines?;
    ensure!(!lines.is_empty(), "no record in {said}");
    Ok(Dump { lines, stderr: said.stderr })
}

/// `rmgr: Heap        len (rec/tot):     54/   150, tx:        733, lsn: 0/0153AE40, prev 0/0153AE10, desc: INSERT off 3
/// flags 0x00, blkref #0: rel 1663/5/1249 blk 53 FPW`
fn line(text: &str) -> Result<Line> {
    let parse = || {
        let (head, description) = text.split_once(", desc: ")?;
        let field = |name: &str| Some(head.split_once(name)?.1.split([',', '/']).next()?.trim().to_owned());
        let lsn = |name: &str| head.split_once(name)?.1.trim().split(',').next()?.parse::<Lsn>().ok();
        let manager = head.strip_prefix("rmgr:")?.split_whitespace().next()?.to_owned();
        let lengths = head.split_once("len (rec/tot):")?.1.split(',').next()?;
        let (without_images, length) = lengths.split_once('/')?;
        let at = description.find("blkref #").unwrap_or(description.len());
        let (said, blocks) = description.split_at(at);
        let (kind, rest) = said.trim().split_once(' ').unwrap_or((said.trim(), ""));
        Some(Line {
            manager,
            without_images: without_images.trim().parse().ok()?,
            length: length.trim().parse().ok()?,
            xid: field("tx:")?.parse().ok()?,
            start: lsn("lsn:")?,
            prev: lsn("prev ")?,
            kind: kind.trim_end_matches(',').to_owned(),
            description: rest.to_owned(),
            blocks: blocks.to_owned(),
        })
    };
    parse().with_context(|| format!("a line of pg_waldump: {text}"))
}

/// The end of a transaction that a line tells: its xid (its own, of a prepared one), time, and subtransactions.
pub fn transaction(line: &Line) -> Result<Option<(u32, PgTimestamp, u32)>> {
    let prepared = match line.kind.as_str() {
        "COMMIT" | "ABORT" => false,
        "COMMIT_PREPARED" | "ABORT_PREPARED" => true,
        _ => return Ok(None),
    };
    let parse = || {
        let (xid, rest) = match line.description.split_once(": ") {
            Some((xid, rest)) if prepared => (xid.parse().ok()?, rest),
            _ => (line.xid, line.description.as_str()),
        };
        let time = rest.split_once(" UTC")?.0;
        let subtransactions = rest
            .split_once("; subxacts:")
            .map_or(0, |(_, after)| after.split(';').next().unwrap_or("").split_whitespace().count());
        Some((xid, format!("{time}+00").parse().ok()?, subtransactions as u32))
    };
    parse().map(Some).with_context(|| format!("an end of a transaction: {line:?}"))
}
