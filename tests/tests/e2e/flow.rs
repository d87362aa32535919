//! The steps that tests of this binary share.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_common::repository::{Cover, ObjectName};
use walseal_common::segment::{SegmentName, SegmentSize};
use walseal_common::timeline::TimelineId;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::site::{Daemon, Site};

/// The slot of the cluster that sites name "orders".
pub const SLOT: &str = "walseal_orders";

/// What the archiver has confirmed, as the server knows it; `None` before the first time.
pub fn confirmed(cluster: &Cluster) -> Result<Option<Lsn>> {
    let sql = format!("select max(restart_lsn) from pg_replication_slots where slot_name = '{SLOT}'");
    let lsn = cluster.value(&sql)?;
    if lsn.is_empty() { Ok(None) } else { Ok(Some(lsn.parse()?)) }
}

/// Waits until the archiver has confirmed everything that the server has flushed until now.
pub fn wait_durable(cluster: &Cluster, daemon: &mut Daemon) -> Result<Lsn> {
    wait_durable_within(cluster, daemon, PATIENCE)
}

/// The same, for so long.
pub fn wait_durable_within(cluster: &Cluster, daemon: &mut Daemon, within: Duration) -> Result<Lsn> {
    let flushed = cluster.flush_lsn()?;
    daemon.until(&format!("{flushed} to be confirmed"), within, || {
        Ok(confirmed(cluster)?.is_some_and(|lsn| lsn >= flushed).then_some(flushed))
    })
}

/// Up to where WAL lies in the repository without a hole, from the segment with `from` on, by name. A put that had overtaken
/// another when the archiver was killed lies behind a hole; `fetch` refuses to end recovery there, and rightly so.
pub fn held(site: &Site, from: Lsn) -> Result<Lsn> {
    held_in(site, site.cluster.segment_size()?, from)
}

/// The same of segments of this size, for when there is no server to ask for it.
pub fn held_in(site: &Site, size: SegmentSize, from: Lsn) -> Result<Lsn> {
    let mut ranges = Vec::new();
    for object in site.place.list()? {
        let Some((_, name)) = object.key.split_once('/') else { continue };
        match name.parse() {
            Ok(ObjectName::Wal(_, segment, None)) => {
                ranges.extend(segment.number(size).map(|number| number.range(size)))
            }
            Ok(ObjectName::Tail(_, _, range)) => ranges.push(range),
            _ => {}
        }
    }
    Ok(Cover::of(size.align_down(from), &ranges).end)
}

/// Every segment from the one with `from` to the one with `until` comes out of `fetch` as the server has it in
/// `pg_wal`: whole, and the last one up to `until`.
pub fn fetch_agrees_with_the_server(site: &Site, from: Lsn, until: Lsn) -> Result<()> {
    let size = site.cluster.segment_size()?;
    let length = usize::try_from(size.bytes()).context("a segment fits into memory")?;
    let to = site.scratch.path().join("fetched");
    let mut number = size.number(from);
    while number.start(size) < until {
        let name = SegmentName::new(TimelineId::FIRST, number, size).to_string();
        site.restorer.run(&["fetch", &name, &to.to_string_lossy()])?.success()?;
        let fetched = std::fs::read(&to).with_context(|| format!("reading {name} as fetched"))?;
        let own = std::fs::read(site.cluster.data().join("pg_wal").join(&name));
        let own = own.with_context(|| format!("reading {name} of the server"))?;
        ensure!(fetched.len() == length, "{name} is {} bytes long", fetched.len());
        let valid = if number == size.number(until) { usize::try_from(size.offset(until))? } else { length };
        ensure!(fetched[..valid] == own[..valid], "{name} differs from the server's");
        std::fs::remove_file(&to)?;
        number = number.next();
    }
    Ok(())
}
