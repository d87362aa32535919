//! A restore as a test takes it: done, checked by PostgreSQL's own programs, started, compared.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::oracle;
use walseal_tests::site::Site;
use walseal_tests::wal::{self, TransactionEnd};
use walseal_tests::workload::{self, Commit};

/// Restores to `target` in a new folder, checks it with PostgreSQL's own programs, starts it and waits for the end of
/// its recovery.
pub fn restore(site: &Site, target: &str, name: &str) -> Result<Cluster> {
    restore_with(site, target, name, &[])
}

/// Like [`restore`], with further arguments.
pub fn restore_with(site: &Site, target: &str, name: &str, more: &[&str]) -> Result<Cluster> {
    let folder = site.target(name);
    let place = folder.to_string_lossy();
    let args = [&["restore", "--to", target, "--target-dir", &*place], more].concat();
    site.restorer.run_long(&args)?.success()?;
    oracle::verify_backup(&site.scratch, site.cluster.server(), &folder)?;
    let mut restored = site.restored(&folder)?;
    restored.start()?;
    restored.wait_promoted(PATIENCE)?;
    Ok(restored)
}

/// A database as `pg_dump` writes it, but for the words that it draws at random.
pub fn dump(cluster: &Cluster) -> Result<String> {
    let dumped = cluster.client("pg_dump").args(["-d", &cluster.conninfo()]).run()?.success()?;
    Ok(dumped.stdout.lines().filter(|line| !line.contains("restrict ")).collect::<Vec<_>>().join("\n"))
}

/// The restored cluster, which runs, holds what `expected` says, and is sound: its dump, its tables and indexes by `pg_amcheck`, and once
/// it has stopped, its page checksums.
pub fn sound(mut restored: Cluster, expected: &str) -> Result<()> {
    let found = dump(&restored)?;
    let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    ensure!(found == expected, "the dumps have {} and {} bytes and part at {differs:?}", found.len(), expected.len());
    // It makes its extension in the cluster that it looks at.
    oracle::amcheck(&restored)?;
    restored.stop(Stop::Fast)?;
    oracle::checksums(&restored)
}

/// What the server says of every transaction's end, from `start` on, in WAL that it still holds.
///
/// Sites for this keep their WAL (`wal_keep_size`).
pub fn ends(cluster: &Cluster, start: Lsn) -> Result<Vec<TransactionEnd>> {
    let folder = cluster.data().join("pg_wal");
    let end = cluster.flush_lsn()?;
    wal::transaction_ends(cluster.scratch(), cluster.server(), &folder, 1, start, Some(end))
}

/// The rows of those commits whose transaction `held` names.
pub fn rows_of(commits: &[Commit], held: &BTreeSet<u32>) -> BTreeSet<i64> {
    let low = |xid: u64| u32::try_from(xid & 0xFFFF_FFFF).ok();
    commits.iter().filter(|commit| low(commit.xid).is_some_and(|xid| held.contains(&xid))).map(|c| c.id).collect()
}

/// The rows of the workload that a cluster holds are exactly these.
pub fn holds_exactly(cluster: &Cluster, expected: &BTreeSet<i64>) -> Result<()> {
    let held = workload::rows(cluster)?;
    let missing: Vec<_> = expected.difference(&held).take(5).collect();
    let surplus: Vec<_> = held.difference(expected).take(5).collect();
    ensure!(
        missing.is_empty() && surplus.is_empty(),
        "{} rows instead of {}; missing, for example: {missing:?}; too many: {surplus:?}",
        held.len(),
        expected.len()
    );
    Ok(())
}

/// The rows of the workload that a cluster holds include everything that was acknowledged at or before `lsn`.
pub fn holds_all_until(cluster: &Cluster, commits: &[Commit], lsn: Lsn) -> Result<()> {
    let held = workload::rows(cluster)?;
    let lost: Vec<_> = commits.iter().filter(|commit| commit.after <= lsn && !held.contains(&commit.id)).collect();
    ensure!(lost.is_empty(), "{} commits before {lsn} are lost, for example {:?}", lost.len(), lost.first());
    Ok(())
}
